"""What the exports of labelling tools share: images with their labels -> AnnotatedImages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from labels.annotated import AnnotatedImages
from labels.text import folded, is_text
from util.errors import UsageError
from util.log import counted, log


class Entry(NamedTuple):
    """One image of an export."""

    place: str  # for messages: "task 7"
    file_name: object  # checked here
    labels: Iterable[object]  # checked here, too
    split: str | None = None


def images_from_entries(
    entries: Iterable[Entry], path: Path, kind: str, hint: str = "delete one of them"
) -> AnnotatedImages:
    """The images in this order; one that is listed twice with the same labels is taken once.

    Raises UsageError, naming file and place, for a name or label that is no text and for an image
    with two sets of labels; `hint` says what to do about that.
    """
    found: dict[str, tuple[tuple[str, ...], str, str | None]] = {}
    repeated = 0
    for place, file_name, labels, split in entries:
        where = f"{path}, {place},"
        if not isinstance(file_name, str) or not file_name.strip() or not is_text(file_name):
            raise UsageError(f"{where} has no file name of an image")
        name = file_name.strip()
        label_set = tuple(dict.fromkeys(clean_label(label, where) for label in labels))
        first, at, other = found.setdefault(name, (label_set, place, split))
        if set(first) != set(label_set) or other != split:
            raise UsageError(
                f"{path}: {place} and {at} are the same image, {name!r}, with different labels "
                f"or splits: {hint}"
            )
        repeated += at != place
    if repeated:
        what = counted(repeated, "image is", "images are")
        log(f"{path}: {what} listed again, with the same labels: taken once")
    label_sets = [labels for labels, _, _ in found.values()]
    splits = [split for _, _, split in found.values()]
    if any(splits) and not all(splits):
        without = next(name for name, (_, _, split) in found.items() if not split)
        raise UsageError(
            f"{path} has {splits.count(None):,} of {len(splits):,} images without a split, for "
            f"example {without!r}: put each in train, val or test, or none"
        )
    return AnnotatedImages(
        str(path),
        file_names=list(found),
        label_sets=label_sets,
        categories=sorted({label for labels in label_sets for label in labels}),
        kind=kind,
        splits=splits if any(splits) else None,
    )


def clean_label(label: object, where: str) -> str:
    """A label with its white space folded, in NFC. Raises UsageError if it is no text."""
    text = label if isinstance(label, str) and is_text(label) else ""
    if text := folded(text):
        return text
    raise UsageError(f"{where} has {str(label)[:60]!r} as a label: it must be a text")


def choose(
    fields: Iterable[str], wanted: tuple[str, ...], path: Path, what: str
) -> tuple[str, ...]:
    """The fields that hold the labels: those of --label_columns, else the only one.

    Raises UsageError for a wanted field that does not exist, for several, and for none.
    """
    fields = sorted(set(fields))
    names = ", ".join(map(repr, fields))
    if missing := [name for name in wanted if name not in fields]:
        raise UsageError(f"{path} has no {what} {missing[0]!r}, but {names or 'none'}")
    if not fields:
        raise UsageError(f"{path} has no {what} with labels")
    if not wanted and len(fields) > 1:
        raise UsageError(
            f"{path} has labels in several {what}s, {names}: name those to use with --label_columns"
        )
    return wanted or tuple(fields)
