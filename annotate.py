"""Label photos on a page in your browser, with a network's help; train.py reads the result.

    python annotate.py photos/
    python annotate.py photos/ --label_list labels.txt
    python annotate.py photos/ --checkpoint runs/photos
    python annotate.py photos/ --checkpoint runs/photos --rules rules.txt
    python annotate.py photos/ --checkpoint runs/photos --annotations labels.csv --order review
    python annotate.py photos/ --annotations labels.csv --issues label_issues.csv

Open the address that it prints. Only this machine can. Keys: 1 to 9 and 0 switch the first labels,
typing finds or adds others, Enter accepts and goes on, Backspace goes back, Shift+U undoes. Each
accepted photo is on disk before the next one is shown. The same command continues later.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from annotation.order import Queue, Rating
from annotation.photos import (
    list_photos,
    read_annotations,
    read_issues,
    read_label_list,
    without_corrected,
)
from annotation.store import Store
from labels.options import add_label_flags, options_from
from util.cli import ArgumentParser, non_negative_int, run_script
from util.errors import UsageError
from util.log import counted, log
from util.packages import check_packages

if TYPE_CHECKING:  # torch takes seconds to import, and is not needed without a network
    from annotation.scorer import Scorer

ORDERS = ("uncertain", "name", "review")
OUTPUT = "labels.annotated.csv"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("photos", type=Path, metavar="FOLDER", help="the photos, at any depth")
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder: gives probabilities")
    add("--annotations", type=Path, help="labels to start from, of any format; only read")
    add("--output", type=Path, help=f"the table to write or continue; default: FOLDER/{OUTPUT}")
    add("--label_list", type=Path, metavar="TXT", help="labels to offer, one on each line")
    add("--order", choices=ORDERS, help="default: uncertain with --checkpoint, else name")
    add("--issues", type=Path, metavar="CSV", help="review label_issues.csv of evaluate.py")
    add("--rules", type=Path, metavar="TXT", help="probabilities given rules such as puppy -> dog")
    add("--port", type=non_negative_int, default=8000, help="0: any free one")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Read what is there, serve the page until Ctrl-C, say how to train."""
    order = choose_order(args)
    check_packages("annotate.py", "annotate", ("starlette", "uvicorn"))
    from annotation.server import listen, serve

    names, paths = list_photos(args.photos)
    labels = read_label_list(args.label_list) if args.label_list else []
    answers, issues = {}, {}
    if args.annotations:
        read = read_annotations(args.annotations, args.photos, options_from(vars(args)), names)
        answers = read.answers
        issues = read_issues(args.issues, names, read) if args.issues else {}
    elif (args.photos / "labels.csv").is_file():
        log(f"note: {args.photos}/labels.csv is not used: start from it with --annotations")
    output = choose_output(args)
    listener = listen(args.port)
    scorer = load_scorer(args, paths) if args.checkpoint else None
    store = Store(output, answers)
    try:
        queue = make_queue(order, names, store, scorer, issues)
        log(f"{counted(len(names), 'photo')}; confirmed in {output}: {store.count_verified():,}")
        serve(listener, names, paths, store, queue, scorer, labels)
        log(say_end(args.photos, output, store))
    finally:
        store.close()


def load_scorer(args: argparse.Namespace, paths: Sequence[Path]) -> Scorer:
    """The network. Raises UsageError."""
    from annotation.scorer import Scorer
    from inference.predictor import load

    return Scorer(load(args.checkpoint, args.device, args.amp, args.rules), paths)


def choose_order(args: argparse.Namespace) -> str:
    """The order of the photos. Raises UsageError if something is missing for it."""
    order = args.order or ("review" if args.issues else "uncertain" if args.checkpoint else "name")
    if args.issues and order != "review":
        raise UsageError(f"--issues is for --order review, not for --order {order}")
    if order == "review" and not args.annotations:
        raise UsageError("name the labels to review with --annotations")
    if order == "review" and not (args.checkpoint or args.issues):
        raise UsageError("--order review needs --checkpoint, or --issues label_issues.csv")
    if args.rules and not args.checkpoint:
        raise UsageError("--rules needs --checkpoint: they change its probabilities")
    if order == "uncertain" and not args.checkpoint:
        raise UsageError("--order uncertain needs --checkpoint")
    return order


def choose_output(args: argparse.Namespace) -> Path:
    """The table to write. Raises UsageError if it is the table to start from."""
    output = args.output or args.photos / OUTPUT
    if args.annotations and output.resolve() == args.annotations.resolve():
        raise UsageError(
            f"--annotations {output} is the output, too: leave it out to continue this table, or "
            "name another --output to start from it"
        )
    if output.suffix.lower() != ".csv":
        raise UsageError(f"--output {output} must end in .csv")
    return output


def make_queue(
    order: str,
    names: Sequence[str],
    store: Store,
    scorer: Scorer | None,
    issues: Mapping[int, Rating],
) -> Queue:
    """The photos that wait, and how they are rated. issues: what --issues lists."""
    everything = range(len(names))
    if order == "name":
        return Queue(names, store, everything)
    if order == "uncertain":
        return Queue(names, store, everything, scorer.rate_uncertainty)
    annotated = [photo for photo in everything if store.get(names[photo])]
    if issues:
        ratings = without_corrected(issues, names, store)
        return Queue(names, store, annotated, ratings=ratings, only_rated=True)
    log(
        "note: a network doubts the errors less that it has learned from: if these annotations "
        "trained it, review the label_issues.csv of evaluate.py --folds with --issues"
    )
    rate = scorer.issue_rating(lambda photo: store.get(names[photo]).labels)
    return Queue(names, store, annotated, rate, only_rated=True)


def say_end(photos: Path, output: Path, store: Store) -> str:
    """What was done, and the command that trains with it."""
    if not store.count_verified():
        return "no photo was confirmed"
    command = ["python", "train.py", "--image_path", str(photos), "--annotations", str(output)]
    done = f"{counted(store.count_verified(), 'photo is', 'photos are')} confirmed in {output}"
    return f"{done}; to train with it: {shlex.join(command)}"


if __name__ == "__main__":
    run_script(main, get_args_parser())
