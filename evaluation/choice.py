"""Which images evaluate.py takes, and where their results go.

Of the data that the checkpoint was trained on: the split test, else val, else the hold-out, which
are the images that training kept out. Of other data: the split test, val or train, else all.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from inference.rules import LabelRules
from labels.annotated import AnnotatedImages
from labels.options import ReadOptions
from labels.read import read_labels
from labels.search import find_labels
from util.cli import positive_int
from util.errors import UsageError
from util.log import counted, log
from util.reading import read_json

SPLITS = ("test", "val", "train", "all")
TRAINED_ON = ("train", "all")  # parts with training images, if the data set is the checkpoint's own
HOLD_OUT = "hold-out"
WRITTEN = ("evaluate.log", "predictions.npz", "report.html", "pr_curves.csv")  # after metrics.json
WRITTEN += ("label_issues.html", "label_issues.csv", "label_influence.csv", "label_influence.png")
SCENES_TRAIN = "data/scenes/annotations/instances_train.json"
COCO_TRAIN = "instances_train2014"
COCO_VAL = Path("data/annotations/instances_val2014.json")


def add_choice_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose images; `choose_images` and `load_part` take their values."""
    add = parser.add_argument
    add("--image_path", type=Path, help="image folder; default: where the checkpoint's images are")
    add("--annotations", type=Path, help="file or folder of labels; default: found by the images")
    add("--split", choices=SPLITS, help="which images; default: test, else val, else the hold-out")
    add("--skip_bad_images", action="store_true", help="leave out images that cannot be read")
    add("--keep_unlabelled", action="store_true", help="count images without labels (COCO: 40,504)")
    add("--limit", type=positive_int, help="only the first N images, for a quick look")


class Results(msgspec.Struct):
    """The entries of metrics.json that are shown, not only compared."""

    num_images: int = 0
    annotations: str = ""


@dataclass(frozen=True)
class Chosen:
    """The images to evaluate, and the whole data set that they are from."""

    image_path: Path
    listed: AnnotatedImages  # all images of the annotations
    rows: list[int]  # the chosen ones
    part: str  # test, val, hold-out, train or all
    is_own: bool = True  # the checkpoint was trained on images of this data set
    is_default: bool = True  # this part is chosen if the user says nothing

    @property
    def annotations(self) -> Path:
        """The label file or folder."""
        return Path(self.listed.source)

    @property
    def images(self) -> AnnotatedImages:
        """The chosen images."""
        return self.listed.part(self.rows)

    def skipped_bad(self, flags: Mapping[str, object]) -> bool:
        """Whether training with these flags skipped unreadable images of the same data set."""
        return self.is_own and flags.get("skip_bad_images") is True


def choose_images(
    image_path: Path | None,
    annotations: Path | None,
    split: str | None,
    checkpoint: dict,
    options: ReadOptions,
) -> Chosen:
    """The images that the user names, else the checkpoint's own; says which on stderr.

    split: one of SPLITS, or None for the default. Raises UsageError if there are no such images.
    """
    if annotations and not image_path:
        raise UsageError(f"name the folder of the images of {annotations} with --image_path")
    if image_path:
        annotations = annotations or find_labels(image_path, "val", options.files())
        own = checkpoint["flags"].get("image_path")
        is_own = bool(own) and Path(own).resolve() == image_path.resolve()
        listed = read_labels(annotations, image_path, options)
        # other annotations of the same folder may be another data set
        held_out = checkpoint.get("held_out")
        is_own = is_own and not (held_out and {*held_out}.isdisjoint(listed.file_names))
        chosen = choose_split(image_path, listed, split, checkpoint, is_own, is_named=True)
    else:
        chosen = _choose_own(split, checkpoint, options)
    words = f"the {chosen.part}" if chosen.part == HOLD_OUT else f"the split {chosen.part}"
    words = "all images" if chosen.part == "all" else words
    others = "; --split all takes all" if len(chosen.rows) < len(chosen.listed) else ""
    count = counted(len(chosen.rows), "image")
    log(f"evaluating {words} of {chosen.annotations}: {count}{others}")
    return chosen


def choose_split(
    image_path: Path,
    listed: AnnotatedImages,
    split: str | None,
    checkpoint: dict,
    is_own: bool,
    is_named: bool,
) -> Chosen:
    """The images of one split of annotations that may have no splits.

    is_own: the checkpoint was trained on images of this folder. is_named: the user named it; then
    all its images are the default if it has no other part. Raises UsageError.
    """
    held_out, flags = checkpoint.get("held_out"), checkpoint.get("flags", {})
    # --leave_out trains on all other images, whatever their split
    splits = None if is_own and flags.get("leave_out") else listed.splits
    parts = _parts(replace(listed, splits=splits), held_out if is_own else None)
    default = next((name for name in parts if is_named or name != "train"), None)
    default = default or ("all" if is_named else None)
    everything = list(range(len(listed)))
    if is_own and not parts:
        parts["train"] = everything
    parts["all"] = everything
    wanted = HOLD_OUT if split == "val" and "val" not in parts else split or default
    if wanted in parts:
        return Chosen(image_path, listed, parts[wanted], wanted, is_own, wanted == default)
    if split:
        known = ", ".join(name for name in SPLITS if name in parts)
        raise UsageError(f"{listed.source} has no split {split}; --split can be {known}")
    raise UsageError(
        f"training kept out no image of {listed.source}: name other images with --image_path and "
        "--annotations, or evaluate on the training images with --split train"
    )


def _parts(listed: AnnotatedImages, held_out: list[str] | None) -> dict[str, list[int]]:
    """The rows of each split, and of the hold-out, in the order in which one is the default."""
    rows = {name: i for i, name in enumerate(listed.file_names)}
    held = sorted(rows[name] for name in held_out or () if name in rows)
    if held_out and len(held) < len(held_out):
        gone = f"{len(held_out) - len(held):,} of the {len(held_out):,} held-out images"
        log(f"note: {gone} are no longer in {listed.source}")
    splits = listed.splits or ["train"] * len(listed) * bool(held)
    parts = {s: [i for i, of in enumerate(splits) if of == s] for s in ("test", "val", "train")}
    if held:
        kept_out = {*held}
        parts["train"] = [i for i in parts["train"] if i not in kept_out]
        parts = {"test": parts["test"], "val": parts["val"], HOLD_OUT: held, **parts}
    return {name: found for name, found in parts.items() if found}


def _choose_own(split: str | None, checkpoint: dict, options: ReadOptions) -> Chosen:
    """The images that the checkpoint's flags name. Raises UsageError."""
    flags = checkpoint["flags"]
    images, annotations = (Path(str(flags.get(k))) for k in ("image_path", "annotations"))
    named = flags.get("val_annotations")
    test = None if named else _official_test(annotations)
    if test and split in (None, "test"):
        return _whole(*test, "test", options)
    # os.path.exists, as Path.exists() raises for a name that is too long
    listed = read_labels(annotations, images, options) if os.path.exists(annotations) else None
    has_test = listed is not None and "test" in (listed.splits or ())
    if named and (split == "val" or (split is None and not has_test)):
        val = _whole(Path(flags["val_image_path"]), Path(named), "val", options)
        return replace(val, is_default=not has_test)
    if listed is None:
        raise UsageError(
            f"the checkpoint was trained on {annotations}, which is not there: name the data with "
            "--image_path and --annotations"
        )
    chosen = choose_split(images, listed, split, checkpoint, is_own=True, is_named=False)
    if not (named or test):
        return chosen
    return replace(chosen, is_default=bool(named) and has_test and chosen.part == "test")


def _official_test(annotations: Path) -> tuple[Path, Path] | None:
    """Images and annotations of the test set, for the default set and for COCO 2014."""
    if annotations == Path(SCENES_TRAIN):
        folder = annotations.parents[1]
        return folder / "images/val", folder / "annotations/instances_val.json"
    if annotations.stem == COCO_TRAIN and COCO_VAL.exists():
        return Path("data/images"), COCO_VAL
    return None


def _whole(image_path: Path, annotations: Path, part: str, options: ReadOptions) -> Chosen:
    """The checkpoint's data for one part, with annotations of their own: all, or a split's."""
    listed = read_labels(annotations, image_path, options)
    parts = _parts(listed, None)
    name = next((name for name in (part, "test", "val", "train") if name in parts), None)
    rows = parts[name] if name else list(range(len(listed)))
    return Chosen(image_path, listed, rows, part)


def warn_of_leaks(chosen: Chosen, checkpoint: dict) -> str:
    """Log and return a note if the evaluated images also trained the model or selected its epoch.

    Otherwise the note is empty.
    """
    note, flags = "", checkpoint["flags"]
    # of the checkpoint's image folder; with its hold-out, or with splits, also its data set
    is_same_set = chosen.is_own and bool(checkpoint.get("held_out") or chosen.listed.splits)
    uses = {"annotations": TRAINED_ON, "val_annotations": ("val", "test", "train", "all")}
    here = chosen.annotations.resolve()
    same = {k for k in uses if flags.get(k) and Path(str(flags[k])).resolve() == here}
    if "annotations" in same and chosen.part in uses["annotations"]:
        note = "this checkpoint was trained on these very annotations: metrics look too good"
    elif "val_annotations" in same or (chosen.is_own and chosen.part in (HOLD_OUT, "val")):
        note = "this checkpoint was selected on these images: metrics look slightly too good"
    elif is_same_set and chosen.part in TRAINED_ON:
        note = "this checkpoint was trained on images of this folder: metrics look too good"
    if note:
        log(f"note: {note}")
    return note


def choose_output_dir(
    given: Path | None,
    run: Path,
    chosen: Chosen,
    limit: int | None,
    folds: int | None,
    rules: LabelRules | None = None,
) -> Path:
    """Where the results go, so that none of other images are replaced.

    run: the checkpoint's folder, for a whole default evaluation; all others get a folder in it.
    Raises UsageError if `given` has whole results of other images of the same annotations, or if a
    file of the user would be replaced.
    """
    identity = identify(chosen, limit, folds, rules)
    if given:
        found = _results_in(given) or {}
        is_same_set = found.get("annotations") == identity["annotations"]
        is_whole = "num_images" in found and not found.get("limit")
        if is_same_set and is_whole and _differs(found, identity):
            count = counted(found["num_images"], "image")
            raise UsageError(
                f"{given} has results of {count} of {chosen.annotations}, which those of others "
                "would replace: choose another --output_dir"
            )
        _check_free(given)
        return given
    words = ["" if chosen.is_own else chosen.annotations.stem]
    words += ["" if chosen.is_default else chosen.part, f"folds-{folds}" if folds else ""]
    words += [f"first-{limit}" if limit else "", "rules" if rules else ""]
    name = "-".join(filter(None, words))
    for number in itertools.count(1):
        folder = run / (name if number == 1 else f"{name or chosen.annotations.stem}-{number}")
        if not _differs(_results_in(folder) or {}, identity):
            _check_free(folder)
            return folder
    raise AssertionError("numbers do not end")


def _check_free(folder: Path) -> None:
    """Raise UsageError if files of the user would be replaced: there are no results beside them."""
    there = [name for name in WRITTEN if os.path.lexists(folder / name)]
    if there and not os.path.lexists(folder / "metrics.json"):
        raise UsageError(
            f"{folder / there[0]} would be replaced: move it away or choose another --output_dir"
        )


def _differs(found: dict, identity: dict[str, object]) -> bool:
    """Whether results are of other images; those of older code may lack an entry."""
    return any(found.get(k, value) != value for k, value in identity.items())


def identify(
    chosen: Chosen, limit: int | None, folds: int | None, rules: LabelRules | None = None
) -> dict[str, object]:
    """What says in metrics.json which images were evaluated, by how many models, given what."""
    return {
        "image_path": str(chosen.image_path),
        "annotations": str(chosen.annotations),
        "split": chosen.part,
        "limit": limit,
        "folds": folds,
        "given_rules": [rule.text for rule in rules.rules] if rules else [],
    }


def _results_in(folder: Path) -> dict | None:
    """The metrics.json in a folder, or None. Raises UsageError if it is damaged."""
    path = folder / "metrics.json"
    try:
        return read_json(path, Results) if os.path.lexists(path) else None
    except (OSError, ValueError, UsageError):
        raise UsageError(f"{path} is no metrics.json of evaluate.py: move it away") from None
