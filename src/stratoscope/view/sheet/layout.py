"""ViewSpec → Sheet: where everything stands. Geometry only; every number comes from the spec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from stratoscope.view.sheet import arrangement, fonts, legend
from stratoscope.view.sheet.footer import footer, reading
from stratoscope.view.sheet.items import Box, Item, Sheet, Text
from stratoscope.view.sheet.map_drawing import MapDrawing, label_depth, labels_of
from stratoscope.view.sheet.measures import SLIDE, Measures, measures_of
from stratoscope.view.sheet.paper import on_paper
from stratoscope.view.spec.maps import MapPanel, MapQuantity, Maps
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import capital

LEAST_WIDTH = 7.4
_LEAST_BESIDE = 5.4
_BAND_GAP, _STRIP_GAP, _PANEL_GAP = 0.16, 0.1, 0.2
_TRIES = 5  # to fit a picture of a given width on a printed page


def arrange(spec: ViewSpec, content: Maps, page: Page = PLAIN_PAGE) -> Sheet:
    """Put everything of a picture of maps in its place on a page; `content` is its content."""
    measures = measures_of(page)
    sheet = _Layout(spec, content, page, measures).sheet()
    for _ in range(_TRIES if page.width is not None else 0):  # how high texts become is known once they are laid out
        over = sheet.height - SLIDE.height
        if over <= 0:
            break
        measures = replace(measures, height=measures.height - over)
        sheet = _Layout(spec, content, page, measures).sheet()
    return sheet


class _Layout:
    """Lays out one picture from the top down; `self.items` grows, `y` values go downwards."""

    def __init__(self, spec: ViewSpec, content: Maps, page: Page, measures: Measures) -> None:
        self.page, self.measures = page, measures
        self.spec, self.content, self.theme = spec, content, spec.colours.themes[spec.look.theme]
        self.panels, self.quantities = content.panels, content.quantities
        arranged_by = on_paper if page.is_sized else arrangement.choose_arrangement
        self.arrangement = arranged_by(content, self.measures)
        self.maps = MapDrawing(spec, content, self.arrangement)
        self.left = self.measures.margin + self.measures.row_labels
        self.right = self._right()
        self.items: list[Item] = []

    def sheet(self) -> Sheet:
        draw = {"side": self._side, "columns": self._columns, "lines": self._lines}[self.arrangement.mode]
        bottom = draw(self._header())
        bottom = self._missing(bottom)
        measures, margin = self.measures, self.measures.margin
        below, height = footer(self.spec, margin, bottom + 0.16, self.right - margin, self.theme, measures, self.page)
        self.items += below
        end = bottom + 0.16 + height if below else bottom
        width = measures.width or measures.whole(self.right + margin)
        return Sheet(width, measures.whole(end + measures.bottom), tuple(self.items), measures.dots)

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
        spare = self.measures.body - sum(widths) - arrangement.GAP * (len(widths) - 1)
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
            body = sum(self._slots()[:-1]) + widths[-1] + arrangement.GAP * (len(widths) - 1)
        elif self.arrangement.mode == "columns":
            body = self._column_width() * len(self.quantities) + arrangement.GAP * (len(self.quantities) - 1)
        else:
            body = max(widths)
        if self.arrangement.legends == "beside":
            return max(
                self.left + body + arrangement.GAP + self.measures.legend_width, _LEAST_BESIDE - self.measures.margin
            )
        return max(self.left + body + self.arrangement.gutter, LEAST_WIDTH - self.measures.margin)

    def _column_width(self) -> float:
        if self.page.is_sized:
            return (self.measures.body + arrangement.GAP) / len(self.quantities) - arrangement.GAP
        return max(*self._widths(), self.measures.legend_width * 0.84)

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
        if where == "head":
            drawn = self._legend(self.quantities[0], legend_left, margin + 0.03, self.measures.legend_width)
            self.items += drawn.items
            y = max(y, margin + 0.03 + drawn.height)
        elif where == "under":
            y += 0.08 if self.page.titled else 0
            drawn = self._legend(self.quantities[0], self.left, y, self.right - self.left)
            self.items += drawn.items
            y += drawn.height
        return self._key(y + 0.16) if where == "key" else y + 0.16

    def _titles(self, x: float, y: float, room: float) -> float:
        """Title, subtitle and how to read the maps; returns their bottom."""
        sizes, theme = self.measures, self.theme
        for line in fonts.wrap(self.spec.title, sizes.title, room):
            self.items.append(Text(x, y, line, sizes.title, theme.ink))
            y += fonts.height(sizes.title) + 0.03
        y += 0.02
        for text, size in ((self.spec.subtitle, sizes.subtitle), (reading(self.content), sizes.detail)):
            for line in fonts.wrap(text, size, room) if text else []:
                self.items.append(Text(x, y, line, size, theme.muted))
                y += fonts.height(size) + 0.02
        return y

    def _key(self, y: float) -> float:
        """A block of legends above the maps: one line on a slide, on paper as many as there must be."""
        count, margin, gap = len(self.quantities), self.measures.margin, arrangement.GAP
        lines = -(-count // self.measures.legends_abreast) if self.page.is_sized else 1
        abreast = -(-count // lines)
        width = min(self.measures.legend_width, (self.right - margin - gap * (abreast - 1)) / abreast)
        for start in range(0, count, abreast):
            shown = self.quantities[start : start + abreast]
            y = self._legends(shown, [margin + place * (width + gap) for place in range(len(shown))], y, width) + 0.2
        return y

    def _legends(self, quantities: Sequence[MapQuantity], lefts: list[float], y: float, width: float) -> float:
        """Legends beside each other, their histograms on one line; returns their bottom."""
        pairs = list(zip(quantities, lefts, strict=True))
        height = max(self._legend(one, x, y, width).height for one, x in pairs)
        for one, x in pairs:
            self.items += self._legend(one, x, y, width, height).items
        return y + height

    def _legend(self, quantity: MapQuantity, x: float, y: float, width: float, height: float = 0.0) -> legend.Legend:
        colouring = quantity.colouring(self.spec.look)
        return legend.draw(
            quantity, colouring, x, y, self.theme, self.spec.colours, self.measures, width=width, height=height
        )

    # --- the three arrangements -------------------------------------------------------------------------------------

    def _side(self, y: float) -> float:
        y = self._panel_titles(y)
        lefts = [self.left + sum(self._slots()[:index]) + arrangement.GAP * index for index in range(len(self.panels))]
        for index, quantity in enumerate(self.quantities):
            last = index == len(self.quantities) - 1
            top = y + max(self.maps.above(index, place, (0, one.columns)) for place, one in enumerate(self.panels))
            for place, x in enumerate(lefts):
                self._map(index, place, x, top, row_labels=place == 0, token_labels=last)
            bottom = top + self._height(quantity)
            if self.arrangement.legends in ("gutter", "beside"):
                bottom = max(bottom, self._legend_beside(index, lefts[-1] + self._widths()[-1], top))
            y = bottom + _STRIP_GAP
        return y - _STRIP_GAP + max(self._depth(panel, (0, panel.columns)) for panel in self.panels)

    def _columns(self, y: float) -> float:
        width = self._column_width()
        lefts = [self.left + index * (width + arrangement.GAP) for index in range(len(self.quantities))]
        y = self._legends(self.quantities, lefts, y, min(width, self.measures.legend_width)) + _PANEL_GAP
        for place, panel in enumerate(self.panels):
            y = self._panel_title(panel, self.left, y, self.right - self.left)
            top = y + max(self.maps.above(index, place, (0, panel.columns)) for index in range(len(lefts)))
            for index, x in enumerate(lefts):
                self._map(index, place, x, top, row_labels=index == 0, token_labels=True)
            depth = self._depth(panel, (0, panel.columns))
            y = top + max(map(self._height, self.quantities)) + depth + _PANEL_GAP
        return y - _PANEL_GAP

    def _lines(self, y: float) -> float:
        first_line = True
        for place, panel in enumerate(self.panels):
            y = self._panel_title(panel, self.left, y, self.right - self.left)
            for band in arrangement.bands(panel, self.arrangement):
                y = self._line(place, band, y, legends=first_line and self.arrangement.legends == "gutter") + _BAND_GAP
                first_line = False
            y += _PANEL_GAP - _BAND_GAP
        return y - _PANEL_GAP

    def _line(self, place: int, band: tuple[int, int], y: float, *, legends: bool) -> float:
        """All quantities over one band of tokens; returns its bottom."""
        panel = self.panels[place]
        for index, quantity in enumerate(self.quantities):
            last = index == len(self.quantities) - 1
            if self.page.is_sized:
                y = self._name_above(quantity, y)
            top = y + self.maps.above(index, place, band)
            self._map(index, place, self.left, top, band=band, row_labels=True, token_labels=last)
            bottom = top + self._height(quantity)
            end = self.left + arrangement.pitch_of(panel, self.arrangement) * (band[1] - band[0])
            if legends:
                bottom = max(bottom, self._legend_beside(index, end, top))
            elif len(self.quantities) > 1 and not self.page.is_sized:
                self._name_beside(quantity, end, top)
            y = bottom + _STRIP_GAP
        return y - _STRIP_GAP + self._depth(panel, band)

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

    def _depth(self, panel: MapPanel, band: tuple[int, int]) -> float:
        return label_depth(
            labels_of(self.spec, panel, self.arrangement),
            band,
            arrangement.pitch_of(panel, self.arrangement),
            self.measures,
        )

    def _legend_beside(self, index: int, end: float, y: float) -> float:
        left = end + arrangement.GAP / 2 if self.arrangement.legends == "gutter" else end + arrangement.GAP
        width = min(self.measures.legend_width, self.right - left)
        drawn = self._legend(self.quantities[index], left, y - 0.02, width)
        self.items += drawn.items
        return y + drawn.height

    def _name_beside(self, quantity: MapQuantity, end: float, y: float) -> None:
        for line in fonts.wrap(capital(quantity.quantity.label), 7.0, arrangement.NAMES - 0.12):
            self.items.append(Text(end + 0.1, y, line, 7.0, self.theme.muted))
            y += fonts.height(7.0)

    def _name_above(self, quantity: MapQuantity, y: float) -> float:
        """What a strip of several shows; returns where its map may begin."""
        size = self.measures.legend
        if len(self.quantities) > 1:
            name = fonts.fit(capital(quantity.quantity.label), size, self.right - self.left)
            self.items.append(Text(self.left, y, name, size, self.theme.muted))
            y += fonts.height(size) + 0.02
        return y

    def _panel_titles(self, y: float) -> float:
        bottom = y
        x = self.left
        for index, (panel, slot) in enumerate(zip(self.panels, self._slots(), strict=True)):
            room = slot if index + 1 < len(self.panels) else self.right - x
            bottom = max(bottom, self._panel_title(panel, x, y, room))
            x += slot + arrangement.GAP
        return bottom

    def _panel_title(self, panel: MapPanel, x: float, y: float, room: float) -> float:
        if not panel.title:
            return y
        title = fonts.fit(panel.title, self.measures.panel, room, bold=True)
        self.items.append(
            Text(x, y + 0.145 * self.measures.unit, title, self.measures.panel, self.theme.ink, va="bottom", bold=True)
        )
        used = fonts.width(title, self.measures.panel, bold=True) + 0.1
        if panel.detail and room - used > 0.5:
            detail = fonts.fit(panel.detail, self.measures.detail, room - used)
            self.items.append(
                Text(
                    x + used, y + 0.14 * self.measures.unit, detail, self.measures.detail, self.theme.muted, va="bottom"
                )
            )
        return y + 0.18 * self.measures.unit

    def _missing(self, y: float) -> float:
        """An empty panel that says what is not there, and how to get it."""
        labels, advice = self.content.missing, self.content.advice
        if not labels:
            return y
        width = self.right - self.left
        inner = width - 0.3
        head = fonts.wrap(f"Not in this input: {'; '.join(labels)}.", self.measures.subtitle, inner)
        lines = [(line, self.theme.ink) for line in head]
        lines += [(line, self.theme.muted) for line in fonts.wrap(advice, self.measures.subtitle, inner)]
        leading = fonts.height(self.measures.subtitle) + 0.03
        height = len(lines) * leading + 0.24
        top = y + _PANEL_GAP
        self.items.append(Box(self.left, top, width, height, fill=self.theme.missing, edge=self.theme.missing_line))
        for index, (line, colour) in enumerate(lines):
            self.items.append(
                Text(self.left + 0.15, top + 0.13 + index * leading, line, self.measures.subtitle, colour)
            )
        return top + height
