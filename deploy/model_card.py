"""MODEL_CARD.md: what is known of a model, in Markdown, from its checkpoint and its evaluation.

Nothing is said that these two do not say: what is missing is left out, with the command that makes
it. The sections are those of Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from evaluation.metrics import RULES, SHOWN
from labels.vocabulary import Vocabulary
from report.page import number
from util.log import log

FEW = 50  # a label with fewer training images is named among the limits
WEAKEST = 5  # labels of lowest AP that are named there, too
# all that Markdown may take for more than a character of a word, within a line
SPECIAL = re.compile(r"[^\w ,/()+%=-]|_")


def escape(value: object) -> Markup:
    """Any text as Markdown that shows just this text, on one line: no HTML, no table's end.

    A character reference is never structure (CommonMark 0.31, 6.4 entity references).
    """
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).encode("utf-8", "replace").decode().split()) or "(empty)"
    return Markup(SPECIAL.sub(lambda m: f"&#{ord(m[0])};" if m[0].isprintable() else "?", text))


def find_metrics(checkpoint: dict, path: Path) -> dict | None:
    """metrics.json beside the checkpoint at `path`, if it is of this very checkpoint."""
    metrics = path.with_name("metrics.json")
    try:
        found = json.loads(metrics.read_text("utf-8"))
        theirs = (found["epoch"], found["threshold"], [row["label"] for row in found["per_label"]])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log(f"note: {metrics} cannot be read as evaluate.py's; its figures are left out")
        return None
    ours = (checkpoint["epoch"], checkpoint["threshold"], checkpoint["vocabulary"]["labels"])
    if theirs != ours:
        log(f"note: {metrics} is of another checkpoint; its figures are left out")
        return None
    return found


def write_card(
    checkpoint: dict, path: Path, vocabulary: Vocabulary, parameters: int, folder: Path
) -> bytes:
    """The card of the checkpoint at `path`, exported to `folder`."""
    figures = find_metrics(checkpoint, path)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        finalize=escape,  # every value, unless it is marked as Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda *args: Markup(number(*args))
    thresholds = np.broadcast_to(checkpoint["label_thresholds"], len(vocabulary)).tolist()
    ranked = sorted(
        (row for row in (figures or {}).get("per_label", []) if row["AP"] is not None),
        key=lambda row: row["AP"],
    )
    return (
        environment.get_template("model_card.md")
        .render(
            c=checkpoint,
            r=figures,
            labels=list(zip(vocabulary.labels, vocabulary.counts, thresholds, strict=True)),
            vocabulary=vocabulary,
            few=FEW,
            weakest=ranked[:WEAKEST],
            rules=RULES,
            shown=SHOWN,
            parameters=parameters,
            evaluate=_block(f"python evaluate.py --checkpoint {shlex.quote(str(path))}"),
            export=_block(f"python export.py --checkpoint {shlex.quote(str(path))}"),
            predict=_block(f"python predict_onnx.py {shlex.quote(str(folder))} photo.jpg"),
            sample=_block(f"python sample.py photo.jpg --checkpoint {shlex.quote(str(path))}"),
            measured=_block(figures["command"]) if figures else None,
            flags=_block(*_flags(checkpoint["flags"])),
        )
        .encode("utf-8", "replace")
    )


def _flags(flags: dict) -> list[str]:
    """Those that were set, as typed: a switch has no value."""
    return [
        f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"
        for name, value in flags.items()
        if value is not None and value is not False
    ]


def _block(*lines: str) -> Markup:
    """Lines as an indented code block: whatever they hold is shown as it is."""
    return Markup("\n".join("    " + " ".join(line.split()) for line in lines))
