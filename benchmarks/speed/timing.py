"""How the tables are measured and written: both sides in turn, and the spread of runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One row of the table: two durations of the same work and what their ratio should reach."""

    name: str
    ours: float  # seconds, median
    reference: float  # seconds, median
    spread: float  # half the interquartile range of the per-round ratios
    at_least: float | None = None  # target for speed-up = reference / ours
    at_most: float | None = None  # or target for the cost = ours / reference
    note: str = ""  # absolute rates, for instance

    @property
    def value(self) -> float:
        """The ratio the target speaks of."""
        return self.reference / self.ours if self.at_most is None else self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether it is reached; a row without a target always is."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.at_least is None or self.value >= self.at_least


def side_by_side(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    rounds: int = 5,
    warm_up: int = 1,
    **targets: float | str | None,
) -> Ratio:
    """Run both in turn `rounds` times, so that whatever else the machine does meets both alike.

    `targets` are at_least, at_most and note of Ratio. `warm_up` rounds are not counted.
    """
    times = [(_seconds(ours), _seconds(reference)) for _ in range(warm_up + rounds)][warm_up:]
    mine, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    upside_down = targets.get("at_most") is not None
    ratios = [a / b if upside_down else b / a for a, b in times]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else [0.0, 0.0, 0.0]
    return Ratio(name, mine, theirs, (quartiles[2] - quartiles[0]) / 2, **targets)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float]) -> str:
    """mean ± sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"
