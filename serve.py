"""Label the pictures that other programs send by HTTP, until SIGTERM or Ctrl-C.

    python serve.py
    python serve.py --checkpoint runs/scenes-chain --port 9000
    curl -F images=@photo.jpg http://127.0.0.1:8000/predict
    curl -F images=@a.jpg -F images=@b.jpg -F known=person -F absent=cat http://127.0.0.1:8000/predict

The answer is what sample.py --json prints, as a list. The address that it prints is also a page to
try it. Only this machine can ask, unless --host says otherwise. See docs/SERVE.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from inference.checkpoint import find_checkpoint
from inference.predictor import load
from inference.promises import DECIDE, decision
from util.cli import ArgumentParser, non_negative_int, positive_float, positive_int, run_script
from util.log import log
from util.packages import check_packages

PACKAGES = ("fastapi", "uvicorn", "python_multipart")
HOST = "127.0.0.1"
NAME = "a name that leads here, besides localhost and IP addresses; may be repeated"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--host", default=HOST, help="0.0.0.0: other machines can ask, too; there is no password")
    add("--port", type=non_negative_int, default=8000, help="0: any free one")
    add("--server_name", action="append", default=[], metavar="NAME", help=NAME)
    add("--queue", type=positive_int, default=128, help="pictures that wait; others get a 503")
    add("--max_mb", type=positive_float, default=20.0, help="of a request; larger ones get a 413")
    add("--batch_size", type=positive_int, default=32, help="pictures labelled at once, at most")
    add("--decide", type=decision, default="threshold", metavar="RULE", help=DECIDE)
    add("--num_samples", type=positive_int, default=128, help="label sets sampled per picture")
    add("--rules", type=Path, metavar="TXT", help="rules for label sets, such as puppy -> dog")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    return parser


def main(args: argparse.Namespace) -> None:
    """Load the network, answer requests, say how many."""
    check_packages("serve.py", "serve", PACKAGES)
    from annotation.server import listen
    from serving.gate import Limits
    from serving.server import serve

    listener = listen(args.port, args.host)
    predictor = load(find_checkpoint(args.checkpoint), args.device, args.amp, args.rules)
    if args.host not in (HOST, "localhost", "::1"):
        log(f"note: everyone who reaches {args.host} can use the network: there is no password")
    limits = Limits(args.queue, int(args.max_mb * 1e6))
    rule, samples, name = args.decide, args.num_samples, args.server_name
    serve(listener, predictor, args.batch_size, limits, rule, samples, name)


if __name__ == "__main__":
    run_script(main, get_args_parser())
