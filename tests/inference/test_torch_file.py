"""read_torch_file reads what torch.load reads, to the bit, and refuses what torch.load should."""

import io
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from conftest import same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.torch_file import DTYPES, BadFileError, Skipped, read_torch_file

QUICK = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
OLD = {"_use_new_zipfile_serialization": False}


@st.composite
def tensors(draw) -> torch.Tensor:
    """Of any type, shape and memory order; sometimes a part of a larger one, or a parameter."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from([*DTYPES.values()]))
    whole = torch.randn([n + 2 for n in shape]).mul(50).to(dtype)
    tensor = whole[tuple(slice(1, n + 1) for n in shape)]
    if draw(st.booleans()):
        tensor = tensor.clone().permute(draw(st.permutations(range(len(shape)))))
    if dtype == torch.float32 and draw(st.booleans()):
        return torch.nn.Parameter(tensor)
    return tensor


contents = st.recursive(
    tensors() | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(0, 1000), inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=12,
)


@QUICK
@given(content=contents, old=st.booleans())
def test_it_reads_what_torch_load_reads(tmp_path, content, old):
    content = {"a": content, "b": content}  # each object twice, as in files with shared tensors
    path = tmp_path / "x.pt"
    torch.save(content, path, **OLD if old else {})
    ours, theirs = read_torch_file(path), torch.load(path, weights_only=True)
    assert same(ours, theirs)
    assert layout(ours) == layout(theirs)


def layout(value: object) -> list:
    """Strides of all tensors, and which objects share memory."""
    if isinstance(value, torch.Tensor):
        return [value.stride(), value.storage_offset()]
    values = value.values() if isinstance(value, dict) else value
    return [layout(v) for v in values] if isinstance(value, (dict, list, tuple)) else []


def test_tensors_that_share_memory_do_so_again(tmp_path):
    base = torch.arange(6.0)
    for options in ({}, OLD):
        torch.save([base, base[2:4]], tmp_path / "x.pt", **options)
        whole, part = read_torch_file(tmp_path / "x.pt")
        whole[2] = 50
        assert part.tolist() == [50, 3]


def test_other_classes_are_skipped(tmp_path):
    """Training scripts save their options beside the weights; nothing of such a class is made."""
    content = {"model": {"w": torch.ones(2)}, "epoch": 3, "set": {1, 2}, "bytes": b"ab"}
    content |= {"size": torch.Size([2]), "complex": 1j, "type": torch.float16, "d": range(3)}
    torch.save(content, tmp_path / "x.pt")
    found = read_torch_file(tmp_path / "x.pt")
    assert found["epoch"] == 3
    assert same(found["model"], content["model"])
    assert {k for k, v in found.items() if isinstance(v, Skipped)} == {
        *("set", "bytes", "size", "complex", "d", "type")
    }
    for options in ({}, OLD):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt", **options)
        assert isinstance(read_torch_file(tmp_path / "x.pt"), Skipped)


# --- damaged files ----------------------------------------------------------------------------


@pytest.fixture(params=[{}, OLD], ids=["zip", "old"])
def data(request) -> bytes:
    buffer = io.BytesIO()
    content = {"weights": torch.nn.Conv2d(2, 3, 3).state_dict(), "n": [1, 2.5, None, "x", (True,)]}
    torch.save(content, buffer, **request.param)
    return buffer.getvalue()


def outcome(path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        read_torch_file(path)
    except BadFileError as error:
        return str(error)
    return "read"


def test_a_file_that_is_cut_is_refused(tmp_path, data):
    assert outcome(tmp_path / "x.pt", data) == "read"
    for length in range(0, len(data) - 1, 7):
        assert outcome(tmp_path / "x.pt", data[:length]) != "read"


def test_a_damaged_byte_is_refused_or_changes_a_value(tmp_path, data):
    """No other error and no endless loop, wherever it is."""
    outcomes = set()
    for place in range(0, len(data), 13):
        for value in (255, data[place] ^ 1):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            outcomes.add(outcome(tmp_path / "x.pt", changed))
    assert "it is damaged" in outcomes


# --- files made to do harm --------------------------------------------------------------------


def zip_of(tmp_path, body: bytes, **records: bytes):
    """A file of torch.save with this pickle, without its first and last operation."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("x/version", "3\n")
        for name, data in records.items():
            archive.writestr(f"x/data/{name}", data)
    return path


def nested(kind: type) -> bytes:
    """A tuple or list of twice the same one, over 90 levels: 2**90 to visit, in 900 bytes."""
    first, level = (b")", b"h%ch%c\x86") if kind is tuple else (b"]", b"](h%ch%ce")
    return first + b"q\x00" + b"".join(level % (i, i) + b"q%c" % (i + 1) for i in range(90))


def test_files_that_take_all_memory_or_never_end(tmp_path):
    """Each hangs, fills the memory or crashes with torch.load(weights_only=True)."""
    for body in (nested(tuple), nested(list)):
        with pytest.raises(BadFileError, match="damaged"):  # it is called like a function
            read_torch_file(zip_of(tmp_path, body + b")R"))
        assert read_torch_file(zip_of(tmp_path, body + b"}h\x5aK\x01s")) == {}  # as a key
        in_set = read_torch_file(zip_of(tmp_path, body + b"cbuiltins\nset\nh\x5a\x85R"))
        assert in_set == Skipped("builtins.set")
    huge = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2**40
    for function in (b"cbuiltins\nbytearray\n", b"ctorch\nTensor\n", b"ctorch\nFloatTensor\n"):
        assert isinstance(read_torch_file(zip_of(tmp_path, function + huge + b"\x85R")), Skipped)
    deep = b"}" + b")" + b"\x85" * 300_000 + b"K\x01s"
    assert read_torch_file(zip_of(tmp_path, deep)) == {}
    cells = zip_of(tmp_path, b"]q\x00h\x00a")  # a list that holds itself
    assert len(read_torch_file(cells)) == 1


def storage(numel: bytes, key: bytes = b"U\x010") -> bytes:
    return b"(U\x07storagectorch\nFloatStorage\n" + key + b"U\x03cpu" + numel + b"tQ"


def tensor(storage: bytes, shape: bytes, strides: bytes = b"K\x01\x85") -> bytes:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return rebuild + b"(" + storage + b"K\x00" + shape + strides + b"\x89}tR"


def test_tensors_larger_than_the_file(tmp_path):
    good = tensor(storage(b"K\x02"), b"K\x02\x85")
    assert read_torch_file(zip_of(tmp_path, good, **{"0": bytes(8)})).tolist() == [0, 0]
    huge = b"\x8a\x06\x00\x00\x00\x00\x00\x01"
    for body, reason in (
        (tensor(storage(huge), b"K\x02\x85"), "larger than the file"),
        (tensor(storage(b"K\x02"), huge + b"\x85", b"K\x00\x85"), "larger than the file"),
        (tensor(storage(b"K\x02"), b"K\x03\x85"), "damaged"),  # one number too many
        (tensor(storage(b"K\x03"), b"K\x02\x85"), "damaged"),  # the record is shorter
        (tensor(storage(b"J\xff\xff\xff\xff"), b"K\x02\x85"), "damaged"),
        (tensor(storage(b"K\x02", b"U\x03a/b"), b"K\x02\x85"), "damaged"),
        (b"](" + good * 200 + b"e", None),
    ):
        path = zip_of(tmp_path, body, **{"0": bytes(8)})
        if reason is None:  # many tensors of one storage: each is an object, and takes its room
            assert len(read_torch_file(path)) == 200
            continue
        with pytest.raises(BadFileError, match=reason):
            read_torch_file(path)
    large = b"](" + tensor(storage(b"M\x00\x40"), b"M\x00\x40\x85") * 9 + b"e"
    with pytest.raises(BadFileError, match="larger than the file"):
        read_torch_file(zip_of(tmp_path, large, **{"0": bytes(4 * 2**14)}))


def test_parameters_as_torch_0_3_wrote_them(tmp_path):
    """A call of the class, and its state: requires_grad, volatile, hooks."""
    body = tensor(storage(b"K\x02"), b"K\x02\x85")
    body = b"ctorch.nn.parameter\nParameter\n" + body + b"\x85R\x88\x89}\x87b"
    path = zip_of(tmp_path, body, **{"0": bytes(8)})
    assert same(read_torch_file(path), torch.load(path, weights_only=True).detach())


def test_archives_that_are_not_as_torch_writes_them(tmp_path, data):
    path = tmp_path / "y.pt"
    for names, reason in (
        (["a/x.pth", "a/__init__.py"], "unzip it and give a/x.pth"),
        (["a/data.pkl", "b/data.pkl"], "not written by torch.save"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"\x80\x02N.")
        with pytest.raises(BadFileError, match=reason):
            read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("a/byteorder", b"big")
    with pytest.raises(BadFileError, match="big-endian"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("a/data/0", bytes(10**7))
    with pytest.raises(BadFileError, match="compressed"):
        read_torch_file(path)
    for other in (b"", b"hello", pickle.dumps({"a": 1}), b"\x89HDF\r\n", b"\x80\x02K\x01."):
        path.write_bytes(other)
        with pytest.raises(BadFileError, match=r"not written by torch\.save"):
            read_torch_file(path)
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "absent.pt")
    with pytest.raises(BadFileError, match="ordinary file"):
        read_torch_file(tmp_path)
