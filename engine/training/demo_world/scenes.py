"""The picture of every scene family of the demo world.

Each family is one function that paints a still part, calls ``canvas.animate`` and paints the moving part from the
same ``beats`` that the sound is made of. Rules for all of them: one large object in the middle in the clip's main
colour, visible in every frame; few flat colours with one lighter and one darker tone each; nothing thinner than three
pixels at 96x96; every event changes a large area at once, because that is what a small video VAE keeps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.training.demo_world.clip import ClipSpec, beats, stream
from engine.training.demo_world.draw import (
    Array,
    Canvas,
    Colour,
    Distance,
    both,
    box,
    capsule,
    circle,
    ellipse,
    mix,
    moving,
    ring,
    trapezoid,
    turned,
    union,
    without,
)

PAINT: dict[str, tuple[float, float, float]] = {
    "red": (222, 38, 44),
    "orange": (250, 134, 20),
    "yellow": (252, 214, 36),
    "green": (34, 170, 72),
    "blue": (28, 112, 236),
    "purple": (152, 48, 186),
    "white": (248, 248, 246),
}
"""The main colours: at least 45 apart from each other in Lab."""

INK = (34, 36, 52)
WOOD = (150, 96, 58)
STEEL = (176, 184, 196)
IVORY = (255, 246, 224)
FLOOR = 0.62  # canvas height of the line where the floor begins


class Clock:
    """The beats of a clip, seen from each frame."""

    def __init__(self, spec: ClipSpec, fps: float, frames: int) -> None:
        self.time = np.arange(frames) / fps  # s; frame k shows the instant k / fps
        self.beats = beats(spec, frames / fps)
        self.index = np.searchsorted(self.beats, self.time, side="right") - 1  # the last beat at or before each frame
        last, following = self.beats[self.index], self.beats[self.index + 1]
        self.since = np.where(self.index > 0, self.time - last, np.inf)  # s since the last event, inf before the first
        self.until = following - self.time  # s to the next event
        self.gap = following - last  # s between the two
        self.share = (self.time - last) / self.gap  # 0 at a beat, towards 1 before the next

    def fading(self, seconds: float) -> Array:
        """1 at an event, falling to 0 with a half-life of about ``seconds``; 0 before the first."""
        return np.exp2(-self.since / seconds)

    def held(self, seconds: float | Array, fall: float = 0.06) -> Array:
        """1 for ``seconds`` (one number, or one a frame) after an event, then 0 within ``fall``; 0 before the first."""
        return np.clip(1.0 + (seconds - self.since) / fall, 0.0, 1.0)

    def nearing(self, seconds: float) -> Array:
        """0 until ``seconds`` before the next event, then up to 1 at the event."""
        return np.clip(1.0 - self.until / seconds, 0.0, 1.0)


def hold_seconds(clock_or_gap: Array) -> Array:
    """How long lamp, mouth, keys and speaker stay on: part of the gap, so that fast clips also come to rest."""
    return np.minimum(0.45 * clock_or_gap, 0.30)


def lighter(colour: Colour, share: float) -> Array:
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Array:
    return mix(colour, (16, 14, 40), share)


def _lit(name: str) -> Array:
    """The main colour lit up; white, which cannot get brighter, turns golden."""
    return mix(PAINT[name], (255, 206, 70), 1.0) if name == "white" else mix(PAINT[name], (255, 252, 224), 0.72)


def render_frames(spec: ClipSpec, width: int = 96, height: int = 96, fps: float = 24.0, frames: int = 49) -> Array:
    """The clip's picture, (frames, height, width, 3) uint8."""
    if frames < 1 or fps <= 0:
        raise ValueError(f"{frames} frames at {fps} fps is no clip")
    canvas = Canvas(width, height)
    _background(canvas, spec.background)
    clock = Clock(spec, fps, frames)
    offset = float(stream(spec, 1).uniform(-0.07, 0.07))
    _PAINTERS[spec.family](canvas, clock, spec, offset)
    return canvas.pixels()


def _background(canvas: Canvas, name: str) -> None:
    """Wall or sky, one quiet large form, and a floor."""
    wide, _ = canvas.aspect
    if name == "night":
        canvas.gradient((14, 18, 52), (44, 50, 106))
        canvas.paint(union(ellipse(-0.9, FLOOR + 0.1, 0.9, 0.52), ellipse(0.9, FLOOR + 0.1, 0.8, 0.36)), (32, 36, 82))
        floor = (20, 22, 54)
    elif name == "cream":
        canvas.gradient((255, 240, 208), (248, 222, 176))
        canvas.paint(circle(0.0, -0.1, 0.86), (255, 246, 222))
        floor = (214, 172, 122)
    elif name == "grey":
        canvas.gradient((108, 114, 122), (152, 158, 164))
        canvas.paint(ellipse(0.0, 0.3, 1.1, 0.7), (160, 166, 172), opacity=0.6, soft=0.5)
        floor = (96, 101, 108)
    elif name == "meadow":
        canvas.gradient((146, 214, 226), (206, 240, 226))
        canvas.paint(
            union(ellipse(-0.8, FLOOR + 0.2, 1.0, 0.5), ellipse(0.95, FLOOR + 0.2, 0.9, 0.42)), (158, 216, 140)
        )
        floor = (108, 188, 98)
    else:
        canvas.gradient((226, 124, 172), (255, 190, 176))
        canvas.paint(circle(0.42, FLOOR - 0.02, 0.5), (255, 216, 190))
        floor = (168, 92, 150)
    canvas.paint(box(0.0, FLOOR + 4.0, wide + 1.0, 4.0), floor)


def _shadow(canvas: Canvas, cx: float | Array, half: float | Array, opacity: float | Array, y: float = 0.80) -> None:
    canvas.paint(ellipse(cx, y, half, 0.09), INK, opacity=opacity, box=(-1.0, y - 0.25, 1.0, y + 0.25), soft=0.10)


def _ball(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """Free fall between two impacts; the ball squashes and the floor rings at each."""
    radius = {"small": 0.27, "large": 0.40}[spec.size]
    ground, main = 0.80, PAINT[spec.colour]
    canvas.animate(len(clock.time))
    top = min(2.0 - 2.0 * radius - 0.26, 3.0 * float(np.median(clock.gap)))  # slow bounces are high ones
    height = top * 4.0 * clock.share * (1.0 - clock.share)
    press = np.maximum(clock.fading(0.035) * 0.9, np.exp2(-clock.until / 0.02) * (clock.index >= 0) * 0.7)
    rx, ry = radius * (1.0 + 0.30 * press), radius * (1.0 - 0.34 * press)
    cy = moving(ground - height - ry)
    near = np.clip(1.0 - height / max(top, 0.1), 0.0, 1.0)
    _shadow(canvas, at, moving(radius * (0.55 + 0.5 * near)), moving(0.16 + 0.34 * near), y=0.83)
    wave = np.clip(clock.since / 0.22, 0.0, 1.0)
    canvas.paint(  # a puff of dust runs outwards from the impact
        ring(ellipse(at, 0.83, moving(radius + 0.45 * wave), moving(0.10 + 0.06 * wave)), 0.11),
        IVORY,
        opacity=moving(0.95 * (1.0 - wave) * (clock.index > 0)),
        box=(-1.0, 0.55, 1.0, 1.0),
    )
    bx, by = moving(rx), moving(ry)
    span = (at - 0.56, -1.0, at + 0.56, 0.9)
    body = ellipse(at, cy, bx, by)
    canvas.paint(body, darker(main, 0.28), box=span)
    canvas.paint(both(body, ellipse(at - 0.05, cy - 0.07 * radius / 0.4, bx, by)), main, box=span)
    canvas.paint(ellipse(at - 0.38 * bx, cy - 0.42 * by, bx * 0.28, by * 0.22), lighter(main, 0.65), box=span)


def _lamp(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A table lamp: the shade has the main colour, and lights up with a wide glow."""
    scale = {"small": 0.80, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    foot, top, bottom = 0.82, 0.82 - 1.48 * scale, 0.82 - 0.72 * scale
    _shadow(canvas, at, 0.5 * scale, 0.4, y=foot)
    canvas.animate(len(clock.time))
    lit = clock.held(hold_seconds(clock.gap))
    glow = 0.5 * (top + bottom)
    canvas.paint(circle(at, glow, 0.78 * scale), (255, 244, 190), opacity=moving(0.72 * lit), soft=0.75)
    stand = union(capsule(at, bottom, at, foot - 0.08, 0.065), box(at, foot - 0.05, 0.32 * scale, 0.07, 0.06))
    canvas.paint(
        stand, STEEL if spec.background == "night" else INK, box=(at - 0.4, bottom - 0.1, at + 0.4, foot + 0.1)
    )
    shade = trapezoid(at, top, bottom, 0.34 * scale, 0.60 * scale)
    span = (at - 0.66, top - 0.05, at + 0.66, bottom + 0.15)
    colour = mix(darker(main, 0.12), lighter(main, 0.12), lit)
    canvas.paint(ellipse(at, bottom, 0.5 * scale, 0.11 * scale), (255, 250, 214), opacity=moving(lit), box=span)
    canvas.paint(shade, colour, box=span)
    bulb = both(shade, ellipse(at, bottom - 0.06 * scale, 0.36 * scale, 0.40 * scale))
    canvas.paint(bulb, lighter(main, 0.78), opacity=moving(lit), box=span, soft=0.08)


def _bell(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A bell on a beam: it turns back at every event, its clapper strikes, and bows of sound fly off."""
    scale = {"small": 0.78, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    hang = -0.84
    wide, _ = canvas.aspect
    canvas.paint(box(0.0, -0.92, wide + 1.0, 0.11), WOOD)
    canvas.paint(box(0.0, -0.84, wide + 1.0, 0.03), darker(WOOD, 0.4))
    _shadow(canvas, at, 0.6 * scale, 0.35, y=0.82)
    canvas.animate(len(clock.time))
    side = 1.0 - 2.0 * (clock.index % 2)  # left and right in turn
    if spec.seed % 2:
        side = -side
    angle = moving(0.40 * side * np.cos(np.pi * clock.share))
    low = hang + 1.34 * scale
    mouth = low - 0.06 * scale
    dome = ellipse(at, hang + 0.56 * scale, 0.37 * scale, 0.42 * scale)
    skirt = trapezoid(at, hang + 0.52 * scale, mouth, 0.36 * scale, 0.52 * scale)
    lip = box(at, mouth, 0.58 * scale, 0.09 * scale, 0.08)
    knob = circle(at, low + 0.06 * scale, 0.14 * scale)
    strike = moving(0.28 * side * clock.fading(0.07) - 0.10 * side * np.cos(np.pi * clock.share))
    reach = 1.02 * scale
    span = (at - 0.98, -0.95, at + 0.98, hang + 1.62 * scale)

    def swing(shape: Distance, extra: float | Array = 0.0) -> Distance:
        # one turn for the whole bell; the clapper turns a little further
        return turned(shape, at, hang, angle + extra)

    canvas.paint(swing(knob, strike), INK, box=span)
    canvas.paint(swing(union(dome, skirt, lip, capsule(at, hang, at, hang + 0.2, 0.07))), darker(main, 0.25), box=span)
    front = union(
        ellipse(at - 0.07 * scale, hang + 0.57 * scale, 0.29 * scale, 0.40 * scale),
        trapezoid(at - 0.07 * scale, hang + 0.52 * scale, mouth - 0.08 * scale, 0.28 * scale, 0.40 * scale),
    )
    canvas.paint(swing(union(front, lip)), mix(main, _lit(spec.colour), clock.fading(0.07)), box=span)
    wave = np.clip(clock.since / 0.20, 0.0, 1.0)
    cx = moving(at - side * reach * np.sin(0.40))  # where the mouth of the bell stands at the turn
    cy = hang + reach * float(np.cos(0.40))
    bows = ring(circle(cx, cy, moving(0.70 + 0.22 * wave)), 0.13)
    outer = both(bows, lambda x, y: np.abs(y - cy) - 0.40)
    canvas.paint(outer, IVORY, opacity=moving(0.95 * (1.0 - wave) * (clock.index > 0)), soft=0.05)


def _drum(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A drum and a mallet that falls on it; the skin flashes and dips."""
    scale = {"small": 0.80, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    half, foot = 0.70 * scale, 0.84
    head = foot - 0.78 * scale
    _shadow(canvas, at, 0.78 * scale, 0.4, y=foot + 0.02)
    body = union(box(at, (head + foot) / 2, half, (foot - head) / 2), ellipse(at, foot, half, 0.13 * scale))
    canvas.paint(body, darker(main, 0.22))
    canvas.paint(both(body, box(at - 0.22 * scale, 0.0, 0.36 * scale, 2.0)), main)
    canvas.paint(both(body, box(at - 0.40 * scale, 0.0, 0.09 * scale, 2.0)), lighter(main, 0.35))
    canvas.animate(len(clock.time))
    dip = clock.fading(0.05)
    span = (at - 0.8, head - 0.25, at + 0.8, head + 0.3)
    canvas.paint(ellipse(at, head, half + 0.03, 0.20 * scale), INK, box=span)
    skin = mix((226, 214, 190), (255, 255, 255), dip)
    canvas.paint(ellipse(at, head - 0.02, half - 0.05, 0.145 * scale), skin, box=span)
    canvas.paint(
        ellipse(at, head + 0.01, 0.34 * scale, 0.075 * scale),
        darker((226, 214, 190), 0.45),
        opacity=moving(0.8 * dip),
        box=span,
        soft=0.06,
    )
    wave = np.clip(clock.since / 0.18, 0.0, 1.0)
    flash = ring(ellipse(at, head - 0.02, moving(half * (0.75 + 0.45 * wave)), moving(0.2 * scale * (1 + wave))), 0.10)
    canvas.paint(flash, IVORY, opacity=moving(0.9 * (1.0 - wave) * (clock.index > 0)), box=(-1.0, head - 0.5, 1.0, 0.9))
    # the mallet turns around a hand at the right edge: it lifts slowly, falls quickly, touches at the event
    lift = np.where(clock.share < 0.55, np.sin(np.pi * np.minimum(clock.share / 0.55, 1.0) / 2.0), 1.0)
    lift = lift * (1.0 - clock.nearing(0.14) ** 2)
    hand = (at + 0.86, head - 0.34)
    tilt = moving(0.78 * lift)
    knob = circle(at + 0.02, head - 0.13, 0.17)
    stick = capsule(at + 0.02, head - 0.13, hand[0], hand[1], 0.055)
    reach = (at - 0.3, -1.0, 1.0, head + 0.2)
    canvas.paint(turned(stick, *hand, tilt), WOOD, box=reach)
    canvas.paint(turned(knob, *hand, tilt), IVORY if spec.background == "night" else INK, box=reach)


def _drop(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A heavy drop falls from a tap into a pool of its own colour; rings and a crown rise from the hit."""
    radius = {"small": 0.22, "large": 0.31}[spec.size]
    main = PAINT[spec.colour]
    level, tap = 0.50, -0.74
    wide, _ = canvas.aspect
    pool = box(0.0, level + 3.0, wide + 1.0, 3.0)
    canvas.paint(pool, darker(main, 0.20))
    canvas.paint(capsule(at, -1.3, at, tap - 0.10, 0.19), STEEL)
    canvas.paint(box(at, tap - 0.06, 0.27, 0.09, 0.06), darker(STEEL, 0.3))
    canvas.animate(len(clock.time))
    fall = 0.26  # s from the tap to the pool
    wave = np.clip(clock.since / 0.42, 0.0, 1.0)
    seen = (clock.index > 0) * (1.0 - wave)
    canvas.paint(pool, _lit(spec.colour), opacity=moving(0.8 * clock.fading(0.06)))  # the surface catches the light
    water = (-9.0, level - 0.4, 9.0, 9.0)
    for lag, width in ((0.0, 0.13), (0.35, 0.10)):
        grown = np.clip(wave * 1.25 - lag, 0.0, 1.0)
        rings = ring(ellipse(at, level + 0.20, moving(0.20 + 0.85 * grown), moving(0.06 + 0.24 * grown)), width)
        shape = both(pool, rings)
        canvas.paint(shape, lighter(main, 0.6), opacity=moving(seen * (grown > 0)), box=water, soft=0.06)
    rise = np.clip(clock.since / 0.20, 0.0, 1.0)
    arc = 4.0 * rise * (1.0 - rise)
    for side in (-1.0, 1.0):
        bead = circle(moving(at + side * (0.16 + 0.34 * rise)), moving(level + 0.10 - 0.42 * arc), 0.085)
        canvas.paint(bead, main, opacity=moving((clock.index > 0) * (rise < 1.0)), box=(-1, -0.2, 1, 1))
    crown = ellipse(at, level, moving(0.30 + 0.12 * rise), moving(0.05 + 0.20 * arc))
    canvas.paint(crown, lighter(main, 0.25), opacity=moving((clock.index > 0) * (rise < 1.0)), box=(-1, -0.2, 1, 1))
    # the next drop swells at the tap, then falls
    drop_share = np.clip(1.0 - clock.until / fall, 0.0, 1.0)
    grow = np.clip((clock.gap - clock.until) / np.maximum(clock.gap - fall, 0.1), 0.0, 1.0)
    size = moving(radius * (0.55 + 0.45 * grow))
    y = moving(tap + 0.12 + (level - 0.05 - tap) * drop_share**2) + size * 0.5
    air = (at - 0.5, -1.0, at + 0.5, level)
    tip = _teardrop(at, y, size)
    canvas.paint(tip, darker(main, 0.22), box=air)
    canvas.paint(both(tip, circle(at - 0.06, y - 0.04, size)), main, box=air)
    canvas.paint(ellipse(at - size * 0.35, y - size * 0.1, size * 0.22, size * 0.32), lighter(main, 0.7), box=air)


def _teardrop(cx: float, cy: Array, radius: Array) -> Distance:
    """A circle with a point above it."""

    def distance(x: Array, y: Array) -> Array:
        round_part = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - radius
        up = (cy - y) / radius  # 0 in the middle, 1.8 at the point
        cone = (np.abs(x - cx) - radius * 0.92 * (1.0 - up / 1.85)) * 0.85
        cone = np.maximum(cone, np.maximum(0.35 - up, up - 1.85) * radius)
        return np.minimum(round_part, cone)

    return distance


def _mouth(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A round face in the main colour whose wide mouth opens for each vowel."""
    scale = {"small": 0.80, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    middle = 0.84 - 0.86 * scale
    _shadow(canvas, at, 0.72 * scale, 0.4, y=0.86)
    face = ellipse(at, middle, 0.84 * scale, 0.88 * scale)
    canvas.paint(face, darker(main, 0.22))
    canvas.paint(both(face, ellipse(at - 0.07, middle - 0.07, 0.84 * scale, 0.88 * scale)), main)
    for side in (-1.0, 1.0):
        eye = (at + side * 0.33 * scale, middle - 0.36 * scale)
        canvas.paint(circle(*eye, 0.19 * scale), (255, 255, 255))
        canvas.paint(circle(eye[0] + 0.03, eye[1] + 0.03, 0.11 * scale), INK)
    canvas.animate(len(clock.time))
    width, height = {"ah": (0.36, 0.36), "oo": (0.21, 0.25), "ee": (0.52, 0.24)}[spec.voice]
    rise = np.clip(clock.since / 0.05 + 0.35, 0.0, 1.0)
    open_ = clock.held(hold_seconds(clock.gap), fall=0.09) * rise
    rx = moving(0.34 + (width - 0.34) * open_) * scale
    ry = moving(0.055 + (height - 0.055) * open_) * scale
    cy = middle + 0.36 * scale
    span = (at - 0.65, cy - 0.45, at + 0.65, cy + 0.45)
    lips = ellipse(at, cy, rx + 0.07 * scale, ry + 0.07 * scale)
    canvas.paint(lips, darker(main, 0.55), box=span)
    inside = ellipse(at, cy, rx, ry)
    canvas.paint(inside, (70, 10, 34), box=span)
    tongue = both(inside, ellipse(at, cy + ry, rx * 0.7, ry * 0.75))
    canvas.paint(tongue, (240, 108, 120), opacity=moving(np.clip(open_ * 1.5 - 0.4, 0.0, 1.0)), box=span)
    teeth = both(inside, box(at, cy - ry, 0.26 * scale, 0.11 * scale, 0.04))
    canvas.paint(teeth, (255, 255, 255), opacity=moving(np.clip(open_ * 1.5 - 0.4, 0.0, 1.0)), box=span)


def _piano(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """Three wide keys in a dark case; each event presses one, which sinks and lights up."""
    scale = {"small": 0.80, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    foot, top = 0.88, 0.88 - 1.46 * scale
    _shadow(canvas, at, 0.95 * scale, 0.45, y=foot)
    case = box(at, (top + foot) / 2, 0.94 * scale, 0.73 * scale, 0.12)
    canvas.paint(case, (74, 52, 60) if spec.background == "night" else (52, 40, 56))
    canvas.paint(both(case, box(at, top + 0.10, 2.0, 0.16 * scale)), WOOD)
    canvas.animate(len(clock.time))
    lit = _lit(spec.colour)
    keys = key_order(spec, len(clock.beats))[clock.index]
    down = clock.held(hold_seconds(clock.gap)) * np.clip(clock.since / 0.03 + 0.5, 0.0, 1.0)
    for key in range(3):
        press = down * (keys == key)
        cx = at + (key - 1) * 0.58 * scale
        sink = moving(0.13 * scale * press)
        upper, lower = top + 0.30 * scale, foot - 0.24 * scale
        span = (cx - 0.29, top, cx + 0.29, foot)
        shape = box(cx, (upper + lower) / 2 + sink, 0.25 * scale, (lower - upper) / 2, 0.08)
        front = box(cx, (upper + lower) / 2 + 0.09 * scale, 0.25 * scale, (lower - upper) / 2 + 0.02, 0.08)
        canvas.paint(front, darker(main, 0.45), box=span)
        canvas.paint(shape, mix(main, lit, press), box=span)
    # the upper edge of the keys disappears under the lid when pressed
    canvas.paint(box(at, top + 0.27 * scale, 0.86 * scale, 0.07 * scale), darker(WOOD, 0.45))


def key_order(spec: ClipSpec, count: int) -> Array:
    """Which of the three keys (0 low, 2 high) each beat presses; never the same twice in a row."""
    steps = stream(spec, 2).integers(1, 3, count)
    return (int(stream(spec, 3).integers(3)) + np.cumsum(steps)) % 3


def _speaker(canvas: Canvas, clock: Clock, spec: ClipSpec, at: float) -> None:
    """A loudspeaker in the main colour; its cone jumps forward with each bass note."""
    scale = {"small": 0.80, "large": 1.0}[spec.size]
    main = PAINT[spec.colour]
    foot = 0.88
    top = foot - 1.66 * scale
    middle = foot - 0.66 * scale
    _shadow(canvas, at, 0.80 * scale, 0.45, y=foot)
    canvas.paint(box(at, (top + foot) / 2, 0.74 * scale, 0.83 * scale, 0.14), darker(main, 0.25))
    canvas.paint(box(at - 0.04, (top + foot) / 2 - 0.02, 0.68 * scale, 0.79 * scale, 0.12), main)
    canvas.paint(circle(at, top + 0.27 * scale, 0.17 * scale), INK)
    canvas.paint(circle(at, top + 0.27 * scale, 0.075 * scale), STEEL)
    canvas.paint(circle(at, middle, 0.58 * scale), INK)
    canvas.animate(len(clock.time))
    push = clock.fading(0.10)
    span = (at - 0.8, middle - 0.8, at + 0.8, middle + 0.8)
    canvas.paint(
        circle(at, middle, moving(0.42 + 0.11 * push) * scale), mix((92, 98, 116), (206, 212, 226), push), box=span
    )
    canvas.paint(
        circle(at, middle, moving(0.17 + 0.12 * push) * scale), mix((52, 56, 72), (255, 255, 255), push), box=span
    )
    wave = np.clip(clock.since / 0.22, 0.0, 1.0)
    bows = ring(circle(at, middle, moving(0.66 + 0.36 * wave)), 0.11)
    sides = both(bows, without(lambda x, y: np.abs(y - middle) - 0.42, box(at, middle, 0.76 * scale, 1.0)))
    canvas.paint(sides, IVORY, opacity=moving(0.9 * (1.0 - wave) * (clock.index > 0)), soft=0.05)


_PAINTERS: dict[str, Callable[[Canvas, Clock, ClipSpec, float], None]] = {
    "ball": _ball,
    "lamp": _lamp,
    "bell": _bell,
    "drum": _drum,
    "drop": _drop,
    "mouth": _mouth,
    "piano": _piano,
    "speaker": _speaker,
}
