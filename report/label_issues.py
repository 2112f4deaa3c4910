"""label_issues.html: the annotations that look wrong, each with its photo, to keep or to correct.

The page needs no other file and no network. It holds the label table of all images: its button
saves labels.corrected.csv, which train.py reads. label_issues.csv lists the same annotations.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from evaluation.choice import TRAINED_ON, Chosen
from images.decode import load_pixels
from images.part import Part
from images.shards import ShardMember
from labels.annotated import AnnotatedImages
from labels.tags import respell, spellings
from labels.vocabulary import Vocabulary
from labels.write import SEPARATOR, LabelCells, name_cell
from report.gallery import data_uri
from report.page import render
from util.errors import UsageError
from util.files import BOM, csv_text, write_whole
from util.log import counted, log

COLUMNS = ("file_name", "label", "annotation", "probability", "marginal")
SIZES = ((320, 72), (320, 50), (240, 50), (160, 40))  # longest side in pixels, WEBP's quality
PHOTOS = 6_000_000  # letters of all photos together; the table of 120,000 images has 8 million


def write_label_issues(
    issues: Sequence[dict],
    listed: AnnotatedImages,
    paths: Sequence[Path | ShardMember] | Mapping[int, Path | ShardMember],
    output_dir: Path,
    about: str,
) -> None:
    """Write label_issues.html and label_issues.csv.

    issues: most suspicious first, each with row (of `listed`), file_name, label, annotation
    (missing or surplus), probability (that the annotation is right, given the image and its other
    annotations) and marginal (that the label is on the image, given the image alone). listed: all
    images of the label table, with labels as the model spells them. paths: the photo of each row
    that has an issue. about: how they were judged, in a line. Raises UsageError for labels or names
    that no table can hold, and RunError.
    """
    _write_csv(issues, output_dir / "label_issues.csv")
    table = _table(issues, listed)
    photo = functools.cache(lambda row: _photo(paths[row], PHOTOS // len(issues)))
    page = render(
        "label_issues.html",
        issues=[_shown(issue, listed, *photo(issue["row"])) for issue in issues],
        num_images=len(listed),
        source=listed.source,
        splits=listed.splits is not None,
        difficult=any(listed.difficult or ()),
        about=about,
        table=table,
    )
    write_whole(output_dir / "label_issues.html", page)


def write_issues(
    results: dict, part: Part, chosen: Chosen, vocabulary: Vocabulary, output_dir: Path
) -> None:
    """--label_issues: the page on which they are kept or corrected, and the list as CSV."""
    row = {name: i for i, name in enumerate(chosen.listed.file_names)}
    issues = [{**issue, "row": row[issue["file_name"]]} for issue in results["label_issues"]]
    listed = respell(chosen.listed, spellings(chosen.listed, vocabulary))
    paths = dict(zip([row[name] for name in part.images.file_names], part.paths, strict=True))
    about = f"by {results['checkpoint']}"
    if results["folds"]:
        about = f"out of sample, by {results['folds']} models, each trained without the photo"
    elif chosen.is_own and chosen.part in TRAINED_ON:
        about += ", which was trained on these photos and so finds few of their errors"
    if left_out := len(chosen.rows) - len(part.paths):
        about += f"; {counted(left_out, 'photo was', 'photos were')} not judged, such as those "
        about += "without labels if --keep_unlabelled is not given"
    write_label_issues(issues, listed, paths, output_dir, about)
    log(f"wrote {output_dir / 'label_issues.html'}, to correct labels, and label_issues.csv")


def _write_csv(issues: Sequence[dict], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for issue in issues:
        numbers = (f"{issue[name]:.6f}" for name in COLUMNS[3:])
        writer.writerow([*(csv_text(issue[name]) for name in COLUMNS[:3]), *numbers])
    content = (BOM + text.getvalue()).encode("utf-8", "replace")
    write_whole(path, content)


def _table(issues: Sequence[dict], listed: AnnotatedImages) -> dict[str, object]:
    """What the page's script makes the table of, in the bytes of `labels.write.table_as_csv`."""
    for issue in issues:
        annotated = issue["label"] in listed.label_sets[issue["row"]]
        if annotated == (issue["annotation"] == "missing"):  # a correction would change nothing
            raise ValueError(f"{issue['annotation']} does not fit the labels of row {issue['row']}")
    known = listed.known()  # labels that a correction removes stay known
    labels = {*listed.labels(), *(issue["label"] for issue in issues)}
    labels = sorted(labels.union(*(known or ())))
    cells = LabelCells(labels)
    number = {label: i for i, label in enumerate(labels)}
    others = [listed.splits] if listed.splits else []
    others += [map(cells.join, known)] if known else []
    others = zip(*others, strict=True) if others else [()] * len(listed)
    table: dict[str, object] = {
        "start": BOM,
        "separator": SEPARATOR,
        "header": cells.header(False, splits=bool(listed.splits), checked=bool(known)),
        "labels": [cells.written[label] for label in labels],
        "rows": [
            [name_cell(name), [number[label] for label in label_set], *cells_after]
            for name, label_set, cells_after in zip(
                listed.file_names, listed.label_sets, others, strict=True
            )
        ],
        "issues": [[i["row"], number[i["label"]], i["annotation"]] for i in issues],
    }
    # choices are kept under this name: those of another page must not be taken for this one's
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return {**table, "key": f"label_issues {digest[:32]}"}


def _shown(issue: dict, listed: AnnotatedImages, photo: str, problem: str) -> dict[str, object]:
    """What the page shows of an issue: the probabilities are those of yes."""
    missing = issue["annotation"] == "missing"
    given_others = issue["probability"] if not missing else 1 - issue["probability"]
    return {
        "file": issue["file_name"],
        "label": issue["label"],
        "missing": missing,
        "labels": listed.label_sets[issue["row"]],
        "given_others": percent(given_others),
        "alone": percent(issue["marginal"]),
        "photo": photo,
        "problem": problem,
    }


def percent(probability: float) -> str:
    """A probability in whole percent, without 0 and 100.

    >>> percent(0.043), percent(0.001), percent(0.999)
    ('4 %', 'under 1 %', 'over 99 %')
    """
    if probability < 0.005:
        return "under 1 %"
    return "over 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"


def _photo(path: Path | ShardMember, most: int) -> tuple[str, str]:
    """A photo as a data URI of `most` letters if possible; or "" and why it cannot be read."""
    try:
        pixels = load_pixels(path, SIZES[0][0])
    except UsageError as error:
        return "", str(error)
    for side, quality in SIZES:
        photo = Image.fromarray(pixels)
        photo.thumbnail((side, side))
        uri = data_uri(photo, quality=quality)
        if len(uri) <= most:
            break
    return uri, ""
