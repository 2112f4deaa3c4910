"""Two ways of doing the same work, timed in turn; a row of the table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Ratio:
    """A row of the table: two durations of the same work, and the target for their ratio."""

    name: str
    ours: float  # seconds, median
    reference: float  # seconds, median
    spread: float  # half the interquartile range of the ratios of all rounds
    at_least: float | None = None  # target for the speed-up: reference / ours
    at_most: float | None = None  # or target for the cost: ours / reference
    note: str = ""  # absolute rates, for instance

    @property
    def value(self) -> float:
        """The ratio that the target is set for."""
        return self.reference / self.ours if self.at_most is None else self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether the target is reached; True without a target."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.at_least is None or self.value >= self.at_least

    def rates(self, num_images: int) -> tuple[float, float]:
        """Images per second of both sides, if each processed `num_images`."""
        return num_images / self.ours, num_images / self.reference

    def with_rates(self, num_images: int) -> Ratio:
        """The row with both rates as its note."""
        ours, reference = self.rates(num_images)
        decimals = 0 if reference >= 100 else 1
        return replace(self, note=f"{ours:,.{decimals}f} and {reference:,.{decimals}f} images/s")

    def with_milliseconds(self, steps: int = 1) -> Ratio:
        """The row with the time of one of `steps` steps as its note, for both sides."""
        ours, reference = (1000 * seconds / steps for seconds in (self.ours, self.reference))
        return replace(self, note=f"{ours:,.0f} and {reference:,.0f} ms a step")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    rounds: int = 5,
    warm_up: int = 1,
    seconds: Callable[[Callable[[], object]], float] = _seconds,
    **targets: float | str | None,
) -> Ratio:
    """Run both in turn, `rounds` times, so that other load on the machine affects both alike.

    `targets` are at_least, at_most and note of Ratio. `warm_up` rounds are not counted. seconds:
    runs a piece of work and says how long it took.
    """
    times = [(seconds(ours), seconds(reference)) for _ in range(warm_up + rounds)][warm_up:]
    mine, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    is_cost = targets.get("at_most") is not None
    ratios = [a / b if is_cost else b / a for a, b in times]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else [0.0, 0.0, 0.0]
    return Ratio(name, mine, theirs, (quartiles[2] - quartiles[0]) / 2, **targets)
