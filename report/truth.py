"""True labels beside predicted ones: which are right, missed and added.

A label of the annotations that the model was not trained on is not missed: it is "not known".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.lookup import find_entries
from inference.predictor import Predictor
from labels.annotated import AnnotatedImages
from labels.options import FLAGS, label_flags, options_from
from labels.read import read_labels
from labels.tags import respell, spellings
from labels.targets import refuse_other_spelling
from report.inputs import Inputs
from util.errors import UsageError
from util.log import log, some

KINDS = {
    "right": "right",
    "missed": "missed",
    "added": "added",
    "not_known": "not known to the model",
}
SIGNS = dict(zip(KINDS, "=-+?", strict=True))  # in texts: every console can print them


@dataclass(frozen=True)
class Truth:
    """The true labels of images for one model. The empty one stands for no annotations.

    sets: image -> its labels, spelled as the model does. digest: of the whole annotations. unknown:
    image -> the labels of which the annotations do not say whether they are on it.
    """

    sets: Mapping[str, tuple[str, ...]] | None = None
    digest: str | None = None
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def beside(self, name: str, result: dict) -> dict:
        """A result of `Predictor.describe` with the true labels of this image.

        Adds "true", and the labels of each of KINDS; only "true", which is None, for an image that
        the annotations lack; nothing without annotations. Labels that the annotations leave open
        are of no kind; they are in "unknown", if there are any.
        """
        if self.sets is None:
            return result
        if name not in self.sets:
            return {**result, "true": None}
        true, predicted = {*self.sets[name]}, {*result["predicted"]}
        unknown = [x for x in self.unknown.get(name, ()) if x in result["labels"]]
        found = {
            "right": [label for label in result["predicted"] if label in true],
            "missed": [x for x in result["labels"] if x in true and x not in predicted],
            "added": [label for label in result["predicted"] if label not in {*true, *unknown}],
            "not_known": [x for x in self.sets[name] if x not in result["labels"]],
        }
        true = [*found["right"], *found["missed"], *found["not_known"]]
        return {**result, "true": true, **found, **({"unknown": unknown} if unknown else {})}


@dataclass(frozen=True)
class Labeller:
    """A checkpoint's model, and the true labels to show beside its predictions."""

    checkpoint: Path
    model: Predictor
    truth: Truth

    @property
    def labels(self) -> list[str]:
        """All labels that may be shown: the model's, then those it does not know."""
        true = {label for labels in (self.truth.sets or {}).values() for label in labels}
        return [*self.model.labels, *sorted(true - {*self.model.labels})]


def read_truths(
    annotations: Sequence[Path],
    models: Sequence[Predictor],
    flags: Mapping[str, object],
    inputs: Inputs,
) -> list[Truth]:
    """The true labels of the images for each model.

    annotations: none, one for all models, or one for each. flags: labels/options.py's, as the user
    gave them; for those not given the model's own hold. Raises UsageError, also if the annotations
    lack an image that was given by name.
    """
    given = {name: value for name in FLAGS if (value := flags.get(name))}
    if not annotations:
        if given:
            raise UsageError(f"--{next(iter(given))} is for --annotations, which is not given")
        return [Truth()] * len(models)
    if len(annotations) not in (1, len(models)):
        raise UsageError(
            f"--annotations has {len(annotations)} paths and --checkpoint {len(models)}: give one "
            "for all, or one for each checkpoint in the same order"
        )
    truths, read = [], {}
    for model, path in zip(models, [*annotations] * len(models), strict=False):
        asked = label_flags(model.flags, {**flags, "annotations": path})
        options, folder = options_from(asked), _image_folder(path, model, inputs)
        if (path, options) not in read:
            images = read_labels(path, folder, options)
            read[path, options] = images, find_entries(inputs.root, inputs.names, images)
            _say_lacking(inputs, *read[path, options])
        truths.append(_spelled(*read[path, options], model))
    return truths


def _image_folder(annotations: Path, model: Predictor, inputs: Inputs) -> Path:
    """The image folder for reading annotations: the training images' if they are trained on."""
    own = {k: Path(str(model.flags.get(k))) for k in ("annotations", "image_path")}
    is_own = own["annotations"].absolute() == annotations.absolute()
    return own["image_path"] if is_own and own["image_path"].is_dir() else inputs.root


def _say_lacking(inputs: Inputs, images: AnnotatedImages, rows: dict[str, int]) -> None:
    """Note photos without an entry. Raises UsageError if one was given by name, or if all are."""
    lacking = [name for name in inputs.names if name not in rows]
    if not lacking:
        return
    if named := [str(inputs.root / name) for name in lacking if name in inputs.named]:
        raise UsageError(
            f"{images.source} lacks {some(named, 3)}: leave out --annotations, or name the "
            f"ones with this photo; these have, for example, {images.file_names[0]}"
        )
    if not rows:
        raise UsageError(
            f"{images.source} lacks all photos in {inputs.root}: name other --annotations; "
            f"these have, for example, {images.file_names[0]}"
        )
    what = f"{len(lacking):,} of the {len(inputs.names):,} photos"
    log(f"note: {images.source} lacks {what}; they get no true labels: {some(lacking, 3)}")


def _spelled(images: AnnotatedImages, rows: dict[str, int], model: Predictor) -> Truth:
    """The truth as the model spells its labels. Raises UsageError for a doubtful spelling."""
    few, vocabulary = images.part([*rows.values()]), model.vocabulary
    if spelling := spellings(few, vocabulary):
        few = respell(few, spelling)
    on_photos, known = few.labels(), {*vocabulary.labels, *vocabulary.dropped}
    unknown = sorted(on_photos - known)
    refuse_other_spelling(images.source, unknown, vocabulary)
    if unknown and not known & {*on_photos, *images.categories}:
        raise UsageError(
            f"{images.source} has the label {unknown[0]!r}, and no label that the model knows: "
            f"{some(vocabulary.labels)}"
        )
    all_of_it = [images.file_names, images.label_sets]
    all_of_it += [images.unknown] if images.unknown else []
    digest = hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()
    left_open = dict(zip(rows, few.unknown, strict=True)) if few.unknown else {}
    return Truth(dict(zip(rows, few.label_sets, strict=True)), digest, left_open)


def legend(signs: Mapping[str, str] = SIGNS) -> str:
    """What the signs of the KINDS mean, in one line."""
    return "   ".join(f"{signs[kind]} {words}" for kind, words in KINDS.items())


def no_label(result: dict) -> str:
    """What is said of an image without any true label."""
    return "none is known" if result.get("unknown") else "none"


def kind_of(label: str, result: dict) -> str | None:
    """Which of KINDS a label is; None if it is neither true nor predicted, or nothing is known."""
    return next((kind for kind in KINDS if label in result.get(kind, ())), None)
