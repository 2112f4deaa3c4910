"""Mutated inputs, thousands of them, read as the scripts read them: what comes of each?

    python benchmarks/mutations.py --inputs 10000

A fourth each are annotations, vocabularies, checkpoints and images. Each is a valid file whose
bytes or values are changed at random (by --seed and its number alone), or one made to run code or
to exhaust memory. Every 20th goes through a whole script, the rest through the functions that it
calls. The network in the checkpoints is a tiny one, so that a thousand can be written and read.

    accepted    nothing wrong was found in it
    refused     UsageError: one sentence, exit code 2
    tracebacks  anything else raised, or the process died
    hangs       no answer within 20 seconds
    code run    a program started, a connection, a file of a payload made
    written     a file opened for writing elsewhere than in the output folder

The last two are what Python's audit hooks saw, beside a look at what lies in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import build_vocab
import data_sets
import evaluate
import sample
from annotations import encode_targets, read_annotations
from checkpoint import FORMAT, load_checkpoint, restore
from decoding import decode
from model import HybridNet
from pictures import Preprocessing, load_image
from utils import UsageError, printable, run_script
from vocabulary import Vocabulary, count_labels, load_vocabulary

KINDS = ("annotations", "vocabulary", "checkpoint", "images")
OUTCOMES = ("accepted", "refused", "tracebacks", "hangs", "code run", "written")
PATIENCE = 20  # seconds
MEMORY = 12 << 30  # bytes of addresses, so that a bomb cannot take the machine along
SCRIPT_EVERY = 20
STARTS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
STARTS |= {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"}
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
    for i in range(1, 5):
        setattr(net, f"layer{i}", nn.Conv2d(8, 8, 1))
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
    settings = {"arch": "resnet18", "decoder": "chain", "embed_size": 4, "hidden_size": 4}
    settings["freeze_encoder"] = False
    checkpoint = {
        "format": FORMAT,
        "model": settings,
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": Preprocessing(32).to_dict(),
        "weights": HybridNet(num_labels=5, **settings).state_dict(),
        "threshold": 0.4,
        "epoch": 3,
        "figures": {"val_mAP": 20.0},
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


# --- reading them ------------------------------------------------------------------------------


def read_input(kind: str, path: Path, folder: Path, valid: dict) -> None:
    """What the scripts do with such a file, function by function."""
    if kind == "images":
        load_image(path)
        Preprocessing(32).for_test().of_file(path)
        Preprocessing(32).for_training(np.random.default_rng(0)).of_file(path)
    elif kind == "annotations":
        images, _ = data_sets.load_data_set(folder / "images", read_annotations(path))
        encode_targets(images, count_labels(images.label_sets, images.categories))
    elif kind == "vocabulary":
        vocabulary = load_vocabulary(path)
        vocabulary.log_odds()
        encode_targets(read_annotations(folder / "instances.json"), vocabulary)
    else:
        checkpoint = load_checkpoint(path)
        model, vocabulary, preprocessing = restore(checkpoint, path)
        with contextlib.suppress(UsageError):
            evaluate.choose_data(evaluate.get_args_parser().parse_args([]), checkpoint)
        evaluate.warn_of_leaks(checkpoint, folder / "instances.json", "val")
        if preprocessing.image_size <= 256:
            image = preprocessing.for_test().of_file(next((folder / "images").glob("*.jpg")))
            with torch.no_grad():
                decode(model, model.encode(image[None]), torch.zeros(1, len(vocabulary)))


def run_a_script(kind: str, path: Path, folder: Path) -> None:
    """The whole script that reads such a file; raises what `read_input` would by its exit code."""
    images, instances, best = folder / "images", folder / "instances.json", folder / "best.pt"
    out = folder / "out"
    if kind == "annotations":
        module, args = build_vocab, ["--annotations", path, "--vocab_path", out / "v.pkl"]
    elif kind == "images":
        module, args = sample, [path, "--checkpoint", best, "--output", out]
    elif kind == "checkpoint":
        module, args = evaluate, ["--checkpoint", path, "--image_path", images]
        args += ["--annotations", instances, "--output_dir", out, "--num_workers", 0]
    else:  # no script reads a vocabulary but train.py, which takes minutes
        return read_input(kind, path, folder, {})
    sys.argv = [module.__name__, *map(str, args)]
    code, said = 0, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_script(module.main, module.get_args_parser())
        except SystemExit as end:
            code = end.code
    if code:
        last = said.getvalue().splitlines()[-1]
        if code != 2 or not last.startswith("error: ") or "Traceback" in said.getvalue():
            raise RuntimeError(f"exit code {code}: {said.getvalue()}")
        raise UsageError(last)
    return None


class Watch:
    """Audit hooks: what the code under test starts, and which files it writes to."""

    def __init__(self, output: Path) -> None:
        self.output, self.on = str(output), False
        self.started: list[str] = []
        self.written: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        """Called by Python for each event; must be quick."""
        if not self.on:
            return
        if event in STARTS:
            inside = event in ("os.remove", "os.rename") and str(args[0]).startswith(self.output)
            if not inside:
                self.started.append(f"{event} {args[:2]}")
        elif event == "open" and isinstance(args[2], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(args[0]).startswith((self.output, os.devnull)):
                self.written.append(str(args[0]))


def work(kind: str, first: int, last: int, seed: int, folder: Path, connection) -> None:
    """Send (number, outcome, detail) of the inputs from first to before last."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    torchvision.models.resnet18 = tiny_resnet
    sys.stderr = io.StringIO()  # progress
    torch.manual_seed(0)
    valid = write_valid(folder)
    (folder / "out").mkdir()
    canary = folder / "canary"
    watch = Watch(folder / "out")
    with contextlib.redirect_stdout(io.StringIO()):  # what is imported late is imported now
        run_a_script("checkpoint", folder / "best.pt", folder)
        run_a_script("images", next((folder / "images").glob("*.jpg")), folder)
    for i in range(first, last):
        rng = np.random.default_rng([seed, KINDS.index(kind), i])
        path = make_input(kind, valid, folder, canary, rng)
        watch.started, watch.written = [], []
        outcome, detail = "accepted", ""
        watch.on = True
        try:
            read = run_a_script if i % SCRIPT_EVERY == 0 else read_input
            read(kind, path, folder, *([valid] if read is read_input else []))
        except UsageError as error:
            outcome, detail = "refused", str(error)
            if not detail or "\n" in printable(detail):
                outcome = "tracebacks"
        except BaseException:
            outcome, detail = "tracebacks", traceback.format_exc()
        watch.on = False
        if watch.started or canary.exists():
            outcome, detail = "code run", "; ".join(watch.started)
            canary.unlink(missing_ok=True)
        elif watch.written:
            outcome, detail = "written", "; ".join(watch.written)
        connection.send((i, outcome, detail))
        path.unlink()
    connection.close()


def run_kind(kind: str, count: int, seed: int, keep: Path | None = None) -> tuple[Counter, list]:
    """Outcomes of `count` inputs, and (number, outcome, detail) of those that should not be."""
    counts, bad, start = Counter(), [], 0
    context = multiprocessing.get_context("spawn")
    while start < count:
        with tempfile.TemporaryDirectory() as folder:
            here, there = context.Pipe(duplex=False)
            args = (kind, start, count, seed, Path(folder), there)
            process = context.Process(target=work, args=args)
            process.start()
            there.close()
            patience, outcome = 120, "hangs"  # it imports torch first
            try:
                while start < count and here.poll(patience):
                    number, what, detail = here.recv()
                    counts[what] += 1
                    if what not in ("accepted", "refused"):
                        bad.append((number, what, detail))
                    start, patience = number + 1, PATIENCE
            except EOFError:
                outcome = "tracebacks"
            if start < count:
                process.join(1)
                counts[outcome] += 1
                bad.append((start, outcome, f"exit code {process.exitcode}"))
                if keep:
                    shutil.copytree(folder, keep / f"{kind}-{start}", dirs_exist_ok=True)
                start += 1
            process.kill()
            process.join()
    return counts, bad


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="another one is another 10,000")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="only these")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run all kinds, print the table; exits with 1 if anything is not as it should be."""
    total, failures, started = Counter(), [], time.perf_counter()
    print(f"| inputs | {' | '.join(('number', *OUTCOMES))} |")
    print("| --- " * (2 + len(OUTCOMES)) + "|")
    rows = []
    for kind in args.kinds:
        counts, bad = run_kind(kind, args.inputs // len(args.kinds), args.seed)
        rows.append((kind, counts))
        failures += [(kind, *each) for each in bad]
        total += counts
    for kind, counts in [*rows, ("all", total)]:
        cells = [f"{sum(counts.values()):,}", *(f"{counts[k]:,}" for k in OUTCOMES)]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    for kind, number, outcome, detail in failures[:20]:
        print(f"{kind} {number}: {outcome}\n{detail}", file=sys.stderr)
    print(f"{time.perf_counter() - started:.0f} s, seed {args.seed}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main(get_args_parser().parse_args())
