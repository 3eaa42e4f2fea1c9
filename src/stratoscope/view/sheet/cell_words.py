"""Words in the cells of a map: which fit, in what ink, and what is said of those that do not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Cell
from stratoscope.view.spec import palette
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import counted, first_part, narrower

LARGEST, SMALLEST = 7.0, 5.0  # points on a slide
_PAD, _PAD_DOWN = 0.03, 0.012  # inches around a word
_FEWEST = 5  # characters that are left of a longer word; fewer say nothing


@dataclass(frozen=True)
class CellWords:
    """The words in cells, their size in points, and what is said of cells without; "" = there are none."""

    cells: tuple[Cell, ...]
    size: float
    left_out: str


def words_in(spec: ViewSpec, content: Lens, pitch: float, row: float, sizes: tuple[float, float]) -> CellWords:
    """The words of cells that are so many inches wide and high.

    Each cell has its own where rows are high enough; else one stands for a run of rows with the same token, if that is
    high enough.

    Parameters
    ----------
    sizes
        Points of words, at least and at most.
    """
    least, largest = sizes
    size = max(least, min(largest, (row - _PAD_DOWN) / fonts.height(1.0)))
    each = word_height(least) <= row + 1e-6
    fitting = [fitted(text, size, pitch - 2 * _PAD) for text in content.texts]
    covered = 1 if each else math.ceil(word_height(size) / row)
    cells = tuple(_cells(spec, content, fitting, covered))
    return CellWords(cells, size, _left_out(len(cells), int((content.likeliest >= 0).sum()), each=each))


def word_height(points: float) -> float:
    """Inches of a row that has room for words of this size."""
    return fonts.height(points) + _PAD_DOWN


def _cells(spec: ViewSpec, content: Lens, fitting: Sequence[str], covered: int) -> Iterator[Cell]:
    """Words that cover so many rows each."""
    inks = _inks(spec, content)
    for column, ids in enumerate(content.likeliest):
        bounds = range(len(ids) + 1) if covered == 1 else [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
        for start, stop in pairwise(bounds):
            token = int(ids[start])
            at = _one_ink(inks[column][start:stop], covered)
            if token >= 0 and fitting[token] and at is not None:
                yield Cell(column, start + at + (covered - 1) / 2, fitting[token], inks[column][start + at])


def _inks(spec: ViewSpec, content: Lens) -> list[list[str]]:
    """The ink of each cell, column by column."""
    colours = spec.colours.of(signed=False)
    of_step = [palette.ink_on(palette.rgb_of(colour)) for colour in colours]
    return [[of_step[step] for step in column] for column in colour_steps(spec, content).tolist()]


def colour_steps(spec: ViewSpec, content: Lens) -> np.ndarray[tuple[int, ...], np.dtype[np.int_]]:
    """Which of the colours each cell has, of shape (columns, rows)."""
    limits = content.maps.quantities[0].colouring(spec.look).limits
    units = np.nan_to_num(limits.unit(content.maps.maps[0].cells[spec.look.first])).clip(0, 1)
    steps: np.ndarray[tuple[int, ...], np.dtype[np.int_]] = (units * palette.STEPS).astype(int)
    return steps.clip(0, palette.STEPS - 1)


def _one_ink(inks: Sequence[str], covered: int) -> int | None:
    """Where in a run so many rows beside each other have the same ink, near its middle; None = nowhere."""
    starts = range(len(inks) - covered + 1)
    alike = [start for start in starts if len({*inks[start : start + covered]}) == 1]
    return min(alike, key=lambda start: abs(start - (len(inks) - covered) / 2), default=None)


def _left_out(written: int, there: int, *, each: bool) -> str:
    if written == there:
        return ""
    if each:
        some = f"Words in {written:,} of {counted(there, 'cell')}; the others are too narrow for theirs."
        return some if written else "Columns are too narrow for words."
    if not written:
        return "Cells are too small for words."
    return (
        f"Rows are too low for words in each: {written:,} stand once for a run of rows with the same token; the other "
        "runs have none."
    )


def fitted(label: str, size: float, room: float) -> str:
    """A label that fits into so many inches, its middle left out if it is too long; "" = too little would be left."""
    shown = fonts.drawn_label(label)
    for width in range(len(shown), min(_FEWEST, len(shown)) - 1, -1):
        narrow = narrower(shown, width)
        if fonts.width(narrow, size) <= room:
            return narrow
    first = first_part(shown)
    return first if first and fonts.width(first, size) <= room else ""
