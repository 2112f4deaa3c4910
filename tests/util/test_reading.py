"""Files from strangers: ordinary ones of bounded size, plain types and finite numbers."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from util.errors import UsageError
from util.reading import (
    check_ordinary,
    open_file,
    parse_json,
    read_arrays,
    read_bytes,
    read_json,
)


def test_only_ordinary_files_are_opened(tmp_path):
    """Opening the pipe would block for ever, and /dev/zero never ends."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        for read in (open_file, read_bytes, read_json, read_arrays, check_ordinary):
            with pytest.raises(UsageError, match="is not an ordinary file"):
                read(path)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "absent")
    check_ordinary(tmp_path)
    check_ordinary(tmp_path / "absent")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bytes(tmp_path / "link", most=3) == b"abc"
    with pytest.raises(UsageError, match="is larger than 0 MB"):
        read_bytes(tmp_path / "file", most=2)


def test_a_file_larger_than_the_memory(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(UsageError, match="is larger than 4 GiB"):
        read_bytes(tmp_path / "sparse", 4 << 30)


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", str(2**63), "1" * 5000, str(-(2**63))),
        *("[" * 100_000, "{", "", "\0", '{"a": 01}', b"\xff", "[1] 2", '"' + "x" * 9),
    ],
    ids=lambda text: str(text)[:12],
)
def test_json_that_is_refused(text):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


def test_json_has_the_type_that_its_reader_names():
    text = '{"a": [1, 0.5, null, true, "\\ud800"]}'
    assert parse_json(text) == json.loads(text)
    assert parse_json('{"a": 1, "b": 2}', dict[str, int]) == {"a": 1, "b": 2}
    for kind in (dict[str, str], list, dict[str, bool]):
        with pytest.raises(ValueError, match="Expected"):
            parse_json('{"a": 1, "b": 2}', kind)


def npz(path, member: bytes, method: int = zipfile.ZIP_DEFLATED):
    """A file with one array, whose header may say anything."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", member)
    return path


def header(shape: object, kind: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def test_arrays_are_those_that_numpy_wrote(tmp_path):
    arrays = {
        "floats": np.random.default_rng(0).random((3, 4), np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "flags": np.array([[True, False]]),
        "texts": np.array(["a", "日本"]),
        "none": np.zeros((0, 3)),
        "scalar": np.array(7),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_arrays_made_to_do_harm(tmp_path):
    bad = {
        "claims 93 TiB": header((5_000_000, 5_000_000)),
        "claims nothing": header(()),
        "negative": header((-4, -1)) + bytes(16),
        "objects": header((1,), "|O") + bytes(8),
        "records": header((1,), [("x", "<f4")]) + bytes(4),
        "short": header((4,)) + bytes(12),
        "long": header((4,)) + bytes(20),
        "nan": header((1,)) + np.float32("nan").tobytes(),
        "infinite": header((1,)) + np.float32("inf").tobytes(),
        "no array": b"hello",
        "other version": b"\x93NUMPY\x07\x00" + header((1,))[8:] + bytes(4),
        "code": b"\x93NUMPY\x01\x00v\x00" + b"__import__('os').abort()".ljust(117) + b"\n",
    }
    for name, member in bad.items():
        with pytest.raises(ValueError, match=r"\w") as caught:
            read_arrays(npz(tmp_path / f"{name}.npz", member))
        assert len(str(caught.value)) < 200, name
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(tmp_path / "no.npz")
    bomb = npz(tmp_path / "bomb.npz", header((25_000_000,)) + bytes(10**8))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(ValueError, match="too large"):
        read_arrays(bomb, most=10**7)
    tracemalloc.start()
    assert read_arrays(bomb)["a"].shape == (25_000_000,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4e8, "the array, and which of its numbers are finite"
