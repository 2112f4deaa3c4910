"""What data_loader.py says of a data set: what is missing, what is left out, what looks wrong.

Lists that are too long for a message are files: missing_images.txt, and labels_to_merge.csv, which
can be corrected and given back with --labels_to_merge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from images.duplicates import duplicates
from images.find import say_missing
from images.shards import ShardMember
from labels import folders
from labels.annotated import AnnotatedImages
from labels.checks import FEW, likely_misspellings, several_in_one
from labels.merge import merges_as_csv
from labels.targets import encode_targets, encode_unknown
from labels.vocabulary import Vocabulary, count_labels
from util.errors import RunError, UsageError
from util.files import OTHER_PICTURES, is_picture, left_out, suffix_of, walk, write_new
from util.log import counted, printable, some

MISSING, MERGES = Path("missing_images.txt"), Path("labels_to_merge.csv")
SHOWN = 40  # labels printed with their counts; build_vocab.py prints all
MOST_UNKNOWN = 0.8  # with 60 % unknown the decoder is better than none, with 90 % it is not

Paths = list[Path] | list[ShardMember]


@dataclass(frozen=True)
class Summary:
    """What is known of the N labelled training images, and what is to be said of all images.

    targets: N×C bool. unknown: N×C bool, or None if all labels are known. rows: which of the N are
    there. errors: what would stop training.
    """

    paths: Paths
    targets: np.ndarray
    unknown: np.ndarray | None
    vocabulary: Vocabulary
    rows: list[int]
    remarks: list[str]
    errors: list[str]


def summarise(image_path: Path, images: AnnotatedImages, paths: Paths) -> Summary:
    """Look for missing images, for what is left out and for what looks wrong; write the lists.

    paths: where each image is or should be. Without the split train, val or test is described.
    Raises UsageError if no image has a label.
    """
    splits = images.splits or [""] * len(images)
    chosen = images.of_split("train", "val", "test")
    first = chosen.splits[0] if chosen.splits else ""
    own = [i for i, s in enumerate(splits) if s == first and images.label_sets[i]]
    part = chosen.labelled()
    if not own:
        raise UsageError(f"no image of {images.source} has a label; see --label_columns")
    vocabulary = count_labels(part.label_sets, part.categories, unknown=part.unknown)
    targets, unknown = encode_targets(part, vocabulary), encode_unknown(part, vocabulary)
    by_split: dict[str, list] = defaultdict(list)
    for path, split in zip(paths, splits, strict=True):
        by_split[split].append(path)
    wrong = problems(targets, vocabulary, *by_split.values(), unknown=unknown, merges=MERGES)
    remarks = [f"left out: {what}" for what in not_used(image_path, images, part, paths)]
    remarks += [f"check: {what}" for what in wrong]
    missing = {i for i, path in enumerate(paths) if isinstance(path, Path) and not path.is_file()}
    errors = [_write_missing(image_path, images, sorted(missing))] if missing else []
    rows = [row for row, i in enumerate(own) if i not in missing]
    return Summary([paths[i] for i in own], targets, unknown, vocabulary, rows, remarks, errors)


def problems(
    targets: np.ndarray,
    vocabulary: Vocabulary,
    *splits: Paths,
    unknown: np.ndarray | None = None,
    merges: Path | None = None,
) -> list[str]:
    """What may be wrong with images, a sentence each.

    Unlabelled images, rare labels, labels that look alike or like several, equal images in
    different splits, labels that are never absent. targets, unknown: N×C bool, of the training
    images. splits: the image paths of each. merges: a file to write with labels that look alike.
    """
    found, counts = [], targets.sum(0)
    may_have_some = targets if unknown is None else targets | unknown
    if unlabelled := int((~may_have_some.any(1)).sum()):
        found.append(counted(unlabelled, "image has no label", "images have no label"))
    if several := several_in_one(vocabulary.labels):
        names = some([repr(label) for label in several])
        what = counted(len(several), "label looks", "labels look")
        found.append(f"{what} like several (see --separator): {names}")
    if alike := likely_misspellings(vocabulary, targets):
        pairs = some([f"{rare!r} for {usual!r}" for rare, usual in alike])
        what = counted(len(alike), "label looks", "labels look")
        found.append(f"{what} misspelt: {pairs}")
        if merges:
            what = "correct {} and give it with --labels_to_merge"
            found[-1] += f"; {_written(merges, merges_as_csv(alike), what)}"
    if same := duplicates(*splits):
        pairs = some([f"{a} = {b}" for a, b in same])
        what = counted(len(same), "image is", "images are")
        found.append(f"{what} in two splits: {pairs}")
    few = [f"{label} ({n})" for label, n in zip(vocabulary.labels, counts, strict=True) if n < FEW]
    if few:
        what = counted(len(few), "label is", "labels are")
        found.append(f"{what} on fewer than {FEW} images: {some(few)}")
    if unknown is not None and len(always := np.flatnonzero((targets | unknown).all(0))):
        what = counted(len(always), "label is", "labels are")
        names = some([vocabulary.labels[i] for i in always])
        found.append(f"{what} never known to be absent, so no model can learn when: {names}")
    if unknown is not None and unknown.mean() >= MOST_UNKNOWN:
        found.append(
            f"{unknown.mean():.0%} of the pairs of image and label are unknown. The rest says "
            "little about which labels go together: compare with --decoder none"
        )
    return found


def describe_known(unknown: np.ndarray | None) -> str:
    """How many pairs of image and label are known, for the end of a line; empty if all are.

    unknown: N×C bool.
    """
    if unknown is None:
        return ""
    hidden = int(unknown.sum())
    known = f"{unknown.size - hidden:,} of {unknown.size:,} pairs of image and label are known"
    return f"; {known}, {hidden:,} unknown"


def label_counts(vocabulary: Vocabulary) -> str:
    """The labels, the most frequent first, each with its number of images.

    If some are unknown: also on how many images each is known to be there or not.
    """
    totals = [f" of {total:,} known" if vocabulary.known else "" for total in vocabulary.totals()]
    rows = zip(vocabulary.labels, vocabulary.counts, totals, strict=True)
    named = [f"{printable(label)} {count:,}{total}" for label, count, total in rows]
    more = len(named) - SHOWN
    return ", ".join(named[:SHOWN]) + (f" and {more:,} more, to {named[-1]}" if more > 0 else "")


def _write_missing(image_path: Path, images: AnnotatedImages, missing: list[int]) -> str:
    """Write the names of the missing images to a file; returns a sentence."""
    names = [printable(images.file_names[i]) for i in missing]
    content = "".join(f"{name}\n" for name in names).encode(errors="replace")
    found = say_missing(image_path, images)  # says what is there, too
    reason = found or counted(len(missing), "image is missing", "images are missing")
    what = "{} lists all that are missing"
    if len(missing) < len(images):
        what += ": remove their rows, or train with --skip_bad_images"
    return f"{reason}; {_written(MISSING, content, what)}"


def _written(path: Path, content: bytes, what: str) -> str:
    """Write a list. Returns `what` with the name of the file, or why it cannot be written."""
    try:
        return what.format(write_new(path, content))
    except RunError as error:
        return str(error)


def not_used(
    image_path: Path, images: AnnotatedImages, part: AnnotatedImages, paths: Paths
) -> list[str]:
    """What is left out, a sentence each: labels that no training image has, and pictures in the
    folder that are not listed. part: the training images among `images`, whose paths are `paths`.
    """
    found = []
    everywhere = Counter(label for labels in images.label_sets for label in labels)
    known = part.labels()
    if others := [f"{x} ({n:,})" for x, n in everywhere.most_common() if x not in known]:
        what = counted(len(others), "label is", "labels are")
        found.append(f"{what} on no training image: {some(others)}")
    if none := [label for label in part.categories if label not in everywhere]:
        what = counted(len(none), "label is", "labels are")
        found.append(f"{what} on no image: {some(none)}")
    as_files = all(isinstance(path, Path) for path in paths)
    if image_path.is_dir() and as_files and images.kind != folders.NAME:
        found += _other_pictures(image_path, images, {str(path) for path in paths})
    return found


def _other_pictures(image_path: Path, images: AnnotatedImages, used: set[str]) -> list[str]:
    listed = walk(image_path)
    files = [str(image_path / folder / entry.name) for folder, es in listed for entry in es]
    others = [file for file in files if is_picture(file) and file not in used]
    found = []
    if others:
        what = (
            f"{counted(len(others), 'picture')} in {image_path} that {images.source} does not list"
        )
        found.append(f"{what}: {some([Path(file).name for file in others], 3)}")
    undecoded = [f for f in files if suffix_of(f) in OTHER_PICTURES and f not in used]
    return [*found, left_out(undecoded)] if undecoded else found
