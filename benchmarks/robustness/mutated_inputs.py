"""Valid files changed at random, and files made to do harm: the inputs of mutations.py.

make_input makes one input of a kind; everything random in it comes from the given generator.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

HOSTILE = (
    *(None, True, -1, 0, 2**31, 2**63, -(2**70), 10**400, 0.5, float("nan"), float("inf"), -0.0),
    *("", "a", "../x", "/etc/passwd", "C:\\x.jpg", "\0", "\ud800", "$\\frac{", "\x1b[2J", "=1+1"),
    *("x" * 5000, "\u202e", "{{7*7}}", "<script>", [], {}, [[[[]]]], [1] * 100, {"a": {}}, "1"),
)


class Payload:
    """Creates a file when it is unpickled without protection."""

    def __init__(self, path: Path, by_shell: bool) -> None:
        self.path, self.by_shell = str(path), by_shell

    def __reduce__(self) -> tuple:
        if self.by_shell:
            return os.system, (f"touch {self.path}",)
        return open, (self.path, "w")


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One to five edits: flips, cuts, repeats, runs of one byte, extreme numbers."""
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
    """A copy of nested dictionaries and lists with one to three changes."""
    value = _copied(value)
    for _ in range(rng.integers(1, 4)):
        spots = list(_spots(value))
        if not spots:
            break
        at, key = spots[rng.integers(len(spots))]
        new = _copied(HOSTILE[rng.integers(len(HOSTILE))]) if payload is None else payload
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
        lambda t: torch.zeros(()).expand(t.shape),
    ]
    return choices[rng.integers(len(choices))](tensor)


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _spots(value: object) -> Iterator[tuple[dict | list, object]]:
    """(container, key) of each nested value."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


def hostile_pickle(plain: object, canary: Path, rng: np.random.Generator) -> bytes:
    """A pickle that runs code, hangs or fills the memory if it is read without protection."""
    bomb = b"(" + b"X\x01\x00\x00\x00a" + b"\x85\x94" + b"h\x00h\x00\x86\x94" * 3 + b"t."
    nest = b"\x80\x04}\x94)\x94" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(1, 90)
    )
    slow = b"".join(
        b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(1, 90)
    )  # the opcodes that torch allows
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
    """A checkpoint with an intact archive, whose pickle or another record is changed."""
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


def huge_image(rng: np.random.Generator) -> tuple[str, bytes]:
    """A small file that claims very many pixels, or one that is very wide or high (allowed)."""
    sizes = ((40_000, 40_000), (2**31 - 1, 2**31 - 1), (30_000, 1), (1, 30_000), (13_400, 1))
    width, height = sizes[rng.integers(len(sizes))]
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 2) * height, 1 << 20)))
    body = b"IDAT" + rows
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, body, b"IEND")
    ]
    return "png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def mutate_image(images: list[tuple[str, bytes]], rng: np.random.Generator) -> tuple[str, bytes]:
    """(suffix, content) of an image file; a few are huge or are PostScript programs."""
    how = rng.random()
    suffix, data = huge_image(rng) if how < 0.03 else images[rng.integers(len(images))]
    if how > 0.97:  # Pillow would start a program to read this
        data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file closefile\n"
    elif how > 0.03:
        data = mutate_bytes(data, rng)
    return suffix, data


def mutate_annotations(coco: dict, rng: np.random.Generator) -> bytes:
    """A COCO json with other values, other bytes or both."""
    how = rng.random()
    text = json.dumps(mutate_values(coco, rng) if how < 0.6 else coco).encode()
    return mutate_bytes(text, rng) if how > 0.5 else text


def mutate_vocabulary(
    vocabulary: dict, canary: Path, rng: np.random.Generator
) -> tuple[str, bytes]:
    """(suffix, content) of a vocabulary: pickle or json."""
    how, as_pickle = rng.random(), rng.random() < 0.7
    values = mutate_values(vocabulary, rng) if how < 0.4 else vocabulary
    data = pickle.dumps(values, 4) if as_pickle else json.dumps(values).encode()
    if as_pickle and how > 0.7:
        data = hostile_pickle(vocabulary, canary, rng)
    if 0.4 < how < 0.7 or (how > 0.7 and rng.random() < 0.3):
        data = mutate_bytes(data, rng)
    return "pkl" if as_pickle else "json", data


def mutate_checkpoint(checkpoint: dict, canary: Path, rng: np.random.Generator) -> bytes:
    """A checkpoint with other values, other bytes, another archive or a hostile pickle."""
    how, file = rng.random(), io.BytesIO()
    torch.save(mutate_values(checkpoint, rng) if how < 0.5 else checkpoint, file)
    data = file.getvalue()
    if 0.5 < how < 0.6:
        data = mutate_bytes(data, rng)
    elif 0.6 < how < 0.8:
        data = rezip(data, rng, None)
    elif how > 0.8:
        plain = {k: v for k, v in checkpoint.items() if k != "weights"}
        data = hostile_pickle(plain, canary, rng)
        data = data if rng.random() < 0.2 else rezip(file.getvalue(), rng, data)
    return data


def make_input(
    kind: str, valid: dict, folder: Path, canary: Path, rng: np.random.Generator
) -> Path:
    """Write one mutated file of a kind into `folder`; returns its path.

    valid: what write_valid returns. canary: the file that hostile pickles create if they run.
    """
    if kind == "images":
        suffix, data = mutate_image(valid[kind], rng)
    elif kind == "annotations":
        suffix, data = "json", mutate_annotations(valid[kind], rng)
    elif kind == "vocabulary":
        suffix, data = mutate_vocabulary(valid[kind], canary, rng)
    else:
        suffix, data = "pt", mutate_checkpoint(valid[kind], canary, rng)
    path = folder / f"mutated.{suffix}"
    path.write_bytes(data)
    return path
