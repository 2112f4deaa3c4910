"""Which folder a run is in: that of an earlier run which it continues, or a new one.

Without --output_dir the runs on a data set are in NAME, NAME-2, NAME-3, …: a run on other labels
gets a new folder, so nothing is lost. Each run's images.csv says what it was trained on.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.read import read_labels
from labels.vocabulary import load_vocabulary, save_vocabulary
from labels.write import write_table
from training.config_file import CONFIG
from training.data import TrainAndVal
from training.resume import LAST, PREVIOUS, find_changes, is_finished, peek_last
from training.signals import LOCK
from util.errors import UsageError
from util.log import collected_log, counted, log

IMAGES = "images.csv"
WRITTEN = (IMAGES, "log.jsonl", "curves.png", CONFIG)  # by every run
LEFT = ("best.pt", "log.jsonl", IMAGES)  # what may be left of a run without last.pt


def run_folders(base: Path) -> list[Path]:
    """Those of base, base-2, base-3, … that exist, the newest first."""
    name = re.compile(re.escape(base.name) + r"(?:-([2-9]|[1-9]\d+))?")
    found = [(name.fullmatch(p.name), p) for p in base.parent.glob("*") if p.is_dir()]
    numbered = [(int(match[1] or 1), path) for match, path in found if match]
    return [path for _, path in sorted(numbered, reverse=True)]


def newest_run(base: Path) -> Path:
    """The newest folder with a run; the folder for a new one if there is none."""
    return next((folder for folder in run_folders(base) if _has_run(folder)), free_folder(base))


def free_folder(base: Path) -> Path:
    """The folder for a new run: the one after the newest run. No other file is in its way."""
    folders = run_folders(base)
    if folders and {*os.listdir(folders[0])} <= {LOCK}:
        return folders[0]  # the command in it ended before anything was saved
    last = int(folders[0].name.removeprefix(base.name).lstrip("-") or 1) if folders else 0
    names = (f"{base.name}-{i}" if i > 1 else base.name for i in itertools.count(last + 1))
    return next(path for name in names if not os.path.lexists(path := base.with_name(name)))


def _has_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LAST, PREVIOUS, *LEFT))


def choose_folder(base: Path, images: TrainAndVal, about: dict, defaults: dict) -> Path:
    """The folder of the newest run that fits this command, else that of a new run.

    about, defaults: see `find_changes`. Logs why a new run is started. Raises UsageError if only
    flags differ from the newest run, and it is not finished: it may be meant to continue.
    """
    newest = None
    for folder in run_folders(base):
        if (earlier := peek_last(folder)) is None:
            continue
        changes = find_changes(earlier, about, defaults)
        if not changes:
            return folder
        newest = newest or (folder, changes, is_finished(earlier))
    new = free_folder(base)
    if newest:
        folder, changes, finished = newest
        labels = changed_labels(folder, images) if changes.data else ""
        if changes.flags and not labels and not finished:
            changes.check(folder, accepted=False)
        # another --seed, for example, has another hold-out, but the labels are the same
        what, hint = str(changes), ""
        if labels:
            what = "; ".join([labels, *changes.flags.values()])
        elif changes.flags:
            what = "; ".join(changes.flags.values())
            hint = f" (--accept_changes continues {folder} instead)"
        log(f"{what}; a new run in {new}{hint}")
    return new


def rows_of(
    images: TrainAndVal,
) -> dict[str, tuple[tuple[str, ...], str, tuple[str, ...] | None]]:
    """Name -> (labels, train or val, known labels) of all images; train for those in both.

    Known labels, on the image or not, are None if all are known, see `AnnotatedImages.known`.
    """
    parts = (("val", images.val.images), ("train", images.train.images))
    return {
        name: (labels, split, known)
        for split, part in parts
        for name, labels, known in zip(
            part.file_names, part.label_sets, part.known() or [None] * len(part), strict=True
        )
    }


def changed_labels(folder: Path, images: TrainAndVal) -> str:
    """What differs from the labels in the run's images.csv; empty if nothing, or if it is gone.

    Replacing one label by another counts as one change. So does a label that became known, or
    unknown.
    """
    try:
        with collected_log():
            then = read_labels(folder / IMAGES)
    except UsageError:
        return ""
    before = _labels_of(then)
    now = _labels_of(images.val.images) | _labels_of(images.train.images)
    changed = [
        max(len(before[name] - labels), len(labels - before[name]))
        for name, labels in now.items()
        if before.get(name, labels) != labels
    ]
    parts = []
    if changed:
        what = f"{counted(sum(changed), 'label')} on {counted(len(changed), 'photo')} changed"
        parts.append(what)
    if new := len(now.keys() - before.keys()):
        parts.append(f"{counted(new, 'photo')} {'is' if new == 1 else 'are'} new")
    if gone := len(before.keys() - now.keys()):
        photos = f"{gone:,}" if parts else counted(gone, "photo")
        parts.append(f"{photos} {'is' if gone == 1 else 'are'} gone")
    return ", ".join(parts)


def _labels_of(images: AnnotatedImages) -> dict[str, set[tuple[str, bool]]]:
    """By file name: (label, True) for labels on the image, (label, False) for unknown ones."""
    rows = zip(images.file_names, images.label_sets, images.unknown_sets(), strict=True)
    return {
        name: {*((label, True) for label in labels), *((label, False) for label in others)}
        for name, labels, others in rows
    }


def check_records(folder: Path, images: TrainAndVal, vocab_path: Path, is_new: bool) -> None:
    """Raise UsageError if the run would write into a user's file, or ignore a vocab.pkl."""
    own = vocab_path.parent == folder and vocab_path.exists()
    if own and load_vocabulary(vocab_path) != images.vocabulary:
        raise UsageError(
            f"{vocab_path} is not the vocabulary of these labels: give it with --vocab_path to use "
            "it, or move it away"
        )
    there = [name for name in WRITTEN if is_new and os.path.lexists(folder / name)]
    if there:
        raise UsageError(
            f"{folder / there[0]} would be replaced: move it away or choose another --output_dir"
        )


def write_records(folder: Path, images: TrainAndVal, vocab_path: Path, is_changed: bool) -> None:
    """After a run's first save: write images.csv and the vocabulary, unless they exist.

    Not before it: a command that ends at a bad image leaves no vocabulary that soon is out of date.
    is_changed: the images or labels have changed; images.csv is written again.
    """
    if not vocab_path.exists():
        save_vocabulary(images.vocabulary, vocab_path)
    if (folder / IMAGES).exists() and not is_changed:
        return
    rows = rows_of(images)
    try:
        label_sets, splits, known = zip(*rows.values(), strict=True)
        every = images.train.images.categories
        checked = [every if labels is None else labels for labels in known] if any(known) else None
        write_table(folder / IMAGES, list(rows), label_sets, splits, checked=checked)
    except UsageError as error:  # a name that no table can hold is no reason not to train
        log(f"note: {folder / IMAGES} is not written: {error}")
