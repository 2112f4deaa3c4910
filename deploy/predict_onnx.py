"""Label images with the files that export.py wrote, without PyTorch.

    python predict_onnx.py runs/scenes-chain/export photo.jpg

This file needs onnxruntime and numpy, and Pillow to read images, but nothing else of the project.
Copy it and change it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

NUM_SAMPLES = 256  # label sets sampled; the error falls with the square root of their number


def open_network(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """A network and the constants in its file."""
    try:
        network = onnxruntime.InferenceSession(path.read_bytes())
        constants = network.get_modelmeta().custom_metadata_map
        if constants["format"] == "hybridnet-onnx-1":
            return network, constants
    except OSError as error:
        raise SystemExit(f"error: cannot read {path} ({error.strerror})") from None
    except Exception:  # onnxruntime's errors have no common class
        pass
    raise SystemExit(f"error: {path} is damaged or was not written by HybridNet's export.py")


def load_image(path: Path, size: int) -> np.ndarray:
    """An image file -> 1×3×S×S uint8: upright, on white, resized to a square as in training."""
    try:
        with Image.open(path) as image:
            image.draft(None, (size, size))  # decodes a large JPEG at a smaller size
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SystemExit(f"error: {path} cannot be read as an image") from None
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)[None]


def marginals(encoder, step, image: np.ndarray, seed: int = 0) -> np.ndarray:
    """P(label in set | image), C: samples label sets label by label, most frequent label first.

    Averages each label's probability given the labels sampled before it (Rao-Blackwell).
    """
    cnn_logits, *embedding = encoder.run(None, {"images": image})  # 1×C, 1×E
    if step is None:  # decoder `none`: labels do not depend on each other
        return 1 / (1 + np.exp(-cnn_logits[0]))
    num_labels = cnn_logits.shape[1]
    random = np.random.default_rng(seed)
    probabilities = np.zeros((NUM_SAMPLES, num_labels))  # given the labels before
    rows = np.arange(NUM_SAMPLES)  # samples that have not ended
    last = np.full(NUM_SAMPLES, -1)  # the label read last, -1 at the start
    (state_size,) = (i.shape[1] for i in step.get_inputs() if i.name == "state")
    state = np.zeros((NUM_SAMPLES, state_size), np.float32)
    while len(rows):
        inputs = {
            "state": state,
            "label": last,
            "image_embedding": embedding[0].repeat(len(rows), 0),
            "cnn_logits": cnn_logits.repeat(len(rows), 0),
        }
        z, state = step.run(None, inputs)
        later = np.arange(num_labels) > last[:, None]
        none_up_to = np.where(later, -np.logaddexp(0, z), 0).cumsum(1)  # log-probabilities
        # the first label at which "none so far" falls below a random number; num_labels is END
        last = (none_up_to >= np.log1p(-random.random((len(rows), 1)))).sum(1)
        decided = later & (np.arange(num_labels) <= last[:, None])
        probabilities[rows] += np.where(decided, np.exp(-np.logaddexp(0, -z)), 0)
        goes_on = last < num_labels
        rows, last, state = (a[goes_on] for a in (rows, last, state))
    return probabilities.mean(0)


def main(folder: Path, images: list[Path]) -> None:
    """Print the most probable labels of each image; * marks those above the threshold."""
    encoder, constants = open_network(folder / "encoder.onnx")
    labels, threshold = json.loads(constants["labels"]), float(constants["threshold"])
    step = None
    if constants["decoder"] != "none":
        step, _ = open_network(folder / "decoder_step.onnx")
    for path in images:
        p = marginals(encoder, step, load_image(path, int(constants["image_size"])))
        print(path)
        for i in np.argsort(-p, kind="stable")[:8]:
            print(f"  {'*' if p[i] >= threshold else ' '} {labels[i]:<20} {100 * p[i]:5.1f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that export.py wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    args = parser.parse_args()
    main(args.folder, args.images)
