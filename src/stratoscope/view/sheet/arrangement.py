"""How the maps of a picture are arranged: side by side while tokens stay readable, else wrapped like lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratoscope.view.sheet import legend
from stratoscope.view.sheet.items import DPI
from stratoscope.view.spec.maps import MapPanel, Maps

PAGE = 12.75  # inches of a picture between its margins, at most: a slide, or a double column
GAP = 0.32  # between maps
ROW_LABELS = 0.36
NAMES = 1.25  # room for the names of stacked maps
_PITCH = (0.15, 0.30)  # least and most inches of a column
_NUMBER_PITCH = (0.25, 0.42)
_MOST_NUMBERS, _MOST_NUMBER_ROWS = 600, 16


@dataclass(frozen=True)
class Arrangement:
    """An arrangement.

    Attributes
    ----------
    mode
        "side": panels side by side, quantities one above the other. "columns": quantities side by side, panels one
        above the other. "lines": everything one above the other, long panels wrapped.
    pitch, row
        Inches of a column and of a row of cells.
    gutter
        Inches to the right of the maps, for names or legends.
    legends
        Where the legends are: "head", "beside" the map, "column", "gutter", or "key" (a line of them above the maps).
    numbers
        Whether the cells have room for figures.
    """

    mode: str
    pitch: float
    row: float
    gutter: float = 0.0
    legends: str = "head"
    numbers: bool = False


def choose_arrangement(content: Maps) -> Arrangement:
    """The arrangement for the content of a ViewSpec."""
    panels, quantities = content.panels, content.quantities
    rows = max(len(one.quantity.rows) for one in quantities)
    if len(quantities) == 1:
        return _one_quantity(panels, rows)
    return _several(panels, len(quantities), rows)


def bands(panel: MapPanel, arranged: Arrangement) -> list[tuple[int, int]]:
    """The (start, stop) columns of each line that a panel is wrapped into."""
    count = panel.columns
    if panel.tokens_per_column > 1 or arranged.mode != "lines":
        return [(0, count)]
    longest = _columns_per_line(arranged.gutter)
    lines = -(-count // longest)
    each = -(-count // lines)
    return [(start, min(start + each, count)) for start in range(0, count, each)]


def pitch_of(panel: MapPanel, arranged: Arrangement) -> float:
    """Inches of a column; a pooled panel fills the page with whole pixels."""
    if panel.tokens_per_column == 1:
        return arranged.pitch
    room = int((PAGE - ROW_LABELS - arranged.gutter) * DPI)
    pixels = room // panel.columns
    return max(1, pixels) / DPI


def _one_quantity(panels: Sequence[MapPanel], rows: int) -> Arrangement:
    total = sum(panel.columns for panel in panels)
    room = PAGE - ROW_LABELS - GAP * (len(panels) - 1)
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    numbers = total * rows <= _MOST_NUMBERS and rows <= _MOST_NUMBER_ROWS
    if numbers and total * _NUMBER_PITCH[0] <= room:
        pitch = min(_NUMBER_PITCH[1], room / total)
        return Arrangement(
            "side", _snap(pitch), 0.24, legends=_head_or_beside(pitch * total, len(panels)), numbers=True
        )
    if not pooled and total * _PITCH[0] <= room:
        pitch = min(_PITCH[1], room / total)
        where = _head_or_beside(pitch * total, len(panels))
        return Arrangement("side", _snap(pitch), _row(3.4, rows, least=0.045), legends=where)
    draft = Arrangement("lines", _PITCH[0], 0)
    lines = [stop - start for panel in panels for start, stop in bands(panel, draft)]
    unpooled = max((panel.columns for panel in panels if panel.tokens_per_column == 1), default=1)
    longest = min(max(lines), unpooled)
    pitch = min(0.2, (PAGE - ROW_LABELS) / longest)
    height = max(0.95, min(3.4 if pooled else 2.4, 18 / len(lines)))
    return Arrangement("lines", _snap(pitch), _row(height, rows))


def _several(panels: Sequence[MapPanel], quantities: int, rows: int) -> Arrangement:
    counts = [panel.columns for panel in panels]
    pooled = any(panel.tokens_per_column > 1 for panel in panels)
    slot = (PAGE - ROW_LABELS - GAP * (quantities - 1)) / quantities
    if not pooled and max(counts) * _PITCH[0] <= slot:
        pitch = min(0.24, slot / max(counts))
        return Arrangement("columns", _snap(pitch), _row(2.9, rows, least=0.045), legends="column")
    gutter = legend.WIDTH * 0.86 + GAP / 2
    room = PAGE - ROW_LABELS - gutter - GAP * (len(panels) - 1)
    if not pooled and sum(counts) * _PITCH[0] <= room:
        pitch = min(_PITCH[1], room / sum(counts))
        return Arrangement("side", _snap(pitch), _row(1.2, rows, least=0.02), gutter, "gutter")
    draft = Arrangement("lines", _PITCH[0], 0, gutter)
    lines = sum(len(bands(panel, draft)) for panel in panels)
    if lines == 1:
        longest = max(stop - start for panel in panels for start, stop in bands(panel, draft))
        pitch = min(0.2, (PAGE - ROW_LABELS - gutter) / max(longest, 1))
        return Arrangement("lines", _snap(pitch), _row(1.05, rows), gutter, "gutter")
    narrow = Arrangement("lines", _PITCH[0], 0, NAMES)
    longest = max(stop - start for panel in panels for start, stop in bands(panel, narrow))
    pitch = _PITCH[0] if pooled else min(0.2, (PAGE - ROW_LABELS - NAMES) / longest)
    return Arrangement("lines", _snap(pitch), _row(max(0.45, min(0.9, 28 / (lines * quantities))), rows), NAMES, "key")


def _columns_per_line(gutter: float) -> int:
    return int((PAGE - ROW_LABELS - gutter) / _PITCH[0])


def _head_or_beside(width: float, panels: int) -> str:
    """A narrow picture has its legend beside the map, where there would be nothing."""
    return "beside" if width + GAP * (panels - 1) < 3.6 else "head"


def _row(height: float, rows: int, *, least: float = 0.015) -> float:
    return max(_snap(min(0.28, max(least, height / rows))), 1 / DPI)


def _snap(length: float) -> float:
    """Whole pixels, so that all cells of a bitmap are equally large."""
    return max(1, int(length * DPI + 1e-6)) / DPI
