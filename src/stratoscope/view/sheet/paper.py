"""How maps are arranged on a page of a given width: text keeps its size, so that it is the maps that give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stratoscope.view.sheet.arrangement import (
    GAP,
    MOST_NUMBER_ROWS,
    MOST_NUMBERS,
    Arrangement,
    Legends,
    bands,
    lines_of_strips,
    row_of,
    strips,
)
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.maps import MapPanel, Maps

# inches where labels have 7 points
_PITCH = (0.12, 0.30)  # least and most of a column: a turned label
_NUMBER_PITCH = (0.34, 0.45)  # of a column with numbers in its cells
_NUMBER_ROW = 0.24
_HEAD, _LEGEND = 1.4, 0.6  # title and legend of one quantity; what a legend takes above a strip
_LABELS = 0.75  # under a band, and between it and the next
_NAME = 0.3  # above a strip, and between it and the next

# inches whatever the text
_LOWEST = (0.42, 0.015)  # of a map of one quantity, and of its rows; what is lower tells nothing
_LOWEST_STRIP, _HIGHEST_STRIP = (0.28, 0.011), 0.9
_HIGHEST = 2.0
_BESIDE = 3.6  # a map that is wider has its legend above


def on_paper(content: Maps, measures: Measures) -> Arrangement:
    """The arrangement for the content of a ViewSpec on a page of a given width, no higher than it if possible."""
    panels, quantities = content.panels, len(content.quantities)
    rows = max(len(one.quantity.rows) for one in content.quantities)
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    if quantities > 1:
        return _strips(panels, quantities, rows, measures)
    return (None if pooled else _side(panels, rows, measures)) or _bands(panels, rows, measures)


def _side(panels: Sequence[MapPanel], rows: int, measures: Measures) -> Arrangement | None:
    """Panels side by side, if they fit."""
    unit, total = measures.unit, sum(panel.columns for panel in panels)
    room = measures.body - measures.gap * (len(panels) - 1)
    numbers = total * rows <= MOST_NUMBERS and rows <= MOST_NUMBER_ROWS and total * _NUMBER_PITCH[0] * unit <= room
    least, most = _NUMBER_PITCH if numbers else _PITCH
    if total * least * unit > room:
        return None
    pitch = measures.snapped(min(most * unit, room / total))
    row = measures.snapped(_NUMBER_ROW * unit) if numbers else row_of(_highest(measures), rows, measures)
    wide = pitch * total + measures.gap * (len(panels) - 1)
    beside = wide < _BESIDE and wide + GAP + measures.legend_width <= measures.body
    return Arrangement(measures, "side", pitch, row, legends="beside" if beside else _above(measures), numbers=numbers)


def _bands(panels: Sequence[MapPanel], rows: int, measures: Measures) -> Arrangement:
    """Panels below each other, wrapped; where a page cannot hold that, a prompt is one band without labels."""
    unit = measures.unit
    wrapped = Arrangement(measures, "lines", 0, 0, least_pitch=_PITCH[0] * unit)
    lines = _lines(panels, wrapped)
    fits = _room(measures, len(lines), _HEAD) - _LABELS * unit >= max(_LOWEST[0], _LOWEST[1] * rows)
    labelled = fits or len(lines) == len(panels)
    height = max(_LOWEST[0], _room(measures, len(lines) if labelled else len(panels), _HEAD) - _LABELS * unit)
    return Arrangement(
        measures, "lines", _pitch(panels, wrapped), row_of(min(height, _highest(measures)), rows, measures),
        legends=_above(measures), labelled=labelled, least_pitch=wrapped.least_pitch,
    )  # fmt: skip


def _strips(panels: Sequence[MapPanel], quantities: int, rows: int, measures: Measures) -> Arrangement:
    """All quantities over each line of tokens; where a page cannot hold that, a prompt is one band without labels."""
    wrapped = strips(panels, quantities, rows, measures)
    whole = replace(wrapped, labelled=False, widest=max(panel.columns for panel in panels))
    lowest = max(_LOWEST_STRIP[0], _LOWEST_STRIP[1] * rows)
    names = _NAME if wrapped.gutter else _NAME + _LEGEND

    def height(arranged: Arrangement) -> float:
        lines = len(lines_of_strips(panels, arranged))
        room = (measures.height - _HEAD * measures.unit) / lines - _LABELS * measures.unit
        return room / quantities - names * measures.unit

    arranged = wrapped if height(wrapped) >= lowest else whole
    row = row_of(max(lowest, min(_HIGHEST_STRIP, height(arranged))), rows, measures)
    return replace(arranged, row=row)


def _lines(panels: Sequence[MapPanel], wrapped: Arrangement) -> list[int]:
    """Columns of each line that the panels are wrapped into."""
    return [stop - start for panel in panels for start, stop in bands(panel, wrapped)]


def _pitch(panels: Sequence[MapPanel], wrapped: Arrangement) -> float:
    """Inches of a column that has its label."""
    measures = wrapped.measures
    longest = max(_lines([panel for panel in panels if panel.tokens_per_column == 1], wrapped), default=1)
    return measures.snapped(min(0.2 * measures.unit, measures.body / longest))


def _room(measures: Measures, lines: int, head: float) -> float:
    """Inches of a page's height for each line."""
    return max(measures.height - head * measures.unit, 0.1) / lines


def _highest(measures: Measures) -> float:
    """Inches of a map's height at most: half its width."""
    return min(_HIGHEST, 0.5 * measures.body)


def _above(measures: Measures) -> Legends:
    return "under" if measures.is_narrow else "head"
