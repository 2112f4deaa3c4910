"""Files from strangers are read or refused in one sentence, and never run code."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from conftest import REPO, RESNET, TRAIN, coco, one_error, refusal, run, write_json, write_picture
from PIL import Image
from processes import run_cold

import train
from images.decode import MAX_PIXELS, load_image, load_pixels
from images.find import find_images
from images.transforms import Preprocessing
from labels.coco import read_annotations
from labels.vocabulary import Vocabulary, load_vocabulary, save_vocabulary
from report.fonts import choose_fonts
from report.influence import draw_influence
from report.slides import draw_slide
from util.compat import can_export
from util.errors import UsageError
from util.files import csv_text
from util.log import printable

SCRIPT = f"""
import pickle, sys
sys.path.insert(0, {str(REPO / "benchmarks/robustness")!r})
import mutations, trying
from mutated_inputs import Payload, write_mutated

def write(path, form, canary, rng):
    if form != "payload":
        return write_mutated(path, form, canary, rng)
    path.write_bytes(pickle.dumps(Payload(canary, bool(rng.integers(2)))))

trying.write_mutated = write
obeyed = mutations.DOORS["vocabulary"]._replace(form="payload")
obeyed = obeyed._replace(read=lambda path: pickle.loads(path.read_bytes()))
mutations.DOORS["obeyed"] = obeyed
mutations.main(mutations.get_args_parser().parse_args(sys.argv[1:]))
"""


def test_mutated_inputs(tmp_path):
    """A small share of the benchmark, with some doors and another seed than the published table.

    The last row is of pickles that do run code, to prove that the benchmark notices it.
    """
    (tmp_path / "few.py").write_text(SCRIPT)
    doors = ("COCO json", "CSV", "index of tars", "vocabulary", "checkpoint", "metrics.json")
    doors += ("predictions.npz", "images", "rules")
    doors += ("encoder.onnx", "obeyed") if can_export() else ("obeyed",)
    flags = ("--inputs", 110, "--seed", 1, "--doors", *doors)
    result = run_cold(tmp_path / "few.py", *flags, cwd=tmp_path)
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:]]
    counts = {name: [int(n.replace(",", "")) for n in found] for name, *found in rows}
    everything, obeyed = counts.pop("all"), counts.pop("obeyed")
    assert everything[0] == 110, result.stderr
    assert obeyed[7] > 5, result.stderr
    for total, _, _, accepted, refused, *failures in counts.values():
        assert total == accepted + refused, (failures, result.stderr)
    assert min(everything[3:5]) > 20


@pytest.mark.parametrize(
    "command",
    [
        ("train.py", "--image_path", "x" * 300),
        ("sample.py", "x" * 300, "--checkpoint", "y" * 300),
        ("build_vocab.py", "--annotations", "x" * 300),
    ],
    ids=lambda command: command[0],
)
def test_file_names_that_are_too_long(tmp_path, command):
    assert "File name too long" in one_error(run(*command, cwd=tmp_path))


# --- images -----------------------------------------------------------------------------------


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


NOISE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000), (3, 700)])
def test_images_of_extreme_shapes(tmp_path, size):
    path = save(Image.new("RGB", size, (10, 200, 30)), tmp_path / "a.png")
    for transform in (
        Preprocessing(64).eval_transform(),
        *(Preprocessing(64).train_transform(np.random.default_rng(i)) for i in range(5)),
    ):
        assert transform.from_file(path).shape == (3, 64, 64)
    whole = Preprocessing(64).eval_transform().from_file(path)
    assert whole.float().mean((1, 2)).round().tolist() == [10, 200, 30]


def test_images_of_unusual_modes(tmp_path, recwarn):
    frames = [Image.new("RGB", (9, 9), c).quantize(4) for c in ("red", "blue")]
    first = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(first).getpixel((4, 4)) == (255, 0, 0)
    for i, mode in enumerate(("CMYK", "L", "1", "YCbCr", "LAB", "I;16", "F")):
        image = Image.new(mode, (9, 7)) if mode in ("I;16", "F") else None
        image = image or Image.new("RGB" if mode != "LAB" else "LAB", (9, 7)).convert(mode)
        # Pillow 11 refuses YCbCr that is not compressed
        packed = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
        path = save(image, tmp_path / f"{i}.tif", **packed)
        assert load_image(path).size == (9, 7)
    assert not recwarn.list


@pytest.mark.parametrize("junk", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" * 3])
def test_damaged_exif_is_ignored(tmp_path, junk, recwarn):
    path = save(Image.fromarray(NOISE), tmp_path / "a.jpg", exif=junk)
    assert load_pixels(path, 8).size
    assert not recwarn.list


def huge_png(side: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(100)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def test_reasons_for_unreadable_images(tmp_path, recwarn):
    """The message says what is wrong with an image."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG")
    side = int(MAX_PIXELS**0.5) + 1
    contents = {
        "the file is empty": b"",
        "truncated": buffer.getvalue()[:-200],
        "damaged or another kind": b"no image",
        f"more than {MAX_PIXELS:,} pixels": huge_png(side),
    }
    for reason, content in contents.items():
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(UsageError) as caught:
            load_image(tmp_path / "a.jpg")
        assert f"a.jpg cannot be read as an image ({reason}" in str(caught.value)
    with open(tmp_path / "a.png", "wb") as file:  # a text of 3 GB, a hole in the file
        file.write(huge_png(9)[:33] + struct.pack(">I4s", 3 * 10**9, b"zTXt"))
        file.truncate(4 * 10**9)
    with pytest.raises(UsageError, match="3,000 MB that are no pixels"):
        load_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would block
    with pytest.raises(UsageError, match="not a regular file"):
        load_image(tmp_path / "pipe.jpg")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UsageError, match="another kind"):  # PostScript is a program
        load_image(tmp_path / "a.jpg")
    assert not recwarn.list


# --- annotations ------------------------------------------------------------------------------


def refused(content: dict, tmp_path) -> str:
    with pytest.raises(UsageError) as caught:
        read_annotations(write_json(content, tmp_path / "x.json"))
    assert "x.json" in str(caught.value)
    return str(caught.value)


def test_names_given_twice(tmp_path):
    two = [("cat",), ("dog",)]
    assert "images[0] and images[1] are both" in refused(coco(two, ["a.jpg", "a.jpg"]), tmp_path)
    assert "images[0] and images[1] are both" in refused(coco(two, ["a.jpg", "./a.jpg"]), tmp_path)
    content = coco(two)
    content["categories"] = [{"id": 17, "name": "cat"}, {"id": 18, "name": "cat"}]
    assert "categories[0] and categories[1] are both called 'cat'" in refused(content, tmp_path)
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 17]
    images = read_annotations(write_json(content, tmp_path / "group.json"))
    assert images.categories == ["cat"], "a category without annotations is no error"


@pytest.mark.parametrize("name", ["C:\\", "x/..", "\\\\server\\", "a\0.jpg", "."])
def test_names_of_no_file(tmp_path, name):
    assert "names no file" in refused(coco([("cat",)], [name]), tmp_path)


@pytest.mark.parametrize(
    "name", ["C:\\x.jpg", "C:x.jpg", "\\\\server\\x.jpg", "/x.jpg", "../x.jpg"]
)
def test_names_outside_the_folder(tmp_path, name):
    """The file outside is never taken, only one of that name inside."""
    images = read_annotations(write_json(coco([("cat",)], [name]), tmp_path / "a.json"))
    write_picture(tmp_path / "x.jpg")
    write_picture(tmp_path / "in/other.jpg")
    with pytest.raises(UsageError, match="1 of the 1 images"):
        find_images(tmp_path / "in", images)


@pytest.mark.parametrize("fill", [b" ", b"\0", b"x"])
def test_large_files_of_junk_are_refused_without_reading_them_whole(tmp_path, fill, monkeypatch):
    """A gigabyte of zeros, as a sparse file; the others are smaller to save disk space."""
    path = tmp_path / "junk.json"
    if fill == b"\0":
        with path.open("wb") as file:
            file.truncate(10**9)
    else:
        path.write_bytes(fill * 20_000_000)
    monkeypatch.setattr(type(path), "read_bytes", lambda self: pytest.fail("read as a whole"))
    with pytest.raises(UsageError, match=r"junk\.json is not COCO instances json"):
        read_annotations(path)


# --- vocabularies -----------------------------------------------------------------------------


def test_pickles_that_take_forever_or_all_memory(tmp_path):
    """A few bytes each; pickle.load would not end, or would use all memory."""
    nest = b"\x80\x04}\x94)\x94" + b"".join(
        b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"\x86\x94" for i in range(1, 90)
    )
    for content in (nest + b"K\x01s.", b"\x80\x04]r\xff\xff\xff\x7f.", b"(" * 10**6 + b"t" * 10**6):
        (tmp_path / "v.pkl").write_bytes(content)
        with pytest.raises(UsageError, match="not a HybridNet vocabulary"):
            load_vocabulary(tmp_path / "v.pkl")


def test_impossible_vocabularies(tmp_path):
    with (tmp_path / "v.pkl").open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(UsageError, match="larger than 100 MB"):
        load_vocabulary(tmp_path / "v.pkl")
    good = Vocabulary(("a",), (1,), 1).to_dict()
    for change in ({"num_images": 10**400}, {"num_images": True}, {"labels": ["\ud800"]}):
        (tmp_path / "v.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(UsageError, match="damaged vocabulary"):
            load_vocabulary(tmp_path / "v.json")


# --- names ------------------------------------------------------------------------------------

NAMES = ("$\\frac{", "\x1b[2J\x07", "a\nb", "<i>", "=1+1", "\u202e")


@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_plain_text(tmp_path):
    result = {
        "labels": dict.fromkeys(NAMES, 0.5),
        "predicted": list(NAMES[:3]),
        "decided_by": "threshold",
        "most_probable_sets": [{"labels": list(NAMES), "probability": 0.5}],
    }
    maps = {name: np.zeros((2, 2)) for name in NAMES}
    draw_slide(Image.new("RGB", (30, 20)), result, maps, 8, tmp_path / "a.png", choose_fonts(NAMES))
    ratio = np.zeros((len(NAMES), len(NAMES)))
    draw_influence(ratio, ratio, list(NAMES), tmp_path / "b.png")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_names_in_the_console_and_in_csv(tmp_path):
    assert all(printable(name).isprintable() for name in NAMES)
    assert printable("Übergröße 日本 👩‍🚀") == "Übergröße 日本 👩‍🚀"
    assert [csv_text(name) for name in ("=1+1", "-a", "@b", "+c", "dog")] == [
        *("'=1+1", "'-a", "'@b", "'+c", "dog")
    ]
    content = coco([("cat",)], ["\x1b[2J\n.jpg"])
    content["categories"][2]["name"] = "\x1b[31m"
    content["annotations"][0]["category_id"] = content["categories"][2]["id"]
    write_json(content, tmp_path / "x.json")
    result = run("build_vocab.py", "--annotations", "x.json", "--vocab_path", "v.pkl", cwd=tmp_path)
    assert "\x1b" not in result.stdout + result.stderr
    (tmp_path / "images").mkdir()
    flags = ("--image_path", "images", "--annotations", "x.json", "--num_workers", 0)
    result = run("data_loader.py", *flags, cwd=tmp_path)  # its summary, then the error
    assert result.returncode == 2
    assert "\\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_a_large_vocabulary_can_be_read_back(tmp_path):
    many = Vocabulary(tuple(f"{i:07}" for i in range(70_000)), (1,) * 70_000, 300)
    save_vocabulary(many, tmp_path / "v.pkl")
    assert load_vocabulary(tmp_path / "v.pkl") == many


# --- weights ----------------------------------------------------------------------------------


def test_weights_that_would_block_or_never_end(workdir):
    """train.py --weights, as a user runs it: a pipe, and a pickle that torch.load never ends."""
    os.mkfifo("pipe.pth")
    levels = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90))
    with zipfile.ZipFile("endless.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02]q\x00" + levels + b")R.")
    for name, reason in (("pipe.pth", "it is not an ordinary file"), ("endless.pth", "is damaged")):
        result = run("train.py", *TRAIN, *RESNET, "--weights", name, cwd=workdir, timeout=120)
        assert one_error(result).startswith(f"error: cannot read --weights {name}: ")
        assert reason in result.stderr


def test_weights_made_to_do_harm(workdir):
    with zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02N.")
        archive.writestr("x/data/0", bytes(10**8))
    torch.save({"conv1.weight": torch.zeros(1).expand(64, 3, 10**4, 10**4)}, "boundless.pth")
    torch.save({"conv1.weight": torch.full((64, 3, 7, 7), float("inf"))}, "inf.pth")
    torch.save({"conv1.weight": torch.eye(3).to_sparse()}, "sparse.pth")
    torch.save({"\x1b[2J\n": torch.ones(1), "layer1." + "x" * 10**5: torch.ones(1)}, "names.pth")
    for name, reason in (
        ("bomb.pth", "a record is compressed"),
        ("boundless.pth", "its tensors are larger than the file"),
        ("inf.pth", "conv1.weight has values that are not finite"),
        ("sparse.pth", "it holds no state dict"),
        ("names.pth", "none of its tensors"),
    ):
        sentence = refusal(train, *TRAIN, *RESNET, "--weights", name)
        assert reason in sentence
        assert len(sentence) < 300
