"""Labels of any language in pictures: a font that has the letters, or a stand-in."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from report import fonts, slides
from report.fonts import choose_fonts

SHOWN = ("dog", "кошка", "قطة", "חתול", "naïve café", "a\nb")  # DejaVu Sans has these letters
FOREIGN = ("猫", "고양이", "แมว", "बिल्ली", "日本 dog")


@pytest.fixture
def result():
    labels = [*SHOWN, *FOREIGN]
    return {
        "labels": dict.fromkeys(labels, 0.5),
        "predicted": [*FOREIGN[:3], "dog"],
        "decided_by": "threshold",
        "most_probable_sets": [{"labels": labels, "probability": 0.5}],
    }


def drawn(result, folder, lettering) -> bytes:
    """A slide; a warning, such as that of a missing letter, is an error."""
    maps = {label: np.eye(2) for label in result["labels"]}
    photo = Image.new("RGB", (30, 20))
    slides.draw_slide(photo, result, maps, 20, folder / "a.png", lettering)
    return (folder / "a.png").read_bytes()


@pytest.mark.filterwarnings("error")
def test_without_a_font_there_are_stand_ins(tmp_path, result, capsys):
    labels = tuple(result["labels"])
    lettering = choose_fonts(labels, installed=list)
    assert lettering.stand_ins == {label: f"label {labels.index(label) + 1}" for label in FOREIGN}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert all(f"'label {labels.index(x) + 1}' is {x}" in said[0] for x in FOREIGN)
    assert [lettering.show(label) for label in SHOWN] == [*SHOWN[:-1], "a\\nb"]
    drawn(result, tmp_path, lettering)
    tile = slides.make_tile(Image.new("RGB", (9, 9)), ["猫"], lettering)
    other = slides.make_tile(Image.new("RGB", (9, 9)), ["label 7"], lettering)
    np.testing.assert_array_equal(tile, other)


@pytest.mark.filterwarnings("error")
def test_an_installed_font_with_the_letters_is_used(tmp_path, monkeypatch, result, capsys):
    """Fonts without the letters and damaged ones are passed over; the plain style is preferred."""
    usual = choose_fonts(["dog"]).files[0]
    copies = [tmp_path / f"Some{style}.ttf" for style in ("-Bold", "Sans-Regular", "Damaged")]
    for path in copies:
        path.write_bytes(usual.read_bytes())
    copies[2].write_bytes(b"no font")
    letters = {ord(letter) for label in FOREIGN for letter in label}
    original = fonts._characters
    monkeypatch.setattr(fonts, "_characters", lambda p: letters if p in copies[:2] else original(p))
    lettering = choose_fonts(tuple(result["labels"]), lambda: copies)
    assert lettering.files == (usual, copies[1])
    assert lettering.stand_ins == {}
    assert capsys.readouterr().err == ""
    assert [text for text, _ in lettering.runs("fig 猫 fig")] == ["fig ", "猫", " fig"]


def test_every_installed_font_can_be_examined():
    assert all(isinstance(fonts._characters(path), set) for path in fonts.installed_fonts()[:50])


@pytest.mark.parametrize("words", ["x " * 99, "猫" * 99, "W" * 99, "dog, " * 12, "no label", ""])
def test_captions_fit_their_tile(words):
    lettering = choose_fonts([words])
    lines = slides._wrap(words, lettering)
    assert len(lines) <= slides.LINES
    font = ImageFont.truetype(str(lettering.files[-1]), fonts.SIZE)
    canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    assert all(canvas.textlength(line, font) <= slides.TILE for line in lines)
    whole = "".join(lines).replace(" ", "")
    assert words.replace(" ", "").startswith(whole.removesuffix("…"))
