"""Optional packages: each error names the command that installs the group."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import make_shards
import pytest
from conftest import REPO, refusal

import annotate
import export
import serve
from encoder import check_arch
from util import packages

OPTIONAL = sorted(path for path in (REPO / "requirements").iterdir() if path.stem != "all")
SHARDS = ("--image_path", "i", "--annotations", "a.json", "--output_dir", "o")


def names(path: Path) -> set[str]:
    """The packages that a file of requirements lists itself."""
    lines = path.read_text().splitlines()
    return {re.split("[>=]", line)[0] for line in lines if line and line[0] not in "#-"}


@pytest.mark.parametrize(
    ("script", "flags", "group"),
    [
        (annotate, ["photos"], "annotate"),
        (serve, [], "serve"),
        (export, [], "export"),
        (make_shards, SHARDS, "shards"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, script, flags, group):
    monkeypatch.chdir(tmp_path)
    real = importlib.util.find_spec
    listed = names(REPO / f"requirements/{group}.txt")
    first = min(listed)
    hidden = first.replace("-", "_")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == hidden else real(name)
    )
    said = refusal(script, *flags)
    who = Path(script.__file__).name
    assert said.startswith(f"{who} needs the package {hidden}: ")
    words = shlex.split(said.split(": ", 1)[1])
    assert words[1:] == ["-m", "pip", "install", "-r", str(REPO / f"requirements/{group}.txt")]


def test_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"the package timm: .* -m pip install -r .*timm\.txt$"):
        check_arch("convnext_atto")


def test_the_command_is_right_in_any_folder(tmp_path, monkeypatch):
    """For this Python, whatever `python` means; short where that is the same."""
    folder = tmp_path / "my code"
    binary = folder / ".venv/bin/python"
    binary.parent.mkdir(parents=True)
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.setattr(packages, "GROUPS", folder / "requirements")
    monkeypatch.setattr(sys, "executable", str(binary))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(folder)
    end = "-m pip install -r requirements/timm.txt"
    assert packages.install_command("timm") == f".venv/bin/python {end}"
    monkeypatch.setenv("PATH", str(binary.parent))
    assert packages.install_command("timm") == f"python {end}"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    words = shlex.split(packages.install_command("timm"))
    assert words[0] == "my code/.venv/bin/python"
    assert words[-1] == "my code/requirements/timm.txt"
    monkeypatch.chdir(binary.parent)
    words = shlex.split(packages.install_command("timm"))
    assert words[0] == str(binary), "python alone would be another one"
    assert words[-1] == str(folder / "requirements/timm.txt")


def test_the_groups_are_in_one_place():
    """All of them are in all.txt and in the documentation; no package is required twice."""
    listed = (REPO / "requirements/all.txt").read_text()
    documented = (REPO / "docs/RUNNING.md").read_text()
    required = names(REPO / "requirements.txt")
    assert len(OPTIONAL) > 4
    for path in OPTIONAL:
        assert f"-r {path.name}\n" in listed
        assert f"pip install -r requirements/{path.name}`" in documented
        assert names(path)
        assert not names(path) & required
    assert "-r requirements/all.txt\n" in (REPO / "requirements-dev.txt").read_text()
