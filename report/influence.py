"""Label influence as a CSV file and two heat maps."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import scipy

from report.fonts import choose_fonts
from util.files import csv_text, write_atomically, write_picture
from util.marked import PROGRAM

DRAWN = 80  # labels in the picture at most, so that their names can be read
NAME_LENGTH = 28  # characters of a label's name in the picture


def clustered_order(ratio: np.ndarray) -> np.ndarray:
    """An order of the C labels that puts labels that occur together next to each other.

    ratio: symmetric C×C log odds ratios. Average linkage with optimal leaf order.
    """
    if len(ratio) < 3:
        return np.arange(len(ratio))
    distance = ratio.max() - ratio
    np.fill_diagonal(distance, 0)
    pairs = scipy.spatial.distance.squareform(distance, checks=False)
    hierarchy = scipy.cluster.hierarchy
    return hierarchy.leaves_list(hierarchy.linkage(pairs, "average", optimal_ordering=True))


def colour_limit(ratio: np.ndarray) -> float:
    """The ratio shown in full colour: the 99 % quantile of |ratio| over pairs that are not 0."""
    strengths = np.abs(ratio[np.triu_indices(len(ratio), 1)])
    return float(np.quantile(strengths[strengths > 0], 0.99)) if strengths.any() else 1.0


def save_influence(influence: np.ndarray, ratio: np.ndarray, labels: list[str], stem: Path) -> None:
    """Write `stem`.csv (influence, with names) and `stem`.png (annotations beside influence).

    influence, ratio: symmetric C×C log odds ratios, of the network and of the annotations.
    """

    def write_csv(path: Path) -> None:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", *map(csv_text, labels)])
            for label, row in zip(labels, influence, strict=True):
                writer.writerow([csv_text(label), *(f"{value:.4f}" for value in row)])

    write_atomically(stem.with_suffix(".csv"), write_csv)
    draw_influence(influence, ratio, labels, stem.with_suffix(".png"))


def draw_influence(influence: np.ndarray, ratio: np.ndarray, labels: list[str], path: Path) -> None:
    """Two heat maps with the labels in the same order, each on its own colour scale.

    The network's ratios are given the image, so their sizes differ from the annotations' ratios.
    Of more than DRAWN labels, those with the strongest influence on another one are drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, which = np.arange(len(labels)), ""
    if len(labels) > DRAWN:
        drawn = np.argsort(-np.abs(influence).max(0), kind="stable")[:DRAWN]
        which = f"\nthe {DRAWN} labels with the strongest influence, of {len(labels):,}"
    order = drawn[clustered_order(ratio[np.ix_(drawn, drawn)])]
    lettering = choose_fonts(labels)
    names = [_short(lettering.show(labels[i])) for i in order]
    room = 0.06 * max(map(len, names))  # inches for the names
    side = max(4.0, 0.13 * len(order))
    size = 2 * (side + room + 1.2), side + room + (1.2 if which else 0.9)
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
    titles = {"in the annotations": ratio, "in the network, given the image": influence}
    for axis, (title, matrix) in zip(axes, titles.items(), strict=True):
        shown = matrix[np.ix_(order, order)]
        limit = colour_limit(shown)
        picture = axis.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"log odds ratio of two labels\n{title}{which}", fontsize=12)
        text = {"fontsize": 6, "fontfamily": lettering.families, "parse_math": False}
        axis.set_xticks(range(len(names)), names, rotation=90, **text)
        axis.set_yticks(range(len(names)), names, **text)
        axis.tick_params(length=0)
        figure.colorbar(picture, ax=axis, shrink=0.8)
    mark = {"Software": PROGRAM}
    write_picture(path, lambda file: figure.savefig(file, dpi=130, format="png", metadata=mark))
    plt.close(figure)


def _short(name: str) -> str:
    """The name, or its beginning if it is long."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
