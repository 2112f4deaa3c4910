"""Valid files changed at random, and files made to do harm: the inputs of mutations.py.

write_mutated makes one input; everything random in it comes from the given generator.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
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


def huge_image(rng: np.random.Generator) -> bytes:
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
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def mutate_image(data: bytes, rng: np.random.Generator) -> bytes:
    """An image file with other bytes; a few are huge or are PostScript programs."""
    how = rng.random()
    if how < 0.03:
        return huge_image(rng)
    if how > 0.97:  # Pillow would start a program to read this
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file closefile\n"
    return mutate_bytes(data, rng)


def mutate_json(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with other values, other bytes or both, or nested without end."""
    how = rng.random()
    if how < 0.02:
        return b"[" * 100_000
    if how < 0.65:
        data = json.dumps(mutate_values(json.loads(data), rng)).encode()
    return mutate_bytes(data, rng) if how > 0.55 else data


def mutate_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON lines, of which one is other JSON, is doubled, or has moved to the end."""
    lines = data.splitlines()
    at = int(rng.integers(len(lines)))
    how = rng.integers(6)
    if how == 0:
        lines.append(lines[at])
    elif how == 1:
        lines.append(lines.pop(at))
    else:
        lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines) + b"\n" * int(rng.integers(2))


def mutate_table(data: bytes, rng: np.random.Generator) -> bytes:
    """A text with other words in places of some, or other bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    parts = re.split(rb"([,|;:<>\"\n ]+)", data)
    for _ in range(rng.integers(1, 4)):
        word = HOSTILE[rng.integers(len(HOSTILE))]
        how = rng.integers(3)
        at = int(rng.integers(len(parts)))
        if how == 0:
            parts[at] = b""
        elif how == 1:
            parts.insert(at, parts[rng.integers(len(parts))])
        else:
            parts[at] = str(word).encode("utf-8", "surrogatepass")
    return b"".join(parts)


def mutate_arrays(data: bytes, rng: np.random.Generator) -> bytes:
    """Arrays of other shapes, types and values, one too many or too few, or other bytes."""
    how = rng.random()
    if how < 0.4:
        return mutate_bytes(data, rng)
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = list(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    choices: list[Callable] = [
        lambda: np.atleast_1d(array)[:-1],
        lambda: array.T,
        lambda: array.ravel(),
        lambda: np.zeros(()),
        lambda: np.zeros((0, 10**9)),
        lambda: np.array([{}], object),
        lambda: array.astype("U9"),
        lambda: np.full(array.shape, np.nan),
        lambda: np.full(array.shape, 1e300),
        lambda: np.full(array.shape, -1),
        lambda: array[..., None],
        lambda: np.atleast_1d(array)[::-1],
        lambda: np.zeros((3000, 3000)),
    ]
    arrays[name] = choices[rng.integers(len(choices))]()
    if rng.random() < 0.2:
        del arrays[list(arrays)[rng.integers(len(arrays))]]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    data = file.getvalue()
    if how > 0.8:  # a header that claims another shape, as if it had been written so
        number = str(int(rng.choice([0, 7, 10**6, 10**13]))).encode()
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for member in old.namelist():
                content = old.read(member)
                if member == f"{name}.npy":
                    content = re.sub(rb"\(\d+", b"(" + number, content, count=1)
                new.writestr(member, content)
        data = out.getvalue()
    return data


def mutate_pickle(data: bytes, canary: Path, rng: np.random.Generator) -> bytes:
    """A vocabulary with other values, other bytes, or a hostile pickle."""
    how, vocabulary = rng.random(), pickle.loads(data)
    if how > 0.6:
        data = hostile_pickle(vocabulary, canary, rng)
    elif how < 0.4:
        data = pickle.dumps(mutate_values(vocabulary, rng), 4)
    return mutate_bytes(data, rng) if 0.35 < how < 0.7 else data


def mutate_checkpoint(data: bytes, canary: Path, rng: np.random.Generator) -> bytes:
    """A checkpoint with other values, other bytes, another archive or a hostile pickle."""
    how, file = rng.random(), io.BytesIO()
    checkpoint = torch.load(io.BytesIO(data), weights_only=True)
    if how < 0.5:
        torch.save(mutate_values(checkpoint, rng), file)
        return file.getvalue()
    if how < 0.6:
        return mutate_bytes(data, rng)
    if how < 0.8:
        return rezip(data, rng, None)
    plain = {k: v for k, v in checkpoint.items() if k not in ("weights", "training")}
    hostile = hostile_pickle(plain, canary, rng)
    return hostile if rng.random() < 0.2 else rezip(data, rng, hostile)


def mutate_network(data: bytes, rng: np.random.Generator) -> bytes:
    """An ONNX file with other metadata or other bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    network = onnx.load_from_string(data)
    entry = network.metadata_props[rng.integers(len(network.metadata_props))]
    value = HOSTILE[rng.integers(len(HOSTILE))]
    if entry.key == "labels" and rng.random() < 0.7:
        value = json.dumps(mutate_values(json.loads(entry.value), rng))
    with contextlib.suppress(ValueError):  # text that protobuf cannot hold
        entry.value = str(value)
    return network.SerializeToString()


def write_mutated(path: Path, form: str, canary: Path, rng: np.random.Generator) -> None:
    """Replace a valid file by a mutated one, or, now and then, by what is no ordinary file.

    form: json, lines, table, npz, pickle, torch, onnx, image, or bytes for all others. canary: the
    file that hostile pickles create if they run.
    """
    data = path.read_bytes()
    path.unlink()
    how = rng.random()
    if how < 0.01:
        os.mkfifo(path)
    elif how < 0.015:
        path.symlink_to("/dev/zero")
    elif how < 0.02:
        path.mkdir()
    elif how < 0.03:
        with path.open("wb") as file:  # a sparse file
            file.truncate(10**13)
    elif how < 0.04:
        path.write_bytes(bytes(int(rng.choice([0, 1, 10**6]))))
    else:
        with_canary = {"pickle": mutate_pickle, "torch": mutate_checkpoint}
        mutate = {
            "json": mutate_json,
            "lines": mutate_lines,
            "table": mutate_table,
            "npz": mutate_arrays,
            "onnx": mutate_network,
            "image": mutate_image,
            "bytes": mutate_bytes,
        }
        extra = (canary, rng) if form in with_canary else (rng,)
        path.write_bytes((mutate | with_canary)[form](data, *extra))
