"""Rules files: what each line means, what is refused, and which rules annotations never break."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.annotated import AnnotatedImages
from labels.find_rules import find_rules, rules_file
from labels.rules import EXCLUSIVE, IMPLIES, ONE_OF, parse_rules, read_rules, write_rule
from labels.vocabulary import count_labels
from util.errors import UsageError

LABELS = ("dog", "puppy", "pet", "day", "night", "traffic light", "x", "a", "b", "a x b", "c, d")


def read(line: str) -> list[tuple[str, list[str]]]:
    rules = parse_rules(line, LABELS, "rules.txt")
    return [(rule.kind, [LABELS[i] for i in rule.labels]) for rule in rules]


@pytest.mark.parametrize(
    ("line", "kind", "names"),
    [
        ("puppy -> dog", IMPLIES, ["puppy", "dog"]),
        ("puppy->dog,pet   # a comment", IMPLIES, ["puppy", "dog", "pet"]),
        ("traffic light x dog", EXCLUSIVE, ["traffic light", "dog"]),
        ("day x night x dog", EXCLUSIVE, ["day", "night", "dog"]),
        ("a x x", EXCLUSIVE, ["a", "x"]),
        ('"a x b" x dog', EXCLUSIVE, ["a x b", "dog"]),
        ('puppy -> "c, d"', IMPLIES, ["puppy", "c, d"]),
        ("puppy -> c, d", IMPLIES, ["puppy", "c, d"]),
        ("one of: day night traffic light", ONE_OF, ["day", "night", "traffic light"]),
        ("One of : day, night,traffic light", ONE_OF, ["day", "night", "traffic light"]),
        ("at most one of: day night", EXCLUSIVE, ["day", "night"]),
    ],
)
def test_a_line_is_a_rule(line, kind, names):
    assert read(f"\n# rules\n  {line}  \n") == [(kind, names)]
    assert parse_rules(f"\n\n{line}", LABELS, "rules.txt")[0].line == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("pupy -> dog", "does not know the label 'pupy'; did you mean 'puppy'?"),
        ("one of: dya night", "does not know the label 'dya'; did you mean 'day'?"),
        ("dog x 'puppy'", "does not know the label"),
        ('dog x "zebra"', "does not know the label 'zebra'"),
        ("DOG -> pet", "does not know the label 'DOG'; did you mean 'dog'?"),
        ("dog", "this is no rule: write `a -> b`"),
        ("puppy -> dog -> pet", "this is no rule"),
        ("dog x dog", "`dog x dog` names a label twice"),
        ("one of: dog", "`one of: dog` needs two labels or more"),
        ("a x b x dog", 'can mean `at most one of: a, b, dog` or `"a x b" x dog`: separate'),
    ],
)
def test_other_lines_are_refused(line, why):
    with pytest.raises(UsageError) as error:
        parse_rules(f"puppy -> dog\n{line}", LABELS, "my/rules.txt")
    assert str(error.value).startswith("my/rules.txt, line 2: ")
    assert why in str(error.value)


def test_signs_of_comments_in_names():
    """Never read as another label, or left out, without a word."""
    labels = ["day", "day #1", "dog", "night", "#hash"]
    for line, why in (
        ("dog -> day #1", 'can mean `dog -> day` or `dog -> "day #1"`'),
        ("one of: dog, night, day #1", "can mean `one of: dog, night, day` or"),
        ("#hash -> dog", 'can mean `"#hash" -> dog` or be a comment'),
    ):
        with pytest.raises(UsageError, match=re.escape(why)):
            parse_rules(line, labels, "rules.txt")
    for line, names in (
        ('dog -> "day #1"  # the first', ("dog", "day #1")),
        ('"#hash"->dog', ("#hash", "dog")),
        ("day #1 -> dog", ("day #1", "dog")),
        ("dog -> day  # 1", ("dog", "day")),
    ):
        (rule,) = parse_rules(line, labels, "rules.txt")
        assert tuple(labels[i] for i in rule.labels) == names
        assert parse_rules(rule.text, labels, "rules.txt")[0].labels == rule.labels
    assert parse_rules("# dog -> day", labels, "rules.txt") == []


def test_the_text_of_a_rule_means_the_rule():
    labels = ["red", "green", "red, green"]
    (rule,) = parse_rules('one of: "red", "green"  # two', labels, "rules.txt")
    assert parse_rules(rule.text, labels, "rules.txt")[0].labels == rule.labels == (0, 1)


def test_a_line_with_many_separators_is_read_at_once():
    with pytest.raises(UsageError, match="does not know"):
        parse_rules("one of: " + "a " * 2000 + "zebra", ("a", "a a", "a a a"), "rules.txt")


def test_files_that_hold_no_rules(tmp_path):
    path = tmp_path / "rules.txt"
    with pytest.raises(UsageError, match="cannot read the rules"):
        read_rules(path, LABELS)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="row 1, is not UTF-8"):
        read_rules(path, LABELS)
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"has no rule: write `a -> b`"):
        read_rules(path, LABELS)
    path.write_text("\ufeffpuppy -> dog\n", "utf-8")
    assert [rule.text for rule in read_rules(path, LABELS)] == ["puppy -> dog"]


NAMES = st.text(st.sampled_from("abx ,:#->"), min_size=1, max_size=8).filter(
    lambda name: name == " ".join(name.split())
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([IMPLIES, EXCLUSIVE, ONE_OF]),
    st.lists(NAMES, min_size=2, max_size=4, unique=True),
)
def test_a_written_rule_is_read_again(kind, names):
    """Whatever signs the names contain: either as it was, or it is said that it is not clear."""
    refused = ""
    try:
        (rule,) = parse_rules(write_rule(kind, names), names, "rules.txt")
    except UsageError as error:
        refused = str(error)
    if refused:
        assert "can mean" in refused
    else:
        assert (rule.kind, [names[i] for i in rule.labels]) == (kind, names)


def test_which_sets_break_a_rule():
    sets = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]]).astype(bool)
    lines = "dog -> puppy, pet\ndog x pet\nat most one of: dog puppy pet\none of: dog puppy"
    broken = [rule.is_broken(sets).astype(int).tolist() for rule in parse_rules(lines, LABELS, "")]
    assert broken == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [1, 0, 0, 1, 1]]


# --- rules that annotations never break -----------------------------------------------------------


def planted(num_images: int = 600) -> np.ndarray:
    """N×7: dog, puppy (a dog), day, night, dusk (one of them), and two independent labels."""
    rng = np.random.default_rng(0)
    dog, free, other = (rng.random(num_images) < p for p in (0.3, 0.5, 0.1))
    puppy = dog & (rng.random(num_images) < 0.3)
    time = rng.choice(3, num_images, p=(0.5, 0.3, 0.2))
    return np.stack([dog, puppy, *(time == i for i in range(3)), free, other], 1)


def test_planted_rules_are_found_and_no_others():
    found = {(rule.kind, rule.labels) for rule in find_rules(planted(), "dpabcxy")}
    assert found == {(IMPLIES, (1, 0)), (ONE_OF, (2, 3, 4))}


def test_one_broken_image_is_enough_to_lose_a_rule():
    targets = planted()
    targets[0] = [0, 1, 1, 1, 0, 0, 0]
    found = {(rule.kind, rule.labels) for rule in find_rules(targets, "dpabcxy")}
    assert found == {(EXCLUSIVE, (2, 4)), (EXCLUSIVE, (3, 4))}


def test_independent_labels_give_no_rule():
    """At most 1 data set in 100 may have one, with few images as with many."""
    rng = np.random.default_rng(1)
    for num_images in (0, 1, 5, 30, 300, 3000):
        for _ in range(10):
            rates = rng.uniform(0, 0.5, 12)
            assert not find_rules(rng.random((num_images, 12)) < rates, "abcdefghijkl")


def test_what_follows_from_other_rules_is_left_out():
    rng = np.random.default_rng(0)
    animal = rng.random(900) < 0.5
    dog = animal & (rng.random(900) < 0.5)
    puppy = dog & (rng.random(900) < 0.5)
    car = ~animal & (rng.random(900) < 0.5)
    found = find_rules(np.stack([animal, dog, puppy, car], 1), ("animal", "dog", "puppy", "car"))
    assert {(rule.kind, rule.labels) for rule in found} == {
        (IMPLIES, (1, 0)),
        (IMPLIES, (2, 1)),
        (EXCLUSIVE, (0, 3)),
    }


def test_found_rules_are_a_rules_file():
    labels = np.array(["dog", "puppy", "day", "night", "a x b", "free", "other"])
    label_sets = [tuple(labels[row].tolist()) for row in planted()]
    vocabulary = count_labels(label_sets, [])
    names = [f"{i}.jpg" for i in range(len(label_sets))]
    images = AnnotatedImages("labels.csv", names, label_sets, sorted(labels.tolist()))
    text = rules_file(images, vocabulary)
    rules = parse_rules(text, vocabulary.labels, "found")
    assert {rule.text for rule in rules} == {"puppy -> dog", 'one of: day, night, "a x b"'}
    assert text.startswith("# never broken on 600 images of labels.csv")
    share = 100 * planted()[:, 0].mean()
    number = planted()[:, 1].sum()
    assert f"# {number} of {number}; dog is on {share:.3g} % of the images" in text


def test_rules_in_other_encodings(tmp_path):
    """UTF-16, as Windows PowerShell redirects to a file, and accents in two code points."""
    path = tmp_path / "rules.txt"
    path.write_text("K\u00e4fer -> dog\n", "utf-16")
    labels = ("K\u00e4fer", "dog")
    assert [rule.labels for rule in read_rules(path, labels)] == [(0, 1)]
    path.write_text("Ka\u0308fer x dog\n", "utf-8")
    assert [rule.labels for rule in read_rules(path, labels)] == [(0, 1)]
