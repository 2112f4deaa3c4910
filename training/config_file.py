"""config.json of a run: all that made it, and the flags to make it again with --config.

    {"program": "HybridNet train.py",
     "command": "python train.py --image_path photos --pretrained",
     "flags": {"image_path": "photos", "pretrained": true, "learning_rate": 0.002, ...},
     "chosen": {"annotations": "photos/labels.csv", "device": "cpu", ...}, ...}

"flags" has every flag, as given or by default; null is a flag that was not given. --config takes
these as its defaults, so a flag on the command line counts more. "chosen" is what train.py filled
in. All else is for people to read. A file with only "flags", and only some of them, will do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from labels.json_text import RepeatedKeyError, loads
from util.cli import command_line, did_you_mean
from util.errors import UsageError
from util.files import write_whole
from util.reading import parse_json, read_bytes

CONFIG, PROGRAM = "config.json", "HybridNet train.py"
MOST = 1_000_000  # bytes
NOT_KEPT = {"config", "accept_changes"}  # flags that are about one command, not about a run
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """The entries of config.json."""

    flags: dict[str, Any]
    program: str = PROGRAM
    command: str = ""
    chosen: dict[str, Any] = {}
    model: dict[str, Any] = {}
    preprocessing: dict[str, Any] = {}
    data: dict[str, Any] = {}
    commit: str = ""
    versions: dict[str, str] = {}


def plain_flags(flags: Mapping[str, object]) -> dict[str, object]:
    """Flags as JSON can hold them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in flags.items()}


def write_config(
    path: Path, given: Mapping[str, object], about: Mapping[str, Any], is_changed: bool
) -> None:
    """Write config.json, unless it exists and nothing has changed. Raises RunError.

    given: flags as the command line and the defaults say. about: what the checkpoints hold.
    """
    if os.path.lexists(path) and not is_changed:
        return
    flags = {k: v for k, v in plain_flags(given).items() if k not in NOT_KEPT}
    chosen = {k: v for k, v in about["flags"].items() if k in flags and v != flags[k]}
    data = {part: {"images": n, "digest": d} for part, (n, d) in about["data"].items()}
    data |= {"labels": len(about["vocabulary"]["labels"]), "selected_on": about["selected_on"]}
    config = Config(
        flags=flags,
        command=command_line(),
        chosen=chosen,
        model=about["model"],
        preprocessing=about["preprocessing"],
        data=data,
        commit=about["commit"],
        versions=_versions(),
    )
    first = {"program": config.program, "command": config.command}
    content = {**first, **msgspec.to_builtins(config)}
    # a name that is no Unicode is escaped as JSON does it
    text = json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    write_whole(path, text + b"\n")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[str, object]:
    """The flags in a config.json, with the checks of the command line. Raises UsageError."""
    try:
        text = read_bytes(path, MOST).decode("utf-8-sig")
        loads(text)  # it refuses what has a flag twice
        config = msgspec.convert(parse_json(text, Config), Config)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
    except RepeatedKeyError as error:
        raise UsageError(f"{path} has {error} twice: keep one") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no config.json of train.py ({error})") from None
    if config.program != PROGRAM:
        raise UsageError(f"{path} is of {config.program!r}, not of {PROGRAM}")
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    found = {}
    for name, value in config.flags.items():
        if name not in actions or name in NOT_KEPT:
            close = did_you_mean(name, [*actions.keys() - NOT_KEPT])
            hint = f"did you mean {' or '.join(close)}?" if close else "delete it"
            raise UsageError(f"{path} has the flag {name!r}, which train.py has not: {hint}")
        if value is not None:
            found[name] = _checked(parser, actions[name], value, path)
    return found


def _checked(
    parser: argparse.ArgumentParser, action: argparse.Action, value: object, path: Path
) -> object:
    """A flag's value as the command line would give it. Raises UsageError."""
    wrong = f"{path}: {action.dest}"
    if action.nargs == 0:
        if isinstance(value, bool):
            return value
        raise UsageError(f"{wrong} must be true or false, not {value!r}")
    is_list = action.nargs == "+"
    values = value if is_list and isinstance(value, list) else [value]
    if not values or isinstance(value, list) != is_list:
        raise UsageError(f"{wrong} must be {'a list' if is_list else 'one value'}, not {value!r}")
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise UsageError(f"{wrong} must be a text or a number, not {each!r}")
        if "\0" in str(each):
            raise UsageError(f"{wrong} has a character that no file name has")
    try:
        checked = [parser._get_value(action, str(each)) for each in values]
        for each in checked:
            parser._check_value(action, each)
    except argparse.ArgumentError as error:
        raise UsageError(f"{wrong}: {error.message}") from None
    return checked if is_list else checked[0]
