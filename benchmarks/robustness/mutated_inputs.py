"""What mutations.py reads: valid files, and how each of them is changed at random.

make_input draws one input of a kind; all that is random in it comes from the generator given.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from images.transforms import Preprocessing
from inference.checkpoint import FORMAT_VERSION
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of

HOSTILE = (
    *(None, True, -1, 0, 2**31, 2**63, -(2**70), 10**400, 0.5, float("nan"), float("inf"), -0.0),
    *("", "a", "../x", "/etc/passwd", "C:\\x.jpg", "\0", "\ud800", "$\\frac{", "\x1b[2J", "=1+1"),
    *("x" * 5000, "\u202e", "{{7*7}}", "<script>", [], {}, [[[[]]]], [1] * 100, {"a": {}}, "1"),
)


# --- valid files -------------------------------------------------------------------------------


def tiny_resnet(weights: object = None) -> nn.Module:
    """In place of torchvision's: the same parts, a few thousand numbers."""
    net = nn.Module()
    net.conv1, net.bn1, net.relu = nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU()
    net.maxpool = nn.MaxPool2d(2)
    for i, (before, width) in enumerate(pairwise((8, 1, 2, 4, 8)), 1):  # each twice as wide
        setattr(net, f"layer{i}", nn.Conv2d(before, width, 1))
    net.fc = nn.Linear(8, 10)
    return net


def write_valid(folder: Path) -> dict:
    """A tiny set in `folder`, and what the mutations start from."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    pictures = []
    for i, (suffix, mode) in enumerate(
        (suffix, mode)
        for suffix, modes in {
            "jpg": ("RGB", "L", "CMYK"),
            "png": ("RGB", "RGBA", "P", "I;16", "1"),
            "gif": ("P",),
            "bmp": ("RGB",),
            "tif": ("RGB", "F", "I;16"),
            "webp": ("RGB", "RGBA"),
            "ppm": ("RGB",),
            "tga": ("RGB",),
            "avif": ("RGB",),
            "jp2": ("RGB",),
        }.items()
        for mode in modes
    ):
        pixels = rng.integers(0, 255, (24, 32, 3), np.uint8)
        image = Image.fromarray(pixels)
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256) if mode == "I;16" else image
        image = image if mode == "I;16" else image.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / f"images/{i:02d}.{suffix}"
        extra = {"exif": exif} if suffix in ("jpg", "png", "webp") else {}
        if suffix == "gif":
            extra = {"save_all": True, "append_images": [image.rotate(90)]}
        image.save(path, **extra)
        pictures.append((suffix, path.read_bytes()))
    names = sorted(p.name for p in (folder / "images").iterdir())
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": f"label {i}"} for i in range(5)],
        "annotations": [
            {"id": i, "image_id": i % len(names), "category_id": i % 5} for i in range(40)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(coco))
    vocabulary = Vocabulary(tuple(f"label {i}" for i in range(5)), (9, 8, 7, 6, 5), 20)
    settings = settings_of({"embed_size": 4, "hidden_size": 4, "stages": 2})
    checkpoint = {
        "format": FORMAT_VERSION,
        "commit": "an older one",
        "model": settings,
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": Preprocessing(32).to_dict(),
        "weights": HybridNet(num_labels=5, **settings).state_dict(),
        "temperature": 1.2,
        "prior_weight": 0.1,
        "threshold": 0.4,
        "label_thresholds": [0.4] * 5,
        "epoch": 3,
        "metrics": {"val_mAP": 20.0},
        "selected_on": "a hold-out of 3 training images",
        "flags": {"annotations": "data/x.json", "amp": "off", "device": "cpu", "seed": 0},
    }
    torch.save(checkpoint, folder / "best.pt")
    return {
        "annotations": coco,
        "vocabulary": vocabulary.to_dict(),
        "checkpoint": checkpoint,
        "images": pictures,
    }


# --- mutations ---------------------------------------------------------------------------------


class Payload:
    """Unpickled carelessly, makes a file."""

    def __init__(self, path: Path, by_shell: bool) -> None:
        self.path, self.by_shell = str(path), by_shell

    def __reduce__(self) -> tuple:
        if self.by_shell:
            return os.system, (f"touch {self.path}",)
        return open, (self.path, "w")


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """A few edits: flips, cuts, repeats, runs of one byte, extreme numbers."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if not data:
            break
        at = int(rng.integers(len(data)))
        length = int(rng.integers(1, 1 + min(64, len(data))))
        kind = rng.integers(7)
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at] ^= 1 << rng.integers(8)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 20))
        elif kind == 5:
            data[at : at + length] = bytes([rng.choice([0, 255, 32, 91, 123])]) * length
        else:
            value = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, 0x80000000]))
            data[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
    return bytes(data)


def mutate_values(value: object, rng: np.random.Generator, payload: object = None) -> object:
    """A copy of nested dictionaries and lists with one to three places changed."""
    value = _copied(value)
    for _ in range(rng.integers(1, 4)):
        spots = list(_spots(value))
        if not spots:
            break
        at, key = spots[rng.integers(len(spots))]
        new = HOSTILE[rng.integers(len(HOSTILE))] if payload is None else payload
        kind = rng.integers(5)
        if kind == 0 and payload is None:
            del at[key]
        elif kind == 1 and isinstance(at, list):
            at.insert(key, at[key])
        elif kind == 2 and isinstance(at, dict) and type(new) in (str, int, float):
            at[new] = at[key]
        elif kind == 3 and isinstance(at[key], torch.Tensor):
            at[key] = _hostile_tensor(at[key], rng)
        else:
            at[key] = new
    return value


def _hostile_tensor(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    choices: list[Callable] = [
        lambda t: torch.zeros(1).expand(2**20, 2**20),
        lambda t: t.double() * float("nan"),
        lambda t: t.flatten()[:-1],
        lambda t: torch.zeros(0),
        lambda t: t.to(torch.complex64) if t.is_floating_point() else t.bool(),
        lambda t: torch.eye(3).to_sparse(),
        lambda t: torch.zeros(1).expand(t.shape),
    ]
    return choices[rng.integers(len(choices))](tensor)


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _spots(value: object):
    """(container, key) of everything within."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


def hostile_pickle(plain: object, canary: Path, rng: np.random.Generator) -> bytes:
    """Pickles that would run code, hang or fill the memory where they are read carelessly."""
    bomb = b"(" + b"X\x01\x00\x00\x00a" + b"\x85\x94" + b"h\x00h\x00\x86\x94" * 3 + b"t."
    nest = b"\x80\x04}\x94)\x94" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(1, 90)
    )
    slow = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(1, 90))  # in torch's opcodes
    choices = (
        b"\x80\x02}q\x00)q\x01" + slow + b"h\x00h\x5aK\x01s.",
        pickle.dumps(mutate_values(plain, rng, Payload(canary, True)), int(rng.integers(6))),
        pickle.dumps(mutate_values(plain, rng, Payload(canary, False)), int(rng.integers(6))),
        b"cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.",
        b"c__builtin__\neval\n(S'open(\"" + str(canary).encode() + b'","w")\'\ntR.',
        b"\x80\x04" + b"r\xff\xff\xff\x7f" + pickle.dumps(plain, 4)[2:],
        b"\x80\x04]" + b"r\xff\xff\xff\x7f.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
        b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1),
        bomb,
        nest + b"K\x01s.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"]" * 1000 + b"a" * 999 + b".",
    )
    return choices[rng.integers(len(choices))]


def rezip(data: bytes, rng: np.random.Generator, new_pickle: bytes | None) -> bytes:
    """A checkpoint whose archive is whole and whose pickle, or another record, is changed."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", method) as new:
        names = old.namelist()
        changed = names[rng.integers(len(names))]
        for name in names:
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = mutate_bytes(content, rng) if new_pickle is None else new_pickle
            elif name == changed:
                content = mutate_bytes(content, rng) if rng.random() < 0.8 else bytes(1 << 22)
            new.writestr(name, content)
    return out.getvalue()


def huge_picture(rng: np.random.Generator) -> tuple[str, bytes]:
    """A small file that says it has very many pixels; or very oblong ones, which are fine."""
    wide, high = ((40_000, 40_000), (2**31 - 1, 2**31 - 1), (30_000, 1), (1, 30_000), (13_400, 1))[
        rng.integers(5)
    ]
    header = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((wide // 8 + 2) * high, 1 << 20)))
    body = b"IDAT" + rows
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, body, b"IEND")
    ]
    return "png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def make_input(kind: str, valid: dict, folder: Path, canary: Path, rng) -> Path:
    """Write one mutated file of that kind into `folder`; returns its path."""
    how, content = rng.random(), valid[kind]
    if kind == "images":
        suffix, data = huge_picture(rng) if how < 0.03 else content[rng.integers(len(content))]
        if how > 0.97:  # a program for whoever reads all that Pillow does
            data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file closefile\n"
        elif how > 0.03:
            data = mutate_bytes(data, rng)
        path = folder / f"mutated.{suffix}"
    elif kind == "annotations":
        text = json.dumps(mutate_values(content, rng) if how < 0.6 else content).encode()
        data = mutate_bytes(text, rng) if how > 0.5 else text
        path = folder / "mutated.json"
    elif kind == "vocabulary":
        as_pickle = rng.random() < 0.7
        values = mutate_values(content, rng) if how < 0.4 else content
        data = pickle.dumps(values, 4) if as_pickle else json.dumps(values).encode()
        if as_pickle and how > 0.7:
            data = hostile_pickle(content, canary, rng)
        if 0.4 < how < 0.7 or (how > 0.7 and rng.random() < 0.3):
            data = mutate_bytes(data, rng)
        path = folder / ("mutated.pkl" if as_pickle else "mutated.json")
    else:
        file = io.BytesIO()
        torch.save(mutate_values(content, rng) if how < 0.5 else content, file)
        data = file.getvalue()
        if 0.5 < how < 0.6:
            data = mutate_bytes(data, rng)
        elif 0.6 < how < 0.8:
            data = rezip(data, rng, None)
        elif how > 0.8:
            plain = {k: v for k, v in content.items() if k != "weights"}
            data = hostile_pickle(plain, canary, rng)
            data = data if rng.random() < 0.2 else rezip(file.getvalue(), rng, data)
        path = folder / "mutated.pt"
    path.write_bytes(data)
    return path
