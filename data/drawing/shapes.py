"""Parse the drawings (language: see catalogue.py) and paint them onto images."""

import colorsys
import itertools
import math

import numpy as np
from skimage.draw import polygon

from drawing.catalogue import CLUTTER, DRAWINGS, PALETTE

Shape = tuple[str, np.ndarray]  # a colour name and a polygon K×2 of (x, y)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> np.ndarray:
    """Points on an ellipse between two angles in degrees."""
    angles = np.radians(np.linspace(start, end, 3 + round(abs(end - start) / 18)))
    return np.column_stack((x + rx * np.cos(angles), y + ry * np.sin(angles)))


def stroke(points: np.ndarray, width: float) -> list[np.ndarray]:
    """One rectangle per segment, half a width longer at both ends to close the joints."""
    rectangles = []
    for start, end in itertools.pairwise(points):
        along = (end - start) / max(np.hypot(*(end - start)), 1e-6) * width / 2
        side = np.array((-along[1], along[0]))
        corners = (start - along + side, end + along + side, end + along - side)
        rectangles.append(np.array((*corners, start - along - side)))
    return rectangles


def parse(text: str) -> list[Shape]:
    """One drawing -> coloured polygons centred on (0, 0), the longest side 1 in all."""
    shapes = []
    for shape in filter(None, map(str.strip, text.split(";"))):
        kind, colour, *words = shape.split()
        numbers = [float(word) for word in words]
        if kind == "P":
            polygons = [np.reshape(numbers, (-1, 2))]
        elif kind == "R":
            x0, y0, x1, y1 = numbers
            polygons = [np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))]
        elif kind == "E":
            polygons = [arc(*numbers, *(() if len(numbers) == 6 else (0, 360)))]
        elif kind == "D":
            radius, *centres = numbers
            polygons = [arc(x, y, radius, radius, 0, 360) for x, y in np.reshape(centres, (-1, 2))]
        elif kind == "S":
            ends = np.reshape(numbers[1:], (-1, 2, 2))
            polygons = [side for pair in ends for side in stroke(pair, numbers[0])]
        elif kind == "L":
            polygons = stroke(np.reshape(numbers[1:], (-1, 2)), numbers[0])
        elif kind == "A":
            width, x, y, rx, ry, *angles = numbers
            outer = arc(x, y, rx + width / 2, ry + width / 2, *angles)
            inner = arc(x, y, rx - width / 2, ry - width / 2, *angles)
            polygons = [np.vstack((outer, inner[::-1]))]
        else:
            raise ValueError(f"unknown shape {kind!r} in the drawing {text!r}")
        shapes += [(colour, corners) for corners in polygons]
    low = np.min([corners.min(axis=0) for _, corners in shapes], axis=0)
    high = np.max([corners.max(axis=0) for _, corners in shapes], axis=0)
    middle, side = (low + high) / 2, (high - low).max()
    return [(colour, (corners - middle) / side) for colour, corners in shapes]


VARIANTS = {
    name: [parse(text) for text in drawing.split("|")]
    for name, drawing in (DRAWINGS | CLUTTER).items()
}


def pick_colour(name: str, rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour of this name, each channel from 0 to 1."""
    hue, saturation, value = (rng.uniform(*limits) for limits in PALETTE[name])
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def draw(
    image: np.ndarray,
    name: str,
    centre: tuple[float, float],
    size: float,
    rng: np.random.Generator,
    turn: float = 0.12,
    opacity: float = 1.0,
) -> np.ndarray:
    """Paint one object onto a float RGB image H×W×3. Returns the mask H×W of its pixels.

    size: longest side in pixels; turn: standard deviation of the rotation in radians; opacity:
    below 1 mixes all colours with the image's colour at the centre.
    """
    variants = VARIANTS[name]
    shapes = variants[rng.integers(len(variants))]
    angle, stretch, mirror = rng.normal(0, turn), math.exp(rng.normal(0, 0.1)), rng.choice((-1, 1))
    cos, sin = math.cos(angle), math.sin(angle)
    transform = size * np.array(((cos, -sin), (sin, cos))) * (mirror * stretch, 1 / stretch)
    height, width = image.shape[:2]
    row, column = np.clip((centre[1], centre[0]), 0, (height - 1, width - 1)).astype(int)
    backdrop = image[row, column].copy()
    mask = np.zeros((height, width), dtype=bool)
    colours: dict[str, np.ndarray] = {}
    for role, corners in shapes:
        base = role.rstrip("+-")
        if base not in colours:
            colours[base] = pick_colour(base, rng)
        colour = colours[base]
        if role != base:
            colour = colour * 0.65 if role.endswith("-") else 0.6 * colour + 0.4
        points = corners @ transform.T + centre
        rows, columns = polygon(points[:, 1], points[:, 0], (height, width))
        light = 1.05 - 0.25 * (rows - centre[1]) / size  # brighter towards the top
        image[rows, columns] = opacity * light[:, None] * colour + (1 - opacity) * backdrop
        mask[rows, columns] = True
    return mask
