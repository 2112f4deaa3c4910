"""Label images with the files that export.py wrote, without PyTorch.

    python predict_onnx.py runs/scenes-chain/export photo.jpg
    python predict_onnx.py runs/scenes-chain/export holiday/ --output tagged

It needs onnxruntime, numpy and Pillow, and nothing else of the project. A folder's labels go to
predictions.csv, too, as sample.py writes it; the same command goes on after a kill. Wrong files end
it with one sentence and exit code 2. Networks are run: trust who made them.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

NUM_SAMPLES = 256  # label sets sampled; the error falls with the square root of their number
NUM_FOR_RULES = 4096  # with rules, because only the sets that keep them count
LIMIT = 1 << 22  # images × samples × labels at once: 32 MB for each array
MAX_SIZE, MAX_STATE = 8192, 2**20  # of images and decoder states: more would fill the memory
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow runs programs to read some others
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins like this


def fail(message: str) -> NoReturn:
    """End with a sentence on stderr."""
    say(f"error: {message}")
    sys.exit(2)


def say(message: str) -> None:
    """A line on stderr."""
    print(show(message), file=sys.stderr)


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
    """The encoder, the decoder's step or None, the C labels, threshold, image size, rules, cells.

    A rule is a kind and ranks of labels. cells: the labels as a table has them; empty if it cannot.
    """
    encoder, constants = open_network(folder / "encoder.onnx")
    step = None
    try:
        labels, threshold = json.loads(constants["labels"]), float(constants["threshold"])
        size, decoder = int(constants["image_size"]), constants["decoder"]
        rules, cells = (json.loads(constants.get(name, "[]")) for name in ("rules", "cells"))
        fits = isinstance(labels, list) and all(type(label) is str for label in labels)
        fits = fits and 0 < len(labels) == len({*labels}) and math.isfinite(threshold)
        for kind, ranks in rules:
            fits = fits and kind in ("implies", "exclusive", "one of") and len(ranks) > 1
            fits = fits and all(rank in range(len(labels)) for rank in ranks)
        fits = fits and [*map(type, cells)] in ([], [str] * len(labels))
        if not fits or not 1 <= size <= MAX_SIZE or decoder not in ("none", "chain", "softmax"):
            raise ValueError
    except (KeyError, ValueError, TypeError, RecursionError):
        fail(f"{folder / 'encoder.onnx'} is damaged: its labels, threshold or rules are wrong")
    if decoder != "none":
        step, constants_of_step = open_network(folder / "decoder_step.onnx")
        if constants_of_step != constants:
            fail(f"encoder.onnx and decoder_step.onnx in {folder} are of different models")
    check_shapes(folder, encoder, step, len(labels), size)
    return encoder, step, labels, threshold, size, rules, cells


def check_shapes(folder: Path, encoder, step, num_labels: int, size: int) -> None:
    """The networks' inputs and outputs fit each other, the labels and the image size."""

    def shapes(ends) -> dict[str, list]:
        return {each.name: list(each.shape)[1:] for each in ends}

    outputs, expected = shapes(encoder.get_outputs()), {"cnn_logits": [num_labels]}
    if step:
        given, embedding = shapes(step.get_inputs()), outputs.get("image_embedding")
        expected["image_embedding"], state = embedding, given.get("state")
        needed = {"state": state, "label": [], "image_embedding": embedding}
        results = [*shapes(step.get_outputs()).values()]
        fits = given == {**needed, "cnn_logits": [num_labels]} and results == [[num_labels], state]
        if not fits or len(state) != 1 or state[0] not in range(MAX_STATE):
            fail(f"{folder / 'decoder_step.onnx'} does not fit encoder.onnx: export again")
    if shapes(encoder.get_inputs()) != {"images": [3, size, size]} or outputs != expected:
        fail(f"{folder / 'encoder.onnx'} does not fit its labels or image_size: export again")


def run(network: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A network's outputs, which are finite."""
    try:
        outputs = network.run(None, inputs)
    except Exception as error:  # onnxruntime's errors have no common class
        fail(f"the network cannot be run: {str(error).splitlines()[0][:200]}")
    if all(np.isfinite(output).all() for output in outputs):
        return outputs
    fail("the network's outputs are not finite: its weights are damaged")


def load_image(path: Path, size: int) -> np.ndarray:
    """An image file -> 3×S×S uint8: upright, on white, resized to a square as in training."""
    try:
        if not path.is_file():  # opening a pipe would block
            raise ValueError
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (size, size))  # decodes a large JPEG at a smaller size
            if image.mode[0] in "IF":  # Pillow would turn nearly all of it white
                raise ValueError
            image = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # damaged files make Pillow raise almost anything
        raise ValueError("this is no file that can be read as an image of 8 bits") from None
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def sample(encoder, step, images: np.ndarray, number: int, seed: int = 0) -> tuple:
    """K label sets of each image, and each label's probability given those before it: both B×K×C.

    images: B×3×S×S uint8. The mean of the probabilities is P(label in set | image), with a smaller
    error than the mean of the sets. All images use the same random numbers (a Latin hypercube).
    """
    cnn_logits, *embedding = run(encoder, {"images": images})  # B×C, B×E
    random = np.random.default_rng(seed)
    num_images, num_labels = cnn_logits.shape
    shape = (num_images, number, num_labels)
    if step is None:  # decoder `none`: labels do not depend on each other
        p = np.broadcast_to((1 / (1 + np.exp(-cnn_logits)))[:, None], shape)
        return random.random(shape[1:]) < p, p
    sets = np.zeros((num_images * number, num_labels), bool)
    probabilities = np.zeros(sets.shape)  # given the labels before
    alive = np.arange(len(sets))  # samples that have not ended
    node = alive // number  # its row: all samples of an image with the same labels so far
    image, last = np.arange(num_images), np.full(num_images, -1)  # of each row
    (state_size,) = (i.shape[1] for i in step.get_inputs() if i.name == "state")
    state = np.zeros((num_images, state_size), np.float32)
    while len(alive):
        inputs = {"state": state, "label": last, "image_embedding": embedding[0][image]}
        z, state = run(step, {**inputs, "cnn_logits": cnn_logits[image]})
        later = np.arange(num_labels) > last[:, None]
        none_up_to = np.where(later, -np.logaddexp(0, z), 0).cumsum(1)  # log-probabilities
        uniform = (random.permutation(number) + random.random(number)) / number
        # the first label at which "none so far" falls below a random number; num_labels is END
        drawn = (none_up_to[node] >= np.log1p(-uniform)[alive % number, None]).sum(1)
        decided = later[node] & (np.arange(num_labels) <= drawn[:, None])
        probabilities[alive] += np.where(decided, np.exp(-np.logaddexp(0, -z))[node], 0)
        goes_on = drawn < num_labels
        alive, node, drawn = (a[goes_on] for a in (alive, node, drawn))
        sets[alive, drawn] = True
        rows, node = np.unique(node * num_labels + drawn, return_inverse=True)
        parent, last = rows // num_labels, rows % num_labels
        image, state = image[parent], state[parent]
    return sets.reshape(shape), probabilities.reshape(shape)


def keep_rules(rules: list, sets: np.ndarray) -> np.ndarray:
    """The sets N×C that break no rule."""
    kept = np.ones(len(sets), bool)
    for kind, ranks in rules:
        on, count = sets[:, ranks], sets[:, ranks].sum(1)
        if kind == "implies":
            kept &= ~on[:, 0] | on[:, 1:].all(1)
        else:
            kept &= count == 1 if kind == "one of" else count <= 1
    return sets[kept]


def predict(networks, images: np.ndarray, threshold: float, rules: list) -> list:
    """For each of the images B×3×S×S: P(label in set | image, rules) C, labels predicted C bool.

    With rules the prediction is the sampled set whose labels are furthest above the threshold, in
    sum, and nothing that breaks a rule. If no sampled set keeps the rules, a ValueError.
    """
    sets, probabilities = sample(*networks, images, NUM_FOR_RULES if rules else NUM_SAMPLES)
    if not rules:
        return [(p, p >= threshold) for p in probabilities.mean(1)]
    found = []
    for kept in (keep_rules(rules, each) for each in sets):
        p = kept.sum(0) / max(len(kept), 1)
        nothing = ValueError(f"none of {NUM_FOR_RULES:,} sampled label sets keeps the rules")
        found.append((p, kept[(kept @ (p - threshold)).argmax()]) if len(kept) else nothing)
    return found


def list_images(given: list[Path]) -> tuple[Path, list[str]]:
    """The folder that has all images, in full, and their names in it."""
    paths = []
    for path in given:
        files = [p for p in path.rglob("*") if os.path.isfile(p)] if os.path.isdir(path) else []
        files = [p for p in files if "/." not in f"/{p.relative_to(path).as_posix()}"]
        pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
        if others := len(files) - len(pictures):
            say(f"note: {path}: left out {others:,} not ending in {' '.join(SUFFIXES)}")
        if not os.path.exists(path) or (path.is_dir() and not pictures):
            fail(f"there is no image {path}")
        paths += sorted(pictures, key=lambda p: (p.parent, p.name)) if path.is_dir() else [path]
    root = os.path.commonpath([os.path.abspath(p if p.is_dir() else p.parent) for p in given])
    names = (Path(os.path.abspath(path)).relative_to(root).as_posix() for path in paths)
    return Path(root), [*dict.fromkeys(names)]


def name_cell(name: str) -> str | None:
    """A file name as train.py reads it and no spreadsheet runs it; None if no table can have it."""
    if not name.strip() or "\0" in name or name != name.encode(errors="replace").decode():
        return None
    if name != name.strip() or "\\" in name or name[0] in "'\"":
        return '"' + name.replace('"', '""') + '"'
    return f"'{name}" if name.startswith(FORMULA) else name


class Table:
    """predictions.csv in a folder; it is called predictions.part until it is complete.

    predictions.json says what makes it, how many of its bytes are whole (a killed process may leave
    half a row), and which images it lacks. A predictions.csv is never changed.
    """

    def __init__(self, folder: Path, about: dict, labels: list[str]) -> None:
        names = ("predictions.csv", "predictions.part", "predictions.json")
        self.final, self.part, self.notes = (folder / name for name in names)
        self.about = {"program": "HybridNet predict_onnx.py", **about}
        self.size, self.lacks = 0, set()  # names of images that cannot be labelled
        if any(path.exists() for path in (self.final, self.part, self.notes)):
            try:
                old = json.loads(self.notes.read_bytes() if self.notes.is_file() else "")
                self.size, self.lacks = int(old.pop("bytes")), {*old.pop("lacks", ())}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                old = None
            if old != self.about:
                fail(f"{folder} has a table of other images or networks: choose another --output")
        self.is_complete = self.final.exists()
        if not self.is_complete:
            folder.mkdir(parents=True, exist_ok=True)
            self.note()
            with open(self.part, "ab") as file:
                file.truncate(min(self.size, file.tell()))
            if not self.size:
                self.add([["\ufefffile_name", "labels", *(f"P({label})" for label in labels)]])
        path = self.final if self.is_complete else self.part
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            self.done = {row[0] for row in csv.reader(file) if row}  # cells of the names

    def note(self) -> None:
        """Write predictions.json, whole or not at all."""
        new = self.notes.with_suffix(".new")
        new.write_text(json.dumps({**self.about, "bytes": self.size, "lacks": sorted(self.lacks)}))
        os.replace(new, self.notes)

    def add(self, rows: list[list[str]]) -> None:
        """Append rows, so that a killed process loses none."""
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        with open(self.part, "ab") as file:
            if file.tell() != self.size:
                fail(f"{self.part} was changed by another process: choose another --output")
            self.size += file.write(text.getvalue().encode())
        self.note()


def label(networks, paths: list[Path], size: int, threshold: float, rules: list) -> list:
    """For each image what `predict` finds, or an error that says why there is nothing."""
    with ThreadPoolExecutor() as pool:
        read = [pool.submit(load_image, path, size) for path in paths]
    images = [each.result() for each in read if not each.exception()]
    found = iter(predict(networks, np.stack(images), threshold, rules) if images else ())
    return [each.exception() or next(found) for each in read]


def main(folder: Path, images: list, output: Path | None = None, batch_size: int = 64) -> None:
    """Print the most probable labels of the images; * marks those that are predicted."""
    *networks, labels, threshold, size, rules, cells = open_networks(folder)
    (root, names), table, failed = list_images(images), None, []
    total = len(names)
    if output or len(images) > 1 or images[0].is_dir():
        if not cells:
            fail("no table can have the labels of this model: name a single image")
        content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.onnx")))
        about = {"networks": hashlib.sha256(content).hexdigest(), "images": str(root)}
        table = Table(output or Path("predictions", root.name), about, labels)
        failed = [root / name for name in names if name in table.lacks]
        names = [n for n in names if name_cell(n) not in table.done and n not in table.lacks]
        say(f"{table.final}: {total - len(names) - len(failed):,} of {total:,} images are labelled")
        if names and table.is_complete:
            fail(f"{table.final} is complete without {names[0]}: choose another --output")
    num = max(1, min(batch_size, LIMIT // len(labels) // (NUM_FOR_RULES if rules else NUM_SAMPLES)))
    for start in range(0, len(names), num):
        paths, rows = [root / name for name in names[start : start + num]], []
        for path, found in zip(paths, label(networks, paths, size, threshold, rules), strict=True):
            cell = name_cell(path.relative_to(root).as_posix())
            if isinstance(found, Exception) or (table and not cell):
                failed.append(path)
                reason = found if cell else "no table can have this name: rename it"
                say(f"note: {path}: {reason}; left out")
                continue
            p, predicted = found
            order, number = np.lexsort((-p, ~predicted)), predicted.sum()
            print(show(path))
            for i in order[: max(8, number)]:
                print(f"  {' *'[int(predicted[i])]} {show(labels[i]):<20} {100 * p[i]:5.1f}%")
            said = "|".join(cells[i] for i in order[: number if table else 0])
            rows.append([cell, said, *(f"{value:.4f}" for value in p)])
        if rows and table:
            table.add(rows)
    if table and not table.final.exists():
        table.lacks = {path.relative_to(root).as_posix() for path in failed}
        table.note()
        os.replace(table.part, table.final)
        say(f"wrote {table.final}")
    if {os.path.abspath(path) for path in images} & {*map(str, failed)} or len(failed) == total:
        fail(f"{len(failed):,} of {total:,} images cannot be labelled")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder that export.py wrote")
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images")
    parser.add_argument("--output", type=Path, help="of the table; default: predictions/FOLDER")
    parser.add_argument("--batch_size", type=int, default=64, help="images at once")
    try:
        main(**vars(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit("error: stopped by the user; the same command goes on")
    except OSError as error:
        fail(f"cannot use {error.filename} ({error.strerror})")
