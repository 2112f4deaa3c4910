"""predictions.csv gives `read_labels` exactly what predictions.jsonl says, whatever the names."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from labels.read import read_labels
from labels.text import folded
from report.marked import PROGRAM
from report.prediction_files import PredictionFiles, cannot_be_listed

ABOUT = {"program": PROGRAM, "root": "/a", "checkpoint": "a", "checkpoint_sha256": "", "flags": {}}
ODD = (
    "7",
    "nan",
    "a|b",
    "=1+1",
    "2021-01-01",
    "yes",
    "split",
    "labels",
    "hot dog",
    '"',
    "日本",
    "-",
)
TEXTS = st.sampled_from(ODD) | st.text(min_size=1, max_size=6)
LABELS = st.lists(
    TEXTS.filter(
        lambda t: (
            folded(t) == t != "" and "\0" not in t and t.encode("utf-8", "ignore").decode() == t
        )
    ),
    min_size=1,
    max_size=6,
    unique=True,
)
NAMES = st.lists(
    st.sampled_from(("=a.jpg", "'=a.jpg", " a.jpg", "b\\a.jpg", "x/a,b.jpg", "a\nb.jpg", "ü.png"))
    | st.text(st.characters(codec="utf-8"), max_size=5).map(lambda t: f"x{t}.jpg"),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(deadline=None)
@given(LABELS, NAMES, st.randoms(use_true_random=False))
def test_predictions_are_read_back(labels, names, random):
    names = [name for name in names if not cannot_be_listed(name)]
    sets = [[label for label in labels if random.random() < 0.5] for _ in names]
    scores = dict.fromkeys(labels, 0.25)
    with tempfile.TemporaryDirectory() as folder:
        for name, predicted in zip(names, sets, strict=True):  # each time it goes on
            with PredictionFiles(Path(folder), ABOUT, labels) as files:
                sets_found = [{"labels": predicted, "probability": 0.5}]
                result = {"decided_by": "map", "most_probable_sets": sets_found, "labels": scores}
                files.add([{"image": name, "predicted": predicted, **result}])
        if any(sets):
            found = read_labels(Path(folder, "predictions.csv"))
            assert found.file_names == names
            assert [set(s) for s in found.label_sets] == [set(s) for s in sets]
