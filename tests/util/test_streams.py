"""stdout and stderr closed, full, without a reader, or ASCII: a script says so, or ends quietly."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

SCRIPT = """
import sys
from util.cli import ArgumentParser, run_script
from util.log import log, progress

def main(args):
    log("begins")
    for line in progress(list(range(3)), "working"):
        print("\\N{BULLET}", line, "\\udcff", flush=args.flush)
        log(line)
    with open(args.file, "w") as file:
        file.write("result")
    if args.fails:
        open("/absent/file")

parser = ArgumentParser("about \\N{BULLET}")
parser.add_argument("file")
parser.add_argument("--flush", action="store_true")
parser.add_argument("--fails", action="store_true")
run_script(main, parser)
"""
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


def shell(tmp_path, redirect: str, *flags: str, **env: str) -> subprocess.CompletedProcess:
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "result"), *flags]
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(words)} {redirect}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONIOENCODING": "utf-8", **env},
    )


def check_result(tmp_path) -> None:
    assert (tmp_path / "result").read_text() == "result"


@pytest.mark.parametrize("flags", [(), ("--flush",), ("--help",)])
@pytest.mark.parametrize(
    ("redirect", "reason"),
    [
        (">&-", "it is closed"),
        ("<&- >&-", "it is closed"),
        pytest.param(">/dev/full", "No space left on device", marks=FULL),
    ],
)
def test_stdout_that_cannot_be_written(tmp_path, redirect, reason, flags):
    result = shell(tmp_path, redirect, *flags)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = f"error: cannot write the output ({reason}); files are written"
    assert result.stderr.splitlines()[-1] == last
    if "--help" not in flags:
        assert result.stderr.splitlines()[0] == "begins"
        check_result(tmp_path)


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_a_script_does_without_stderr(tmp_path, redirect):
    result = shell(tmp_path, redirect)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 3, "no line of progress is among the data"
    check_result(tmp_path)
    assert shell(tmp_path, redirect, "--fails").returncode == 2
    assert shell(tmp_path, f">&- {redirect}").returncode == 1
    assert shell(tmp_path, redirect, "--unknown").returncode == 2


@pytest.mark.parametrize("both", ["", "2>&1"])
def test_a_closed_pipe_ends_quietly(tmp_path, both):
    """The reader has gone before the first line."""
    result = shell(tmp_path, f"--flush {both} | true")
    assert result.returncode == 0
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "error" not in result.stderr


@pytest.mark.parametrize("flags", [(), ("--help",)])
def test_ascii(tmp_path, flags):
    for env in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "", "LC_ALL": "C"}):
        result = shell(tmp_path, "", *flags, **env)
        assert result.returncode == 0, result.stderr
    escaped = shell(tmp_path, "", *flags, PYTHONIOENCODING="ascii").stdout
    assert "\\u2022" in escaped
    assert flags or "\\udcff" in escaped


def test_an_error_of_the_script_comes_first(tmp_path):
    result = shell(tmp_path, ">&-", "--fails")
    assert result.returncode == 2
    assert "cannot use /absent/file (No such file" in result.stderr.splitlines()[-1]
