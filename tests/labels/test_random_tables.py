"""Random tables in any layout: the same label sets are read back, or the program stops."""

import contextlib
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from labels.options import ReadOptions
from labels.read import read_labels
from labels.values import is_number
from util.errors import UsageError

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = ("cat", "dog", "hat", "cup", "pen", "bus", "tree", "car", "Zug", "oak")
PHRASES = ("red dress", "blue hat", "traffic light", "No Finding", "Eye of the Storm", "red hat")
FOREIGN = ("Schlüssel", "Äpfel", "Straße", "猫", "狗", "红色 裙子", "قطة", "كلب", "кот", "ประตู")
ODD = ("x-ray", "R&B", "C++", "dog (small)", "no", "1", "12", "train", "label", "A", "image", "id")
NO_COLUMNS = {"no", "id", "image", "train", "label"}  # as names of columns these are no labels
ODD += ("black/white", "cats and dogs", "rock'n'roll", "3.5", "v1.0", "@home", "a_b", "50%")
WITH_COMMA = ("dog, small", "Paris, Texas", "a|b", "x;y", "#1 fan")
SEPARATORS = ("|", ";", ",", "#", "/", "\n", " and ", " ", "; ", ", ", " | ", " / ")
LISTS = {
    "python": str,
    "tuple": lambda labels: f"({', '.join(map(repr, labels))}{',' * (len(labels) == 1)})",
    "set": lambda labels: "{" + ", ".join(map(repr, labels)) + "}",
    "json": json.dumps,
    "numpy": lambda labels: "[" + " ".join(map(repr, labels)) + "]",
    "studio": lambda labels: json.dumps({"choices": labels}),
}
WORDS = (("1", "0"), ("1.0", "0.0"), ("x", ""), ("X", ""), ("yes", "no"), ("Y", "N"), ("1", ""))
WORDS += (("true", "false"), ("TRUE", "FALSE"), ("True", "False"), ("1", "-1"))
EXTRA = {  # columns that are no labels, with a value for row i
    "id": lambda i: i,
    "": lambda i: i,
    "Unnamed: 0": lambda i: i,
    "index": lambda i: i % 2,
    "width": lambda i: 640,
    "height": lambda i: 480 + i % 3,
    "fold": lambda i: i % 2,
    "score": lambda i: 0.25 * (i % 4),
    "confidence": lambda i: 0.5,
    "url": lambda i: f"https://host/{i}.jpg",
    "author": lambda i: ("Ann", "Bob")[i % 2],
    "date": lambda i: f"2024-01-{i + 1:02d}",
    "md5": lambda i: f"{i * 7919:032x}",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252", "gzip")


@st.composite
def tables(draw, labels=PLAIN, least=0, rows=(6, 24)):
    """[(file name, its labels)]: each label is on an image, each image has a name of its own."""
    names = draw(st.lists(st.sampled_from(labels), min_size=2, max_size=7, unique=True))
    count = draw(st.integers(*rows))
    one = st.lists(st.sampled_from(names), min_size=least, max_size=4, unique=True)
    sets = draw(st.lists(one, min_size=count, max_size=count))
    assume(any(sets))
    stems = ("p{}.jpg", "im/{:06d}.png", "{}.JPG", "a b {}.jpeg", "{:x}f.webp")
    stem = draw(st.sampled_from(stems))
    return [(stem.format(i), found) for i, found in enumerate(sets)]


def csv_text(header, rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue()


def encoded(text, encoding):
    return gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)


def read(content, name="labels.csv", **options):
    """The label set of each image in a file of these bytes. Raises UsageError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        images = read_labels(path, options=ReadOptions(**options))
    return dict(zip(images.file_names, map(frozenset, images.label_sets), strict=True))


def truth(table):
    return {name: frozenset(labels) for name, labels in table}


def right_or_stopped(expected, content, name="labels.csv", **options):
    """Whether it was read; fails if it was read wrongly."""
    try:
        found = read(content, name, **options)
    except UsageError:
        return False
    assert found == expected
    return True


def bare(separator):
    """A separator as --separator has it: without spaces around it."""
    return separator.strip(" ") or " "


def also_alone(table):
    """Whether each label is the only one of an image."""
    alone = {label for _, labels in table if len(labels) == 1 for label in labels}
    return all(set(labels) <= alone for _, labels in table)


def uses(table, text):
    """Whether a label contains this."""
    return any(text in label for _, labels in table for label in labels)


@given(
    tables(PLAIN + PHRASES + FOREIGN + ODD), st.sampled_from(SEPARATORS), st.sampled_from(",;\t")
)
@SLOW
def test_with_a_separator_that_is_given_any_label_is_read(table, separator, delimiter):
    assume(not uses(table, bare(separator)))
    assume(not all(is_number(label) for _, labels in table for label in labels))  # these stop
    rows = [(name, separator.join(labels)) for name, labels in table]
    text = csv_text(("file_name", "labels"), rows, delimiter)
    assert read(text, separator=bare(separator)) == truth(table)


@given(tables(PLAIN + FOREIGN[:2]), st.sampled_from("|;,"))
@SLOW
def test_usual_separators_need_no_flag(table, separator):
    """Short words, at least one cell of several labels."""
    assume(any(len(labels) > 1 for _, labels in table))
    rows = [(name, separator.join(labels)) for name, labels in table]
    assert read(csv_text(("file_name", "labels"), rows)) == truth(table)


@given(
    tables(PLAIN + PHRASES + FOREIGN + ODD),
    st.sampled_from(SEPARATORS),
    st.sampled_from(",;\t"),
    st.sampled_from(ENCODINGS),
    st.sampled_from(("labels", "tags", "label", "Finding Labels", "Target", "objects")),
)
@SLOW
def test_a_guessed_separator_is_right_or_stops(table, separator, delimiter, encoding, column):
    assume(not uses(table, bare(separator)))
    if bare(separator) not in "|;,\n":  # words that only occur together are one label for all
        assume(also_alone(table))
    rows = [(name, separator.join(labels)) for name, labels in table]
    try:
        content = encoded(csv_text(("file_name", column), rows, delimiter), encoding)
    except UnicodeEncodeError:
        assume(False)
    right_or_stopped(truth(table), content)


@given(tables(PLAIN + PHRASES + FOREIGN, least=1), st.booleans())
@SLOW
def test_a_row_for_each_label_keeps_labels_whole(table, shuffled):
    assume(any(len(labels) > 1 for _, labels in table))
    rows = [(name, label) for name, labels in table for label in labels]
    rows = sorted(rows, key=lambda row: row[1]) if shuffled else rows
    right_or_stopped(truth(table), csv_text(("file_name", "label"), rows))


@given(tables(PLAIN + PHRASES + FOREIGN + ODD + WITH_COMMA), st.sampled_from(sorted(LISTS)))
@SLOW
def test_cells_that_are_lists(table, kind):
    assume(kind != "set" or all(labels for _, labels in table))
    rows = [(name, LISTS[kind](labels)) for name, labels in table]
    right_or_stopped(truth(table), csv_text(("file_name", "labels"), rows))


@given(tables(PLAIN, least=1), st.sampled_from(sorted(LISTS)))
@SLOW
def test_lists_of_plain_words_are_read(table, kind):
    rows = [(name, LISTS[kind](labels)) for name, labels in table]
    assert read(csv_text(("file_name", "labels"), rows)) == truth(table)


@given(
    tables(PLAIN + PHRASES + FOREIGN + ODD, least=1),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(sorted(EXTRA)), unique=True, max_size=4),
    st.booleans(),
    st.sampled_from(",;\t"),
)
@SLOW
def test_columns_of_yes_and_no(table, words, extra, first, delimiter):
    """With columns that are no labels, before or behind the labels'."""
    labels = list(dict.fromkeys(label for _, found in table for label in found))
    assume(not NO_COLUMNS.intersection(labels))
    more = {name: [EXTRA[name](i) for i in range(len(table))] for name in extra}
    header = [*extra, "file_name", *labels] if first else ["file_name", *labels, *extra]
    rows = []
    for i, (name, found) in enumerate(table):
        cells = [words[label not in found] for label in labels]
        others = [more[key][i] for key in extra]
        rows.append([*others, name, *cells] if first else [name, *cells, *others])
    text = csv_text(header, rows, delimiter)
    expected = truth(table)
    right_or_stopped(expected, text)
    if set(labels) <= {*PLAIN, *PHRASES, *FOREIGN}:
        assert read(text, label_columns=tuple(labels), file_column="file_name") == expected


@given(tables(PLAIN), st.sampled_from(WORDS[:2]))
@SLOW
def test_plain_columns_of_0_and_1_are_read(table, words):
    rows = [(name, *(words[x not in found] for x in PLAIN)) for name, found in table]
    assert read(csv_text(("file_name", *PLAIN), rows)) == truth(table)


@given(
    tables(PLAIN + PHRASES + FOREIGN),
    st.sampled_from(("Confidence", "value", "present", "is_present")),
    st.sampled_from((("1", "0"), ("true", "false"), ("yes", "no"))),
    st.sampled_from((("ImageID", "LabelName"), ("file_name", "label"), ("image", "tags"))),
)
@SLOW
def test_a_long_table_with_a_column_of_truth(table, column, words, names):
    labels = sorted({label for _, found in table for label in found})
    rows = [(name, x, words[x not in found]) for name, found in table for x in labels]
    right_or_stopped(truth(table), csv_text((*names, column), rows))


@given(
    tables(PLAIN + PHRASES + FOREIGN, least=1),
    st.sampled_from(("label_{}", "label{}", "tag {}", "class.{}", "Label-{}")),
    st.integers(0, 1),
)
@SLOW
def test_numbered_columns_add_up(table, name, start):
    width = max(len(labels) for _, labels in table)
    header = ["file_name", *(name.format(i + start) for i in range(width))]
    rows = [[file, *labels, *[""] * (width - len(labels))] for file, labels in table]
    right_or_stopped(truth(table), csv_text(header, rows))


@given(tables(PLAIN + PHRASES + FOREIGN + ODD + WITH_COMMA), st.booleans(), st.booleans())
@SLOW
def test_jsonl_and_json(table, lines, mapping):
    records = [{"file_name": name, "labels": labels} for name, labels in table]
    if lines:
        right = right_or_stopped(truth(table), "\n".join(map(json.dumps, records)), "labels.jsonl")
    else:
        content = dict(table) if mapping else records
        right = right_or_stopped(truth(table), json.dumps(content), "labels.json")
    odd = {label for _, labels in table for label in labels} - {*PLAIN, *PHRASES, *FOREIGN}
    assert right or odd, "lists of words in JSON leave nothing open"


# --- mutations: a table is changed, and is read as what it now says, or not at all ---------------


@given(tables(least=1), st.data())
@SLOW
def test_another_separator_in_some_cells(table, data):
    assume(also_alone(table))
    usual, other = data.draw(st.permutations("|;,/#").map(lambda order: order[:2]))
    where = data.draw(st.sets(st.sampled_from(range(len(table))), min_size=1))
    rows = [(n, (other if i in where else usual).join(s)) for i, (n, s) in enumerate(table)]
    right_or_stopped(truth(table), csv_text(("file_name", "labels"), rows))


@given(tables(PLAIN + FOREIGN, least=1), st.data())
@SLOW
def test_another_encoding(table, data):
    """Text in an encoding that nobody can know stops the run, or the guess is said."""
    encoding = data.draw(
        st.sampled_from(("cp1252", "latin-1", "utf-16-le", "utf-16-be", "utf-32", "gb18030"))
        | st.sampled_from(("cp1251", "cp1256", "mac-roman", "cp437", "shift-jis", "cp1250", "big5"))
    )
    rows = [(name, "|".join(labels)) for name, labels in table]
    text = csv_text(("file_name", "labels"), rows)
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    with contextlib.suppress(UnicodeDecodeError):  # 猫 in gb18030 is è in UTF-8
        assume(content.decode() == text or "\0" in content.decode())
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = read(content)
    except UsageError:
        return
    assert found == truth(table) or "read as Windows' cp1252, for example" in said.getvalue()


@given(tables(least=1), st.data())
@SLOW
def test_other_columns(table, data):
    """Their order, names, empty ones, spaces, empty rows, repeated rows, line ends."""
    labels = {name: "|".join(found) for name, found in table}
    extra = data.draw(st.lists(st.sampled_from(sorted(EXTRA)), unique=True, max_size=3))
    names = {
        "file": data.draw(st.sampled_from(("file_name", "Image Index", "image_id", "photo", "X"))),
        "labels": data.draw(st.sampled_from(("labels", "Tags", "Finding Labels", "what", "Y"))),
    }
    order = data.draw(st.permutations([*names, *extra]))
    rows = [
        [{"file": n, "labels": labels[n]}.get(c) or EXTRA.get(c, str)(i) for c in order]
        for i, n in enumerate(labels)
    ]
    rows += data.draw(st.lists(st.sampled_from(rows), max_size=3))
    text = csv_text([names.get(c, c) for c in order], rows, data.draw(st.sampled_from(",;\t")))
    lines = text.splitlines()
    if data.draw(st.booleans()):
        lines.insert(data.draw(st.integers(1, len(lines))), "")
    end = data.draw(st.sampled_from(("\n", "\r\n", "\r")))
    right_or_stopped(truth(table), end.join(lines) + data.draw(st.sampled_from(("", end, 2 * end))))


@given(tables(PLAIN, least=1))
@SLOW
def test_cells_without_quotes(table):
    """Labels separated as the columns are: more cells than columns."""
    lines = ["file_name,labels", *(",".join([name, *labels]) for name, labels in table)]
    right_or_stopped(truth(table), "\n".join(lines))


@given(tables(PLAIN, least=1), st.data())
@SLOW
def test_damaged_lists(table, data):
    """A bracket or quote that is cut off stops the run: it never becomes part of a label."""
    kind = data.draw(st.sampled_from(sorted(LISTS)))
    rows = [[name, LISTS[kind](labels)] for name, labels in table]
    at = data.draw(st.integers(0, len(rows) - 1))
    cell = rows[at][1]
    cut = data.draw(st.sampled_from((cell[1:], cell[:-1], cell[:-2], cell[2:], cell[:-1] + ")")))
    rows[at][1] = cut
    try:
        found = read(csv_text(("file_name", "labels"), rows))
    except UsageError:
        return
    wrong = {label for s in found.values() for label in s} - set(PLAIN)
    assert not wrong, f"{cut!r} became {wrong}"
