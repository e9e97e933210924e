"""A small canvas for animated flat illustration: signed distances, painted with smooth edges over all frames at once.

Coordinates: the middle of the picture is (0, 0), x to the right, y down, and the shorter side runs from -1 to 1.
Distances are negative inside. A shape parameter may be a number (still) or an array of shape (frames, 1, 1) (moving);
whatever never moves is painted once, before ``animate``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Param = float | Array
Colour = tuple[float, float, float] | Array
Distance = Callable[[Array, Array], Array]
Box = tuple[float, float, float, float]


class Canvas:
    """Pixels of a clip, planar: ``rgb`` is (3, frames, height, width), float32, 0 to 255."""

    def __init__(self, width: int, height: int) -> None:
        if width < 8 or height < 8:
            raise ValueError(f"a picture of {width}x{height} is too small to draw: at least 8x8")
        short = min(width, height)
        self.px = 2.0 / short
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) * self.px - width / short).astype(np.float32)
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) * self.px - height / short).astype(np.float32)
        self.rgb = np.zeros((3, 1, height, width), np.float32)

    @property
    def aspect(self) -> tuple[float, float]:
        """Half the width and half the height in canvas units; the smaller one is 1."""
        return float(-self.x[0] + self.px / 2), float(-self.y[0] + self.px / 2)

    def animate(self, frames: int) -> None:
        """Repeat what was painted so far over all frames; from here on parameters may move."""
        self.rgb = np.repeat(self.rgb, frames, axis=1)

    def gradient(self, top: Colour, bottom: Colour) -> None:
        """Fill everything from ``top`` to ``bottom``."""
        share = np.linspace(0.0, 1.0, len(self.y), dtype=np.float32)[:, None]
        for channel in range(3):
            self.rgb[channel] = top[channel] + share * (bottom[channel] - top[channel])

    def window(self, box: Box | None) -> tuple[slice, slice]:
        """Rows and columns of a box (left, top, right, bottom) in canvas units; the whole picture without one."""
        if box is None:
            return slice(0, len(self.y)), slice(0, len(self.x))
        left, top, right, bottom = box
        rows = slice(*np.searchsorted(self.y, [top - self.px, bottom + self.px]).tolist())
        columns = slice(*np.searchsorted(self.x, [left - self.px, right + self.px]).tolist())
        return rows, columns

    def paint(
        self,
        shape: Distance,
        colour: Colour,
        opacity: Param = 1.0,
        box: Box | None = None,
        soft: float = 0.0,
    ) -> None:
        """Lay ``colour`` over the inside of ``shape``.

        ``colour``: three numbers, or (3, frames) for one that changes; ``soft``: width of the edge in canvas units
        (never under one pixel); ``box`` bounds the shape, to save work.
        """
        rows, columns = self.window(box)
        x, y = self.x[None, None, columns], self.y[None, rows, None]
        if x.size == 0 or y.size == 0:
            return
        edge = np.float32(1.0 / max(soft, self.px))
        cover = shape(x, y) * -edge
        cover += np.float32(0.5)
        np.clip(cover, 0.0, 1.0, out=cover)
        if not (isinstance(opacity, float) and opacity == 1.0):
            cover = cover * np.asarray(opacity, np.float32)
        for channel in range(3):
            target = self.rgb[channel, :, rows, columns]
            ink = np.asarray(colour[channel], np.float32)
            delta = (ink[:, None, None] if ink.ndim else ink) - target
            delta *= cover
            target += delta

    def pixels(self) -> Array:
        """The clip as (frames, height, width, 3) uint8."""
        clipped = np.clip(self.rgb + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
        return np.ascontiguousarray(clipped.transpose(1, 2, 3, 0))


def moving(values: Array) -> Array:
    """One value a frame, ready to be a shape parameter: (frames,) to (frames, 1, 1) float32."""
    return np.asarray(values, np.float32)[:, None, None]


def mix(first: Colour, second: Colour, share: float | Array) -> Array:
    """Between two colours; with one share a frame the result is (3, frames)."""
    start, end = np.asarray(first, np.float32), np.asarray(second, np.float32)
    part = np.asarray(share, np.float32)
    if part.ndim:
        start, end = start[:, None], end[:, None]
    return start + part * (end - start)


def circle(cx: Param, cy: Param, radius: Param) -> Distance:
    return lambda x, y: np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - radius


def ellipse(cx: Param, cy: Param, rx: Param, ry: Param) -> Distance:
    """Close to the true distance near the edge, which is all that painting looks at."""

    def distance(x: Array, y: Array) -> Array:
        u, v = (x - cx) / rx, (y - cy) / ry
        k = np.sqrt(u * u + v * v)
        slope = np.sqrt((u / rx) ** 2 + (v / ry) ** 2) + 1e-6
        return k * (k - 1.0) / slope

    return distance


def box(cx: Param, cy: Param, half_width: Param, half_height: Param, radius: float = 0.0) -> Distance:
    """A rectangle around (cx, cy), its corners rounded by ``radius``."""

    def distance(x: Array, y: Array) -> Array:
        u = np.abs(x - cx) - half_width + radius
        v = np.abs(y - cy) - half_height + radius
        if radius == 0.0:
            return np.maximum(u, v)
        return np.sqrt(np.maximum(u, 0.0) ** 2 + np.maximum(v, 0.0) ** 2) + np.minimum(np.maximum(u, v), 0.0) - radius

    return distance


def capsule(ax: Param, ay: Param, bx: Param, by: Param, radius: Param) -> Distance:
    """A thick line from a to b with round ends."""

    def distance(x: Array, y: Array) -> Array:
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
        return np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2) - radius

    return distance


def trapezoid(cx: Param, top: Param, bottom: Param, half_top: float, half_bottom: float) -> Distance:
    """A standing trapezoid, sharp corners."""

    def distance(x: Array, y: Array) -> Array:
        lean = (half_bottom - half_top) / (bottom - top)
        side = (np.abs(x - cx) - half_top - (y - top) * lean) / np.sqrt(1.0 + lean * lean)
        return np.maximum(side, np.maximum(top - y, y - bottom))

    return distance


def ring(inner: Distance, width: Param) -> Distance:
    """The edge of a shape as a band ``width`` wide."""
    return lambda x, y: np.abs(inner(x, y)) - 0.5 * width


def union(*shapes: Distance) -> Distance:
    def distance(x: Array, y: Array) -> Array:
        nearest = shapes[0](x, y)
        for shape in shapes[1:]:
            nearest = np.minimum(nearest, shape(x, y))
        return nearest

    return distance


def both(first: Distance, second: Distance) -> Distance:
    """Where two shapes overlap."""
    return lambda x, y: np.maximum(first(x, y), second(x, y))


def without(first: Distance, second: Distance) -> Distance:
    """The first shape less the second."""
    return lambda x, y: np.maximum(first(x, y), -second(x, y))


def turned(shape: Distance, px: Param, py: Param, angle: Param) -> Distance:
    """A shape turned around (px, py) by ``angle`` radians (clockwise, since y points down)."""

    def distance(x: Array, y: Array) -> Array:
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = x - px, y - py
        return shape(px + u * cos + v * sin, py - u * sin + v * cos)

    return distance
