"""MODEL_CARD.md: a description of a model, from its checkpoint and its evaluation.

Where the evaluation is missing, the card gives the command that makes it. The sections follow
Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
from markupsafe import Markup

from deploy.precision_results import Comparison
from encoder import ARCHS, is_noncommercial, weights_licence
from evaluation.metrics import RULES, SCORE_METRICS, SET_METRICS, SET_NLL, Metric
from evaluation.metrics_file import read_metrics
from labels.vocabulary import Vocabulary
from report.page import number
from util.errors import UsageError
from util.log import log

FEW = 50  # labels with fewer training images are counted under "Limits"
WEAKEST = 5  # labels with the lowest AP, named under "Limits"
# every character that may have a meaning in Markdown within a line
SPECIAL = re.compile(r"[^\w ,/()+%=-]|_")


def escape(value: object) -> Markup:
    """Any text -> Markdown that shows exactly this text on one line, also inside a table.

    Special characters become character references, which are never structure (CommonMark 0.31,
    section 2.5).
    """
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).encode("utf-8", "replace").decode().split()) or "(empty)"
    return Markup(SPECIAL.sub(lambda m: f"&#{ord(m[0])};" if m[0].isprintable() else "?", text))


def find_metrics(checkpoint: dict, path: Path) -> dict | None:
    """metrics.json from the folder of `path`, if it was made with this checkpoint; else None."""
    metrics = path.with_name("metrics.json")
    try:
        found = read_metrics(metrics)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, UsageError) as error:
        why = f"{metrics} is not from this evaluate.py ({error})"
        log(f"note: {why}; its metrics are left out")
        return None
    theirs = (found["epoch"], found["threshold"], [row["label"] for row in found["per_label"]])
    ours = (checkpoint["epoch"], checkpoint["threshold"], checkpoint["vocabulary"]["labels"])
    if theirs != ours:
        log(f"note: {metrics} belongs to another checkpoint; its metrics are left out")
        return None
    return found


def write_card(
    checkpoint: dict,
    path: Path,
    vocabulary: Vocabulary,
    parameters: int,
    folder: Path,
    comparison: Comparison | None = None,
) -> bytes:
    """The model card as UTF-8.

    path: the checkpoint's file. parameters: how many the model has. folder: of the export.
    comparison: what a smaller encoder.onnx costs; None: it is float32.
    """
    results = find_metrics(checkpoint, path)
    import jinja2  # imported here: only pages and cards need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        finalize=escape,  # applied to every value that is not Markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda *args: Markup(number(*args))
    thresholds = np.broadcast_to(checkpoint["label_thresholds"], len(vocabulary)).tolist()
    ranked = sorted(
        (row for row in (results or {}).get("per_label", []) if row["AP"] is not None),
        key=lambda row: row["AP"],
    )
    return (
        environment.get_template("model_card.md")
        .render(
            c=checkpoint,
            r=results,
            comparison=comparison,
            labels=list(zip(vocabulary.labels, vocabulary.counts, thresholds, strict=True)),
            vocabulary=vocabulary,
            few=FEW,
            weakest=ranked[:WEAKEST],
            rules=RULES,
            score_metrics=_score_metrics(),
            set_metrics=SET_METRICS,
            intervals=(results or {}).get("intervals", {"predicted_sets": {}}),
            parameters=parameters,
            evaluate=_block(f"python evaluate.py --checkpoint {shlex.quote(str(path))}"),
            export=_block(f"python export.py --checkpoint {shlex.quote(str(path))}"),
            predict=_block(f"python predict_onnx.py {shlex.quote(str(folder))} photo.jpg"),
            sample=_block(f"python sample.py photo.jpg --checkpoint {shlex.quote(str(path))}"),
            measured=_block(results["command"]) if results else None,
            flags=_block(*_flags(checkpoint["flags"])),
            **_start(checkpoint),
        )
        .encode("utf-8", "replace")
    )


def _score_metrics() -> dict[str, Metric]:
    """The metrics of the card's first table."""
    return {**SCORE_METRICS, "set_nll": SET_NLL}


def _start(checkpoint: dict) -> dict[str, object]:
    """Where the first weights came from, and the licence that is stated for such weights.

    start: the flag of train.py, or None. start_file: the name of the flag's file. owner, licence,
    noncommercial: of the weights that can be fetched for this encoder.
    """
    flags, arch = checkpoint["flags"], checkpoint["model"]["arch"]
    start = next((n for n in ("pretrained", "weights", "start_from") if flags.get(n)), None)
    licence = weights_licence(arch) if start in ("pretrained", "weights") else None
    return {
        "start": start,
        "start_file": Path(str(flags.get(start))).name,
        "owner": "torchvision" if arch in ARCHS else "timm",
        "licence": licence,
        "noncommercial": bool(licence) and is_noncommercial(licence),
    }


def _flags(flags: dict) -> list[str]:
    """The flags that were set, as typed on the command line."""
    return [
        f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"
        for name, value in flags.items()
        if value is not None and value is not False
    ]


def _block(*lines: str) -> Markup:
    """Lines as an indented code block, which Markdown shows unchanged."""
    return Markup("\n".join("    " + " ".join(line.split()) for line in lines))
