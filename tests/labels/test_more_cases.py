"""More label files and folders: Kaggle sets, spreadsheets, exports of tools, other languages.

Each line of more_cases.jsonl has a name, files and pictures (im/a.jpg to im/f.jpg, if it names
none), the right answer (the labels of each image, by its stem), and whether it is right to stop.
"""

import datetime
import json
import sys
from pathlib import Path

import pytest
from case_copies import pictures
from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
from cases import Case
from label_cases import read_case

FILE = Path(__file__).with_name("more_cases.jsonl")
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
USUAL = [f"im/{letter}.jpg" for letter in "abcdef"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_case_is_read_as_its_owner_means_it_or_stops(case, tmp_path):
    folder = tmp_path / "in/a/deep/folder"
    pictures(folder, case.get("pictures", USUAL))
    for name, text in case["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(case.get("encoding", "utf-8")))
    place = Case(
        case["name"],
        case.get("annotations"),
        case.get("image_path", "im"),
        options=case.get("options", {}),
    )
    outcome = read_case(place, folder)
    if outcome.error:
        assert case.get("stops"), outcome.error
        return
    right = {stem: tuple(sorted(labels)) for stem, labels in case.get("right", {}).items()}
    assert outcome.sets == right, f"{outcome.said}"
    assert "splits" not in case or outcome.splits == case["splits"]


def test_cells_of_a_workbook_that_are_merged_or_dates_stop(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    pictures(tmp_path / "im", ["a.jpg", "b.jpg", "c.jpg"])
    book = openpyxl.Workbook()
    for row in (("file_name", "label"), ("a.jpg", "cat"), ("b.jpg", None), ("c.jpg", "dog")):
        book.active.append(row)
    book.active.merge_cells("B2:B3")
    book.save(tmp_path / "labels.xlsx")
    case = Case("", "labels.xlsx", "im")
    assert "merged cells (B2:B3)" in read_case(case, tmp_path).error
    book.active.unmerge_cells("B2:B3")
    book.save(tmp_path / "labels.xlsx")
    assert read_case(case, tmp_path).counts == {"cat": 1, "dog": 1}
    book.active["B2"] = datetime.date(2024, 3, 1)
    book.save(tmp_path / "labels.xlsx")
    assert "made a date of it" in read_case(case, tmp_path).error
