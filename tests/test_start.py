"""What each script imports before it says what its flags are: no package that it may not need.

Each import makes help, wrong flags and every short command slower: torchvision takes as long as
torch, scipy.stats and matplotlib half a second. `import scipy` alone is light: it imports a part
of it when that part is first used.
"""

import json
import os
import subprocess
import sys

import PIL
import pytest
from conftest import REPO

LABELS = {"defusedxml", "msgspec", "numpy", "tqdm", "typing_extensions"}  # to read labels
IMAGES = {"PIL", "simplejpeg", "torch"}
# script -> packages that its --help may import. Of torch: what `import torch` imports
PACKAGES = {
    "annotate.py": LABELS | {"filelock"},
    "build_vocab.py": LABELS,
    "data/make_scenes.py": {"PIL", "msgspec", "numpy", "skimage", "scipy", "tqdm"}
    | {"lazy_loader", "packaging", "typing_extensions"}
    | ({"defusedxml"} if PIL.__version__.startswith("10.") else set()),
    "data/make_shards.py": LABELS | {"PIL"},
    "data_loader.py": LABELS | IMAGES,
    "evaluate.py": LABELS | IMAGES | {"markupsafe", "scipy"},
    "export.py": LABELS | IMAGES | {"markupsafe", "safetensors", "scipy"},
    "sample.py": LABELS | IMAGES | {"filelock", "scipy"},
    "serve.py": LABELS | IMAGES,
    "train.py": LABELS | IMAGES | {"filelock", "safetensors", "scipy"},
}
# Each script's help in a copy of one process, which has already imported torch if the script may
HELP = """
import contextlib, io, json, os, runpy, sys
for path, needs_torch in json.loads(sys.argv.pop()):
    if needs_torch:
        import torch
    before = set(sys.modules)
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    sys.argv, sys.path[0] = [path, "--help"], os.path.dirname(path)
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as error:
            code = error.code
    print(json.dumps([code, text.getvalue()[:6], sorted(set(sys.modules) - before)]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Script -> the modules that its --help imports, beside those of `import torch`."""
    ordered = sorted(PACKAGES, key=lambda script: "torch" in PACKAGES[script])
    jobs = json.dumps([[str(REPO / name), "torch" in PACKAGES[name]] for name in ordered])
    command = [sys.executable, "-c", HELP, jobs]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = {}
    for script, line in zip(ordered, result.stdout.splitlines(), strict=True):
        code, start, found[script] = json.loads(line)
        assert (code, start) == (0, "usage:"), f"{script}: {result.stderr}"
    return found


def package(module: str) -> str:
    """The package of a module; a part of scipy or torch counts as one of its own."""
    first, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    is_part = first in ("scipy", "torch") and part and part[0] != "_" and part != "version"
    return f"{first}.{part}" if is_part else first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot copy a process")
@pytest.mark.parametrize("script", PACKAGES)
def test_help_imports_only_what_it_needs(script, imported):
    ours = {path.stem for path in REPO.iterdir()} | {"drawing"}
    others = {package(module) for module in imported[script]}
    others = {name for name in others - ours - sys.stdlib_module_names if not is_built_in(name)}
    assert others <= PACKAGES[script], "import it in the function that uses it"
    assert "util.cli" in imported[script]


def is_built_in(name: str) -> bool:
    """Names that a compiled module or Python itself registers."""
    return name.startswith("_") or name == "cython_runtime"


def test_every_script_is_listed():
    scripts = {path.name for path in REPO.glob("*.py") if "run_script(" in path.read_text()}
    assert scripts - set(PACKAGES) == set()


@pytest.mark.parametrize("words", [["--help"], ["--wrong"], []])
def test_python_need_not_go_through_all_objects_at_its_end(words):
    """With torch there are a million of them, which takes up to a second."""
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen' if gc.get_freeze_count() else 'not frozen'))\n"
        "from util.cli import ArgumentParser, run_script\n"
        "run_script(lambda args: None, ArgumentParser('about'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines()[-1] == "frozen"
