"""The layout: imports only point down, files are short, values are passed instead of `args`."""

import ast
from pathlib import Path

import pytest
from conftest import REPO

# from top to bottom: a file may import from its own floor and from those below
FLOORS = (
    "scripts",  # at the top and in data/
    "training",
    "deploy",
    "serving",
    "annotation",
    "report",
    "evaluation",
    "inference",
    "data_loader.py",
    "images",
    "labels",
    "model.py",
    "encoder.py",
    "drawing",  # data/drawing: only util is below it
    "util",
)
ALONE = "deploy/predict_onnx.py"  # is copied to machines without this project


def source_files(root: Path) -> list[str]:
    """The project's .py files, relative to `root`; at most two folders deep."""
    found = [p for pattern in ("*.py", "*/*.py", "*/*/*.py") for p in root.glob(pattern)]
    names = sorted(p.relative_to(root).as_posix() for p in found)
    return [name for name in names if name.startswith(("tests/", "benchmarks/")) or floor(name)]


def floor(name: str) -> str | None:
    """Where a file belongs; None for tests, benchmarks and folders without a floor."""
    folder, _, rest = name.rpartition("/")
    if folder == "data/drawing":
        return "drawing"
    if folder in ("", "data"):
        return rest if not folder and rest in FLOORS else "scripts"
    return folder.split("/")[0] if folder.split("/")[0] in FLOORS else None


def parse(root: Path, name: str) -> ast.Module:
    return ast.parse((root / name).read_text(encoding="utf-8"), name)


def imported_files(root: Path, name: str) -> set[str]:
    """The project's files that a file imports, anywhere in it.

    `from a import b` is a/b.py where that exists, else a.py or a/__init__.py.
    """
    modules = set()
    for node in ast.walk(parse(root, name)):
        if isinstance(node, ast.Import):
            modules |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name.split("/")[: -node.level] if node.level else []
            module = ".".join([*package, *filter(None, [node.module])])
            modules |= {(module, alias.name) for alias in node.names}
    return {file for module in modules if (file := find_module(root, *module))}


def find_module(root: Path, module: str, member: str) -> str | None:
    # scripts in data/ find drawing/ beside them
    for base in ("", "data/"):
        path = base + module.replace(".", "/")
        names = f"{path}/{member}.py", f"{path}.py", f"{path}/__init__.py"
        for name in names:
            if (root / name).is_file():
                return name
    return None


def wrong_imports(root: Path) -> list[str]:
    """One sentence for each import that points up, and one for a circle."""
    files = [name for name in source_files(root) if floor(name)]
    imports = {name: imported_files(root, name) for name in files}
    found = []
    for name, others in imports.items():
        for other in sorted(others):
            if floor(other) is None:
                found.append(f"{name} imports {other}, which has no floor")
            elif FLOORS.index(floor(other)) < FLOORS.index(floor(name)):
                found.append(f"{name} imports {other}: from {floor(name)} up to {floor(other)}")
    if imports.get(ALONE):
        found.append(f"{ALONE} must run alone, but imports {sorted(imports[ALONE])[0]}")
    if circle := find_circle(imports):
        found.append("circle: " + " imports ".join(circle))
    return found


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """The files of one circle, the first one again at its end; empty if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(imports.get(name, ())):
                if circle := visit(other, [*path, name]):
                    return circle
            done.add(name)
        return []

    for name in imports:
        if circle := visit(name, []):
            return circle
    return []


def is_namespace(annotation: str) -> bool:
    return annotation.strip("'").removeprefix("argparse.").startswith("Namespace")


def functions_with_args(root: Path) -> list[str]:
    """Functions below the scripts that take the command line's `args` instead of values."""
    found = []
    for name in source_files(root):
        if floor(name) in (None, "scripts"):
            continue
        for node in ast.walk(parse(root, name)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (name, node.name) == ("data_loader.py", "main"):  # data_loader.py is a command too
                continue
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(
                p.arg == "args" or (p.annotation and is_namespace(ast.unparse(p.annotation)))
                for p in parameters
            ):
                found.append(f"{name}:{node.lineno} {node.name}")
    return found


# --- the repository -----------------------------------------------------------------------------


def test_imports_point_down():
    assert len(source_files(REPO)) > 50
    wrong = wrong_imports(REPO)
    assert not wrong, "\n".join(wrong)


def test_at_most_ten_files_at_the_top():
    assert len(list(REPO.glob("*.py"))) <= 10


def test_no_file_is_over_350_lines():
    lines = {name: len((REPO / name).read_text().splitlines()) for name in source_files(REPO)}
    long = [f"{name}: {n} lines" for name, n in lines.items() if n > 350]
    assert not long, "\n".join(long)


def test_functions_below_the_scripts_take_values():
    found = functions_with_args(REPO)
    assert not found, "\n".join(found)


# --- the test of the test -----------------------------------------------------------------------


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "import model",
        "from model import HybridNet",
        "def f():\n    import model",
        "if TYPE_CHECKING:\n    from model import HybridNet",
    ],
)
def test_an_import_that_points_up_is_named(tmp_path, line):
    files = {"model.py": "from util.log import log\n", "util/log.py": f"import os\n{line}\n"}
    up, circle = wrong_imports(write_files(tmp_path, files))
    assert up == "util/log.py imports model.py: from util up to model.py"
    assert circle == "circle: model.py imports util/log.py imports model.py"


@pytest.mark.parametrize(
    "line", ["from images import find", "from . import find", "from .find import a"]
)
def test_a_circle_within_a_folder_is_named(tmp_path, line):
    files = {
        "train.py": "import images.decode\n",
        "images/decode.py": line,
        "images/find.py": "from images.decode import b\n",
    }
    circle = "circle: images/decode.py imports images/find.py imports images/decode.py"
    assert wrong_imports(write_files(tmp_path, files)) == [circle]


def test_other_wrong_imports_are_named(tmp_path):
    files = {
        "train.py": "import newfolder.thing\nfrom training import state\n",
        "newfolder/thing.py": "",
        "training/state.py": "",
        "model.py": "",
        "util/log.py": "",
        "data/make_scenes.py": "from drawing.shapes import draw\n",
        "data/drawing/shapes.py": "import model\nfrom util.log import log\n",
        "deploy/predict_onnx.py": "from util.log import log\n",
        "tests/test_train.py": "import train\n",
    }
    assert wrong_imports(write_files(tmp_path, files)) == [
        "data/drawing/shapes.py imports model.py: from drawing up to model.py",
        "train.py imports newfolder/thing.py, which has no floor",
        "deploy/predict_onnx.py must run alone, but imports util/log.py",
    ]


def test_functions_with_args_are_named(tmp_path):
    files = {
        "train.py": "def main(args): ...\n",
        "data_loader.py": "def main(args): ...\ndef load(args): ...\n",
        "images/find.py": "def find(*args): ...\nclass A:\n    def f(self, a: 'Namespace'): ...\n",
    }
    found = functions_with_args(write_files(tmp_path, files))
    assert found == ["data_loader.py:2 load", "images/find.py:3 f"]
