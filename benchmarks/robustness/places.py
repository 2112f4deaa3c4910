"""Full and read-only disks, files that may not be read: does each command end in one sentence?

    python benchmarks/robustness/places.py disks
    python benchmarks/robustness/places.py permissions
    capsh --drop=cap_dac_override,cap_dac_read_search -- -c "python … permissions"

disks: each command that writes files, with its output on disks of several sizes, too small for
what it writes, and on a read-only one. Only root can mount them.
permissions: each file that some command reads (doors.py) may not be read, then the folder that it
is in may not be listed, then not be written to. Root without these rights can try it, too.

Prints a Markdown table. Exit code 1 if a command ends otherwise than with success or one sentence,
or leaves half a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import make_shards
import mutations
from doors import DATA, DOORS, JUDGE, TRAIN, Door
from tables import add_save_flag, print_table
from trying import is_one_sentence, run_door

import annotate
import build_vocab
import evaluate
import export
import sample
import train
from util.cli import ArgumentParser, run_script
from util.errors import RunError, UsageError
from util.log import log

JUDGED = JUDGE.removesuffix(" out")
SIZES = ("4k", "16k", "64k", "256k")
ENDS = ("finished", "one sentence", "other ends", "half a file left")
WRITERS = {
    "train": (train, f"{TRAIN} --vocab_path vocab.pkl --output_dir disk/r"),
    "evaluate": (evaluate, f"{JUDGED} disk/e --report --influence"),
    "sample": (sample, "few --checkpoint run --output disk/s --num_workers 0"),
    "export": (export, "--checkpoint run --output_dir disk/x"),
    "build_vocab": (build_vocab, "--annotations instances.json --vocab_path disk/v.pkl"),
    "make_shards": (make_shards, f"{DATA} --output_dir disk/shards"),
    "annotate": (annotate, "images --output disk/c.csv"),
}


def end_of(door: Door) -> str:
    """Run the command in a copy of this process; how it ended, one of ENDS."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        code, said = 1, "it ended with an exception"
        try:
            code, said = run_door(door)
        finally:
            os.write(send, json.dumps((code, said[-2000:])).encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as found:
        code, said = json.loads(found.read() or '[1, "it was killed"]')
    os.waitpid(child, 0)
    if code in (1, 2) and is_one_sentence(said):
        log(f"  {said.splitlines()[-1]}")
        return "one sentence"
    if code:
        log(f"exit code {code}: {said}")
    return "other ends" if code else "finished"


def try_disks(tree: Path) -> Iterator[tuple[str, Counter]]:
    """Each command that writes, on each disk."""
    disk = tree / "disk"
    disk.mkdir()
    for name, (script, flags) in WRITERS.items():
        counts, door = Counter(), Door("", "", script, flags, print)
        for options in (*(f"size={size}" for size in SIZES), "ro"):
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
            if subprocess.run(mount, check=False).returncode:
                raise UsageError("only root can mount disks")
            log(f"{name}, {options}")
            try:
                counts[end_of(door)] += 1
                counts["half a file left"] += any(disk.rglob("*.tmp*"))
            finally:
                subprocess.run(["umount", str(disk)], check=True)
        yield name, counts


def try_permissions(tree: Path) -> Iterator[tuple[str, Counter]]:
    """Each file that a script reads."""
    (tree / "out").mkdir(exist_ok=True)
    probe = tree / "probe"
    probe.touch(0)
    if os.access(probe, os.R_OK):
        raise UsageError("root may read everything: see --help")
    for name, door in DOORS.items():
        path, counts = tree / door.file, Counter()
        if not door.script:
            continue
        for place, mode in ((path, 0), (path.parent, 0), (path.parent, 0o555)):
            if place == tree:
                continue
            log(f"{name}: {place.relative_to(tree)}, {mode:03o}")
            before = place.stat().st_mode & 0o7777
            place.chmod(mode)
            counts[end_of(door)] += 1
            place.chmod(before)
        shutil.rmtree(tree / "out", ignore_errors=True)
        (tree / "out").mkdir(exist_ok=True)
        yield name, counts


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("what", choices=("disks", "permissions"))
    add_save_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Try everything, print the table. Raises RunError if a command ends badly."""
    mutations.prepare()
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place, "tree")
        tree.mkdir()
        mutations.make_tree(tree)
        mutations.quick_export()
        os.chdir(tree)
        found = dict((try_disks if args.what == "disks" else try_permissions)(tree))
        os.chdir("/")
    rows = [
        [name, sum(counts[end] for end in ENDS[:3]), *(counts[end] for end in ENDS)]
        for name, counts in found.items()
    ]
    print_table(
        args.what, ("command" if args.what == "disks" else "file", "tries", *ENDS), rows, args.save
    )
    if any(counts[end] for counts in found.values() for end in ENDS[2:]):
        raise RunError("a command ended badly")


if __name__ == "__main__":
    run_script(main, get_args_parser())
