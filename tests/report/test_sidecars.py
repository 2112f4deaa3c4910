"""sample.py --write xmp: side-cars of a messy folder; nothing of the user's is lost."""

import json
import os
import shutil
import subprocess

import pytest
from conftest import RANKED, call, refusal, write_picture
from PIL import Image
from test_sample import lines_of
from test_sample_folders import snapshot

import sample
from images.xmp import EMPTY, add_tags, read_tags
from report.sidecars import SideCars, check_tags
from util.errors import RunError, UsageError

RATED = EMPTY.replace(b"/>", b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/>', 1)


def write(folder, tags=("cat", "dog"), record=None) -> SideCars:
    """Side-cars for all pictures in a folder."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.[jJ][pP][gG]"))
    cars = SideCars(folder, record)
    cars.write({"image": name, "predicted": list(tags)} for name in names)
    return cars


@pytest.fixture
def photos(tmp_path):
    """Photos, and side-cars of every kind."""
    folder = tmp_path / "photos"
    for name in ("a.jpg", "it's/ü & b.JPG", "raw.jpg", "adobe.jpg", "rated.jpg", "link.jpg"):
        write_picture(folder / name)
    (folder / "raw.cr2").write_text("raw")
    for name in ("raw.xmp", "adobe.XMP", "rated.jpg.XMP"):
        (folder / name).write_bytes(RATED)
    (tmp_path / "synced.xmp").write_bytes(RATED)
    (folder / "link.jpg.xmp").symlink_to("../synced.xmp")
    return folder


def test_side_cars_beside_photos(photos, tmp_path, capsys):
    before = snapshot(photos)
    cars = write(photos)
    cars.report()
    assert "side-cars in" in capsys.readouterr().err
    assert cars.num_changed == 6
    after = snapshot(photos)
    new = {"a.jpg.xmp", "it's/ü & b.JPG.xmp", "raw.jpg.xmp"}
    assert after.keys() == before.keys() | new
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"adobe.XMP", "rated.jpg.XMP", "link.jpg.xmp"}
    assert all(after[name] == add_tags(RATED, ["cat", "dog"]) for name in changed)
    assert (photos / "link.jpg.xmp").is_symlink()
    assert (tmp_path / "synced.xmp").read_bytes() == after["link.jpg.xmp"]
    assert write(photos).num_changed == 0
    assert snapshot(photos) == after


def test_what_cannot_be_used_is_left_as_it_is(photos, capsys):
    """All others are written; the error names the first one."""
    long = "x" * 250 + ".jpg"
    for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", long):
        shutil.copy(photos / "a.jpg", photos / name)
    (photos / "b.jpg.xmp").write_bytes(RATED[:-9])
    os.mkfifo(photos / "c.jpg.xmp")
    (photos / "d.jpg.xmp").write_bytes(RATED)
    (photos / "d.jpg.xmp").chmod(0o444)
    (photos / "e.jpg.xmp").symlink_to("nowhere.xmp")
    (photos / "f.jpg.xmp").mkdir()
    cars = write(photos)
    assert (len(cars.refused), cars.num_changed) == (6, 6)
    assert (photos / "b.jpg.xmp").read_bytes() == RATED[:-9]
    assert (photos / "d.jpg.xmp").read_bytes() == RATED
    with pytest.raises(UsageError, match=r"b\.jpg\.xmp cannot be used: it is not XML.*5 more"):
        cars.report()
    err = capsys.readouterr().err
    assert "d.jpg.xmp is write-protected; left as it is" in err
    assert "f.jpg.xmp cannot be read (Is a directory)" in err
    with pytest.raises(UsageError, match="'a\\\\x00' cannot be a tag"):
        check_tags(["cat", "a\0"])


def test_tags_in_the_photo_come_first(photos, capsys):
    """A program that finds a side-car may read only it."""
    packet = add_tags(EMPTY, ["sea", "Cat"])
    for name, content in (("own.webp", packet), ("damaged.webp", packet[:-9])):
        Image.new("RGB", (9, 9)).save(photos / name, xmp=content)
    names = ("own.webp", "damaged.webp")
    SideCars(photos, None).write({"image": name, "predicted": ["cat", "dog"]} for name in names)
    assert read_tags((photos / "own.webp.xmp").read_bytes()) == ["sea", "Cat", "dog"]
    assert read_tags((photos / "damaged.webp.xmp").read_bytes()) == ["cat", "dog"]
    assert "its side-car begins without them" in capsys.readouterr().err


def test_another_program_writes_meanwhile(photos, monkeypatch):
    """Its changes stay, and its mode is kept."""
    path = photos / "rated.jpg.XMP"
    path.chmod(0o640)
    write(photos, ["x"])
    assert path.stat().st_mode & 0o777 == 0o640
    other = add_tags(RATED, ["theirs"])

    def change(old, tags):
        path.write_bytes(other)
        return add_tags(old, tags)

    monkeypatch.setattr("report.sidecars.add_tags", change)
    with pytest.raises(RunError, match="changed by another program"):
        SideCars(photos, None).write([{"image": "rated.jpg", "predicted": ["y"]}])
    assert path.read_bytes() == other


def test_sample_writes_side_cars(trained, photos, tmp_path, capsys):
    """A tag that the user deletes does not come back; a repeated command changes nothing."""
    best = ("--checkpoint", trained.output / "best.pt")
    flags = (*best, "--output", tmp_path / "o", "--num_slides", 0, "--write", "xmp")
    before = snapshot(photos)
    call(sample, photos, *flags)
    after = snapshot(photos)
    assert all(
        after[name] == content for name, content in before.items() if ".xmp" not in name.lower()
    )
    predicted = {line["image"]: line["predicted"] for line in lines_of(tmp_path / "o")}
    assert read_tags(after["a.jpg.xmp"]) == predicted["a.jpg"] != []
    (photos / "a.jpg.xmp").write_bytes(add_tags(EMPTY, ["mine"]))
    (photos / "raw.jpg.xmp").unlink()
    capsys.readouterr()
    call(sample, photos, *flags)
    err = capsys.readouterr().err
    assert "1 written, 5 had their tags before" in err
    assert ".xmp file" not in err, "side-cars are not what was left out"
    assert snapshot(photos) == after | {"a.jpg.xmp": add_tags(EMPTY, ["mine"])}
    call(sample, photos / "a.jpg", *best, "--output", tmp_path / "p", "--write", "xmp")
    tags = read_tags((photos / "a.jpg.xmp").read_bytes())
    assert tags[0] == "mine"
    assert {*tags} == {"mine", *predicted["a.jpg"]}
    for more in (("--json",), ("--checkpoint", best[1], best[1])):
        assert "need one checkpoint" in refusal(sample, photos, *flags, *more)
    os.rename(tmp_path / "o/sidecars.jsonl", tmp_path / "p/sidecars.jsonl")
    assert "was not written by this program" in refusal(
        sample, photos, *best, "--output", tmp_path / "p", "--write", "xmp"
    )


@pytest.mark.skipif(
    not shutil.which("exiftool"), reason="exiftool, an independent reader, is missing"
)
def test_exiftool_reads_them(photos):
    """Whatever exiftool wrote is there afterwards, and the tags are."""
    tool = ("exiftool", "-q", "-struct", "-overwrite_original", "-charset", "filename=utf8")
    mine = photos / "mine.jpg.xmp"
    write_picture(photos / "mine.jpg")
    texts = ("-xmp-dc:subject=Dog", "-xmp-dc:subject=sea", "-xmp-dc:title=<a> & b")
    places = ("-xmp-lr:hierarchicalsubject=place|sea", "-xmp:rating=5", "-xmp:gpslatitude=48.5")
    regions = ("-regioninfo={RegionList=[{Name=Ann,Type=Face,Area={X=0.5,Y=0.5}}]}",)
    subprocess.run([*tool, *texts, *places, *regions, "-o", mine], check=True)

    def read() -> dict[str, dict]:
        command = [*tool, "-j", "-a", "-G1", "-r", "-XMP:all", "-ext", "xmp", photos]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return {os.path.relpath(each.pop("SourceFile"), photos): each for each in found}

    before = read()
    write(photos, [*RANKED, "a & b", "<Größe>"])
    after = read()
    assert len(after) == len(before) + 3
    added = [*RANKED, "a & b", "<Größe>"]
    own = {"mine.jpg.xmp": ["Dog", "sea", *(tag for tag in added if tag != "dog")]}
    for name, found in after.items():
        if name != "raw.xmp":
            assert found.pop("XMP-dc:Subject") == own.get(name, added)
        if name in before:
            then = {k: v for k, v in before[name].items() if k != "XMP-dc:Subject"}
            assert found == then
            assert found
