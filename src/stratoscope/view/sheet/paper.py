"""How maps are arranged on a page of a given width: text keeps its size, so that it is the maps that give way."""

from __future__ import annotations

from collections.abc import Sequence

from stratoscope.view.sheet.arrangement import GAP, MOST_NUMBER_ROWS, MOST_NUMBERS, Arrangement, bands, row_of
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.maps import MapPanel, Maps

# inches where labels have 7 points
_PITCH = (0.12, 0.30)  # least and most of a column: a turned label
_NUMBER_PITCH = (0.34, 0.45)  # of a column with numbers in its cells
_NUMBER_ROW = 0.24
_HEAD, _LEGEND = 1.4, 0.75  # title and legend of one quantity; each line of legends of several
_LABELS = 0.75  # under a band, and between it and the next
_NAME = 0.3  # above a strip, and between it and the next

# inches whatever the text
_LOWEST = (0.42, 0.015)  # of a map of one quantity, and of its rows; what is lower tells nothing
_LOWEST_STRIP = (0.28, 0.011)
_HIGHEST = 2.0
_BESIDE = 3.6  # a map that is wider has its legend above


def on_paper(content: Maps, measures: Measures) -> Arrangement:
    """The arrangement for the content of a ViewSpec on a page of a given width, no higher than it if possible."""
    panels, quantities = content.panels, len(content.quantities)
    rows = max(len(one.quantity.rows) for one in content.quantities)
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    if quantities == 1:
        return (None if pooled else _side(panels, rows, measures)) or _bands(panels, rows, measures)
    return (None if pooled else _columns(panels, quantities, rows, measures)) or _strips(
        panels, quantities, rows, measures
    )


def _side(panels: Sequence[MapPanel], rows: int, measures: Measures) -> Arrangement | None:
    """Panels side by side, if they fit."""
    unit, total = measures.unit, sum(panel.columns for panel in panels)
    room = measures.body - GAP * (len(panels) - 1)
    numbers = total * rows <= MOST_NUMBERS and rows <= MOST_NUMBER_ROWS and total * _NUMBER_PITCH[0] * unit <= room
    least, most = _NUMBER_PITCH if numbers else _PITCH
    if total * least * unit > room:
        return None
    pitch = measures.snapped(min(most * unit, room / total))
    row = measures.snapped(_NUMBER_ROW * unit) if numbers else row_of(_highest(measures), rows, measures)
    wide = pitch * total + GAP * (len(panels) - 1)
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


def _columns(panels: Sequence[MapPanel], quantities: int, rows: int, measures: Measures) -> Arrangement | None:
    """Quantities side by side, if they and their legends fit."""
    unit, longest = measures.unit, max(panel.columns for panel in panels)
    slot = (measures.body - GAP * (quantities - 1)) / quantities
    if slot < measures.least_legend or longest * _PITCH[0] * unit > slot:
        return None
    height = min(_highest(measures), _room(measures, len(panels), _HEAD) - _LABELS * unit)
    pitch = measures.snapped(min(_PITCH[1] * unit, slot / longest))
    return Arrangement(measures, "columns", pitch, row_of(height, rows, measures), legends="column")


def _strips(panels: Sequence[MapPanel], quantities: int, rows: int, measures: Measures) -> Arrangement:
    """All quantities over each band of tokens, their names above them and a block of legends above all."""
    unit = measures.unit
    wrapped = Arrangement(measures, "lines", 0, 0, least_pitch=_PITCH[0] * unit)
    head = _HEAD - _LEGEND + _LEGEND * -(-quantities // measures.legends_abreast)

    def strip(lines: int) -> float:
        return (_room(measures, lines, head) - _LABELS * unit) / quantities - _NAME * unit

    lines = len(_lines(panels, wrapped))
    lowest = max(_LOWEST_STRIP[0], _LOWEST_STRIP[1] * rows)
    labelled = strip(lines) >= lowest or lines == len(panels)
    height = max(lowest, min(0.9, strip(lines if labelled else len(panels))))
    return Arrangement(
        measures, "lines", _pitch(panels, wrapped), row_of(height, rows, measures), legends="key", labelled=labelled,
        least_pitch=wrapped.least_pitch,
    )  # fmt: skip


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


def _above(measures: Measures) -> str:
    return "under" if measures.is_narrow else "head"
