"""An evaluation in sentences, for people who know no metric: what report.html begins with."""

from __future__ import annotations

import math

import numpy as np

from util.log import counted, some

LEAST_PHOTOS = 5  # with a label, for a judgement on it
JUDGED = 3  # best labels, and as many worst ones
LEAST_PERCENT = 100  # of fewer cases, the number is said and no percentage
NAMED = 12  # labels in a sentence
GIVEN = {  # decision rule -> when a label is given
    "threshold": "its probability is at least {threshold}",
    "label_f1": "its probability is at least its own threshold, which is fitted for each tag",
    "map": "it is in the most probable set of tags",
    "f1": "it is in the set of tags with the best expected F1",
}

PROMISED = "its probability reaches the threshold that keeps the promise"


def summarise(
    results: dict,
    targets: np.ndarray,
    predicted: np.ndarray,
    known: np.ndarray | None = None,
) -> dict[str, object]:
    """The sentences of report.html; targets and predicted N×C bool.

    known: N×C bool, where the truth is known (None: everywhere); the others are in neither set. In
    the result,

    first   how much is right, and how sure that is
    best, worst   the labels that it is best and worst at: rows of `labels`
    notes   what the numbers leave out
    given   when a label counts as given
    labels  of each label: label, rank, known, there, hits, given, words, about (sentences)
    """
    known = np.ones(targets.shape, bool) if known is None else known
    counts = {"known": known, "there": targets, "hits": targets & predicted, "given": predicted}
    counts = {name: sets.sum(0).tolist() for name, sets in counts.items()}
    labels = [
        {"label": row["label"], "rank": c, **{name: n[c] for name, n in counts.items()}}
        for c, row in enumerate(results["per_label"])
    ]
    instead = _most_often_together(targets & ~predicted, predicted & ~targets, labels)
    for row in labels:
        row["words"] = f"{row['hits']:,} of {row['there']:,} found, {_false_alarms(row)}"
        row["about"] = _about_label(row, results, instead[row["rank"]])
    # each fold's model has a threshold of its own
    threshold = "its threshold" if results["folds"] else f"{100 * results['threshold']:.3g} %"
    best, worst = _best_and_worst(labels)
    exact = int((targets == predicted).all(1).sum())
    return {
        "first": [
            *_first(results, counts),
            *_always(labels),
            _exact(results, exact),
            _sureness(results),
        ],
        "best": best,
        "worst": worst,
        "notes": _notes(results, labels),
        "given": GIVEN.get(results["decide"], PROMISED).format(threshold=threshold),
        "labels": labels,
    }


def percent(value: float, interval: list[float]) -> str:
    """A percentage with the digits that the number of images allows, from its 95 % interval.

    >>> percent(71.25, [66.1, 76.0]), percent(71.25, [71.0, 71.5])
    ('71 %', '71.2 %')
    """
    half = (interval[1] - interval[0]) / 2
    digits = 1 if half < 1 else 0  # half of a single image is nan
    return f"{value:.{digits}f} %"


def _first(r: dict, counts: dict[str, list[int]]) -> list[str]:
    """How many of the given labels are right, and how many of those that are there are found."""
    there, hits, given = (sum(counts[name]) for name in ("there", "hits", "given"))
    if not given or not there:
        there_are = counted(there, "tag is there", "tags are there")
        return [f"It gives {counted(given, 'tag')} to these photos; {there_are}."]
    if min(given, there) < LEAST_PERCENT:
        right = counted(hits, "is right", "are right")
        there_are = counted(there, "tag that is there", "tags that are there")
        given = counted(given, "tag")
        return [f"Of the {given} it gives, {right}; of the {there_are}, it finds {hits:,}."]
    metrics = r["predicted_sets"][r["decide"]]
    intervals = r["intervals"]["predicted_sets"][r["decide"]]
    right, found = (percent(metrics[name], intervals[name]) for name in ("OP", "OR"))
    return [
        f"Of the tags it gives, {right} are right; of the tags that are there, it finds {found}."
    ]


def _always(labels: list[dict]) -> list[str]:
    """Which labels every image is given, although not every image has them."""
    given = [row["label"] for row in labels if row["there"] < row["given"] == row["known"] > 1]
    return [f"It gives {some(given)} to every photo, which says nothing."] if given else []


def _exact(r: dict, exact: int) -> str:
    """On how many photos every label is right."""
    how_many = f"{exact:,}" if exact else "none"
    tags = "All known tags" if "pairs" in r else "All tags"
    return f"{tags} are right on {how_many} of the {counted(r['num_images'], 'photo')}."


def _sureness(r: dict) -> str:
    """How far the numbers may be off, from the intervals of precision and recall.

    Drawing photos again cannot show an error that none of them has. There it is the rule of three:
    no error on n photos leaves up to 3 / n (Hanley and Lippman-Hand, JAMA 1983).
    """
    intervals = r["intervals"]["predicted_sets"][r["decide"]]
    unseen = 300 / r["num_images"]
    half = max((high - low) / 2 or unseen for low, high in (intervals["OP"], intervals["OR"]))
    if math.isnan(half):
        return "One photo says nothing about others."
    if half < 1:
        return "On other photos of this kind, these shares may differ by less than 1 point."
    few = "With so few photos, these" if half >= 5 else "On other photos of this kind, these"
    return f"{few} shares may be off by about {counted(round(half), 'percentage point')}."


def _best_and_worst(labels: list[dict]) -> tuple[list[dict], list[dict]]:
    """Up to JUDGED best and worst labels, of those on at least LEAST_PHOTOS photos.

    They go by F1, which rises with the share hits / (hits + misses + false alarms). With few
    photos this is partly luck: the best are the labels that are good even at the lower end of the
    share's interval, the worst those that are bad even at its upper end. A label is no best one
    unless it is clearly better than if it were given to every photo.
    """
    judged = [row for row in labels if row["there"] >= LEAST_PHOTOS]
    low, high = {}, {}
    for row in judged:
        total = row["there"] + row["given"] - row["hits"]
        low[row["rank"]], high[row["rank"]] = wilson(row["hits"], total)
    best = [row for row in judged if low[row["rank"]] > row["there"] / row["known"]]
    best = sorted(best, key=lambda row: -low[row["rank"]])[:JUDGED]
    worst = sorted(judged, key=lambda row: high[row["rank"]])
    worst = [
        row for row in worst if row not in best and row["hits"] < max(row["there"], row["given"])
    ]
    return best, worst[: min(JUDGED, len(judged) // 2)]


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in 0..1."""
    share, spread = hits / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return middle - half, middle + half


def _false_alarms(row: dict) -> str:
    return counted(row["given"] - row["hits"], "false alarm")


def _most_often_together(
    missed: np.ndarray, added: np.ndarray, labels: list[dict], most: int = 3
) -> list[tuple[list[str], list[str]]]:
    """For each label: what is added where it is missed, and missed where it is added, with counts.

    missed, added: N×C bool.
    """
    both = missed.T.astype(np.float32) @ added  # C×C

    def name(counts: np.ndarray) -> list[str]:
        ranked = np.argsort(-counts, kind="stable")[:most]
        return [f"{labels[c]['label']} ({counts[c]:,.0f})" for c in ranked if counts[c]]

    return [(name(both[c]), name(both[:, c])) for c in range(len(labels))]


def _about_label(row: dict, r: dict, together: tuple[list[str], list[str]]) -> list[str]:
    """Sentences on a label, for its own page."""
    there, hits, wrong = row["there"], row["hits"], row["given"] - row["hits"]
    where = "" if row["known"] == r["num_images"] else " where this is known; only these count"
    about = [f"It is on {there:,} of the {counted(row['known'], 'photo')}{where}."]
    if there:
        about += [f"The model finds {hits:,} of them and misses {there - hits:,}."]
    about += [f"It also gives the tag to {counted(wrong, 'photo')} not annotated with it."]
    if row["given"] == row["known"] > 0:
        about += ["It gives this tag to every photo, which says nothing."]
    added, missed = together
    if added:
        about += [f"Where it misses this tag, it most often adds: {', '.join(added)}."]
    if missed:
        about += [f"Where it gives this tag wrongly, it most often misses: {', '.join(missed)}."]
    if "training" in r:
        trained = r["training"]["counts"][row["rank"]]
        listed = counted(r["training"]["images"], "photo")
        about += [f"Of the {listed} listed for training, {trained:,} had it."]
    if there < LEAST_PHOTOS:
        about += ["These are too few photos to tell how good the model is at it."]
    return about


def _notes(r: dict, labels: list[dict]) -> list[str]:
    """What the numbers leave out: labels that the model lacks, or is not tested on."""
    lacking = {
        kind: [f"{label} (on {counted(n, 'photo')})" if n else label for label, n in found.items()]
        for kind, found in r.get("left_out", {}).items()
    }
    trained = r["training"]["counts"] if "training" in r else None
    groups = {
        "Too rare in training, so never given and not counted": lacking.get("rare"),
        "Unknown to the model, so never given and not counted": lacking.get("unknown"),
        "On no training photo, so not learned": trained
        and [row["label"] for row in labels if not trained[row["rank"]]],
        "On none of these photos, so not judged": [
            row["label"] for row in labels if not row["there"]
        ],
    }
    notes = [_known_pairs(**r["pairs"])] if "pairs" in r else []
    notes += [f"{what}: {some(names, NAMED)}." for what, names in groups.items() if names]
    if not any(row["there"] >= LEAST_PHOTOS for row in labels):
        few = f"No tag is on {LEAST_PHOTOS} photos or more"
        notes.append(f"{few}: these are too few photos to say what the model is good at.")
    return notes


def _known_pairs(known: int, all: int) -> str:
    """How much the annotations leave open."""
    share = f"{known:,} of the {all:,} pairs of a photo and a tag"
    return f"The annotations say yes or no to {share}. The others are not known and do not count."
