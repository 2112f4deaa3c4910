"""Labels that are probably misspelt."""

from labels.checks import likely_misspellings
from labels.read import read_labels
from labels.vocabulary import count_labels


def vocabulary_of(**counts: int):
    sets = [(label.replace("_", " "),) for label, n in counts.items() for _ in range(n)]
    return count_labels(sets, sorted({s[0] for s in sets}))


def test_misspelt_labels_are_found():
    found = likely_misspellings(
        vocabulary_of(
            person=50,
            persn=1,
            preson=2,
            Person=1,
            peerson=3,
            horse=20,
            house=18,
            cat=9,
            car=1,
            traffic_light=8,
            trafficlight=8,
        )
    )
    assert dict(found) == {
        "persn": "person",
        "preson": "person",
        "Person": "person",
        "peerson": "person",
        "trafficlight": "traffic light",
    }


def test_real_labels_are_not_taken_for_misspelt(shared):
    for file in (
        "coco2014-labels/instances_train2014.json",
        "coco2014-labels/instances_val2014.json",
        "ccp/annotations/train.json",
        "coco-sample/annotations/instances_train2014.json",
    ):
        images = read_labels(shared / file)
        alike = likely_misspellings(count_labels(images.label_sets, images.categories))
        assert alike == [], file
