"""sample.py: no way to name the output touches the user's files; photos with unusual names."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from conftest import RANKED, call, write_picture
from test_sample import lines_of
from test_sample_folders import snapshot

import sample
from report.slides import slide_path
from training.signals import LOCK
from util.errors import UsageError
from util.files import write_atomically

WAYS = {  # the photos, --output
    "the folder": ("photos", "photos"),
    "from inside it": (".", "."),
    "by a detour": ("photos", "photos/sub/.."),
    "a link to it": ("photos", "link"),
    "photos by the link": ("link", "photos"),
    "a folder in it": ("photos", "photos/sub"),
    "one photo": ("photos/b.jpg", "photos"),
}
OWN = (
    ("labels.csv", ".lock"),  # stop nothing
    ("predictions.csv", "unreadable.jsonl"),
    ("slides/b.jpg.png", "contact_sheet.png"),
)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_to_name_the_output_touches_the_users_files(trained, tmp_path, monkeypatch, way):
    given, output = way
    flags = ("--checkpoint", trained.output / "best.pt", "--num_slides", 1, "--num_workers", 0)
    done = 0
    for number, names in enumerate(OWN):
        monkeypatch.chdir(tmp_path)
        photos = tmp_path / "photos"
        shutil.rmtree(photos, ignore_errors=True)
        for name in ("b.jpg", "sub/a.jpg", *(n for n in names if n.endswith(".png"))):
            write_picture(photos / name, RANKED[:2], seed=number)
        for folder in (photos, photos / "sub"):
            for name in names:
                if not name.endswith(".png"):
                    (folder / name).write_text(f"mine: {name}")
        if not number:
            (tmp_path / "link").symlink_to("photos")
        monkeypatch.chdir(photos if given == "." else tmp_path)
        before = snapshot(photos)
        with contextlib.suppress(UsageError):
            call(sample, given, "--output", output, *flags)
            done += 1
        after = snapshot(photos)
        assert before.items() <= after.items()
        assert {path.stat().st_size for path in photos.rglob(LOCK)} <= {0}
        if ".lock" in names:
            assert done
            assert (photos / ".lock").read_text() == "mine: .lock"


LONG = ("a" * 240 + ".jpg", "漢" * 80 + ".jpg", "b" * 251 + ".jpg", "n" * 250 + "/x.jpg")
ODD = (
    "-flag.jpg",
    "--output.jpg",
    "dot..jpg",
    " space .jpg",
    "new\nline.jpg",
    "tab\t.jpg",
    "'.jpg",
)


def test_photos_with_long_and_odd_names_are_labelled_like_all_others(
    trained, tmp_path, monkeypatch
):
    """A file name has at most 255 bytes, and our files have longer names than the photo."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate((*LONG, *ODD, "ok.jpg")):
        write_picture(tmp_path / "photos" / name, RANKED[:1], seed=number)
    raw = os.fsdecode(b"raw\xff.jpg")
    with contextlib.suppress(OSError):  # some file systems know UTF-8 only
        write_picture(tmp_path / "photos/raw.jpg").rename(tmp_path / "photos" / raw)
    (tmp_path / "photos/x.jpg").mkdir()
    (tmp_path / "photos/empty.jpg").touch()
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/round.jpg").symlink_to("round.jpg")
    flags = ("--checkpoint", trained.output / "best.pt", "--num_workers", 0)
    call(sample, "photos", "--output", "o", *flags)
    found = {line["image"] for line in lines_of(Path("o"))}
    assert {*LONG, "ok.jpg"} <= found
    assert len({*ODD} - found) <= len([name for name in ODD if "\n" in name or "\t" in name])
    assert all(slide_path(Path("o"), name).is_file() for name in found)
    listed = (tmp_path / "o/unreadable.jsonl").read_text()
    assert listed.count("empty.jpg") == 1 * 2  # its name, and in the reason
    for name in LONG[:2]:
        call(sample, f"photos/{name}", "--output", "one", *flags)


def test_a_file_with_the_longest_name_is_written(tmp_path):
    """The temporary file beside it has no longer one."""
    for name in ("a" * 255, "漢" * 85):
        write_atomically(tmp_path / name, lambda temporary: temporary.write_text("x"))
        assert (tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2
