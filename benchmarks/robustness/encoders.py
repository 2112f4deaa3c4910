"""Does everything work with encoders of many kinds? One line for each network of timm.

    python benchmarks/robustness/encoders.py
    python benchmarks/robustness/encoders.py --archs resnet18 convnext_atto --image_size 64

Each one, from random weights, on a few drawn scenes, through the scripts as a user runs them:

    train      train.py, two epochs of two steps, ended by SIGTERM in between and continued: the
               weights must be those of an uninterrupted run, to the bit
    processes  torchrun with two processes against one: the largest relative difference of the
               epochs' losses, at most 0.001 (without --amp, at a small learning rate)
    use        evaluate.py and sample.py with the heat maps of the labels
    export     export.py: the largest difference between onnxruntime and PyTorch, at most 0.001

Needs the packages of requirements-dev.txt. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from kills import same  # noqa: E402

from encoder import build_encoder  # noqa: E402
from inference.torch_file import read_torch_file  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402
from util.errors import RunError  # noqa: E402
from util.log import log  # noqa: E402

ARCHS = ("resnet18.a1_in1k", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "convnext_atto")
ARCHS += ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "regnety_002", "caformer_s18")
FLAGS = "--batch_size 8 --num_workers 0 --val_fraction 0 --num_epochs 2 --amp off"
LARGEST = 1e-3


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--archs", nargs="+", default=list(ARCHS), help="networks of timm")
    parser.add_argument("--image_size", type=positive_int, default=64, help="pixels a side")
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw the scenes, then try one network after the other."""
    columns = ("encoder", "parameters", "resumed run", "two processes", "used", "export")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = "--output_dir scenes --num_train 16 --num_val 4 --num_workers 1 --image_size"
        run(folder, "data/make_scenes.py", *draw.split(), args.image_size)
        for arch in args.archs:
            encoder = build_encoder(arch, image_size=args.image_size)
            cells = [arch, f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f} M"]
            flags = [*FLAGS.split(), "--arch", arch, "--image_size", str(args.image_size)]
            for step in (resume, processes, use, export):
                try:
                    cells.append(step(folder / arch, flags))
                except RunError as error:
                    log(f"{arch}: {error}")
                    cells.append("**failed**")
                    failed.append(arch)
            print("| " + " | ".join(cells) + " |", flush=True)
    if failed:
        raise RunError(f"failed: {', '.join(dict.fromkeys(failed))}")


def run(folder: Path, script: str, *flags: object, launch: tuple[str, ...] = ()) -> str:
    """Run a script to its end; returns its stdout. Raises RunError with the end of its stderr."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, *launch, str(ROOT / script), *map(str, flags)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RunError(f"{script} failed: {' '.join(result.stderr.splitlines()[-2:])}")
    return result.stdout


def data_flags(split: str = "train") -> list[str]:
    """Where the scenes are, from the folder of an encoder."""
    labels = f"../scenes/annotations/instances_{split}.json"
    return ["--image_path", f"../scenes/images/{split}", "--annotations", labels]


def resume(folder: Path, flags: list[str]) -> str:
    """Train without and with an interruption, compare all that last.pt holds."""
    train = [*data_flags(), *flags]
    run(folder, "train.py", *train, "--output_dir", "whole")
    often = ["--output_dir", "resumed", "--save_minutes", "1e-9"]
    command = [sys.executable, str(ROOT / "train.py"), *train, *often]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (folder / "resumed/last.pt").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    if process.wait() != 1:
        raise RunError("train.py could not be interrupted before its end")
    run(folder, "train.py", *train, *often)
    whole, resumed = (read_torch_file(folder / n / "last.pt") for n in ("whole", "resumed"))
    for part in ("weights", "training"):
        if not same(whole[part], resumed[part]):
            raise RunError(f"the {part} of the resumed run differ")
    return "the same bits"


def processes(folder: Path, flags: list[str]) -> str:
    """Train with one process and with two, compare the losses of the epochs."""
    # Adam's first steps are as long for a rounding error as for a gradient: use a small rate
    train = [*data_flags(), *flags, "--learning_rate", "1e-5", "--output_dir"]
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    outputs = (
        run(folder, "train.py", *train, "one"),
        run(folder, "train.py", *train, "two", launch=launch),
    )
    one, two = ([json.loads(line) for line in text.splitlines()] for text in outputs)
    names = ("train_loss", "val_set_nll")
    largest = max(abs(b[n] / a[n] - 1) for a, b in zip(one, two, strict=True) for n in names)
    if not largest <= LARGEST:
        raise RunError(f"the losses of two processes differ by {largest:.1e}")
    return f"{largest:.0e}"


def use(folder: Path, flags: list[str]) -> str:
    """Evaluate the model; label a picture, with heat maps."""
    best = ["--checkpoint", "whole/best.pt"]
    run(folder, "evaluate.py", *best, *data_flags("val"), "--num_workers", "0", "--amp", "off")
    picture = next((folder / "../scenes/images/val").iterdir())
    run(folder, "sample.py", picture, *best, "--output", "samples")
    if not list((folder / "samples").rglob("*.png")):
        raise RunError("sample.py drew no picture")
    return "yes"


def export(folder: Path, flags: list[str]) -> str:
    """Export the model; the difference is what export.py prints."""
    text = run(folder, "export.py", "--checkpoint", "whole/best.pt")
    largest = max(float(x) for x in re.findall(r"largest difference from PyTorch (\S+),", text))
    if not largest <= LARGEST:
        raise RunError(f"the exported files differ by {largest:.1e}")
    return f"{largest:.0e}"


if __name__ == "__main__":
    run_script(main, get_args_parser())
