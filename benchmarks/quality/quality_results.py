"""The results of quality.py: one line for each run in results.jsonl, and the table of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path

METRICS = {  # column of the table -> keys that lead to it in a result's "val" or "holdout"
    "set NLL": ("set_nll",),
    "mAP": ("mAP",),
    "CF1": ("predicted_sets", "threshold", "CF1"),
    "CF1 (label_f1)": ("predicted_sets", "label_f1", "CF1"),  # the oldest results lack it
    "OF1": ("predicted_sets", "threshold", "OF1"),
    "EM": ("predicted_sets", "map", "EM"),
    "EBF1": ("predicted_sets", "f1", "EBF1"),
    "ECE": ("ECE",),
}
LOWER_IS_BETTER = {"set NLL", "ECE"}


@dataclass(frozen=True)
class Run:
    """What identifies a run: its line in results.jsonl has these keys."""

    data: str  # a key of quality_sets.SETS
    recipe: str  # train.py's flags for this data set
    limit: int | None  # the first N images were used; None: all
    epochs: int
    model: str  # a key of ablations.EVERYONE
    learning_rate: float
    seed: int


Results = dict[Run, dict]


def read_results(path: Path) -> Results:
    """All lines of the file; none if there is no file yet."""
    if not path.exists():
        return {}
    names = [field.name for field in fields(Run)]
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {Run(**{name: row[name] for name in names}): row for row in rows}


def append_result(result: dict, path: Path) -> None:
    """Add a line. Runs may do so at the same time: an append of one write stays in one piece."""
    line = json.dumps(result) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


@dataclass(frozen=True)
class Comparison:
    """Runs of the same training, which differ in model, learning rate and seed."""

    data: str
    recipe: str
    limit: int | None
    epochs: int
    learning_rates: list[float]
    seeds: list[int]

    def run(self, model: str, learning_rate: float, seed: int) -> Run:
        """The run of a model with a learning rate and a seed."""
        return Run(self.data, self.recipe, self.limit, self.epochs, model, learning_rate, seed)

    def results_of(self, results: Results, model: str, learning_rate: float) -> dict[int, dict]:
        """Seed -> result. Runs that are missing or that diverged are left out."""
        found = {seed: results.get(self.run(model, learning_rate, seed)) for seed in self.seeds}
        return {seed: result for seed, result in found.items() if result and "val" in result}

    def best_rate(self, results: Results, model: str) -> float:
        """The learning rate with the lowest mean set NLL on the hold-out. Val has no say.

        Only seeds that were run with every learning rate are compared.
        """
        nll = {}  # rate -> seed -> set NLL
        for rate in self.learning_rates:
            if found := self.results_of(results, model, rate):
                nll[rate] = {seed: r["holdout"]["set_nll"] for seed, r in found.items()}
        if not nll:
            return self.learning_rates[0]
        common = set.intersection(*map(set, nll.values()))
        return min(nll, key=lambda rate: sum(nll[rate][seed] for seed in common))


def format_table(results: Results, comparison: Comparison, models: Iterable[str], part: str) -> str:
    """Markdown: a row for each model, mean ± standard deviation over seeds, the best in bold.

    part is "val" or "holdout". Columns that some result lacks are left out.
    """
    rows = {}
    for model in models:
        rate = comparison.best_rate(results, model)
        if found := comparison.results_of(results, model, rate):
            rows[model] = list(found.values())
    columns = {}  # column -> model -> a value for each seed
    for column, keys in METRICS.items():
        values = {model: [look_up(r[part], keys) for r in found] for model, found in rows.items()}
        if not any(None in of_model for of_model in values.values()):
            columns[column] = values
    head = ["model", *columns, "learning rate", "parameters", "minutes", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for model, found in rows.items():
        cells = [f"{model}: {found[0]['about']}"]
        for column, values in columns.items():
            text = mean_and_deviation(values[model])
            cells.append(f"**{text}**" if best_model(column, values) == model else text)
        minutes = statistics.mean(result["training_seconds"] for result in found) / 60
        cells += [f"{found[0]['learning_rate']:g}", f"{found[0]['parameters'] / 1e6:.1f} M"]
        lines.append("| " + " | ".join([*cells, f"{minutes:.1f}", str(len(found))]) + " |")
    return "\n".join(lines)


def look_up(metrics: dict, keys: tuple[str, ...]) -> float | None:
    """One metric of a run; None if it was not computed."""
    return reduce(lambda inner, key: (inner or {}).get(key), keys, metrics)


def best_model(column: str, values: dict[str, list[float]]) -> str:
    """The model with the best mean of a metric."""
    means = {model: statistics.mean(of_model) for model, of_model in values.items()}
    return (min if column in LOWER_IS_BETTER else max)(means, key=means.get)


def mean_and_deviation(values: list[float]) -> str:
    """The mean, ± the sample standard deviation if there are several values."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"
