"""Labels that say more than which label is there stop the run."""

from pathlib import Path

import pytest

from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError


def read(folder: Path, cells: list[str], separator: str | None = None) -> list[tuple[str, ...]]:
    path = folder / "labels.csv"
    rows = [f'{i}.jpg,"{cell}"' for i, cell in enumerate(cells)]
    path.write_text("\n".join(["file_name,labels", *rows]))
    return read_labels(path, options=ReadOptions(separator=separator)).label_sets


@pytest.mark.parametrize(
    "cells",
    [
        ["cat:2|dog:1", "dog:1"],
        ["cat=0.9|dog=0.8", "dog=0.7"],
        ["cat (0.9)|dog (0.8)", "dog (0.7)"],
        ["cat 0.1 0.2 0.3 0.4", "dog 0.1 0.1 0.2 0.2"],
        ["cat|-dog", "dog"],
        ["cat|not dog", "dog"],
        ["cat|no-dog", "dog"],
    ],
)
def test_counts_scores_boxes_and_denials_stop(tmp_path, cells):
    with pytest.raises(UsageError, match="confirm with --separator"):
        read(tmp_path, cells)
    assert read(tmp_path, cells, "|")[0] == tuple(cells[0].split("|"))


@pytest.mark.parametrize(
    "cells",
    [
        ["mask", "no mask"],
        ["10:00|am", "pm"],
        ["v1.0|x-ray", "label 7"],
        ["No Finding", "Mass|Hernia"],
        ["-20 degrees|x", "x"],
    ],
)
def test_usual_labels_do_not(tmp_path, cells):
    assert read(tmp_path, cells) == [tuple(cell.split("|")) for cell in cells]
