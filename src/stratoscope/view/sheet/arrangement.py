"""How the maps of a picture are arranged: side by side while tokens stay readable, else wrapped like lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.maps import MapPanel, Maps

GAP = 0.32  # inches between maps
NAMES = 1.25  # room for the names of stacked maps
_PITCH = (0.15, 0.30)  # least and most inches of a column
_NUMBER_PITCH = (0.25, 0.42)
MOST_NUMBERS, MOST_NUMBER_ROWS = 600, 16


@dataclass(frozen=True)
class Arrangement:
    """An arrangement.

    Attributes
    ----------
    measures
        Of the page.
    mode
        "side": panels side by side, quantities one above the other. "columns": quantities side by side, panels one
        above the other. "lines": everything one above the other, long panels wrapped.
    pitch, row
        Inches of a column and of a row of cells.
    gutter
        Inches to the right of the maps, for names or legends.
    legends
        Where the legends are: "head" (beside the title), "under" it, "beside" the map, "column", "gutter", or "key" (a
        block of them above the maps).
    numbers
        Whether the cells have room for figures.
    labelled
        Whether tokens that are not pooled have their labels; else a prompt is one band of the page's width.
    least_pitch
        Inches of a column, at least, where a panel is wrapped.
    """

    measures: Measures
    mode: str
    pitch: float
    row: float
    gutter: float = 0.0
    legends: str = "head"
    numbers: bool = False
    labelled: bool = True
    least_pitch: float = _PITCH[0]


def choose_arrangement(content: Maps, measures: Measures) -> Arrangement:
    """The arrangement for the content of a ViewSpec on a page."""
    panels, quantities = content.panels, content.quantities
    rows = max(len(one.quantity.rows) for one in quantities)
    if len(quantities) == 1:
        return _one_quantity(panels, rows, measures)
    return _several(panels, len(quantities), rows, measures)


def is_labelled(panel: MapPanel, arranged: Arrangement) -> bool:
    """Whether each column is a token with its label."""
    return panel.tokens_per_column == 1 and arranged.labelled


def bands(panel: MapPanel, arranged: Arrangement) -> list[tuple[int, int]]:
    """The (start, stop) columns of each line that a panel is wrapped into."""
    count = panel.columns
    if not is_labelled(panel, arranged) or arranged.mode != "lines":
        return [(0, count)]
    longest = max(1, int((arranged.measures.body - arranged.gutter) / arranged.least_pitch + 1e-6))
    lines = -(-count // longest)
    each = -(-count // lines)
    return [(start, min(start + each, count)) for start in range(0, count, each)]


def pitch_of(panel: MapPanel, arranged: Arrangement) -> float:
    """Inches of a column; those of a panel without labels fill the page with whole dots."""
    if is_labelled(panel, arranged):
        return arranged.pitch
    measures = arranged.measures
    dots = int((measures.body - arranged.gutter) * measures.dots) // panel.columns
    return max(1, dots) / measures.dots


def _one_quantity(panels: Sequence[MapPanel], rows: int, measures: Measures) -> Arrangement:
    total = sum(panel.columns for panel in panels)
    room = measures.body - GAP * (len(panels) - 1)
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    numbers = total * rows <= MOST_NUMBERS and rows <= MOST_NUMBER_ROWS
    if numbers and total * _NUMBER_PITCH[0] <= room:
        pitch = measures.snapped(min(_NUMBER_PITCH[1], room / total))
        where = _head_or_beside(pitch * total, len(panels))
        return Arrangement(measures, "side", pitch, 0.24, legends=where, numbers=True)
    if not pooled and total * _PITCH[0] <= room:
        pitch = measures.snapped(min(_PITCH[1], room / total))
        where = _head_or_beside(pitch * total, len(panels))
        return Arrangement(measures, "side", pitch, row_of(3.4, rows, measures, least=0.045), legends=where)
    draft = Arrangement(measures, "lines", _PITCH[0], 0)
    lines = [stop - start for panel in panels for start, stop in bands(panel, draft)]
    unpooled = max((panel.columns for panel in panels if panel.tokens_per_column == 1), default=1)
    longest = min(max(lines), unpooled)
    pitch = measures.snapped(min(0.2, measures.body / longest))
    height = max(0.95, min(3.4 if pooled else 2.4, 18 / len(lines)))
    return Arrangement(measures, "lines", pitch, row_of(height, rows, measures))


def _several(panels: Sequence[MapPanel], quantities: int, rows: int, measures: Measures) -> Arrangement:
    counts = [panel.columns for panel in panels]
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    slot = (measures.body - GAP * (quantities - 1)) / quantities
    if not pooled and max(counts) * _PITCH[0] <= slot:
        pitch = measures.snapped(min(0.24, slot / max(counts)))
        return Arrangement(measures, "columns", pitch, row_of(2.9, rows, measures, least=0.045), legends="column")
    gutter = measures.legend_width * 0.86 + GAP / 2
    room = measures.body - gutter - GAP * (len(panels) - 1)
    if not pooled and sum(counts) * _PITCH[0] <= room:
        pitch = measures.snapped(min(_PITCH[1], room / sum(counts)))
        return Arrangement(measures, "side", pitch, row_of(1.2, rows, measures, least=0.02), gutter, "gutter")
    draft = Arrangement(measures, "lines", _PITCH[0], 0, gutter)
    lines = sum(len(bands(panel, draft)) for panel in panels)
    if lines == 1:
        longest = max(stop - start for panel in panels for start, stop in bands(panel, draft))
        pitch = measures.snapped(min(0.2, (measures.body - gutter) / max(longest, 1)))
        return Arrangement(measures, "lines", pitch, row_of(1.05, rows, measures), gutter, "gutter")
    narrow = Arrangement(measures, "lines", _PITCH[0], 0, NAMES)
    longest = max(stop - start for panel in panels for start, stop in bands(panel, narrow))
    pitch = measures.snapped(_PITCH[0] if pooled else min(0.2, (measures.body - NAMES) / longest))
    height = max(0.45, min(0.9, 28 / (lines * quantities)))
    return Arrangement(measures, "lines", pitch, row_of(height, rows, measures), NAMES, "key")


def _head_or_beside(width: float, panels: int) -> str:
    """A narrow picture has its legend beside the map, where there would be nothing."""
    return "beside" if width + GAP * (panels - 1) < 3.6 else "head"


def row_of(height: float, rows: int, measures: Measures, *, least: float = 0.015) -> float:
    """Inches of a row of cells, where all rows together are about so high."""
    return measures.snapped(min(0.28, max(least, height / rows)))
