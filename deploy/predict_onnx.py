"""Tag pictures with what export.py wrote: no PyTorch, and nothing else of the project.

    python predict_onnx.py runs/scenes-chain/export photo.jpg

Needs onnxruntime and numpy, and Pillow only to read the pictures. Take it along and change it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

NUM_SAMPLES = 256  # label sets drawn; the error falls with the square root of their number


def open_network(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """A network and the constants in its file."""
    try:
        network = onnxruntime.InferenceSession(path.read_bytes())
        constants = network.get_modelmeta().custom_metadata_map
        if constants["format"] == "hybridnet-onnx-1":
            return network, constants
    except OSError as error:
        raise SystemExit(f"error: cannot read {path} ({error.strerror})") from None
    except Exception:  # of a damaged or foreign file: onnxruntime's errors have no common base
        pass
    raise SystemExit(f"error: {path} is damaged or not a file of HybridNet's export.py")


def load_picture(path: Path, size: int) -> np.ndarray:
    """A picture file -> 1×3×S×S uint8: upright, on white, squeezed to a square as in training."""
    try:
        with Image.open(path) as image:
            image.draft(None, (size, size))  # a large JPEG need not be decoded in full
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SystemExit(f"error: {path} cannot be read as an image") from None
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)[None]


def marginals(encoder, step, image: np.ndarray, hidden_size: int, seed: int = 0) -> np.ndarray:
    """P(label in set | image), C: label sets drawn label by label, most frequent label first.

    Each label's probability given the labels drawn before it is averaged (Rao-Blackwell).
    """
    scores, *embedding = encoder.run(None, {"images": image})  # 1×C, 1×E
    if step is None:  # decoder `none`: labels do not depend on each other
        return 1 / (1 + np.exp(-scores[0]))
    num_labels = scores.shape[1]
    random = np.random.default_rng(seed)
    given = np.zeros((NUM_SAMPLES, num_labels))  # probabilities given the labels before
    rows = np.arange(NUM_SAMPLES)  # samples that go on
    last = np.full(NUM_SAMPLES, -1)  # label read last, -1 at the start
    hidden = cell = np.zeros((NUM_SAMPLES, hidden_size), np.float32)
    while len(rows):
        z, hidden, cell = step.run(
            None,
            {
                "hidden": hidden,
                "cell": cell,
                "label": last,
                "image_embedding": embedding[0].repeat(len(rows), 0),
                "cnn_logits": scores.repeat(len(rows), 0),
            },
        )
        later = np.arange(num_labels) > last[:, None]
        none_up_to = np.where(later, -np.logaddexp(0, z), 0).cumsum(1)  # log-probabilities
        # the first label at which "none so far" has become too improbable; num_labels: the end
        last = (none_up_to >= np.log1p(-random.random((len(rows), 1)))).sum(1)
        decided = later & (np.arange(num_labels) <= last[:, None])
        given[rows] += np.where(decided, np.exp(-np.logaddexp(0, -z)), 0)
        goes_on = last < num_labels
        rows, last, hidden, cell = (a[goes_on] for a in (rows, last, hidden, cell))
    return given.mean(0)


def main(folder: Path, images: list[Path]) -> None:
    """Print each picture's labels; * marks those above the threshold."""
    encoder, constants = open_network(folder / "encoder.onnx")
    labels, threshold = json.loads(constants["labels"]), float(constants["threshold"])
    step, hidden_size = None, 0
    if constants["decoder"] != "none":
        step, hidden_size = (
            open_network(folder / "decoder_step.onnx")[0],
            int(constants["hidden_size"]),
        )
    for path in images:
        picture = load_picture(path, int(constants["image_size"]))
        p = marginals(encoder, step, picture, hidden_size)
        print(path)
        for i in np.argsort(-p, kind="stable")[:8]:
            print(f"  {'*' if p[i] >= threshold else ' '} {labels[i]:<20} {100 * p[i]:5.1f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what export.py wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="picture files")
    args = parser.parse_args()
    main(args.folder, args.images)
