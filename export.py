"""Take a trained model along: ONNX, safetensors, and a model card, in one folder.

    python export.py
    python export.py --checkpoint runs/scenes-chain/best.pt --verify photo.jpg holiday.png
    python predict_onnx.py runs/scenes-chain/export photo.jpg

Of the latest run's best.pt, if no checkpoint is named. The folder then holds

    encoder.onnx        pictures -> CNN scores and image embedding (onnx_files.py has the shapes)
    decoder_step.onnx   one label read -> log-odds of all that may follow; not for --decoder none
    predict_onnx.py     labels for pictures from these two, without PyTorch
    model.safetensors   the weights, and config.json all else that the checkpoint says (weights.py)
    MODEL_CARD.md       data, figures, limits, how to use: from the checkpoint and its metrics.json

Before anything is written, onnxruntime runs both networks beside PyTorch, on random pictures and on
those given with --verify. stdout has a line for each file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from deploy.model_card import write_card
from deploy.onnx_export import largest_differences, metadata, to_onnx
from deploy.safetensors_io import CONFIG, TENSORS, save_export
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from util.cli import ArgumentParser, run_script
from util.files import make_folder, write_atomically
from util.log import log

PREDICT = Path(__file__).with_name("deploy") / "predict_onnx.py"
RANDOM_PICTURES = 2  # verified besides those given: noise reaches what no photo does


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run; the latest run's if not given")
    add(
        "--output_dir", type=Path, help="where the files go; default: export/ beside the checkpoint"
    )
    add(
        "--verify",
        type=Path,
        nargs="+",
        default=[],
        metavar="PHOTO",
        help="pictures to compare onnxruntime and PyTorch on, besides random ones",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Make the ONNX files, verify them, write all."""
    path = args.checkpoint or find_checkpoint()
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    model.requires_grad_(False)
    view = preprocessing.eval_transform()
    photos = [view.from_file(photo) for photo in args.verify]
    folder = args.output_dir or path.parent / "export"
    make_folder(folder)

    constants = metadata(checkpoint["model"], vocabulary, preprocessing, checkpoint["threshold"])
    log(f"exporting {path}")
    files = to_onnx(model, constants)
    noise = torch.randint(
        256,
        (RANDOM_PICTURES, 3, view.side, view.side),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    images = torch.cat([noise, *(photo[None] for photo in photos)])
    differences = largest_differences(model, files, images)

    checked = f"{RANDOM_PICTURES} random pictures" + (f" and {len(photos)} given" if photos else "")
    for name, data in files.items():
        file = folder / f"{name}.onnx"
        write_atomically(file, lambda t, data=data: t.write_bytes(data))
        print(f"{file}: within {differences[name]:.1e} of PyTorch on {checked}")
    script = PREDICT.read_bytes()
    write_atomically(folder / PREDICT.name, lambda t: t.write_bytes(script))
    print(f"{folder / PREDICT.name}: labels for pictures, without PyTorch")
    save_export(checkpoint, folder)
    print(f"{folder / TENSORS}: {len(checkpoint['weights'])} tensors")
    print(f"{folder / CONFIG}: settings, {len(vocabulary)} labels, calibration, thresholds")
    parameters = sum(p.numel() for p in model.parameters())
    card = write_card(checkpoint, path, vocabulary, parameters, folder)
    write_atomically(folder / "MODEL_CARD.md", lambda t: t.write_bytes(card))
    print(f"{folder / 'MODEL_CARD.md'}: read it, and fill in the licence")


if __name__ == "__main__":
    run_script(main, get_args_parser())
