"""Count the labels of annotations over images and rank them by frequency.

COCO 2014 (82,081 labelled images, 80 labels, 241,035 labels in all):

    python build_vocab.py --annotations data/annotations/instances_train2014.json \\
        --vocab_path data/vocab.pkl

The decoder predicts labels in the order of the vocabulary: the most frequent label first.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from labels.options import add_label_flags, options_from
from labels.read import FORMAT_NAMES, read_labels
from labels.tags import merge_tags
from labels.vocabulary import Vocabulary, check_replaceable, count_labels, save_vocabulary
from util.cli import ArgumentParser, positive_int, run_script
from util.errors import UsageError
from util.log import log, printable, some


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--annotations",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help=f"labels of the training images ({FORMAT_NAMES}); several are counted together",
    )
    add("--vocab_path", type=Path, default=Path("data/vocab.pkl"), help=".pkl or .json to write")
    add(
        "--min_count",
        type=positive_int,
        default=1,
        help="leave out labels on fewer images; raise it for noisy free tags",
    )
    add(
        "--normalise_tags",
        action="store_true",
        help="for free tags: one label for spellings that differ in case, spaces or plural",
    )
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Count the labels, write the vocabulary and print it."""
    check_replaceable(args.vocab_path)
    options = options_from(vars(args))
    files = [read_labels(path, None, options).of_split("train") for path in args.annotations]
    labelled = [file.labelled() for file in files]
    images = replace(
        files[0],
        label_sets=[labels for file in labelled for labels in file.label_sets],
        unknown=[u for file in labelled for u in file.unknown_sets()],
        categories=sorted({category for file in files for category in file.categories}),
    )
    if args.normalise_tags:
        images = merge_tags(images)
    vocabulary = count_labels(
        images.label_sets,
        images.categories,
        args.min_count,
        args.normalise_tags,
        images.unknown,
    )
    if not len(vocabulary):
        raise UsageError(
            f"no label of {args.annotations[0]} is on at least {args.min_count} images; "
            "check the file or lower --min_count"
        )
    save_vocabulary(vocabulary, args.vocab_path)
    print_vocabulary(vocabulary, sum(map(len, files)))
    if dropped := vocabulary.dropped:
        log(
            f"{len(dropped):,} labels on fewer than {args.min_count} images are left out: "
            f"{some(dropped)}"
        )
    log(f"wrote {args.vocab_path}")


def print_vocabulary(vocabulary: Vocabulary, num_images: int) -> None:
    """The labels with their counts, and a summary; num_images: with and without labels."""
    labels = [printable(label) for label in vocabulary.labels]
    width = max(map(len, labels))
    print(f"{'rank':>4}  {'label':<{width}}  {'images':>8}  {'share':>6}")
    rows = zip(labels, vocabulary.counts, vocabulary.totals(), strict=True)
    for rank, (label, count, known) in enumerate(rows):
        share = 100 * count / known
        print(f"{rank:>4}  {label:<{width}}  {count:>8,}  {share:>5.1f}%")
    total = sum(vocabulary.counts)
    print(
        f"{vocabulary.num_images:,} labelled images (of {num_images:,}), "
        f"{len(vocabulary)} labels, {total:,} labels in all "
        f"({total / vocabulary.num_images:.2f} per image)"
    )


if __name__ == "__main__":
    run_script(main, get_args_parser())
