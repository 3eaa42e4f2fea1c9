"""ViewSpec of routes → Sheet: title, legend, panels, footer. Geometry only; every number comes from the spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.footer import about, footer
from stratoscope.view.sheet.items import Box, Dot, Item, Line, Sheet, Text
from stratoscope.view.sheet.measures import measures_of
from stratoscope.view.sheet.route_columns import Columns, RouteAxis, columns_in
from stratoscope.view.sheet.route_drawing import BESIDE, WIDEST, RouteDrawing, edge_width
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.routes import MLP, RoutePanel, Routes
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number, percent

_Sample: TypeAlias = Callable[[float, float], list[Item]]
_LEAST_WIDTH = 7.4
_ROW, _LOWEST, _HIGHEST = 0.2, 2.6, 5.6  # inches of a row, and of all rows
_MOST_ASPECT = 0.9  # height of all rows on a page of a given width, in widths
_STRIP, _MOST_STRIP = 0.62, 1.8  # inches of what is in view, beside a panel
_STRIP_SHARE = 0.25  # of a panel's width, at most, where there is room for more
_SAMPLE, _MARK = 0.26, 0.1  # inches of a line and of a mark in the legend
_BETWEEN = 0.3  # inches between panels
_LEAST_BESIDE = 0.17  # inches of a column of panels that stand side by side


def arrange_routes(spec: ViewSpec, content: Routes, page: Page = PLAIN_PAGE) -> Sheet:
    """Put everything of a picture of routes in its place on a page; `content` is its content."""
    return _Layout(spec, content, page).sheet()


class _Layout:
    """Lays out one picture from the top down; `self.items` grows, `y` values go downwards."""

    def __init__(self, spec: ViewSpec, content: Routes, page: Page) -> None:
        self.spec, self.content, self.page = spec, content, page
        self.measures = measures_of(page)
        self.theme = spec.colours.themes[spec.look.theme]
        unit = self.measures.unit
        self.left = self.measures.margin + self.measures.row_labels
        self.strip, self.gap = _STRIP * unit, BESIDE * unit
        self.columns, self.lefts = self._beside() or self._below()
        ends = [left + one.width + self.gap for left, one in zip(self.lefts, self.columns, strict=True)]
        self.right = max(ends) + self.strip
        if self.measures.width is not None:
            self.right = self.measures.width - self.measures.margin
        self.right = max(self.right, 0 if self.measures.width else _LEAST_WIDTH - self.measures.margin)
        if len({*self.lefts}) == 1:
            widest = _STRIP_SHARE * max(one.width for one in self.columns)
            self.strip = min(self.right - max(ends), max(self.strip, min(widest, _MOST_STRIP * unit)))
        highest = min(_HIGHEST, _MOST_ASPECT * self.measures.width) if self.measures.width else _HIGHEST
        height = min(max(_ROW * (content.depths - 1), _LOWEST), highest)
        self.row = height / max(content.depths - 1, 1)
        self.items: list[Item] = []

    def _beside(self) -> tuple[list[Columns], list[float]] | None:
        """Columns and left ends of panels side by side; None where tokens would stand too close."""
        panels, unit = self.content.panels, self.measures.unit
        more = (len(panels) - 1) * (self.measures.row_labels + _BETWEEN) / len(panels)
        room = self.measures.body / len(panels) - more - self.strip - self.gap
        columns = [columns_in(panel, room, unit) for panel in panels] if room > 0 else []
        if not columns or min(one.pitch for one in columns) < _LEAST_BESIDE * unit:
            return None
        lefts = [self.left]
        for one in columns[:-1]:
            lefts.append(lefts[-1] + one.width + self.gap + self.strip + _BETWEEN + self.measures.row_labels)
        return columns, lefts

    def _below(self) -> tuple[list[Columns], list[float]]:
        """Columns and left ends of panels one below the other."""
        room = self.measures.body - self.strip - self.gap
        columns = [columns_in(panel, room, self.measures.unit) for panel in self.content.panels]
        return columns, [self.left] * len(columns)

    def sheet(self) -> Sheet:
        measures, margin = self.measures, self.measures.margin
        top = end = self._legend(self._titles(margin))
        for panel, columns, left in zip(self.content.panels, self.columns, self.lefts, strict=True):
            top = end + _BETWEEN if left == self.left and panel is not self.content.panels[0] else top
            end = max(end, self._panel(panel, columns, left, top))
        y = end + 0.16
        below, height = footer(self.spec, margin, y, self.right - margin, self.theme, measures, self.page)
        self.items += below
        width = measures.width or measures.whole(self.right + margin)
        return Sheet(width, measures.whole(y + height + measures.bottom), tuple(self.items), measures.dots)

    def _titles(self, y: float) -> float:
        if not self.page.titled:
            return y
        sizes, room = self.measures, self.right - self.measures.margin
        for line in fonts.wrap(self.spec.title, sizes.title, room):
            self.items.append(Text(sizes.margin, y, line, sizes.title, self.theme.ink))
            y += fonts.height(sizes.title) + 0.03
        for line in fonts.wrap(about(self.spec), sizes.subtitle, room):
            self.items.append(Text(sizes.margin, y, line, sizes.subtitle, self.theme.muted))
            y += fonts.height(sizes.subtitle) + 0.02
        return y + 0.06

    def _legend(self, y: float) -> float:
        """What lines and marks are, in as many lines as it takes."""
        sizes, x, high = self.measures, self.measures.margin, fonts.height(self.measures.legend) + 0.03
        for sample, words, room in self._entries():
            wide = room + 0.06 + fonts.width(words, sizes.legend) + 0.16
            if x > sizes.margin and x + wide > self.right:
                x, y = sizes.margin, y + high
            middle = y + high / 2
            self.items += sample(x, middle)
            self.items.append(Text(x + room + 0.06, middle, words, sizes.legend, self.theme.muted, va="center"))
            x += wide
        return y + high + 0.14

    def _entries(self) -> list[tuple[_Sample, str, float]]:
        """What draws a sample, the words beside it, and how wide it is."""
        theme, content = self.theme, self.content
        half = content.widest / 2
        shares = content.weight.unit == "1"

        def said(weight: float) -> str:
            return f"{percent(weight)} of the stream" if shares else f"{number(weight, 2)} to the {content.weight.unit}"

        def line(width: float, colour: str, *, dashed: bool = False) -> _Sample:
            return lambda x, y: [Line(((x, y), (x + _SAMPLE, y)), width, colour, dashed=dashed)]

        def square(x: float, y: float) -> list[Item]:
            return [Dot(x + _MARK / 2, y, 0.08, theme.side_a, edge=theme.paper, square=True)]

        def hatched(x: float, y: float) -> list[Item]:
            return [Box(x, y - 0.05, _SAMPLE, 0.1, fill=theme.missing, edge=theme.missing_line, hatched=True)]

        def end(x: float, y: float) -> list[Item]:
            return [Dot(x + _MARK / 2, y, 0.1, theme.accent, edge=theme.paper)]

        entries: list[tuple[_Sample, str, float]] = [
            (line(WIDEST, theme.side_a), f"a head adds {said(content.widest)}", _SAMPLE),
            (line(edge_width(half, content), theme.side_b), f"takes away {said(half)}", _SAMPLE),
            (line(1.6, theme.faint), "the token's own stream", _SAMPLE),
        ]
        if any((panel.edge_kind == MLP).any() for panel in content.panels):
            entries.append((square, "MLP", _MARK))
        entries.append((line(0.8, theme.missing_line, dashed=True), "rest: not shown", _SAMPLE))
        if content.called:
            a, b = content.called
            entries += [
                (line(1.5, theme.side_a), f"in {b} − {a}: more in {b}", _SAMPLE),
                (line(1.5, theme.side_b), "less", _SAMPLE),
                (line(1.5, theme.ink, dashed=True), "no counterpart, or recorded in one only", _SAMPLE),
            ]
        if any(panel.unmatched.any() for panel in content.panels):
            entries.append((hatched, "no equal token in the other prompt", _SAMPLE))
        entries.append((end, "the chosen token", _MARK))
        return entries

    def _heading(self, panel: RoutePanel, columns: Columns, left: float, y: float) -> float:
        """What a panel is called and tells; those that stand side by side take the same room."""
        sizes = self.measures
        self.items.append(Text(left, y, panel.title, sizes.panel, self.theme.ink, bold=True))
        y += fonts.height(sizes.panel) + 0.03
        high, lines = fonts.height(sizes.legend) + 0.02, self._detail(panel, columns)
        for place, line in enumerate(lines):
            self.items.append(Text(left, y + place * high, line, sizes.legend, self.theme.muted))
        beside = zip(self.content.panels, self.columns, strict=True) if len({*self.lefts}) > 1 else [(panel, columns)]
        return y + max(len(self._detail(*one)) for one in beside) * high + 0.03

    def _detail(self, panel: RoutePanel, columns: Columns) -> list[str]:
        """The lines below its name."""
        room = columns.width + self.gap + self.strip
        return fonts.wrap(panel.detail, self.measures.legend, room) if panel.detail else []

    def _panel(self, panel: RoutePanel, columns: Columns, left: float, y: float) -> float:
        if len(self.content.panels) > 1:
            y = self._heading(panel, columns, left, y)
        bottom = y + 0.1 + self.row * (self.content.depths - 1)
        drawing = RouteDrawing(
            self.content, panel, columns, left, bottom, self.row, self.theme, self.measures
        )  # fmt: skip
        axis = RouteAxis(self.spec.tokens, panel, columns, self.theme, self.measures)
        self.items += drawing.draw()
        self.items += axis.draw(left, bottom + 0.06)
        self.items += drawing.view_strip(left + columns.width + self.gap, self.strip)
        return bottom + 0.06 + axis.depth
