"""Label images with the files that export.py wrote, without PyTorch.

    python predict_onnx.py runs/scenes-chain/export photo.jpg

This file needs onnxruntime and numpy, and Pillow to read images, but nothing else of the project.
Copy it and change it. Wrong files end it with one sentence and exit code 2. The networks themselves
are run as they are: take them from someone you trust.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

NUM_SAMPLES = 256  # label sets sampled; the error falls with the square root of their number
NUM_FOR_RULES = 4096  # with rules, because only the sets that keep them count
KINDS = ("implies", "exclusive", "one of")  # of rules
MAX_SIZE, MAX_STATE = 8192, 2**20  # of images and decoder states: more would fill the memory
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow runs programs to read some others


def fail(message: str) -> NoReturn:
    """End with a sentence on stderr."""
    print(f"error: {show(message)}", file=sys.stderr)
    sys.exit(2)


def show(text: object) -> str:
    """Text as a console may show it: names may come from anyone, with characters that it obeys."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def open_network(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """A network and the constants in its file."""
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        fail(f"{path} is not an ordinary file")
    try:
        network = onnxruntime.InferenceSession(path.read_bytes())
        constants = network.get_modelmeta().custom_metadata_map
        if constants["format"] == "hybridnet-onnx-1":
            return network, constants
    except OSError as error:
        fail(f"cannot read {path} ({error.strerror})")
    except Exception:  # onnxruntime's errors have no common class
        pass
    fail(f"{path} is damaged or was not written by HybridNet's export.py")


def open_networks(folder: Path):
    """The encoder, the decoder's step or None, the C labels, the threshold, the image size, rules.

    A rule is a kind and ranks of labels.
    """
    encoder, constants = open_network(folder / "encoder.onnx")
    step = None
    try:
        labels, threshold = json.loads(constants["labels"]), float(constants["threshold"])
        size, decoder = int(constants["image_size"]), constants["decoder"]
        fits = isinstance(labels, list) and all(type(label) is str for label in labels)
        fits = fits and 0 < len(labels) == len({*labels}) and math.isfinite(threshold)
        rules = json.loads(constants.get("rules", "[]"))
        fits = fits and all(
            kind in KINDS and len(ranks) > 1 and all(r in range(len(labels)) for r in ranks)
            for kind, ranks in rules
        )
        if not fits or not 1 <= size <= MAX_SIZE or decoder not in ("none", "chain", "softmax"):
            raise ValueError
    except (KeyError, ValueError, TypeError, RecursionError):
        fail(
            f"{folder / 'encoder.onnx'} is damaged: its labels, threshold, size or rules are wrong"
        )
    if decoder != "none":
        step, constants_of_step = open_network(folder / "decoder_step.onnx")
        if constants_of_step != constants:
            fail(f"encoder.onnx and decoder_step.onnx in {folder} are of different models")
    check_shapes(folder, encoder, step, len(labels), size)
    return encoder, step, labels, threshold, size, rules


def check_shapes(folder: Path, encoder, step, num_labels: int, size: int) -> None:
    """The networks' inputs and outputs fit each other, the labels and the image size."""
    shapes = {each.name: list(each.shape)[1:] for each in encoder.get_inputs()}
    outputs = {each.name: list(each.shape)[1:] for each in encoder.get_outputs()}
    expected = {"cnn_logits": [num_labels]}
    if step:
        embedding, inputs = outputs.get("image_embedding"), step.get_inputs()
        expected["image_embedding"] = embedding
        of_step = {each.name: list(each.shape)[1:] for each in inputs}
        state = of_step.get("state")
        needed = {"state": state, "label": [], "image_embedding": embedding}
        if of_step != {**needed, "cnn_logits": [num_labels]} or not is_width(state):
            fail(f"{folder / 'decoder_step.onnx'} does not fit encoder.onnx: export again")
        results = [list(each.shape)[1:] for each in step.get_outputs()]
        if results != [[num_labels], state]:
            fail(f"{folder / 'decoder_step.onnx'} does not fit encoder.onnx: export again")
    if shapes != {"images": [3, size, size]} or outputs != expected:
        fail(f"{folder / 'encoder.onnx'} does not fit its labels or image_size: export again")


def is_width(shape: object) -> bool:
    """Whether these are the dimensions of a decoder state, without its rows."""
    return isinstance(shape, list) and len(shape) == 1 and shape[0] in range(MAX_STATE)


def run(network: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A network's outputs, which are finite."""
    try:
        outputs = network.run(None, inputs)
    except Exception as error:  # onnxruntime's errors have no common class
        fail(f"the network cannot be run: {str(error).splitlines()[0][:200]}")
    if not all(np.isfinite(output).all() for output in outputs):
        fail("the network's outputs are not finite: its weights are damaged")
    return outputs


def load_image(path: Path, size: int) -> np.ndarray:
    """An image file -> 1×3×S×S uint8: upright, on white, resized to a square as in training."""
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        fail(f"{path} is not an ordinary file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (size, size))  # decodes a large JPEG at a smaller size
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # damaged files make Pillow raise almost anything
        fail(f"{path} cannot be read as an image")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)[None]


def sample(
    encoder, step, image: np.ndarray, number: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Label sets of the image, and each label's probability given the labels before it: both N×C.

    They are sampled label by label, the most frequent one first. The mean of the probabilities is
    P(label in set | image), with a smaller error than the mean of the sets (Rao-Blackwell).
    """
    cnn_logits, *embedding = run(encoder, {"images": image})  # 1×C, 1×E
    if step is None:  # decoder `none`: labels do not depend on each other
        p = (1 / (1 + np.exp(-cnn_logits))).repeat(number, 0)
        return np.random.default_rng(seed).random(p.shape) < p, p
    num_labels = cnn_logits.shape[1]
    random = np.random.default_rng(seed)
    sets = np.zeros((number, num_labels), bool)
    probabilities = np.zeros((number, num_labels))  # given the labels before
    rows = np.arange(number)  # samples that have not ended
    last = np.full(number, -1)  # the label read last, -1 at the start
    (state_size,) = (i.shape[1] for i in step.get_inputs() if i.name == "state")
    state = np.zeros((number, state_size), np.float32)
    while len(rows):
        inputs = {
            "state": state,
            "label": last,
            "image_embedding": embedding[0].repeat(len(rows), 0),
            "cnn_logits": cnn_logits.repeat(len(rows), 0),
        }
        z, state = run(step, inputs)
        later = np.arange(num_labels) > last[:, None]
        none_up_to = np.where(later, -np.logaddexp(0, z), 0).cumsum(1)  # log-probabilities
        # the first label at which "none so far" falls below a random number; num_labels is END
        last = (none_up_to >= np.log1p(-random.random((len(rows), 1)))).sum(1)
        decided = later & (np.arange(num_labels) <= last[:, None])
        probabilities[rows] += np.where(decided, np.exp(-np.logaddexp(0, -z)), 0)
        goes_on = last < num_labels
        rows, last, state = (a[goes_on] for a in (rows, last, state))
        sets[rows, last] = True
    return sets, probabilities


def keep_rules(rules: list, sets: np.ndarray) -> np.ndarray:
    """The sets N×C that break no rule."""
    kept = np.ones(len(sets), bool)
    for kind, ranks in rules:
        on = sets[:, ranks]
        count = on.sum(1)
        if kind == "implies":
            kept &= ~on[:, 0] | on[:, 1:].all(1)
        else:
            kept &= count == 1 if kind == "one of" else count <= 1
    return sets[kept]


def predict(
    networks, image: np.ndarray, threshold: float, rules: list
) -> tuple[np.ndarray, np.ndarray] | None:
    """P(label in set | image, rules) C, and which labels are predicted, C bool.

    With rules the prediction is the sampled set whose labels are furthest above the threshold, in
    sum, and nothing that breaks a rule. None if no sampled set keeps the rules.
    """
    sets, probabilities = sample(*networks, image, NUM_FOR_RULES if rules else NUM_SAMPLES)
    p = probabilities.mean(0)
    if not rules:
        return p, p >= threshold
    sets = keep_rules(rules, sets)
    if not len(sets):
        return None
    p = sets.mean(0)
    return p, sets[(sets @ (p - threshold)).argmax()]


def main(folder: Path, images: list[Path]) -> None:
    """Print the most probable labels of each image; * marks those that are predicted."""
    encoder, step, labels, threshold, size, rules = open_networks(folder)
    for path in images:
        found = predict((encoder, step), load_image(path, size), threshold, rules)
        print(show(path))
        if found is None:
            print(f"  none of {NUM_FOR_RULES:,} sampled label sets keeps the rules")
            continue
        p, predicted = found
        for i in np.lexsort((-p, ~predicted))[: max(8, predicted.sum())]:
            print(f"  {'*' if predicted[i] else ' '} {show(labels[i]):<20} {100 * p[i]:5.1f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that export.py wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    args = parser.parse_args()
    main(args.folder, args.images)
