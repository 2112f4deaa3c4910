"""Files of torch.save, read without torch.load: nothing in them runs, and reading always ends.

torch.load(weights_only=True) runs no code either. But a file of 1 kB can fill its memory
(`bytearray(10**11)`) or keep it busy forever (a list of twice the same list, over 90 levels,
printed in an error message), and one of 1 MB can crash Python (the hash of a tuple nested a million
times). So the pickle is followed here, step by step, with these rules:

- it makes None, bool, int, float, str, list, tuple, dict and tensors, and nothing else: a
  `Skipped` stands for every other object and class
- keys of a dictionary are str or small int; other entries are left out
- a tensor's numbers are in the file; all tensors together are at most MAX_SHARING times its size

Both formats of torch.save are read: a zip with a record for each storage, and the one before torch
1.6, a sequence of pickles with the storages behind them.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from util.reading import is_ordinary

MAX_PICKLE = 100_000_000  # bytes
MAX_SHARING = 4  # tensors may share storages, but not without limit
MAX_KEY = 2**31  # of int keys: hashes of larger ones can collide
ATOMS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
ATOMS += ("BINUNICODE", "BINSTRING", "SHORT_BINSTRING")
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old format
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class BadFileError(ValueError):
    """The file is not read; the message is the reason."""


@dataclass(frozen=True)
class Skipped:
    """A class, or an object of a class, that is not read. name: of the class, with its module."""

    name: str


def read_torch_file(path: Path) -> object:
    """What torch.save wrote, with its tensors on the CPU.

    Raises OSError if the file cannot be opened, BadFileError if it is damaged or of another kind.
    """
    if not is_ordinary(path):
        raise BadFileError("it is not an ordinary file")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start == b"PK\x03\x04":
                return _read_zip(file, path.stat().st_size)
            if start[:2] == b"\x80\x02":
                return _read_old(file, path.stat().st_size)
        except BadFileError:
            raise
        except Exception:  # there are many ways to be damaged
            raise BadFileError("it is damaged") from None
    raise BadFileError("it was not written by torch.save")


def _read_zip(file: BinaryIO, size: int) -> object:
    """The object in a zip, all of whose records are stored without compression."""
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        pickles = [name for name in records if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            inside = next((name for name in records if name.endswith((".pth", ".pt"))), None)
            hint = f": unzip it and give {inside[:100]}" if inside else ""
            raise BadFileError(f"it was not written by torch.save{hint}")
        # it could unpack to a thousand times its size
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise BadFileError("a record is compressed")
        if sum(record.file_size for record in records.values()) > size:
            raise BadFileError("its records are larger than the file")
        if len(records) < len(archive.infolist()):
            raise BadFileError("two of its records have the same name")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in records and archive.read(f"{folder}byteorder") != b"little":
            raise BadFileError("it was written on a big-endian machine")

        def load(key: str, storage: Tensor) -> None:
            data = archive.read(f"{folder}data/{key}")  # compares the checksum, too
            storage.numpy()[:] = np.frombuffer(data, np.uint8)

        return _Unpickler(load, size).read(io.BytesIO(archive.read(pickles[0])))


def _read_old(file: BinaryIO, size: int) -> object:
    """The object in a file of the old format: five pickles, then the storages in their order."""
    storages: dict[str, Tensor] = {}
    unpickler = _Unpickler(storages.__setitem__, size)
    if unpickler.read(file) != MAGIC:
        raise BadFileError("it was not written by torch.save")
    _, system, content, keys = (unpickler.read(file) for _ in range(4))
    if system["little_endian"] is not True:
        raise BadFileError("it was written on a big-endian machine")
    for key in keys:
        (numel,) = struct.unpack("<q", file.read(8))
        storage = storages.pop(key)
        if numel * unpickler.dtypes[key].itemsize != len(storage):
            raise BadFileError("it is damaged")
        if file.readinto(storage.numpy()) < len(storage):
            raise BadFileError("it is not complete")
    if storages:
        raise BadFileError("it is not complete")
    return content


class _Unpickler:
    """Reads pickles of torch.save.

    load: called once with the key of each storage and a uint8 tensor of its size, to fill. size:
    of the file in bytes.
    """

    def __init__(self, load: Callable[[str, Tensor], None], size: int) -> None:
        self.load = load
        self.room, self.tensor_room = size, MAX_SHARING * size  # bytes that are left
        self.dtypes: dict[str, torch.dtype] = {}
        self.storages: dict[str, Tensor] = {}

    def read(self, file: BinaryIO) -> object:
        """The object of the pickle that starts here; the file is then behind it."""
        stack: list = []
        marks: list[int] = []
        memo: dict[int, object] = {}

        def since_mark() -> list:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        for opcode, arg, position in pickletools.genops(file):
            if position > MAX_PICKLE:
                raise BadFileError(f"its pickle is larger than {MAX_PICKLE // 10**6} MB")
            match opcode.name:
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    marks.append(len(stack))
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case name if name in ATOMS:
                    stack.append(arg)
                case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                    stack.append({"D": {}, "L": [], "T": ()}[opcode.name[6]])
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    length = int(opcode.name[-1])
                    stack[-length:] = [tuple(stack[-length:])]
                case "APPEND" | "APPENDS":
                    items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                    if not isinstance(stack[-1], Skipped):
                        stack[-1].extend(items)
                case "SETITEM" | "SETITEMS":
                    one = opcode.name == "SETITEM"
                    items = [stack.pop(-2), stack.pop()] if one else since_mark()
                    _set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "GLOBAL":
                    stack.append(Skipped(arg.replace(" ", ".")))
                case "REDUCE" | "NEWOBJ":
                    arguments = stack.pop()
                    stack[-1] = self.make(stack[-1], arguments)
                case "BUILD":  # attributes: of a state dict its _metadata, of a parameter its hooks
                    stack.pop()
                case "BINPERSID":
                    stack[-1] = self.storage(*stack[-1])
                case name:
                    raise BadFileError(f"its pickle has {name}, which torch.save does not write")
        raise BadFileError("it is not complete")

    def make(self, function: Skipped, arguments: tuple) -> object:
        """What a call of this function gives, for the few that torch.save needs."""
        match function.name:
            case "collections.OrderedDict":
                return _set_items({}, *arguments)
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
                return self.tensor(*arguments[:4])
            case "torch._utils._rebuild_parameter" | "torch.nn.parameter.Parameter":
                return arguments[0]
        return function

    def storage(
        self, kind: str, of: Skipped, key: str, device: str, numel: int = 0, view: None = None
    ) -> str | Skipped:
        """Read a storage, unless it was read before; returns its key. Of a module: its class."""
        if kind == "module":
            return of
        dtype = DTYPES.get(of.name.rpartition(".")[2])
        if kind != "storage" or dtype is None or view is not None or type(key) is not str:
            raise BadFileError(f"it holds {of.name[:60]}, which is not read")
        if key not in self.storages:
            self.room -= numel * dtype.itemsize
            if self.room < 0:
                raise BadFileError("its tensors are larger than the file")
            self.storages[key] = torch.empty(numel * dtype.itemsize, dtype=torch.uint8)
            self.dtypes[key] = dtype
            self.load(key, self.storages[key])
        if self.dtypes[key] != dtype:
            raise BadFileError("it is damaged")
        return key

    def tensor(self, key: str, offset: int, shape: tuple, strides: tuple) -> Tensor:
        """A tensor of these numbers of a storage; strides and offset count numbers."""
        tensor = torch.empty(0, dtype=self.dtypes[key])
        tensor.set_(self.storages[key].untyped_storage(), offset, shape, strides)
        self.tensor_room -= tensor.numel() * tensor.element_size()
        if self.tensor_room < 0:
            raise BadFileError("its tensors are larger than the file")
        return tensor


def _set_items(target: dict | Skipped, pairs: Iterable = ()) -> dict | Skipped:
    """Put pairs into a dictionary; only keys whose hash is cheap. Returns it."""
    if not isinstance(target, Skipped):
        for key, value in pairs:
            if type(key) is str or (type(key) is int and abs(key) < MAX_KEY):
                target[key] = value
    return target
