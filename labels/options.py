"""How to read label files where they leave it open: the flags, and the values they give.

add_label_flags(parser)     adds the flags to a script
options_from(vars(args))    -> ReadOptions, for `read_labels`
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from util.cli import a_file
from util.log import log


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about label files; empty values leave it to the reader.

    separator: between the labels in a cell; "" if a cell is one label.
    label_columns, file_column, split_column: of a table; the split column "none" for no splits.
    merge: a CSV file with the columns from and to: labels to rename.
    label_names: a text file with the names of label numbers, the first line for 0.
    blank: unknown or absent: what a blank cell, or a missing label, means.
    unknown: values that mean unknown in columns of yes and no, such as -1.
    checked_column, checked: a column and a file that name the labels that somebody looked for on an
    image; "none" for no such column. Labels that are neither checked nor on the image are unknown.
    """

    separator: str | None = None
    label_columns: tuple[str, ...] = ()
    file_column: str | None = None
    split_column: str | None = None
    merge: Path | None = None
    label_names: Path | None = None
    blank: str | None = None
    unknown: tuple[str, ...] = ()
    checked_column: str | None = None
    checked: Path | None = None

    def silence_is_unknown(self, says_no: object) -> bool:
        """Whether a label that is not mentioned is unknown; says_no: the file names absent ones."""
        return self.blank == "unknown" or (bool(says_no) and self.blank is None)

    def files(self) -> tuple[Path, ...]:
        """The files that these options name: none of them holds the labels."""
        return tuple(filter(None, (self.merge, self.label_names, self.checked)))


DEFAULTS = ReadOptions()
FLAGS = ("separator", "label_columns", "file_column", "split_column")
FLAGS += ("labels_to_merge", "label_names", "blank", "unknown", "checked_column", "checked")
BLANK = ("unknown", "absent")


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags in FLAGS, in a group of their own."""
    add = parser.add_argument_group("how to read labels, if a message asks for it").add_argument
    add(
        "--separator",
        metavar="TEXT",
        help="between labels in a cell: ',', space, newline …; or none",
    )
    add("--label_columns", nargs="+", metavar="NAME", help="columns that hold the labels")
    add("--file_column", metavar="NAME", help="column that holds the names of the image files")
    add("--split_column", metavar="NAME", help="column that holds train, val or test; or none")
    add("--labels_to_merge", type=a_file, metavar="CSV", help="labels to rename: columns from,to")
    add("--label_names", type=a_file, metavar="TXT", help="names of label numbers: a line for each")
    add("--blank", choices=BLANK, help="what a blank cell means, or a label that is not mentioned")
    add("--unknown", nargs="+", metavar="VALUE", help="cells that mean not known, as -1, 9 or ?")
    add("--checked_column", metavar="NAME", help="column of the labels looked for; or none")
    add("--checked", type=a_file, metavar="FILE", help="labels looked for: image,labels")


def options_from(flags: Mapping[str, object]) -> ReadOptions:
    """The options in a script's flags, or in those of a checkpoint."""
    paths = {n: flags.get(n) for n in ("labels_to_merge", "label_names", "checked")}
    paths = {name: Path(path) if path else None for name, path in paths.items()}
    return ReadOptions(
        separator=separator_from(flags.get("separator")),
        label_columns=tuple(flags.get("label_columns") or ()),
        file_column=flags.get("file_column"),
        split_column=flags.get("split_column"),
        merge=paths["labels_to_merge"],
        label_names=paths["label_names"],
        blank=flags.get("blank"),
        unknown=tuple(flags.get("unknown") or ()),
        checked_column=flags.get("checked_column"),
        checked=paths["checked"],
    )


def label_flags(trained: Mapping[str, object], asked: Mapping[str, object]) -> dict[str, object]:
    """FLAGS as the user gives them, else as in training.

    What --checked says about the training images is not used for others, and this is said.
    """
    kept = {name: trained.get(name) for name in FLAGS}
    kept |= {name: value for name in FLAGS if (value := asked.get(name))}
    data = {n: asked[n] for n in ("image_path", "annotations") if asked.get(n)}
    same = all(Path(str(trained.get(n))).resolve() == Path(p).resolve() for n, p in data.items())
    if kept["checked"] and not same and not asked.get("checked"):
        log(f"note: {kept['checked']} (--checked of training) is not used for other images")
        kept["checked"] = None
    return kept


def separator_from(text: str | None) -> str | None:
    r"""The separator that a user means by space, tab, newline, \t or \n; others as they are.

    Empty for none: a cell is one label.
    """
    names = {"space": " ", "tab": "\t", "newline": "\n", r"\t": "\t", r"\n": "\n", "none": ""}
    return None if text is None else names.get(text, text)
