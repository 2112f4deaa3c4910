"""Label files and folders as people have them: each gives the right answer or stops."""

import sys

import pytest
from case_copies import write_copies
from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import label_cases
from cases import CASES

SHARED = REPO.parent / "shared/cases"


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    write_copies(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("where", ["shared", "copies"])
def test_each_case_gives_the_right_labels_or_stops(case, where, request):
    """Given with --annotations, and found: from the image folder and from its parent."""
    folder = SHARED if where == "shared" else request.getfixturevalue("copies")
    outcomes = list(label_cases.outcomes(folder, [case]))
    if not outcomes:
        pytest.skip(f"{folder} has no {case.annotations or case.image_path}")
    wrong = [
        f"{each.name}: {verdict}: {outcome.summary()}"
        for each, outcome in outcomes
        if (verdict := outcome.verdict(each)) not in ("right", "stopped")
    ]
    assert not wrong, "\n".join(wrong)
