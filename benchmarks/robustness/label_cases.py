"""Reads label files and folders as people have them, and compares with the right answers.

    python benchmarks/robustness/label_cases.py --cases ../shared/cases

Prints a Markdown table, a row for each case of cases.py: what the program read, or why it stopped,
and whether that is right. A case is read as the scripts read it: the labels are found or given,
then the images are found. Each table is also tried without --annotations, alone with its images.
The exit code is 1 if a reading is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from cases import CASES, Case, Right  # noqa: E402

from data_loader import load_data_set  # noqa: E402
from labels.options import ReadOptions  # noqa: E402
from labels.read import read_labels  # noqa: E402
from labels.search import find_labels  # noqa: E402
from util.cli import ArgumentParser, run_script  # noqa: E402
from util.errors import RunError, UsageError  # noqa: E402

FOUND_FIRST = (".csv", ".tsv", ".jsonl", ".json", ".parquet")  # others may be asked for by name


@dataclass(frozen=True)
class Outcome:
    """What the program did: either labels or an error. said: its lines on stderr.

    counts: images of each label. sets: the labels of each image, by the stem of its file.
    """

    said: str
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    images: int = 0
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[str, int] | None = None

    def fits(self, right: Right) -> bool:
        """Whether this is the right answer."""
        listed = (each.split() for each in right.files.split(", ") if each)
        sets = {stem: tuple(sorted(labels)) for stem, *labels in listed}
        return (
            self.counts == right.counts
            and self.images == right.images
            and (not sets or sets == self.sets)
            and (right.splits is None or right.splits == self.splits)
        )

    def verdict(self, case: Case) -> str:
        """right; stopped: right, too; refused: the program should read this; or WRONG."""
        if not self.error:
            return "right" if any(map(self.fits, case.right)) else "WRONG"
        return "stopped" if case.stops and re.search(case.stops, self.error) else "refused"

    def summary(self) -> str:
        """The message or the labels, in one line."""
        if self.error:
            return f"stops: {self.error}"
        return describe(Right(self.counts, self.images, splits=self.splits))


def describe(right: Right) -> str:
    """An answer in words."""
    labels = ", ".join(f"{label} {n}" for label, n in sorted(right.counts.items()))
    splits = ", ".join(f"{n} {split}" for split, n in (right.splits or {}).items())
    return f"{right.images} images: {labels or 'no labels'}" + (f" ({splits})" if splits else "")


def read_case(case: Case, folder: Path) -> Outcome:
    """Read a case in the folder of all cases. Raises what the program should not raise."""
    image_path = folder / case.image_path
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            path = folder / case.annotations if case.annotations else None
            path = path or find_labels(image_path, "train")
            images = read_labels(path, image_path, ReadOptions(**case.options))
            places = [Path(name) for name in images.file_names]
            if case.find:
                images, places = load_data_set(image_path, images, keep_unlabelled=True)
    except UsageError as error:
        return Outcome(said.getvalue(), str(error).replace(f"{folder}/", ""))
    if case.find and (missing := [place for place in places if not place.is_file()]):
        raise AssertionError(f"{missing[0]} is said to be found, and is no file")
    pairs = zip(places, images.label_sets, strict=True)
    return Outcome(
        said.getvalue(),
        counts=dict(Counter(label for labels in images.label_sets for label in labels)),
        images=len(set(places)),
        sets={place.stem.replace(" ", "_"): tuple(sorted(labels)) for place, labels in pairs},
        splits=dict(Counter(images.splits)) if images.splits else None,
    )


def found_alone(case: Case, folder: Path, target: Path) -> Iterator[Case]:
    """The same table, alone with its images in `target`: given the images' folder, or its parent.

    Nothing for a case that is not one table with images.
    """
    if not case.annotations or not case.find or not (folder / case.annotations).is_file():
        return
    table, images = Path(case.annotations), Path(case.image_path)
    if table.parent not in (images.parent, images):
        return
    (target / images).parent.mkdir(parents=True, exist_ok=True)
    others = shutil.ignore_patterns("*.csv", "*.txt", "*.json*")
    shutil.copytree(folder / images, target / images, ignore=others)
    shutil.copy(folder / table, target / table)
    stops = case.stops
    if table.suffix not in FOUND_FIRST:
        stops = f"{stops}|{re.escape(table.name)}".strip("|")
    for where in dict.fromkeys((table.parent, images)):
        name = f"{case.name}, found from {where.name}"
        yield replace(case, name=name, annotations=None, image_path=str(where), stops=stops)


def outcomes(folder: Path, cases: list[Case] = CASES) -> Iterator[tuple[Case, Outcome]]:
    """Each case in `folder`, given and found alone. A traceback is an outcome, too."""
    for case in cases:
        if not (folder / (case.annotations or case.image_path)).exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            alone = Path(temporary) / "in/a/deep/folder"  # far from others' files
            pairs = [(case, folder), *((each, alone) for each in found_alone(case, folder, alone))]
            for each, where in pairs:
                try:
                    yield each, read_case(each, where)
                except Exception as error:  # a traceback for the user
                    told = f"TRACEBACK {type(error).__name__}: {error}"
                    yield replace(each, right=(), stops=""), Outcome("", told)


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    shared = HERE.parents[2] / "shared/cases"
    parser.add_argument("--cases", type=Path, default=shared, help="the folder of all cases")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the table and, on stderr, how many cases have each verdict."""
    if not args.cases.is_dir():
        raise UsageError(f"there is no folder {args.cases}: name it with --cases")
    print("| case | what the program does | right answer | |\n|" + " --- |" * 4)
    verdicts = Counter()
    for case, outcome in outcomes(args.cases):
        answers = [describe(right) for right in case.right] + ["stops"] * bool(case.stops)
        verdict = outcome.verdict(case)
        cells = (case.name, outcome.summary(), " or ".join(answers), verdict)
        print(f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |", flush=True)
        verdicts[verdict] += 1
    print(", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()), file=sys.stderr)
    if verdicts["WRONG"]:
        raise RunError(f"{verdicts['WRONG']} cases are read wrongly")


if __name__ == "__main__":
    run_script(main, get_args_parser())
