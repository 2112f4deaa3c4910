"""Shared by all tests: a tiny COCO data set, ../shared, and helpers that run the scripts."""

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from processes import REPO, run

from util import compat, errors

# a first call may import a package, which takes longer than hypothesis allows for a test
hypothesis.settings.register_profile(
    "no deadline", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no deadline")
# the tests' tensors are tiny: a second thread makes them slower
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the scripts that the tests start

sys.path.insert(0, str(REPO / "data"))  # make_scenes.py imports its neighbour drawing/


def pytest_configure(config):
    """Hide GPUs from all tests but test_gpu.py: many compare bits, and sums on a GPU vary."""
    if not any("test_gpu" in str(argument) for argument in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def no_fsync():
    """Do not wait for the disk: a short run writes a dozen files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


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
# not in the order of rank or name, and with gaps, like COCO's ids
CATEGORY_IDS = {"zebra": 24, "dog": 18, "person": 1, "cat": 17, "apple": 53}
COLOURS = {
    "person": (200, 60, 40),
    "cat": (40, 160, 60),
    "dog": (50, 70, 200),
    "apple": (220, 210, 40),
    "zebra": (10, 10, 10),
}
# a small network of timm: a run takes a third of the time of a ResNet-18, and a tenth of the space
QUICK = ("--arch", "test_resnet", "--image_size", "32", "--num_epochs", "2", "--batch_size", "4")
QUICK += ("--num_workers", "0")
RESNET = ("--arch", "resnet18")  # the default, after QUICK
TRAIN = ("--image_path", "data/images", *QUICK)
TIMINGS = {"seconds", "images_per_second"}
EVALUATE = (
    *("--image_path", "data/images", "--annotations", "data/annotations/instances.json"),
    *("--num_workers", "0", "--split", "all"),
)


def coco(label_sets=LABEL_SETS, names=None, categories=CATEGORY_IDS) -> dict:
    """COCO instances; on each image the first label has one annotation and the others two."""
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
    """Write `content` as JSON, making the folders; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_table(folder: Path, header: Iterable, rows: Iterable, name: str = "labels.csv") -> Path:
    """A CSV file of a header and rows."""
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(header), *rows])
    return path


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Waves without fine detail: every good method shrinks them to the same image."""
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    x, y = np.linspace(0, 6, width)[None], np.linspace(0, 6, height)[:, None]
    waves = [127 + 60 * np.sin(x + a) + 60 * np.cos(y + b) for a, b in phases]
    return Image.fromarray(np.uint8(np.stack(waves, 2)))


def rgb(view: torch.Tensor) -> np.ndarray:
    """3×S×S -> S×S×3, as floats that can be subtracted."""
    return view.permute(1, 2, 0).numpy().astype(float)


def write_picture(path: Path, labels=(), side: int = 40, seed: int = 0) -> Path:
    """Write a noisy grey JPEG with a coloured patch for each label; returns the path."""
    pixels = np.random.default_rng(seed).integers(110, 150, (side, side, 3), np.uint8)
    for label in labels:
        top = list(COLOURS).index(label) * side // len(COLOURS)
        pixels[top : top + side // len(COLOURS)] = COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_tiny_set(folder: Path) -> SimpleNamespace:
    """12 JPEGs of 40×40 pixels in data/images, and their annotations where train.py looks first."""
    images = folder / "data/images"
    for i, labels in enumerate(LABEL_SETS):
        write_picture(images / f"img_{i:02d}.jpg", labels, seed=i)
    annotations = write_json(coco(), folder / "data/annotations/instances.json")
    return SimpleNamespace(folder=folder, images=images, annotations=annotations)


def call(module: ModuleType, *args: object) -> None:
    """Run a script in this process, which is much faster: parse the flags and call `main`."""
    module.main(module.get_args_parser().parse_args([str(a) for a in args]))


def refusal(module: ModuleType, *args: object) -> str:
    """The one sentence of the UsageError that a script raises for this input."""
    with pytest.raises(errors.UsageError) as caught:
        call(module, *args)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


def need_export() -> None:
    """Skip the test where the networks cannot be exported."""
    if not compat.can_export():
        pytest.skip(f"the ONNX exporter of torch {torch.__version__} cannot export the networks")


def load(path) -> dict:
    """A checkpoint, loaded as safely as one from an unknown source."""
    return torch.load(path, map_location="cpu", weights_only=True)


def same(a, b) -> bool:
    """Equal to the bit, also inside dictionaries, lists and tuples."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def log_lines(folder) -> list[dict]:
    """The lines of log.jsonl without the times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def one_error(result, code: int = 2) -> str:
    """Check that a command failed with one "error:" line on stderr; returns that line."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]
    return errors[0]


def check_layout(page) -> None:
    """All pictures are shown and nothing is wider than the window."""
    images = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert all(complete and width > 0 for complete, width in images)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared beside the repository; only for reading."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}, which holds real label sets and photos")
    return folder


@pytest.fixture
def tiny(tmp_path) -> SimpleNamespace:
    """The tiny data set in a new folder."""
    return write_tiny_set(tmp_path)


@pytest.fixture
def workdir(tiny, monkeypatch):
    """The tiny data set's folder as current folder; deletes checkpoints after it."""
    monkeypatch.chdir(tiny.folder)
    yield tiny.folder
    for path in [*tiny.folder.rglob("*.pt"), *tiny.folder.rglob("*.pth")]:
        path.unlink()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of train.py on the tiny data set, for tests that only need a checkpoint."""
    tiny = write_tiny_set(tmp_path_factory.mktemp("trained"))
    command = ("train.py", "--image_path", "data/images", *QUICK, *RESNET)
    result = run(*command, cwd=tiny.folder)
    assert result.returncode == 0, result.stderr
    output = tiny.folder / "runs/instances-chain"
    yield SimpleNamespace(**vars(tiny), command=command, result=result, output=output)
    shutil.rmtree(output)


@pytest.fixture(scope="session")
def export_run(trained):
    """export.py on the tiny run: its folder, stdout and stderr."""
    import export

    need_export()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        call(export, "--checkpoint", trained.output / "best.pt")
    return SimpleNamespace(folder=trained.output / "export", out=out.getvalue(), err=err.getvalue())


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium to open the report in")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["wide", "phone"])
def opened(browser, request):
    """A function that opens a page. The page must log nothing and load nothing."""
    scheme, width = request.param
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce"
    )
    page, logged, requested = context.new_page(), [], []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("dialog", lambda dialog: logged.append(dialog.message))
    page.on("request", lambda sent: requested.append(sent.url))

    def open_page(path, before: str = ""):
        page.add_init_script(before)
        page.goto(path.as_uri())
        return page

    yield open_page
    assert logged == []
    assert {url[:40] for url in requested if not url.startswith("data:")} == {page.url[:40]}
    context.close()
