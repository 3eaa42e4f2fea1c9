"""What charts of layers share: their axis, their height, points on a line, units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stratoscope import names
from stratoscope.view.spec.buffers import Numbers
from stratoscope.view.spec.charts import Axis, Line, Mark, Points, Style


def layer_axis(numbers: Sequence[int], kind: str = names.LAYER) -> Axis:
    """The vertical axis of layers or depths, the first at the bottom; labels sampled, first and last always there."""
    letter = names.ROW_LETTERS[kind]
    last = len(numbers) - 1
    step = max(1, -(-len(numbers) // 10))
    places = [place for place in range(0, len(numbers), step) if last - place >= step or place == last]
    places = sorted({*places, last}) if last >= 0 else []
    return Axis(kind, -0.6, last + 0.6, tuple((float(place), f"{letter}{numbers[place]}") for place in places))


def height_of(rows: int) -> float:
    """Inches of a chart of so many layers."""
    return float(np.clip(0.11 * rows, 1.6, 3.8))


def on_log_axis(x: Numbers, y: Numbers, style: Style, label: str, *, zero: float) -> tuple[Mark, ...]:
    """Points joined by a line; where x is 0, which a logarithmic axis has not, a point of its own at `zero`."""
    nothing = x == 0
    known = joined(np.where(nothing, np.nan, x), y, style, label)
    return (*known, *((Points(np.full(int(nothing.sum()), zero), y[nothing], style),) if nothing.any() else ()))


def joined(x: Numbers, y: Numbers, style: Style, label: str = "") -> tuple[Line, Points]:
    """Points joined by a line."""
    return Line(x, y, style, label), Points(x, y, style)


def in_unit(row: names.Quantity) -> str:
    """The unit of a quantity as an axis has it after its name; of a pure number nothing."""
    return "" if row.unit == "1" else f" ({row.unit})"
