"""Tables as programs write them: encodings, Excel's files, parquet, CelebA's text."""

import builtins
import gzip
from pathlib import Path

import pytest
from conftest import write_table

from images.find import find_images
from labels.read import read_labels
from labels.text import western
from report.marked import PROGRAM
from report.prediction_files import PredictionFiles
from util.errors import UsageError

ABOUT = {
    "program": PROGRAM,
    "root": "/a",
    "checkpoint": "a.pt",
    "checkpoint_sha256": "",
    "flags": {},
}
TABLE = "file_name,labels\na.jpg,Äpfel|café\nb.jpg,Straße\nc.jpg,café\n"
SETS = [("Äpfel", "café"), ("Straße",), ("café",)]
ENCODED = {
    "utf-8": TABLE.encode(),
    "utf-8 with a byte order mark": TABLE.encode("utf-8-sig"),
    "utf-16": TABLE.encode("utf-16"),
    "utf-16 without a mark": TABLE.encode("utf-16-le"),
    "utf-16, the other order": TABLE.encode("utf-16-be"),
    "cp1252": TABLE.encode("cp1252"),
    "NFD": TABLE.replace("Ä", "A\u0308").encode(),
    "invisible": TABLE.replace("caf", "ca\u200bf").replace("Str", " Str").encode(),
    "sep=": f"sep=;\r\n{TABLE}".replace(",", ";").encode(),
    "sep=, quoted": f'"sep=;"\n{TABLE}'.replace(",", ";").encode(),
    "gzip": gzip.compress(TABLE.encode()),
    "gzip, cp1252": gzip.compress(TABLE.encode("cp1252")),
}


@pytest.mark.parametrize("content", ENCODED.values(), ids=ENCODED)
def test_encodings(tmp_path, content, capsys):
    path = tmp_path / ("labels.csv.gz" if content[:2] == b"\x1f\x8b" else "labels.csv")
    path.write_bytes(content)
    assert read_labels(path).label_sets == SETS
    said = "row 2 is not UTF-8; read as Windows' cp1252, for example 'Äpfel'"
    plain = gzip.decompress(content) if path.suffix == ".gz" else content
    assert (said in capsys.readouterr().err) == (plain == TABLE.encode("cp1252"))


OTHERS = [("Müller", "cp850"), ("Müller", "mac_roman"), ("café", "mac_roman"), ("Äpfel", "cp437")]
OTHERS += [("кошка", "cp1251"), ("γάτα", "cp1253"), ("żółw", "cp1250"), ("猫", "gbk")]
OTHERS += [("猫犬", "shift_jis"), ("Müller", "utf-8"), ("кот", "koi8-r"), ("Škoda", "cp1250")]


@pytest.mark.parametrize(("word", "encoding"), OTHERS)
def test_other_encodings_are_not_taken_for_cp1252(tmp_path, word, encoding):
    assert western(word.encode(encoding)) is None
    path = tmp_path / "labels.csv"
    path.write_bytes(b"file_name,labels\na.jpg,caf\xe9\nb.jpg," + word.encode(encoding) + b"\n")
    with pytest.raises(UsageError, match="row 2, is not UTF-8: save the file as UTF-8"):
        read_labels(path)


@pytest.mark.parametrize("word", ["Müller", "créée", "naïve", "l’été", "25 °C", "cœur", "El niño"])
def test_western_words(word):
    assert western(word.encode("cp1252")) == word


def test_our_own_csv_shows_accents_in_excel_and_is_read_back(tmp_path):
    scores = {"Äpfel": 0.9, "café": 1}
    result = {"image": "-ü.jpg", "predicted": ["Äpfel", "café"], "labels": scores}
    with PredictionFiles(tmp_path, ABOUT, [*scores]) as files:
        files.add([result, {**result, "image": "b.jpg", "predicted": ["café"]}])
    assert (tmp_path / "predictions.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    images = read_labels(tmp_path / "predictions.csv")
    assert images.label_sets == [("Äpfel", "café"), ("café",)]
    assert images.file_names == ["-ü.jpg", "b.jpg"], "the quote against formulas is taken away"


CELEBA = "2\nBald Young \na.jpg  1 -1\nb.jpg -1  1\n"


def test_celeba_text(tmp_path):
    path = tmp_path / "list_attr_celeba.txt"
    path.write_text(CELEBA)
    assert read_labels(path).label_sets == [("Bald",), ("Young",)]
    for content, sentence in (
        (CELEBA.replace("2\n", "3\n", 1), "has 2 rows, its first line says 3"),
        (CELEBA.replace("-1\n", "\n"), "row 3, has 2 cells instead of a file name and 2 values"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=sentence):
            read_labels(path)


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "labels.parquet"

    def written(**columns) -> Path:
        parquet.write_table(pyarrow.table(columns), path)
        return path

    names = ["a.jpg", "b.jpg"]
    lists = [["cat", "red dress"], []]
    assert read_labels(written(file_name=names, labels=lists)).label_sets == [tuple(lists[0]), ()]
    images = read_labels(written(file_name=names, cat=[1, 0], dog=[True, False], id=[7, 8]))
    assert images.label_sets == [("cat", "dog"), ()]
    with pytest.raises(UsageError, match="holds the pictures themselves"):
        read_labels(written(image=[{"bytes": b"x", "path": "a"}], labels=["cat"]))
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(UsageError, match=r"labels\.parquet cannot be read"):
        read_labels(path)


def test_xlsx(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "labels.xlsx"

    def written(*sheets: list) -> Path:
        book = openpyxl.Workbook()
        book.remove(book.active)
        for rows in sheets:
            sheet = book.create_sheet()
            for row in rows:
                sheet.append(row)
        book.save(path)
        return path

    header = ["file_name", "cat", "Straße"]
    read = read_labels(written([header, ["a.jpg", 1, 0], ["b.jpg", 0, 1]], []))
    assert (read.label_sets, read.kind) == ([("cat",), ("Straße",)], "xlsx")
    read = read_labels(written([["file_name", "labels"], ["a.jpg", "cat, dog"], ["b.jpg", None]]))
    assert read.label_sets == [("cat", "dog"), ()]
    with pytest.raises(UsageError, match="has several sheets"):
        read_labels(written([header, ["a.jpg", 1, 0]], [header, ["b.jpg", 1, 0]]))
    with pytest.raises(UsageError, match="row 2, has a formula without a result"):
        read_labels(written([header, ["a.jpg", "=1+0", 0]]))
    path.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UsageError, match=r"labels\.xlsx cannot be read"):
        read_labels(path)
    path.with_suffix(".xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(UsageError, match=r"save it as \.xlsx or as CSV"):
        read_labels(path.with_suffix(".xls"))


@pytest.mark.parametrize(("name", "start"), [("x.parquet", b"PAR1"), ("x.xlsx", b"PK\x03\x04")])
def test_a_missing_package_is_named(tmp_path, name, start, monkeypatch):
    (tmp_path / name).write_bytes(start)
    package = "pyarrow" if name == "x.parquet" else "openpyxl"
    real = builtins.__import__

    def missing(module, *args, **kwargs):
        if module.startswith(package):
            raise ImportError(module)
        return real(module, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", lambda name: missing(name))
    with pytest.raises(UsageError, match=f"needs the package {package}: pip install {package}"):
        read_labels(tmp_path / name)


def test_a_table_of_names_without_suffix(tmp_path):
    """Planet's table: train_0 is train_0.jpg, the only file of that stem."""
    for i in range(3):
        (tmp_path / f"train_{i}.jpg").write_bytes(b"x")
    rows = [(f"train_{i}", "haze primary") for i in range(3)]
    images = read_labels(write_table(tmp_path, ["image_name", "tags"], rows))
    assert [p.name for p in find_images(tmp_path, images)] == [f"train_{i}.jpg" for i in range(3)]
