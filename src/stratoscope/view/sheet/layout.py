"""ViewSpec → Sheet: where everything stands. Geometry only; every number comes from the spec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from stratoscope.view.sheet import arrangement, fonts, legend
from stratoscope.view.sheet.footer import footer, reading
from stratoscope.view.sheet.items import Box, Item, Sheet, Text
from stratoscope.view.sheet.map_drawing import MapDrawing
from stratoscope.view.sheet.measures import SLIDE, Measures, measures_of
from stratoscope.view.sheet.paper import on_paper
from stratoscope.view.sheet.prompt_marks import key
from stratoscope.view.sheet.row_marks import with_row_marks
from stratoscope.view.spec.maps import PROMPT_ROWS, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.tokens import ShownPrompt
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import capital

LEAST_WIDTH = 7.4
_LEAST_BESIDE = 5.4  # with a legend beside the map, or beside strips
_LOW = 0.16  # inches of the histogram of a legend beside a strip
_BAND_GAP, _STRIP_GAP, _PANEL_GAP = 0.16, 0.1, 0.2
_LEGEND_GAP = 0.24  # above a legend that stands over its map, so that it does not look like the one of the map above
_TRIES = 5  # to fit a picture of a given width on a printed page


def arrange(spec: ViewSpec, content: Maps, page: Page = PLAIN_PAGE) -> Sheet:
    """Put everything of a picture of maps in its place on a page; `content` is its content."""
    measures = measures_of(page)
    sheet = Layout(spec, content, page, measures).sheet()
    for _ in range(_TRIES if page.width is not None else 0):  # how high texts become is known once they are laid out
        over = sheet.height - SLIDE.height
        if over <= 0:
            break
        measures = replace(measures, height=measures.height - over)
        sheet = Layout(spec, content, page, measures).sheet()
    return sheet


class Layout:
    """Lays out one picture from the top down; `self.items` grows, `y` values go downwards."""

    def __init__(self, spec: ViewSpec, content: Maps, page: Page, measures: Measures) -> None:
        self.page, self.measures = page, with_row_marks(measures, content, spec.look)
        self.spec, self.content, self.theme = spec, content, spec.colours.themes[spec.look.theme]
        self.panels, self.quantities = content.panels, content.quantities
        self.arrangement = self._arranged()
        self.maps = MapDrawing(spec, content, self.arrangement)
        self.left = self.measures.margin + self.arrangement.gutter + self.measures.row_labels
        self.right = self._right()
        self.items: list[Item] = []

    def sheet(self) -> Sheet:
        """The page with everything on it."""
        draw = {"side": self._side, "lines": self._lines, "strips": self._strips}[self.arrangement.mode]
        bottom = draw(self._header())
        bottom = self._missing(bottom)
        measures, margin = self.measures, self.measures.margin
        below, height = footer(self.spec, margin, bottom + 0.16, self.right - margin, self.theme, measures, self.page)
        self.items += below
        end = bottom + 0.16 + height if below else bottom
        width = measures.width or measures.whole(self.right + margin)
        return Sheet(width, measures.whole(end + measures.bottom), tuple(self.items), measures.dots)

    def _has_rows_of_prompts(self) -> bool:
        return self.quantities[0].quantity.row_kind == PROMPT_ROWS

    def _arranged(self) -> arrangement.Arrangement:
        if self._has_rows_of_prompts():
            return arrangement.rows_of_prompts(self.content, self.measures, self.spec.tokens.prompts)
        return (on_paper if self.page.is_sized else arrangement.choose_arrangement)(self.content, self.measures)

    # --- horizontal places ------------------------------------------------------------------------------------------

    def _widths(self) -> list[float]:
        return [
            arrangement.pitch_of(panel, self.arrangement)
            * max(stop - start for start, stop in arrangement.bands(panel, self.arrangement))
            for panel in self.panels
        ]

    def _slots(self) -> list[float]:
        """Room for each panel that stands beside another: its map, or its title where that is longer and fits."""
        widths = self._widths()
        spare = self.measures.body - sum(widths) - self.measures.gap * (len(widths) - 1)
        if self.measures.width is None:
            spare = math.inf
        elif self.arrangement.legends == "beside":
            spare -= arrangement.GAP + self.measures.legend_width
        slots = []
        for width, panel in zip(widths, self.panels, strict=True):
            more = min(max(self._title_width(panel) - width, 0), max(spare, 0))
            slots.append(width + more)
            spare -= more
        return slots

    def _right(self) -> float:
        if self.measures.width is not None:
            return self.measures.width - self.measures.margin
        widths = self._widths()
        if self.arrangement.mode == "side":
            body = sum(self._slots()[:-1]) + widths[-1] + self.measures.gap * (len(widths) - 1)
        elif self.arrangement.mode == "strips":
            body = max(map(self._width_of_line, arrangement.lines_of_strips(self.panels, self.arrangement)))
        else:
            body = max(widths)
        body += self.measures.beside
        if self.arrangement.legends == "beside":
            body += arrangement.GAP + self.measures.legend_width
        least = LEAST_WIDTH if self.arrangement.legends == "head" else _LEAST_BESIDE
        return max(self.left + body, least - self.measures.margin)

    def _width_of_line(self, line: arrangement.Line) -> float:
        widths = [
            (stop - start) * arrangement.pitch_of(self.panels[place], self.arrangement) for place, (start, stop) in line
        ]
        return sum(widths) + self.measures.gap * max(len(line) - 1, 0)

    def _title_width(self, panel: MapPanel) -> float:
        room, sizes = 2.4, self.measures
        title = fonts.width(fonts.fit(panel.title, sizes.panel, room, bold=True), sizes.panel, bold=True) + 0.1
        detail = fonts.fit(panel.detail, sizes.detail, max(room - title, 0.5))
        return min(title + (fonts.width(detail, sizes.detail) if detail else 0), room)

    # --- header -----------------------------------------------------------------------------------------------------

    def _header(self) -> float:
        """Title and subtitle, the legend of a single quantity beside or under them; where the maps may begin."""
        margin, where = self.measures.margin, self.arrangement.legends
        legend_left = self.right - self.measures.legend_width
        room = (legend_left - arrangement.GAP if where == "head" else self.right) - margin
        y = self._titles(margin, margin, room) if self.page.titled else margin
        if self._names_classes():
            self.items += key(self._shown_prompts(), margin, y + 0.04, room, self.theme, self.measures)
            y += 0.04 + fonts.height(self.measures.detail)
        if where == "head":
            drawn = self._legend(self.quantities[0], legend_left, margin + 0.03, self.measures.legend_width)
            self.items += drawn.items
            y = max(y, margin + 0.03 + drawn.height)
        elif where == "under":
            y += 0.08 if self.page.titled else 0
            drawn = self._legend(self.quantities[0], self.left, y, self.right - self.left)
            self.items += drawn.items
            y += drawn.height
        return y + 0.16

    def _titles(self, x: float, y: float, room: float) -> float:
        """Title, subtitle and how to read the maps; returns their bottom."""
        sizes, theme = self.measures, self.theme
        for line in fonts.wrap(self.spec.title, sizes.title, room):
            self.items.append(Text(x, y, line, sizes.title, theme.ink))
            y += fonts.height(sizes.title) + 0.03
        y += 0.02
        below = reading(self.spec.content, numbers=self.arrangement.numbers)
        for text, size in ((self.spec.subtitle, sizes.subtitle), (below, sizes.detail)):
            for line in fonts.wrap(text, size, room) if text else []:
                self.items.append(Text(x, y, line, size, theme.muted))
                y += fonts.height(size) + 0.02
        return y

    def _legend(
        self, quantity: MapQuantity, x: float, y: float, width: float, *, bars: float = legend.BARS
    ) -> legend.Legend:
        colouring = quantity.colouring(self.spec.look)
        return legend.draw(
            quantity, colouring, x, y, self.theme, self.spec.colours, self.measures, width=width, bars=bars,
            numbers=self.arrangement.numbers,
        )  # fmt: skip

    def _shown_prompts(self) -> Sequence[ShownPrompt]:
        """Prompts from the top down, or from left to right."""
        prompts = self.spec.tokens.prompts
        return prompts[::-1] if self._has_rows_of_prompts() else prompts

    def _names_classes(self) -> bool:
        """Whether prompts stand in the colours of their classes, so that these have to be told."""
        many = self._has_rows_of_prompts() or any(len(one.starts) > 1 for one in self.panels)
        return many and any(one.prompt_class for one in self.spec.tokens.prompts)

    # --- the three arrangements -------------------------------------------------------------------------------------

    def _side(self, y: float) -> float:
        y = self._panel_titles(y)
        lefts = [
            self.left + sum(self._slots()[:place]) + self.measures.gap * place for place in range(len(self.panels))
        ]
        top = y + max(self.maps.above(0, place, (0, one.columns)) for place, one in enumerate(self.panels))
        for place, x in enumerate(lefts):
            self._map(0, place, x, top, row_labels=place == 0, token_labels=True)
        bottom = top + self._height(self.quantities[0])
        below = bottom + max(self.maps.below(place, (0, one.columns)) for place, one in enumerate(self.panels))
        if self.arrangement.legends == "beside":
            left = lefts[-1] + self._widths()[-1] + self.measures.beside + arrangement.GAP
            drawn = self._legend(
                self.quantities[0], left, top - 0.02, min(self.measures.legend_width, self.right - left)
            )
            self.items += drawn.items
            below = max(below, top + drawn.height)
        return below

    def _lines(self, y: float) -> float:
        for place, panel in enumerate(self.panels):
            y = self._panel_title(panel, self.left, y, self.right - self.left)
            for band in arrangement.bands(panel, self.arrangement):
                top = y + self.maps.above(0, place, band)
                self._map(0, place, self.left, top, band=band, row_labels=True, token_labels=True)
                y = top + self._height(self.quantities[0]) + self.maps.below(place, band) + _BAND_GAP
            y += _PANEL_GAP - _BAND_GAP
        return y - _PANEL_GAP

    def _strips(self, y: float) -> float:
        """Every quantity a strip, named at its left (on a narrow page above it); tokens stand in one column in all."""
        for number, line in enumerate(arrangement.lines_of_strips(self.panels, self.arrangement)):
            y = self._line_of_strips(line, y + (_PANEL_GAP if number else 0.0), legends=number == 0)
        return y

    def _line_of_strips(self, line: arrangement.Line, y: float, *, legends: bool) -> float:
        """All quantities over the panels of one line; returns its bottom."""
        lefts = [
            self.left + self._width_of_line(line[:count]) + self.measures.gap * bool(count)
            for count in range(len(line))
        ]
        titled = y
        for (place, (start, _)), x, end in zip(
            line, lefts, [*(left - 0.1 for left in lefts[1:]), self.right], strict=True
        ):
            if start == 0:
                titled = max(titled, self._panel_title(self.panels[place], x, y, end - x))
        y = bottom = titled
        gap = _LEGEND_GAP if legends and not self.arrangement.gutter else _STRIP_GAP
        for index, quantity in enumerate(self.quantities):
            last = index == len(self.quantities) - 1
            top = y + max(self.maps.above(index, place, band) for place, band in line)
            if self.arrangement.gutter:
                named = self._name_of_strip(quantity, top, legends=legends)
            else:
                top = named = self._name_of_strip(quantity, y, legends=legends) + top - y + 0.04
            for number, ((place, band), x) in enumerate(zip(line, lefts, strict=True)):
                self._map(index, place, x, top, band=band, row_labels=number == 0, token_labels=last)
            bottom = top + self._height(quantity)
            y = max(bottom, named) + gap
        depth = max(self.maps.below(place, band) for place, band in line)
        return max(y - gap, bottom + depth)

    def _name_of_strip(self, quantity: MapQuantity, y: float, *, legends: bool) -> float:
        """Beside a strip, or above it, its name, the first time in its legend; returns its bottom."""
        margin, gutter = self.measures.margin, self.arrangement.gutter
        x, width = (
            (margin, gutter - 0.1) if gutter else (self.left, min(self.measures.legend_width, self.right - self.left))
        )
        if legends:
            drawn = self._legend(quantity, x, y - 0.02, width, bars=_LOW)
            self.items += drawn.items
            return y - 0.02 + drawn.height
        size = self.measures.legend_name
        for line in fonts.wrap(capital(quantity.quantity.label), size, width):
            self.items.append(Text(x, y, line, size, self.theme.muted))
            y += fonts.height(size)
        return y

    # --- parts ------------------------------------------------------------------------------------------------------

    def _map(
        self,
        quantity: int,
        place: int,
        x: float,
        y: float,
        *,
        band: tuple[int, int] | None = None,
        row_labels: bool,
        token_labels: bool,
    ) -> None:
        self.items += self.maps.draw(
            quantity,
            place,
            self.measures.whole(x),
            self.measures.whole(y),
            band or (0, self.panels[place].columns),
            row_labels=row_labels,
            token_labels=token_labels,
        )

    def _height(self, quantity: MapQuantity) -> float:
        return self.arrangement.row * len(quantity.quantity.rows)

    def _panel_titles(self, y: float) -> float:
        bottom = y
        x = self.left
        for index, (panel, slot) in enumerate(zip(self.panels, self._slots(), strict=True)):
            room = slot if index + 1 < len(self.panels) else self.right - x
            bottom = max(bottom, self._panel_title(panel, x, y, room))
            x += slot + self.measures.gap
        return bottom

    def _panel_title(self, panel: MapPanel, x: float, y: float, room: float) -> float:
        if not panel.title:
            return y
        sizes, unit = self.measures, self.measures.unit
        title = fonts.fit(panel.title, sizes.panel, room, bold=True)
        self.items.append(Text(x, y + 0.145 * unit, title, sizes.panel, self.theme.ink, va="bottom", bold=True))
        used = fonts.width(title, sizes.panel, bold=True) + 0.1
        if panel.detail and room - used > 0.5:
            detail, at = fonts.fit(panel.detail, sizes.detail, room - used), y + 0.14 * unit
            self.items.append(Text(x + used, at, detail, sizes.detail, self.theme.muted, va="bottom"))
        return y + 0.18 * unit

    def _missing(self, y: float) -> float:
        """An empty panel that says what is not there, and how to get it."""
        labels, advice = self.content.missing, self.content.advice
        if not labels:
            return y
        left = self.measures.margin + self.measures.row_labels
        width = self.right - left
        inner = width - 0.3
        head = fonts.wrap(f"Not in this input: {'; '.join(labels)}.", self.measures.subtitle, inner)
        lines = [(line, self.theme.ink) for line in head]
        lines += [(line, self.theme.muted) for line in fonts.wrap(advice, self.measures.subtitle, inner)]
        leading = fonts.height(self.measures.subtitle) + 0.03
        height = len(lines) * leading + 0.24
        top = y + _PANEL_GAP
        self.items.append(Box(left, top, width, height, fill=self.theme.missing, edge=self.theme.missing_line))
        for index, (line, colour) in enumerate(lines):
            self.items.append(Text(left + 0.15, top + 0.13 + index * leading, line, self.measures.subtitle, colour))
        return top + height
