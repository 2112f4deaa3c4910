"""Packages that only one command or option needs: is one missing, and how to install it.

Each file of requirements/ is one group of them. requirements.txt has what everything else needs.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from util.errors import UsageError

GROUPS = Path(__file__).parents[1] / "requirements"


def check_packages(who: str, group: str, modules: Sequence[str]) -> None:
    """Raise UsageError, with the command that installs the group, if a module is missing."""
    if missing := [name for name in modules if not importlib.util.find_spec(name)]:
        what = "the package" if len(missing) == 1 else "the packages"
        raise UsageError(f"{who} needs {what} {', '.join(missing)}: {install_command(group)}")


def install_command(group: str) -> str:
    """The command that installs a group for this Python, from the current folder."""
    python = "python" if shutil.which("python") == sys.executable else _short(Path(sys.executable))
    file = _short(GROUPS / f"{group}.txt")
    return shlex.join([python, "-m", "pip", "install", "-r", file])


def _short(path: Path) -> str:
    """Relative to the current folder for what is in one of its folders; else absolute."""
    short = os.path.relpath(path)
    return str(path) if short.startswith(os.pardir) or os.sep not in short else short
