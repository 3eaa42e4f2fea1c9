"""A `peaks3d` picture as it begins, standing still: what a page shows where its scripts do not run.

The same places, colours and order of painting, seen from the same side but without perspective; dots that fall on one
pixel are one. `web/peaks3d.html` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stratoscope.trace.arrays import Floats, Ints
from stratoscope.view.peaks3d.caption import peaks_in
from stratoscope.view.peaks3d.figure import COLOURS, layer_ticks, sampled
from stratoscope.view.spec.peaks import Heights, Peaks
from stratoscope.view.spec.viewspec import ViewSpec

AZIMUTH, ELEVATION = -1.27, 0.48  # radians, as the page begins (peaks3d_camera.js)
WIDTH, ROW = 960, 430  # pixels of the picture, and of a row of scenes
LEFT, RIGHT, TOP, BOTTOM = 50, 30, 24, 74  # pixels of a scene for labels
BAR = 72  # pixels for the bar of colours
CLASSES = 18  # dots of one colour and one size are one path: so many of them
MANY = 6_000  # of so many dots of a scene, those that are a pixel apart are one
STEMS = 300  # of a scene, on the highest peaks
DEEP, TALL = 0.75, 0.8  # depth and height of the box, its width being 1


@dataclass(frozen=True)
class Line:
    """A path in a class of the page's style, or dots of one colour, as wide as they are large."""

    kind: str
    path: str
    colour: str = ""
    wide: float = 0.0


@dataclass(frozen=True)
class Words:
    """A text at a place, in a class of the page's style."""

    kind: str
    x: float
    y: float
    text: str
    turned: int = 0


@dataclass(frozen=True)
class Still:
    """The picture; what is painted first comes first. `bar` is the place of the bar of colours: x, y, width, height."""

    width: int
    height: int
    lines: tuple[Line, ...]
    words: tuple[Words, ...]
    bar: tuple[int, int, int, int]
    colours: tuple[str, ...]


def still(spec: ViewSpec) -> Still:
    """The still picture of a spec."""
    peaks, heights = peaks_in(spec), peaks_in(spec).heights(spec.look)
    count = len(peaks.scenes)
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    wide = (WIDTH - BAR) // columns
    reach = COLOURS[spec.look.theme]
    colours = spec.colours.sequential[reach.start : reach.stop]
    lines: list[Line] = []
    words: list[Words] = []
    for scene in range(count):
        box = _Box(peaks, heights, scene, wide, (scene % columns * wide, scene // columns * ROW))
        lines += [*_walls(box, peaks, heights), _stems(box, peaks, heights), *_dots(box, peaks, heights, colours)]
        words += _labels(box, spec, peaks, heights)
    bar = (WIDTH - BAR + 6, 80, 10, rows * ROW - 190)
    words += _bar_labels(bar, peaks.scales[spec.look.scale].title, heights)
    return Still(WIDTH, rows * ROW, tuple(lines), tuple(words), bar, colours[::-6])


class _Box:
    """The box that a scene stands in, as it is seen.

    Attributes
    ----------
    peak
        Its peaks, the lowest first.
    tokens
        Its tokens, in reading order.
    ends, layers, floor, top
        Ends of its axes.
    corner
        Where its part of the picture begins.
    """

    def __init__(self, peaks: Peaks, heights: Heights, scene: int, wide: int, corner: tuple[int, int]) -> None:
        here = np.flatnonzero(peaks.token_scene[peaks.token] == scene)
        self.scene, self.corner = peaks.scenes[scene], corner
        self.peak: Ints = here[np.argsort(heights.place[here], kind="stable")]
        self.tokens: Ints = np.unique(peaks.token[here]).astype(np.int64)
        places = peaks.token_place[self.tokens]
        self.ends = (int(places.min(initial=0)) - 0.6, int(places.max(initial=0)) + 0.6)
        self.layers = (peaks.layers[0] - 0.5, peaks.layers[-1] + 0.5)
        self.floor, self.top = heights.floor, heights.floor + (heights.ceiling - heights.floor) * peaks.style.top
        across = np.array([-np.sin(AZIMUTH), np.cos(AZIMUTH), 0])
        down = [np.cos(AZIMUTH) * np.sin(ELEVATION), np.sin(AZIMUTH) * np.sin(ELEVATION), -np.cos(ELEVATION)]
        self._turned = np.stack([across, down], axis=1) * np.array([[1], [DEEP], [TALL]])
        self._size, self._start = np.ones(2), np.zeros(2)
        corners = self.seen(*np.meshgrid(self.ends, self.layers, (self.floor, self.top))).reshape(-1, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
        self._size = np.array([wide - LEFT - RIGHT, ROW - TOP - BOTTOM]) / (high - low)
        self._start = np.array(corner) + np.array([LEFT, TOP]) - low * self._size

    def seen(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
        """Where places of the axes are seen, of shape (…, 2), in pixels to the right and downwards."""
        axes = zip((x, y, z), (self.ends, self.layers, (self.floor, self.top)), strict=True)
        inside = [(np.asarray(one, float) - low) / (high - low) for one, (low, high) in axes]
        seen: Floats = np.stack(np.broadcast_arrays(*inside), axis=-1) @ self._turned * self._size + self._start
        return seen


def _walls(box: _Box, peaks: Peaks, heights: Heights) -> Iterator[Line]:
    """Lines of the layers on the floor, and of round heights and the limit on the walls at the back."""
    (left, right), (front, back) = box.ends, box.layers
    floor = [[(left, one, box.floor), (right, one, box.floor)] for one in peaks.layers]
    yield Line("grid", "".join(_path(box, line) for line in floor))
    levels = [box.floor, *(place for place, _ in heights.ticks)]
    wall = [[(left, front, place), (left, back, place), (right, back, place)] for place in levels]
    yield Line("grid", "".join(_path(box, line) for line in wall))
    if heights.high < heights.ceiling:
        limit = heights.high
        yield Line("limit", _path(box, [(left, front, limit), (left, back, limit), (right, back, limit)]))


def _path(box: _Box, places: Sequence[tuple[float, float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in box.seen(*np.array(places).T).tolist())


def _stems(box: _Box, peaks: Peaks, heights: Heights) -> Line:
    top = box.peak[peaks.highest[box.peak] > 0][-STEMS:]
    x, y = peaks.token_place[peaks.token[top]], peaks.layer[top]
    lower, upper = box.seen(x, y, box.floor), box.seen(x, y, heights.place[top])
    ends = np.rint(np.concatenate([lower, upper[:, 1:]], axis=1)).astype(int).tolist()
    return Line("stems", "".join(f"M{across} {down}V{end}" for across, down, end in ends))


def _dots(box: _Box, peaks: Peaks, heights: Heights, colours: tuple[str, ...]) -> Iterator[Line]:
    """Dots in classes of rising height, so that no low peak is painted over a high one."""
    place = heights.place[box.peak].astype(np.float64)
    share = np.clip((place - heights.floor) / (heights.ceiling - heights.floor), 0, 1)
    shade = np.clip((place - heights.low) / (heights.high - heights.low), 0, 1)
    x, y = peaks.token_place[peaks.token[box.peak]], peaks.layer[box.peak]
    step = 2 if len(box.peak) > MANY else 1
    at = step * np.rint(box.seen(x, y, place) / step).astype(int)
    beyond = np.isin(box.peak, heights.beyond)
    of = np.minimum((share * CLASSES).astype(int), CLASSES - 1)
    style = peaks.style
    for one in range(CLASSES):
        here = np.flatnonzero((of == one) & ~beyond)
        if len(here):
            size = style.smallest + (style.largest - style.smallest) * float(np.sqrt(share[here].mean()))
            colour = colours[int(shade[here].mean() * (len(colours) - 1))]
            yield Line("dots", _moves(np.unique(at[here], axis=0), "h0"), colour, round(0.66 * size, 1))
    if beyond.any():
        yield Line("beyond", _moves(np.unique(at[beyond], axis=0), "m-3 0l3-3 3 3-3 3zm3 0"), colours[-1], 1.0)


def _moves(places: Ints, mark: str) -> str:
    """A path with a mark at each place, which it leaves as it came."""
    steps = np.diff(places, axis=0, prepend=[[0, 0]]).tolist()
    return "".join(f"m{across}{'' if down < 0 else ' '}{down}{mark}" for across, down in steps)


def _labels(box: _Box, spec: ViewSpec, peaks: Peaks, heights: Heights) -> Iterator[Words]:
    (left, right), (front, _) = box.ends, box.layers
    x, y = box.corner
    yield Words("title", x + 8, y + 13, box.scene.title)
    if box.scene.detail:
        yield Words("detail", x + 8, y + 26, box.scene.detail)
    tokens = sampled(box.tokens, peaks.style.token_labels)
    for token, (across, down) in zip(
        tokens.tolist(), box.seen(peaks.token_place[tokens], front, box.floor).tolist(), strict=True
    ):
        yield Words("token", round(across + 2), round(down + 10), spec.tokens.text[token], -50)
    for number, label in zip(*layer_ticks(peaks.layers, peaks.style.layer_labels), strict=True):
        across, down = box.seen(right, number, box.floor).tolist()
        yield Words("layer", round(across + 6), round(down + 4), label)
    for place, label in heights.ticks:
        across, down = box.seen(left, front, place).tolist()
        yield Words("height", round(across - 6), round(down + 4), label)


def _bar_labels(bar: tuple[int, int, int, int], title: str, heights: Heights) -> Iterator[Words]:
    x, y, wide, tall = bar
    for place, label in heights.ticks:
        if heights.low <= place <= heights.high:
            share = (place - heights.low) / (heights.high - heights.low)
            yield Words("layer", x + wide + 4, round(y + tall * (1 - share) + 4), label)
    yield Words("name", x + 58, y + tall // 2, title, -90)
