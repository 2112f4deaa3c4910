"""A tiny COCO-format data set, the shared material, and ways to run the project's scripts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from util import errors

# the tests' tensors are tiny: a second thread costs more than it brings
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the scripts that the tests start

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "data"))  # make_scenes.py imports its neighbour drawing/


def pytest_configure(config):
    """Oracles are exact to the bit, which a GPU's sums are not: only test_gpu.py sees one."""
    if not any("test_gpu" in str(argument) for argument in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


# Which labels are on which image. Frequencies: person 7, cat = dog 4, apple = zebra 2.
LABEL_SETS = (
    ("person",),
    ("person", "dog"),
    ("person", "dog", "cat"),
    ("person", "cat"),
    ("person", "zebra"),
    ("dog",),
    ("cat",),
    (),
    ("person", "apple"),
    ("dog", "cat"),
    ("apple", "zebra"),
    ("person",),
)
RANKED = ("person", "cat", "dog", "apple", "zebra")
COUNTS = (7, 4, 4, 2, 2)
# neither in order of rank nor of name, and with gaps, as COCO's ids have them
CATEGORY_IDS = {"zebra": 24, "dog": 18, "person": 1, "cat": 17, "apple": 53}
COLOURS = {
    "person": (200, 60, 40),
    "cat": (40, 160, 60),
    "dog": (50, 70, 200),
    "apple": (220, 210, 40),
    "zebra": (10, 10, 10),
}
QUICK = ("--image_size", "32", "--num_epochs", "2", "--batch_size", "4", "--num_workers", "0")
TRAIN = ("--image_path", "data/images", *QUICK)
TIMINGS = {"seconds", "images_per_second"}
EVALUATE = (
    *("--image_path", "data/images", "--annotations", "data/annotations/instances.json"),
    *("--num_workers", "0"),
)


def coco(label_sets=LABEL_SETS, names=None, categories=CATEGORY_IDS) -> dict:
    """A COCO instances dictionary; every label but the first of an image has two boxes."""
    names = names or [f"img_{i:02d}.jpg" for i in range(len(label_sets))]
    annotations = [
        {"image_id": 100 + i, "category_id": categories[label]}
        for i, labels in enumerate(label_sets)
        for n, label in enumerate(labels)
        for _ in range(2 if n else 1)
    ]
    return {
        "images": [{"id": 100 + i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def write_json(content: object, path: Path) -> Path:
    """Write `content` as json, folders and all; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Waves without fine detail: any good way to shrink them gives the same."""
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    x, y = np.linspace(0, 6, width)[None], np.linspace(0, 6, height)[:, None]
    waves = [127 + 60 * np.sin(x + a) + 60 * np.cos(y + b) for a, b in phases]
    return Image.fromarray(np.uint8(np.stack(waves, 2)))


def rgb(view: torch.Tensor) -> np.ndarray:
    """3×S×S -> S×S×3 that may be subtracted."""
    return view.permute(1, 2, 0).numpy().astype(float)


def write_picture(path: Path, labels=(), side: int = 40, seed: int = 0) -> Path:
    """A noisy grey JPEG with a coloured patch for each label, so that there is something to see."""
    pixels = np.random.default_rng(seed).integers(110, 150, (side, side, 3), np.uint8)
    for label in labels:
        top = list(COLOURS).index(label) * side // len(COLOURS)
        pixels[top : top + side // len(COLOURS)] = COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_tiny_set(folder: Path) -> SimpleNamespace:
    """A dozen 40x40 JPEGs in data/images and their annotations, where train.py looks for them."""
    images = folder / "data/images"
    for i, labels in enumerate(LABEL_SETS):
        write_picture(images / f"img_{i:02d}.jpg", labels, seed=i)
    annotations = write_json(coco(), folder / "data/annotations/instances.json")
    return SimpleNamespace(folder=folder, images=images, annotations=annotations)


def run(*args: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a script of the project as a user does: `run("train.py", "--limit", 3, cwd=folder)`."""
    script, *flags = args
    return subprocess.run(
        [sys.executable, REPO / str(script), *map(str, flags)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "MPLBACKEND": ""},
        check=False,
    )


def call(module: ModuleType, *args: object) -> None:
    """The same within this process, much quicker: parse the flags and call `main`."""
    module.main(module.get_args_parser().parse_args([str(a) for a in args]))


def refusal(module: ModuleType, *args: object) -> str:
    """The one sentence with which a script refuses its input."""
    with pytest.raises(errors.UsageError) as caught:
        call(module, *args)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


def load(path) -> dict:
    """A checkpoint, read as anyone may read a stranger's file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def same(a, b) -> bool:
    """Equal to the bit, through all nesting."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def log_lines(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def one_error(result, code: int = 2) -> str:
    """The result of a refused command, end to end; returns its sentence."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]
    return errors[0]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The read-only material beside the repository."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"../shared is not there: {folder} holds the real label sets and photos")
    return folder


@pytest.fixture
def tiny(tmp_path) -> SimpleNamespace:
    """The tiny set in a fresh folder."""
    return write_tiny_set(tmp_path)


@pytest.fixture
def workdir(tiny, monkeypatch):
    """The tiny set's folder as the current one; checkpoints (200 MB a run) go after the test."""
    monkeypatch.chdir(tiny.folder)
    yield tiny.folder
    for path in [*tiny.folder.rglob("*.pt"), *tiny.folder.rglob("*.pth")]:
        path.unlink()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of train.py on the tiny set, for all that only need a checkpoint."""
    tiny = write_tiny_set(tmp_path_factory.mktemp("trained"))
    command = ("train.py", "--image_path", "data/images", *QUICK)
    result = run(*command, cwd=tiny.folder)
    assert result.returncode == 0, result.stderr
    output = tiny.folder / "runs/instances-chain"
    yield SimpleNamespace(**vars(tiny), command=command, result=result, output=output)
    shutil.rmtree(output)
