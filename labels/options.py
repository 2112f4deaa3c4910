"""How to read label files where they leave it open: the flags, and the values they give.

add_label_flags(parser)     adds the flags to a script
options_from(vars(args))    -> ReadOptions, for `read_labels`
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about label files; empty values leave it to the reader.

    separator: between the labels in a cell; "" if a cell is one label.
    label_columns, file_column, split_column: of a table; the split column "none" for no splits.
    merge: a CSV file with the columns from and to: labels to rename.
    label_names: a text file with the names of label numbers, the first line for 0.
    """

    separator: str | None = None
    label_columns: tuple[str, ...] = ()
    file_column: str | None = None
    split_column: str | None = None
    merge: Path | None = None
    label_names: Path | None = None


DEFAULTS = ReadOptions()
FLAGS = ("separator", "label_columns", "file_column", "split_column")
FLAGS += ("labels_to_merge", "label_names")


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
    add("--labels_to_merge", type=Path, metavar="CSV", help="labels to rename: columns from,to")
    add("--label_names", type=Path, metavar="TXT", help="names of label numbers: a line for each")


def options_from(flags: Mapping[str, object]) -> ReadOptions:
    """The options in a script's flags, or in those of a checkpoint."""
    paths = {name: flags.get(name) for name in ("labels_to_merge", "label_names")}
    return ReadOptions(
        separator=separator_from(flags.get("separator")),
        label_columns=tuple(flags.get("label_columns") or ()),
        file_column=flags.get("file_column"),
        split_column=flags.get("split_column"),
        merge=Path(paths["labels_to_merge"]) if paths["labels_to_merge"] else None,
        label_names=Path(paths["label_names"]) if paths["label_names"] else None,
    )


def separator_from(text: str | None) -> str | None:
    r"""The separator that a user means by space, tab, newline, \t or \n; others as they are.

    Empty for none: a cell is one label.
    """
    names = {"space": " ", "tab": "\t", "newline": "\n", r"\t": "\t", r"\n": "\n", "none": ""}
    return None if text is None else names.get(text, text)
