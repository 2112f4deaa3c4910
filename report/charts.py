"""SVG charts of the report: this file computes pixels, templates/macros.html draws them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 380, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 12, 40  # margins for tick labels and axis names, pixels


@dataclass
class Chart:
    """A chart with two linear axes; x and y are (lowest, highest) in data units."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str
    x_ticks: list[tuple[float, str]] = field(default_factory=list)  # pixel, text
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    lines: list[dict] = field(default_factory=list)  # name, css class, points
    dots: list[dict] = field(default_factory=list)  # name, css class, x, y, title
    bars: list[dict] = field(default_factory=list)  # css class, x, y, width, height, title
    width: int = WIDTH
    height: int = HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in data units -> its pixels."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        plot_width, plot_height = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return round(LEFT + across * plot_width, 1), round(TOP + (1 - up) * plot_height, 1)

    def ticks(self, x: Iterable[tuple[float, str]], y: Iterable[tuple[float, str]]) -> Chart:
        """Set the ticks of both axes, from (value, text)."""
        self.x_ticks = [(self.at(value, 0)[0], text) for value, text in x]
        self.y_ticks = [(self.at(0, value)[1], text) for value, text in y]
        return self

    def line(self, name: str, css: str, x: Iterable[float], y: Iterable[float]) -> Chart:
        """Add a line through points; `css` is a class of page.css that sets its colour."""
        self.lines.append({"name": name, "css": css, "points": self.points(x, y)})
        return self

    def points(self, x: Iterable[float], y: Iterable[float]) -> str:
        """Points in data units -> those of an SVG polyline."""
        return " ".join(f"{left:g},{top:g}" for left, top in map(self.at, x, y))

    def dot(self, name: str, css: str, x: float, y: float, title: str = "") -> Chart:
        """Add a dot; `title` is its tooltip."""
        left, top = self.at(x, y)
        self.dots.append({"name": name, "css": css, "x": left, "y": top, "title": title})
        return self

    def bar(self, css: str, x: float, width: float, height: float, title: str) -> Chart:
        """Add a bar from 0 up to `height`; x is its left side, `title` its tooltip."""
        (left, top), (right, bottom) = self.at(x, height), self.at(x + width, 0)
        box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        self.bars.append({"css": css, "title": title, **box})
        return self

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom of the area inside the margins, in pixels."""
        return LEFT, self.width - RIGHT, TOP, self.height - BOTTOM


def nice_ticks(high: float, low: float = 0.0, about: int = 5) -> list[tuple[float, str]]:
    """About `about` round values from low to high, as (value, text)."""
    span = max(high - low, 1e-9)
    step = 10 ** np.floor(np.log10(span / about))
    step *= next((m for m in (1, 2, 5) if span / (m * step) <= about), 10)
    values = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [(float(value), f"{value:,.10g}") for value in values]
