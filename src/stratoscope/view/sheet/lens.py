"""Where the parts of a picture of lenses stand: cells with words in them, and charts on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stratoscope.view.sheet import arrangement, fonts
from stratoscope.view.sheet.cell_words import LARGEST, SMALLEST, CellWords, word_height, words_in
from stratoscope.view.sheet.items import Box, CellMap, Sheet, Text
from stratoscope.view.sheet.layout import LEAST_WIDTH, Layout
from stratoscope.view.sheet.map_drawing import MapDrawing
from stratoscope.view.sheet.measures import SLIDE, Measures, measures_of
from stratoscope.view.spec.charts import ChartPanel, Mark
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec

# inches at the size of a slide
_WITH_WORDS = 0.46  # of a column, at least, that has room for words
_PITCH = 0.95  # of a column at most
_CHART, _BETWEEN = (1.2, 1.75), 0.26  # least and most of a chart, and between two
_CHART_ON_PAPER = 0.9
_NARROW = 6.0  # a page that is narrower has its charts below the cells
_BELOW = 1.5  # height of charts that stand below the cells
_USUAL, _TALLEST = 4.6, 7.7  # height of the cells, of few depths and of many
_ROW, _ROW_ON_PAPER = 0.26, 0.16  # of a row at most
_AXIS = 0.42  # below a chart, for its numbers and its name
SAMPLE = 0.17  # of a line in the key
# inches whatever the text
_TALLEST_ON_PAPER = 5.5
_FRAME = 0.012  # between the cells of the chosen column and its frame
_ROW_STEP = 0.16  # between labels of rows that stand beside charts


@dataclass(frozen=True)
class PlacedChart:
    """A chart in its place, in inches, with lines of its name; `rows` are labels at its left, where it has some."""

    panel: ChartPanel
    x: float
    y: float
    width: float
    height: float
    name: tuple[str, ...]
    rows: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Sample:
    """Where in the key a sample of a mark begins, and the height of its middle."""

    mark: Mark
    x: float
    y: float


@dataclass(frozen=True)
class LensSheet:
    """A picture of lenses: the sheet, and on it the charts and the samples of their key."""

    sheet: Sheet
    charts: tuple[PlacedChart, ...]
    key: tuple[Sample, ...]


def columns_with_words(page: Page) -> int:
    """How many columns of a page have room for words beside charts."""
    measures = measures_of(page)
    charts = 0.0 if _are_below(measures) else 3 * (_least_chart(measures) + _BETWEEN * measures.unit)
    return max(1, int((measures.body - charts) / (_WITH_WORDS * measures.unit)))


def arrange_lens(spec: ViewSpec, content: Lens, page: Page = PLAIN_PAGE) -> LensSheet:
    """Put everything of a picture of lenses in its place on a page; `content` is its content."""
    measures = measures_of(page)
    for _ in range(6):
        layout = _LensLayout(spec, content, page, measures)
        sheet = layout.sheet()
        over = sheet.height - SLIDE.height
        if page.width is None or over <= 0:
            break
        measures = replace(measures, height=measures.height - over)
    return LensSheet(sheet, tuple(layout.charts), tuple(layout.key))


def _least_chart(measures: Measures) -> float:
    """Inches of a chart at least."""
    return (_CHART[0] if measures.width is None else _CHART_ON_PAPER) * measures.unit


def _are_below(measures: Measures) -> bool:
    return measures.width is not None and measures.width < _NARROW * measures.unit


class _LensLayout(Layout):
    """Lays out cells, and charts on their rows."""

    def __init__(self, spec: ViewSpec, content: Lens, page: Page, measures: Measures) -> None:
        self.lens, self.below = content, _are_below(measures)
        self.charts: list[PlacedChart] = []
        self.key: list[Sample] = []
        super().__init__(spec, content.maps, page, measures)

    # --- sizes ------------------------------------------------------------------------------------------------------

    def _arranged(self) -> arrangement.Arrangement:
        measures, unit = self.measures, self.measures.unit
        charts = 0.0 if self.below else self._charts_width(_least_chart(measures))
        room, columns = measures.body - charts, self.panels[0].columns
        pitch = min(_PITCH * unit, room / columns)
        labelled = pitch >= 0.9 * fonts.height(measures.tight_label)
        ours = replace(measures, room=room + measures.row_labels)
        where: arrangement.Legends = "under" if measures.is_narrow else "head"
        return arrangement.Arrangement(
            ours, "side", measures.snapped(pitch), self._row(), legends=where, labelled=labelled
        )  # fmt: skip

    def _row(self) -> float:
        """Inches of a row: as high as a word while all rows fit, in whole dots."""
        rows, unit, dots = len(self.quantities[0].quantity.rows), self.measures.unit, self.measures.dots
        word = math.ceil(word_height(self._least) * dots - 1e-6) / dots
        usual = _ROW_ON_PAPER * unit if not self.below else word
        if self.measures.width is None:
            usual = min(_ROW * unit, _USUAL * unit / rows)
        tallest = _TALLEST * unit if self.measures.width is None else _TALLEST_ON_PAPER
        if rows * word <= tallest:
            return max(word, self.measures.snapped(min(usual, tallest / rows)))
        return self.measures.snapped(tallest / rows)

    @property
    def _least(self) -> float:
        """Points of words, at least."""
        return SMALLEST if self.measures.width is None else self.measures.badge

    def _charts_width(self, each: float) -> float:
        """Inches of the charts beside the cells, with what is between."""
        return len(self.lens.charts) * (each + _BETWEEN * self.measures.unit)

    def _pitch(self) -> float:
        return arrangement.pitch_of(self.panels[0], self.arrangement)

    def _map_width(self) -> float:
        return self._pitch() * self.panels[0].columns

    def _chart_width(self) -> float:
        """Inches of each chart: as wide as there is room, within limits."""
        unit, count = self.measures.unit, max(len(self.lens.charts), 1)
        if self.below:
            room = self.measures.room - self.measures.row_labels - (count - 1) * _BETWEEN * unit
            return room / count
        if self.measures.width is None:
            room = self.measures.body - self._map_width()
        else:
            room = self.measures.width - self.measures.margin - self.left - self._map_width()
        each = room / count - _BETWEEN * unit
        return min(each, _CHART[1] * unit) if self.measures.width is None else each

    def _right(self) -> float:
        if self.measures.width is not None:
            return self.measures.width - self.measures.margin
        return max(self.left + self._map_width() + self._charts_width(self._chart_width()),
                   LEAST_WIDTH - self.measures.margin)  # fmt: skip

    # --- places -----------------------------------------------------------------------------------------------------

    def _side(self, y: float) -> float:
        unit, sizes = self.measures.unit, self.measures
        left = self.measures.whole(self.left)
        beside = left + self._map_width() + _BETWEEN * unit
        top = y + 0.18 * unit
        if not self.below:
            top = max(top, self._key(beside, y, self.right - beside))
        top = self.measures.whole(top + 0.07 * unit)
        self._panel_title(self.panels[0], left, top - 0.22 * unit, self._map_width())
        band = (0, self.panels[0].columns)
        drawing = MapDrawing(self.spec, self.content, self.arrangement)
        whole, *others = drawing.draw(0, 0, left, top, band, row_labels=True, token_labels=True)
        assert isinstance(whole, CellMap)
        words = self._words()
        lines = self._pitch() >= 0.2 and self.arrangement.row >= 0.05
        self.items += [
            replace(whole, cells=words.cells, cell_size=words.size, lines=lines),
            *others,
            self._frame(left, top),
        ]
        bottom = top + self._height(self.quantities[0])
        end = bottom + drawing.below(0, band)
        if words.left_out:
            end += 0.04
            for line in fonts.wrap(words.left_out, sizes.detail, max(self._map_width(), 3.0 * unit)):
                self.items.append(Text(left, end, line, sizes.detail, self.theme.muted))
                end += fonts.height(sizes.detail)
        if self.below:
            start = self._key(left, end + 0.16 * unit, self.right - left) + 0.07 * unit
            return self._charts(left, start, _BELOW * unit, whole.rows)
        return max(end, self._charts(beside, top, bottom - top, ()))

    def _charts(self, x: float, y: float, height: float, rows: Sequence[tuple[int, Text]]) -> float:
        """Put the charts side by side; returns their bottom."""
        width, unit, end = self._chart_width(), self.measures.unit, y + height
        for place, panel in enumerate(self.lens.charts):
            beyond = 0.0 if place + 1 == len(self.lens.charts) else 0.8 * _BETWEEN * unit
            name = fonts.wrap(panel.x.label, self.measures.detail, width + beyond)
            labels = _sampled(rows, height / len(self.quantities[0].quantity.rows), unit) if place == 0 else ()
            self.charts.append(PlacedChart(panel, x, y, width, height, tuple(name), labels))
            end = max(end, y + height + (_AXIS - 0.13) * unit + len(name) * fonts.height(self.measures.detail))
            x += width + _BETWEEN * unit
        return end

    def _key(self, x: float, y: float, room: float) -> float:
        """Which token the charts are of, and the samples of their lines; returns the bottom."""
        sizes, unit = self.measures, self.measures.unit
        if not self.lens.charts:
            return y
        position = int(self.spec.tokens.position[self.lens.chosen])
        text = self.spec.tokens.text[self.lens.chosen] if self.spec.tokens.text else ""
        title = fonts.fit(f"Behind token {position} {text}", sizes.panel, room, bold=True)
        self.items.append(Text(x, y + 0.145 * unit, title, sizes.panel, self.theme.ink, va="bottom", bold=True))
        y += 0.2 * unit
        at, high, sample = x, fonts.height(sizes.detail), SAMPLE * unit
        for mark in (mark for panel in self.lens.charts for mark in panel.marks if mark.label):
            words = fonts.fit(mark.label, sizes.detail, room - sample - 0.05)
            wide = sample + 0.05 + fonts.width(words, sizes.detail)
            if at > x and at + wide > x + room:
                at, y = x, y + high
            self.key.append(Sample(mark, at, y + high / 2))
            self.items.append(Text(at + sample + 0.05, y, words, sizes.detail, self.theme.ink))
            at += wide + 0.14 * unit
        return y + high

    def _words(self) -> CellWords:
        largest = LARGEST if self.measures.width is None else self.measures.label
        narrow = largest if self._pitch() >= 0.6 * self.measures.unit else 0.86 * largest
        return words_in(self.spec, self.lens, self._pitch(), self.arrangement.row, (self._least, narrow))

    def _frame(self, x: float, y: float) -> Box:
        """Around the column of the chosen token."""
        pitch = self._pitch()
        return Box(
            x + self.lens.chosen * pitch - _FRAME, y - _FRAME, pitch + 2 * _FRAME,
            self._height(self.quantities[0]) + 2 * _FRAME, edge=self.theme.ink,
        )  # fmt: skip


def _sampled(rows: Sequence[tuple[int, Text]], row: float, unit: float) -> tuple[tuple[float, str], ...]:
    """Labels of rows of another height, as many as have room: the first and the last are always there."""
    kept = [*rows[:1]]
    for one in rows[1:-1]:
        if min(one[0] - kept[-1][0], rows[-1][0] - one[0]) * row >= _ROW_STEP * unit:
            kept.append(one)
    return tuple((float(place), label.text) for place, label in (*kept, *rows[1:][-1:]))
