"""Export a trained model to one folder: ONNX, safetensors and a model card.

    python export.py
    python export.py --checkpoint runs/scenes-chain/best.pt --verify photo.jpg holiday.png
    python export.py --rules rules.txt
    python predict_onnx.py runs/scenes-chain/export photo.jpg

Without --checkpoint it exports the latest run's best.pt. The folder then has

    encoder.onnx        images -> CNN logits and image embedding (shapes: deploy/onnx_export.py)
    decoder_step.onnx   the last label -> logits of the labels that may follow; not for decoder none
    predict_onnx.py     predicts labels with these two files, without PyTorch
    model.safetensors   the weights
    config.json         all other parts of the checkpoint (see deploy/safetensors_io.py)
    MODEL_CARD.md       data, metrics, limits and use, from the checkpoint and its metrics.json

Before anything is written, the outputs of onnxruntime and PyTorch are compared, on random images
and on those given with --verify. stdout has a line for each file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from deploy.model_card import write_card
from deploy.onnx_export import largest_differences, metadata, to_onnx
from deploy.safetensors_io import CONFIG, TENSORS, save_export
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.rules import load_rules
from util.cli import ArgumentParser, run_script
from util.errors import UsageError
from util.files import make_folder, write_atomically
from util.log import log
from util.packages import check_packages

PREDICT = Path(__file__).with_name("deploy") / "predict_onnx.py"
NUM_RANDOM = 2  # random images to compare on: noise reaches values that photos do not


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--output_dir", type=Path, help="output folder; default: export/ beside the checkpoint")
    add("--rules", type=Path, metavar="TXT", help="rules that predict_onnx.py keeps: puppy -> dog")
    add(
        "--verify",
        type=Path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images to compare onnxruntime and PyTorch on, besides random ones",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Make the ONNX files, verify them, write everything."""
    check_packages("export.py", "export", ("onnx", "onnxscript", "onnxruntime"))
    path = find_checkpoint(args.checkpoint)
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    model.requires_grad_(False)
    view = preprocessing.eval_transform()
    photos = [view.from_file(photo) for photo in args.verify]
    folder = args.output_dir or path.parent / "export"
    if folder.resolve() == path.parent.resolve():
        raise UsageError(f"{folder} is the run's folder, with its own config.json: choose another")
    make_folder(folder)

    rules = load_rules(args.rules, vocabulary.labels).rules if args.rules else ()
    constants = metadata(
        checkpoint["model"], vocabulary, preprocessing, checkpoint["threshold"], rules
    )
    log(f"exporting {path}")
    files = to_onnx(model, constants)
    noise = torch.randint(
        256,
        (NUM_RANDOM, 3, view.side, view.side),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    images = torch.cat([noise, *(photo[None] for photo in photos)])
    differences = largest_differences(model, files, images)

    parameters = sum(p.numel() for p in model.parameters())
    card = write_card(checkpoint, path, vocabulary, parameters, folder)

    compared_on = f"{NUM_RANDOM} random images" + (f" and {len(photos)} given" if photos else "")
    for name, data in files.items():
        file = folder / f"{name}.onnx"
        write_atomically(file, lambda t, data=data: t.write_bytes(data))
        print(f"{file}: largest difference from PyTorch {differences[name]:.1e}, on {compared_on}")
    script = PREDICT.read_bytes()
    write_atomically(folder / PREDICT.name, lambda t: t.write_bytes(script))
    print(f"{folder / PREDICT.name}: predicts labels without PyTorch")
    save_export(checkpoint, folder)
    print(f"{folder / TENSORS}: {len(checkpoint['weights'])} tensors")
    print(f"{folder / CONFIG}: model arguments, {len(vocabulary)} labels, calibration, thresholds")
    write_atomically(folder / "MODEL_CARD.md", lambda t: t.write_bytes(card))
    print(f"{folder / 'MODEL_CARD.md'}: read it and fill in the licence")


if __name__ == "__main__":
    run_script(main, get_args_parser())
