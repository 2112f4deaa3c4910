"""Read thousands of mutated files as the scripts read them: what happens with each?

    python benchmarks/robustness/mutations.py --inputs 10000

A fourth each are annotations, vocabularies, checkpoints and images. Each file is a valid one with
random changes of its bytes or values (they depend on --seed and its number only), or one made to
run code or to fill the memory. Every 20th is read by a whole script, the others by the functions
that the scripts call. The network in the checkpoints is tiny, so that thousands can be written.

    accepted    no problem was found
    refused     UsageError: one sentence, exit code 2
    tracebacks  any other exception, or the process died
    hangs       no result within 20 seconds
    code run    a program was started, a connection opened, or a file created by a pickle
    written     a file outside the output folder was opened for writing

The last two are seen by Python's audit hooks, and by a look at the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mutated_inputs import make_input
from valid_inputs import tiny_resnet, write_valid

import build_vocab
import data_loader
import evaluate
import sample
from evaluation.choice import choose_images
from images.decode import load_image
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, restore
from inference.predictions import decode
from labels.coco import read_annotations
from labels.options import ReadOptions
from labels.targets import encode_targets
from labels.vocabulary import count_labels, load_vocabulary
from util.cli import ArgumentParser, code_commit, run_script
from util.errors import UsageError
from util.log import printable

KINDS = ("annotations", "vocabulary", "checkpoint", "images")
OUTCOMES = ("accepted", "refused", "tracebacks", "hangs", "code run", "written")
PATIENCE = 20  # seconds
MEMORY = 12 << 30  # bytes of address space, so that no file can fill the machine's memory
SCRIPT_EVERY = 20
STARTS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
STARTS |= {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"}


def read_input(kind: str, path: Path, folder: Path) -> None:
    """Call the functions with which the scripts read such a file."""
    if kind == "images":
        load_image(path)
        Preprocessing(32).eval_transform().from_file(path)
        Preprocessing(32).train_transform(np.random.default_rng(0)).from_file(path)
    elif kind == "annotations":
        images, _ = data_loader.load_data_set(folder / "images", read_annotations(path))
        encode_targets(images, count_labels(images.label_sets, images.categories))
    elif kind == "vocabulary":
        vocabulary = load_vocabulary(path)
        vocabulary.prior_logits()
        encode_targets(read_annotations(folder / "instances.json"), vocabulary)
    else:
        checkpoint = load_checkpoint(path)
        model, vocabulary, preprocessing = restore(checkpoint, path)
        with contextlib.suppress(UsageError):
            choose_images(None, None, None, checkpoint, ReadOptions())
        if preprocessing.image_size <= 256:
            image = preprocessing.eval_transform().from_file(
                next((folder / "images").glob("*.jpg"))
            )
            with torch.no_grad():
                decode(model, model.encode(image[None]), torch.zeros(1, len(vocabulary)))


def run_a_script(kind: str, path: Path, folder: Path) -> None:
    """Run the script that reads such a file. Raises UsageError for its exit code 2."""
    images, instances, best = folder / "images", folder / "instances.json", folder / "best.pt"
    out = folder / "out"
    if kind == "annotations":
        module, args = build_vocab, ["--annotations", path, "--vocab_path", out / "v.pkl"]
    elif kind == "images":
        module, args = sample, [path, "--checkpoint", best, "--output", out]
    elif kind == "checkpoint":
        module, args = evaluate, ["--checkpoint", path, "--image_path", images]
        args += ["--annotations", instances, "--output_dir", out, "--num_workers", 0]
    else:  # only train.py reads a vocabulary, and it takes minutes
        return read_input(kind, path, folder)
    sys.argv = [module.__name__, *map(str, args)]
    code, stderr = 0, io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_script(module.main, module.get_args_parser())
        except SystemExit as end:
            code = end.code
    if code:
        last = stderr.getvalue().splitlines()[-1]
        if code != 2 or not last.startswith("error: ") or "Traceback" in stderr.getvalue():
            raise RuntimeError(f"exit code {code}: {stderr.getvalue()}")
        raise UsageError(last)
    return None


class Watch:
    """An audit hook: records what the tested code starts, and which files it writes to."""

    def __init__(self, output: Path) -> None:
        self.output, self.on = str(output), False
        self.started: list[str] = []
        self.written: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        """Called by Python for each event; must be fast."""
        if not self.on:
            return
        if event in STARTS:
            inside = event in ("os.remove", "os.rename") and str(args[0]).startswith(self.output)
            no_library = event == "ctypes.dlopen" and args[0] is None  # Python itself
            if not (inside or no_library):
                self.started.append(f"{event} {args[:2]}")
        elif event == "open" and isinstance(args[2], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(args[0]).startswith((self.output, os.devnull)):
                self.written.append(str(args[0]))


def work(kind: str, first: int, last: int, seed: int, folder: Path, connection: Connection) -> None:
    """Make and read inputs first to last - 1; sends (number, outcome, detail) of each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    torchvision.models.resnet18 = tiny_resnet
    sys.stderr = io.StringIO()  # progress
    torch.manual_seed(0)
    valid = write_valid(folder)
    (folder / "out").mkdir()
    canary = folder / "canary"
    watch = Watch(folder / "out")
    code_commit()  # calls git once, before the hook is on
    with contextlib.redirect_stdout(io.StringIO()):  # do late imports before the hook is on
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
            read(kind, path, folder)
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


def run_kind(kind: str, count: int, seed: int) -> tuple[Counter, list]:
    """Counts of outcomes, and (number, outcome, detail) of every failure."""
    counts, bad, start = Counter(), [], 0
    context = multiprocessing.get_context("spawn")
    while start < count:
        with tempfile.TemporaryDirectory() as folder:
            here, there = context.Pipe(duplex=False)
            args = (kind, start, count, seed, Path(folder), there)
            process = context.Process(target=work, args=args)
            process.start()
            there.close()
            patience, outcome = 120, "hangs"  # the process imports torch first
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
                start += 1
            process.kill()
            process.join()
    return counts, bad


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="files of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of files")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run all kinds, print the table; exit code 1 if there is a failure."""
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
    run_script(main, get_args_parser())
