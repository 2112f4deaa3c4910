"""Fonts for labels of any language: installed ones that have the characters, or a stand-in.

Matplotlib's own DejaVu Sans has Latin, Greek, Cyrillic, Arabic and Hebrew letters. For others an
installed font is looked for. A label that no font can show is drawn as `label 12`, its place in
the vocabulary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import ImageFont

from util.log import log, printable

PLAIN_STYLES = ("regular", "sans")  # in a font file's name: preferred
SIZE = 13  # pixels, of the letters on a contact sheet


@dataclass(frozen=True)
class Lettering:
    """How labels are drawn. files: fonts, the usual one first. stand_ins: label -> what is shown"""

    files: tuple[Path, ...]
    stand_ins: dict[str, str] = field(default_factory=dict)

    def show(self, label: str) -> str:
        """A label as it is drawn: on one line, without control characters."""
        return self.stand_ins.get(label) or printable(label)

    @cached_property
    def families(self) -> list[str]:
        """The names of the fonts for matplotlib, which tries one after another."""
        from matplotlib import font_manager

        for path in self.files[1:]:  # its list of fonts may be older than the font
            font_manager.fontManager.addfont(path)
        return [font_manager.get_font(str(path)).family_name for path in self.files]

    @cached_property
    def _sets(self) -> list[tuple[set[int], ImageFont.FreeTypeFont]]:
        """The characters of each font, and the font for Pillow."""
        return [(_characters(path), ImageFont.truetype(str(path), SIZE)) for path in self.files]

    def runs(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        """A text, cut where its font changes; Pillow draws a text in one font only."""
        for characters, font in self._sets:
            if _missing(text, characters) == set():
                return [(text, font)]
        runs: list[tuple[str, ImageFont.FreeTypeFont]] = []
        for letter in text:
            fonts = [font for characters, font in self._sets if not _missing(letter, characters)]
            font = fonts[0] if fonts else self._sets[0][1]
            if runs and (runs[-1][1] is font or unicodedata.combining(letter)):
                runs[-1] = (runs[-1][0] + letter, runs[-1][1])
            else:
                runs.append((letter, font))
        return runs

    def width(self, text: str) -> float:
        """The width of a text on the contact sheet, in pixels."""
        return sum(font.getlength(run) for run, font in self.runs(text))


def installed_fonts() -> list[Path]:
    """The files of all installed fonts; matplotlib's own list may be older than some of them."""
    from matplotlib import font_manager

    return sorted(map(Path, font_manager.findSystemFonts()))


def choose_fonts(
    labels: Sequence[str], installed: Callable[[], list[Path]] = installed_fonts
) -> Lettering:
    """Fonts that have the characters of these labels. Logs stand-ins for labels without a font."""
    import matplotlib

    usual = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    files, missing = [usual], _missing("".join(map(printable, labels)), _characters(usual))
    found = {path: missing & _characters(path) for path in installed()} if missing else {}
    while missing and found:
        best = max(found, key=lambda path: (len(found[path] & missing), *_plainness(path)))
        if not found[best] & missing:
            break
        files.append(best)
        missing -= found[best]
    stand_ins = {
        label: f"label {number}"
        for number, label in enumerate(labels, 1)
        if missing & set(map(ord, printable(label)))
    }
    if stand_ins:
        names = "; ".join(f"{shown!r} is {label}" for label, shown in stand_ins.items())
        log(f"note: no installed font has the letters of some labels: in pictures {names}")
    return Lettering(tuple(files), stand_ins)


def _characters(path: Path) -> set[int]:
    """The characters of a font; none for a file that matplotlib cannot use."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return set()


def _missing(text: str, characters: set[int]) -> set[int]:
    """The letters of a text that are not in `characters`. Invisible signs need no font."""
    return {
        ord(letter)
        for letter in text
        if ord(letter) not in characters
        and unicodedata.category(letter) not in ("Cf", "Zs")
        and not 0xFE00 <= ord(letter) <= 0xFE0F  # choose between forms of a sign
    }


def _plainness(path: Path) -> tuple[int, int]:
    """To compare fonts with the same characters: plain ones before bold and slanted ones."""
    name = path.stem.lower()
    return sum(style in name for style in PLAIN_STYLES), -len(name)
