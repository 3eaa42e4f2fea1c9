"""The legend of one quantity: a histogram with the limits on it, unit, formula, and the share that is clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec import scale
from stratoscope.view.spec.maps import Colouring, MapQuantity
from stratoscope.view.spec.palette import Colours, Theme
from stratoscope.view.spec.scale import Kind, Limits
from stratoscope.words import capital, number, percent

BARS, _STRIP, _GAP = 0.25, 0.075, 0.035  # inches
_LEADING = 0.118  # at the size of a slide
_BETWEEN = 0.08  # inches between two labels of the axis


@dataclass(frozen=True)
class Legend:
    """Drawn items and the height they take."""

    items: tuple[Item, ...]
    height: float


def draw(
    quantity: MapQuantity,
    colouring: Colouring,
    x: float,
    y: float,
    theme: Theme,
    colours: Colours,
    measures: Measures,
    *,
    width: float,
    bars: float = BARS,
    numbers: bool = False,
) -> Legend:
    """The legend of a quantity in these colours with its top left corner at (x, y).

    Parameters
    ----------
    bars
        Inches that the histogram is high.
    numbers
        Whether there are numbers in the cells, so that their factor has to be said.
    """
    items: list[Item] = []
    name, small, leading = measures.legend_name, measures.legend, _LEADING * measures.unit
    cursor = y
    for line in fonts.wrap(capital(quantity.quantity.label), name, width, bold=True):
        items.append(Text(x, cursor, line, name, theme.ink, bold=True))
        cursor += leading + 0.012
    for line in fonts.wrap(_explanation(quantity, colouring.limits, numbers=numbers), small, width):
        items.append(Text(x, cursor, line, small, theme.muted))
        cursor += leading
    cursor += _GAP
    if colouring.limits.state != "ok":
        for line in fonts.wrap(_state(quantity, colouring), name, width):
            items.append(Text(x, cursor, line, name, theme.ink))
            cursor += leading
        return Legend(tuple(items), cursor - y)
    items += _bars(quantity, colouring, x, cursor, width, bars, theme, colours)
    cursor += bars + _STRIP + _GAP
    items += _axis(colouring, x, cursor, width, theme, small)
    cursor += leading
    if not _is_whole(quantity, colouring):
        items += _shares(colouring, x, cursor, width, theme, small)
        cursor += leading
    return Legend(tuple(items), cursor - y)


def _state(quantity: MapQuantity, colouring: Colouring) -> str:
    limits = colouring.limits
    which = "Every cell that sets the limits" if colouring.exceptions else "Every cell"
    if limits.state == "below":
        return "Nothing above zero: there is no logarithm"
    if limits.state == "equal" and limits.by_row:
        return f"{which} is like the others of its layer"
    if limits.state == "zero" and colouring.exceptions:
        return f"{which} is 0"
    if limits.state == "zero":
        return "All zero: no difference" if quantity.difference else "All zero"
    if limits.state == "infinite":
        return "Every value is infinite"
    if limits.state == "empty":
        return "Nothing recorded here"
    return f"{which} is {number(float(limits.low[0] + limits.high[0]) / 2)}"


def _explanation(one: MapQuantity, limits: Limits, *, numbers: bool) -> str:
    """Unit, scale, the factor of numbers in cells, formula, and what was done to the stored values."""
    quantity = one.quantity
    unit = "" if quantity.unit in ("1", "as imported") else quantity.unit
    kind = {"log": "log scale", "diverging": "zero-centred", "linear": "linear scale"}[limits.kind]
    formula = "" if quantity.name == "imported_norm" else quantity.formula
    factor = f"cells {one.figures.factor()}" if numbers and one.figures.power else ""
    return " · ".join(part for part in (unit, kind, factor, quantity.said, formula) if part)


def _bars(
    quantity: MapQuantity,
    colouring: Colouring,
    x: float,
    y: float,
    width: float,
    bars: float,
    theme: Theme,
    colours: Colours,
) -> list[Item]:
    """The histogram in the colours of the map, the colours in a strip beneath, the limits through both."""
    edges, counts = colouring.edges, colouring.counts
    left = x + (edges[:-1] - edges[0]) / (edges[-1] - edges[0]) * width
    step = width / len(counts)
    middle = ((edges[:-1] + edges[1:]) / 2).clip(0, 1)
    steps = colours.of(signed=quantity.quantity.signed)
    fills = [steps[place] for place in np.rint(middle * (len(steps) - 1)).astype(int)]
    items: list[Item] = []
    for start, count, fill in zip(left, counts, fills, strict=True):
        high = bars * count / max(counts.max(), 1)
        if high > 0:
            items.append(
                Box(float(start), y + bars - high, min(step + 0.006, x + width - float(start)), high, fill=theme.line)
            )
        items.append(Box(float(start), y + bars, x + width - float(start), _STRIP, fill=fill))  # no seams
    for unit in () if _is_whole(quantity, colouring) else (0.0, 1.0):
        at = _place(unit, colouring, x, width)
        items.append(Box(at - 0.005, y, 0.01, bars + _STRIP + 0.02, fill=theme.accent))
    return items


def _axis(colouring: Colouring, x: float, y: float, width: float, theme: Theme, size: float) -> list[Item]:
    """The limits in figures, and round numbers between them where there is room."""
    limits = colouring.limits
    inner: list[tuple[float, str]] = []
    if limits.by_row:
        ends = [(0.0, "layer's lower limit"), (1.0, "upper limit")]
    else:
        low, high = limits.low.item(), limits.high.item()
        ends = [(0.0, number(low)), (1.0, number(high))]
        inner = [(unit, number(value)) for unit, value in round_numbers(low, high, limits.kind)]
    placed: list[Text] = []
    for unit, text in (*ends, *inner):
        half = fonts.width(text, size) / 2
        at = min(max(_place(unit, colouring, x, width), x + half), x + width - half)
        label = Text(at, y, text, size, theme.ink if (unit, text) in ends else theme.muted, ha="center")
        if all(_apart(label, other) for other in placed):
            placed.append(label)
    return list(placed)


def _shares(colouring: Colouring, x: float, y: float, width: float, theme: Theme, size: float) -> list[Item]:
    below, above = (percent(share) for share in colouring.clipped)
    return [
        Text(x, y, f"◂ {below} below", size, theme.muted),
        Text(x + width, y, f"{above} above ▸", size, theme.muted, ha="right"),
    ]


def _is_whole(quantity: MapQuantity, colouring: Colouring) -> bool:
    """Whether colours run over all that there can be, shares from nothing to all: nothing can lie beyond."""
    limits = colouring.limits
    ends = None if limits.by_row else (limits.kind, limits.low.item(), limits.high.item())
    return quantity.quantity.unit == "1" and ends == ("linear", 0, 1) and not any(colouring.clipped)


def _place(unit: float, colouring: Colouring, x: float, width: float) -> float:
    first, last = colouring.edges[0], colouring.edges[-1]
    return float(x + (unit - first) / (last - first) * width)


def _apart(one: Text, other: Text) -> bool:
    left, _, right, _ = one.extent()
    other_left, _, other_right, _ = other.extent()
    return left > other_right + _BETWEEN or right < other_left - _BETWEEN


def round_numbers(low: float, high: float, kind: Kind) -> list[tuple[float, float]]:
    """(unit, value) of round numbers between the limits, the roundest first."""
    if kind == "diverging":
        return [(0.5, 0.0)]
    if kind == "log":
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [digit * 10.0**decade for digit in (1, 3) for decade in decades]
    else:
        step = 10.0 ** math.floor(math.log10(high - low))
        values = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    ends = scale.forward(np.array([low, high]), kind)
    inside = [value for value in values if low < value < high]
    units = (scale.forward(np.array(inside), kind) - ends[0]) / (ends[1] - ends[0])
    return list(zip(units.tolist(), inside, strict=True))
