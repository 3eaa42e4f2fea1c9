"""How the maps of a picture are arranged: side by side while tokens stay readable, else wrapped like lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.sheet.prompt_marks import names_room
from stratoscope.view.spec.maps import MapPanel, Maps
from stratoscope.view.spec.tokens import ShownPrompt

GAP = 0.32  # inches between a map and the legend beside it
_NAMES = 2.5  # room for the names and the legends of strips, beside them
_LEAST_STRIPS = 3.0  # inches of strips that have their names beside them
_FEW_STRIPS = 3  # A, B and B − A: their names above them take less room than a second line of each
_MOST_ROW = 0.28
_PITCH = (0.15, 0.30)  # least and most inches of a column
_NUMBER_PITCH = (0.25, 0.42)
_FEW = 1.8  # inches of the longest prompt of strips, at least, while columns are not wider than …
_WIDEST = 0.6
_MOST_PROMPT_ROW = 0.16  # inches of a row that is a prompt
_CLOSE = 0.9  # of the height of a label: turned labels may stand so near to each other
_STRIP, _LEAST_STRIP = 0.92, 0.63  # inches that a strip is high, and that it is at least (1.6 cm)
MOST_NUMBERS, MOST_NUMBER_ROWS = 600, 16

Line: TypeAlias = list[tuple[int, tuple[int, int]]]  # panels side by side, and which (start, stop) columns of each

Mode: TypeAlias = Literal["side", "lines", "strips"]
Legends: TypeAlias = Literal["head", "under", "beside", "gutter", "above"]


@dataclass(frozen=True)
class Arrangement:
    """An arrangement.

    Attributes
    ----------
    measures
        Of the page.
    mode
        "side": panels side by side. "lines": panels one above the other, long ones wrapped. "strips": quantities one
        above the other, panels side by side as far as there is room, long ones wrapped.
    pitch, row
        Inches of a column and of a row of cells.
    gutter
        Inches to the left of the maps, for the names and the legends of strips.
    legends
        Where the legends are: "head" (beside the title), "under" it, "beside" the map, in the "gutter", or "above" each
        strip.
    numbers
        Whether the cells have room for figures.
    labelled
        Whether tokens that are not pooled have their labels; else a prompt is one band of the page's width.
    longest
        Of strips, columns of a band, at most.
    widest
        Columns of the longest panel without labels: such panels have one pitch.
    least_pitch
        Inches of a column of "lines", at least.
    """

    measures: Measures
    mode: Mode
    pitch: float
    row: float
    gutter: float = 0.0
    legends: Legends = "head"
    numbers: bool = False
    labelled: bool = True
    longest: int = 0
    widest: int = 0
    least_pitch: float = _PITCH[0]


def choose_arrangement(content: Maps, measures: Measures) -> Arrangement:
    """The arrangement for the content of a ViewSpec on a page."""
    panels, quantities = content.panels, content.quantities
    rows = max(len(one.quantity.rows) for one in quantities)
    if len(quantities) == 1:
        return _one_quantity(panels, rows, measures)
    return strips(panels, len(quantities), rows, measures)


def is_labelled(panel: MapPanel, arranged: Arrangement) -> bool:
    """Whether each column is a token with its label."""
    return panel.tokens_per_column == 1 and arranged.labelled


def bands(panel: MapPanel, arranged: Arrangement) -> list[tuple[int, int]]:
    """The (start, stop) columns of each line that a panel is wrapped into."""
    count = panel.columns
    if not is_labelled(panel, arranged) or arranged.mode == "side":
        return [(0, count)]
    if arranged.mode == "strips":
        return [(start, min(start + arranged.longest, count)) for start in range(0, count, arranged.longest)]
    longest = max(1, int(arranged.measures.body / arranged.least_pitch + 1e-6))
    return _evenly(0, count, longest) if len(panel.starts) < 2 else _whole_prompts(panel, longest)


def _evenly(start: int, stop: int, longest: int) -> list[tuple[int, int]]:
    """Lines of about equal length, none longer than `longest`."""
    lines = -(-(stop - start) // longest)
    each = -(-(stop - start) // lines)
    return [(begin, min(begin + each, stop)) for begin in range(start, stop, each)]


def _whole_prompts(panel: MapPanel, longest: int) -> list[tuple[int, int]]:
    """Lines of as many whole prompts as they hold; only a prompt that is longer than a line is wrapped itself."""
    begins = [column for column, _ in panel.starts]
    lines: list[tuple[int, int]] = []
    for start, stop in zip(begins, [*begins[1:], panel.columns], strict=True):
        if lines and stop - lines[-1][0] <= longest:
            lines[-1] = (lines[-1][0], stop)
        else:
            lines += _evenly(start, stop, longest)
    return lines


def lines_of_strips(panels: Sequence[MapPanel], arranged: Arrangement) -> list[Line]:
    """The lines of strips: of each the panels side by side, and their (start, stop) columns."""
    room = arranged.measures.body - arranged.gutter + 1e-6
    lines: list[Line] = []
    free = 0.0
    for place, panel in enumerate(panels):
        parts = bands(panel, arranged)
        for start, stop in parts:
            wide = (stop - start) * pitch_of(panel, arranged)
            if not lines or len(parts) > 1 or wide + arranged.measures.gap > free:
                lines.append([])
                free = room + arranged.measures.gap
            lines[-1].append((place, (start, stop)))
            free -= wide + arranged.measures.gap
        free = 0.0 if len(parts) > 1 else free
    return lines


def pitch_of(panel: MapPanel, arranged: Arrangement) -> float:
    """Inches of a column; those of a panel without labels fill the page with whole dots."""
    if is_labelled(panel, arranged):
        return arranged.pitch
    measures = arranged.measures
    dots = int((measures.body - arranged.gutter) * measures.dots) // max(panel.columns, arranged.widest)
    return max(1, dots) / measures.dots


def _one_quantity(panels: Sequence[MapPanel], rows: int, measures: Measures) -> Arrangement:
    total = sum(panel.columns for panel in panels)
    room = measures.body - measures.gap * (len(panels) - 1)
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


def rows_of_prompts(content: Maps, measures: Measures, prompts: Sequence[ShownPrompt]) -> Arrangement:
    """A row for each prompt: as high as its name while all fit a page, else in whole dots."""
    panel, rows = content.panels[0], len(content.quantities[0].quantity.rows)
    gutter = max(0.0, names_room(prompts, measures) - measures.row_labels)
    pitch = min(_PITCH[1] * 0.8, (measures.body - gutter) / panel.columns)
    row = measures.whole(min(_MOST_PROMPT_ROW * measures.unit, max(0.98 * measures.height / rows, 1 / measures.dots)))
    legends: Legends = "under" if measures.is_narrow else "head"
    return Arrangement(measures, "side", measures.snapped(pitch), row, gutter, legends)


def strips(panels: Sequence[MapPanel], quantities: int, rows: int, measures: Measures) -> Arrangement:
    """Strips: of short prompts all of them side by side, so that a pair fits a slide; else wrapped at equal places.

    Their names and legends are beside them, unless that leaves too little, or a few strips need not be wrapped then.
    """
    gutter = _NAMES * measures.unit
    tokens, gaps = sum(panel.columns for panel in panels), measures.gap * (len(panels) - 1)
    unwrapped = tokens * _CLOSE * fonts.height(measures.tight_label) + gaps
    fits_without = measures.body - gutter < unwrapped <= measures.body
    if measures.body - gutter < _LEAST_STRIPS or (fits_without and quantities <= _FEW_STRIPS):
        gutter = 0.0
    room = measures.body - gutter
    row = _row_of_strip(rows, measures)
    legends: Legends = "gutter" if gutter else "above"
    counts = [panel.columns for panel in panels if panel.tokens_per_column == 1]
    widest = max((panel.columns for panel in panels if panel.tokens_per_column > 1), default=0)
    if not counts:
        return Arrangement(measures, "strips", 0.0, row, gutter, legends, longest=1, widest=widest)
    total, least = sum(counts), _CLOSE * fonts.height(measures.tight_label)
    across = room - measures.gap * (len(counts) - 1)
    most = max(_PITCH[1], min(_WIDEST, _FEW / max(counts)))
    if not widest and total * least <= across:
        pitch, longest = min(most, across / total), max(counts)
    else:
        lines = [-(-count // int(room / least)) for count in counts]
        longest = max(-(-count // times) for count, times in zip(counts, lines, strict=True))
        pitch = min(0.2, room / longest)
    return Arrangement(
        measures, "strips", measures.snapped(pitch), row, gutter, legends, longest=longest, widest=widest
    )


def _row_of_strip(rows: int, measures: Measures) -> float:
    """Inches of a row of a strip, in whole dots; a strip is not lower than people can read it, if its rows allow it."""
    row = row_of(_STRIP, rows, measures, least=0.0)
    return row if row * rows >= _LEAST_STRIP or row >= _MOST_ROW - 1 / measures.dots else row + 1 / measures.dots


def _head_or_beside(width: float, panels: int) -> Legends:
    """A narrow picture has its legend beside the map, where there would be nothing."""
    return "beside" if width + GAP * (panels - 1) < 3.6 else "head"


def row_of(height: float, rows: int, measures: Measures, *, least: float = 0.015) -> float:
    """Inches of a row of cells, where all rows together are about so high."""
    return measures.snapped(min(_MOST_ROW, max(least, height / rows)))
