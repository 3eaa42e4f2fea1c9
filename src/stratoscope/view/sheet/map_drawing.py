"""One map on the sheet: its cells, labels, first-token marks, hatching, rings around spikes, separators of prompts."""

from __future__ import annotations

import math

import numpy as np

from stratoscope import names
from stratoscope.view.sheet import arrangement, fonts
from stratoscope.view.sheet.column_axis import ColumnAxis
from stratoscope.view.sheet.items import LABEL_PAD, Box, Cell, CellMap, Item, Ring, Text
from stratoscope.view.sheet.prompt_marks import SWATCH, PromptRows, class_colours
from stratoscope.view.sheet.row_marks import row_marks
from stratoscope.view.spec import palette
from stratoscope.view.spec.maps import PROMPT_ROWS, DrawnQuantity, Map, MapMarks, MapPanel, Maps
from stratoscope.view.spec.viewspec import ViewSpec

_ROW_STEP = 0.125  # inches between row labels, at least
_LEAST_FRAME = 0.04  # inches of a column that is framed: a narrower one would be nothing but its frame
_BAR = 0.035  # the mark of a first token
_BADGES, _BARS_ONLY = 0.17, 0.05  # inches kept free above a map
_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128)


class MapDrawing:
    """Draws the maps of one spec."""

    def __init__(self, spec: ViewSpec, content: Maps, arranged: arrangement.Arrangement) -> None:
        self.spec, self.content, self.arrangement, self.measures = spec, content, arranged, arranged.measures
        self.theme = spec.colours.themes[spec.look.theme]
        self.index = {(one.quantity, one.panel): place for place, one in enumerate(content.maps)}
        self.prompts = PromptRows(spec.tokens.prompts, arranged.row, self.theme, self.measures)
        self.colours = class_colours(spec.tokens.prompts, self.theme)
        self.axes = [ColumnAxis(spec.tokens, panel, arranged, self.theme) for panel in content.panels]

    def marks(self, one: Map) -> MapMarks:
        """The marks of a map as it is looked at."""
        return one.marks[self.spec.look.scale][self.spec.look.first]

    def above(self, quantity: int, place: int, band: tuple[int, int]) -> float:
        """Inches that marks need above a band."""
        panel, one = self.content.panels[place], self.content.maps[self.index[quantity, place]]
        if any(band[0] <= column < band[1] for column, _ in (*self.marks(one).badges, *panel.starts)):
            return _BADGES * self.measures.unit
        return _BARS_ONLY if any(band[0] <= column < band[1] for column in panel.first) else 0.0

    def below(self, place: int, band: tuple[int, int]) -> float:
        """Inches that labels, positions and brackets need below a band."""
        return self.axes[place].depth(band)

    def draw(
        self,
        quantity: int,
        place: int,
        x: float,
        y: float,
        band: tuple[int, int],
        *,
        row_labels: bool,
        token_labels: bool,
    ) -> list[Item]:
        """The items of one band of one map with the top left corner of its cells at (x, y)."""
        index = self.index[quantity, place]
        panel, described = self.content.panels[place], self.content.quantities[quantity].quantity
        one = self.content.maps[index]
        marks = self.marks(one)
        pitch = arrangement.pitch_of(panel, self.arrangement)
        width, height = pitch * (band[1] - band[0]), self.arrangement.row * len(described.rows)
        columns, axis = self.axes[place].draw(band, x, y + height) if token_labels else ((), [])
        whole = CellMap(
            x,
            y,
            width,
            height,
            index,
            *band,
            columns=columns,
            rows=self._row_labels(described, x, y) if row_labels else (),
            cells=self._numbers(one, band) if self.arrangement.numbers else (),
            cell_size=min(self.measures.badge, 30 * pitch * 0.62),
            lines=pitch >= 0.2 and self.arrangement.row >= 0.2,
        )
        return [
            whole,
            *axis,
            *(self.prompts.blanks(one, x, y, pitch) if described.row_kind == PROMPT_ROWS else ()),
            *(self.prompts.marks(x, y, width) if described.row_kind == PROMPT_ROWS else ()),
            *self._gaps(described, x, y, width),
            *self._separators(panel, band, x, y, pitch, height),
            *self._predicting(panel, band, x, y, pitch, height),
            *self._hatching(one, band, x, y, pitch, height),
            *self._rings(marks, band, x, y, pitch, len(described.rows)),
            *self._first_marks(panel, marks, band, x, y, pitch),
            *row_marks(
                marks.row_badges, len(described.rows), x + width, y, self.arrangement.row, self.theme, self.measures
            ),
        ]

    # --- labels -----------------------------------------------------------------------------------------------------

    def _row_labels(self, quantity: DrawnQuantity, x: float, y: float) -> tuple[tuple[int, Text], ...]:
        """`L12`, sampled; the first and the last row always have theirs."""
        if quantity.row_kind == PROMPT_ROWS:
            return self.prompts.labels(x, y)
        if quantity.row_kind == names.TARGET:  # the only row, which the title names
            return ()
        numbers, row = quantity.rows, self.arrangement.row
        letter = names.ROW_LETTERS[quantity.row_kind]
        count, apart = len(numbers), _ROW_STEP * self.measures.unit
        step = next((step for step in _STEPS if step * row >= apart), count)
        chosen = [place for place in range(0, count, step) if place == 0 or (count - 1 - place) * row >= apart]
        if count > 1 and (count - 1) * row >= apart * 0.8:
            chosen.append(count - 1)
        return tuple(
            (
                place,
                Text(
                    x - LABEL_PAD,
                    y + (count - place - 0.5) * row,
                    f"{letter}{numbers[place]}",
                    self.measures.row,
                    self.theme.ink,
                    ha="right",
                    va="center",
                ),
            )
            for place in sorted(set(chosen))
        )

    def _numbers(self, one: Map, band: tuple[int, int]) -> tuple[Cell, ...]:
        values = one.cells[self.spec.look.first][band[0] : band[1]]
        quantity = self.content.quantities[one.quantity]
        limits = quantity.colouring(self.spec.look).limits
        colours = self.spec.colours.of(signed=quantity.quantity.signed)
        units = limits.unit(values).clip(0, 1)
        return tuple(
            Cell(
                column + band[0],
                row,
                quantity.figures.written(float(values[column, row])),
                palette.ink_on(palette.rgb_of(colours[round(float(units[column, row]) * (len(colours) - 1))])),
            )
            for column, row in np.argwhere(~np.isnan(values)).tolist()
        )

    # --- marks ------------------------------------------------------------------------------------------------------

    def _first_marks(
        self, panel: MapPanel, marks: MapMarks, band: tuple[int, int], x: float, y: float, pitch: float
    ) -> list[Item]:
        """A bar over each first token, its badge if it lies beyond the limits, and the names of the prompts."""
        items: list[Item] = []
        badges, size = dict(marks.badges), self.measures.badge
        names_of = {column: fonts.fit(name, size, 2.0) for column, name in panel.starts}
        marked = [column for column in panel.first if band[0] <= column < band[1]]
        for column in marked if len(marked) * _BAR <= (band[1] - band[0]) * pitch else ():  # else one solid line
            left = x + (column - band[0]) * pitch
            items.append(Box(left, y - _BAR - 0.012, max(pitch - 0.01, 0.012), _BAR, fill=self.theme.accent))
        places = sorted({*badges, *names_of} & set(range(*band)))
        ends = [*places[1:], band[1]][: len(places)]
        for column, end in zip(places, ends, strict=True):
            left, room = x + (column - band[0]) * pitch, (end - column) * pitch - 0.06
            if column == places[-1] and not names_of:
                room = math.inf
            if (badge := badges.get(column, "")) and (wide := fonts.width(badge, size, bold=True)) <= room:
                items.append(Text(left, y - _BAR - 0.02, badge, size, self.theme.accent, va="bottom", bold=True))
                left, room = left + wide + 0.05, room - wide - 0.05
            if column in names_of:
                items += self._prompt_name(panel, column, names_of[column], left, y - _BAR - 0.02, room)
        return items

    def _prompt_name(self, panel: MapPanel, column: int, name: str, x: float, bottom: float, room: float) -> list[Item]:
        """What the prompt that begins in a column is called, with the colour of its class and, if it fits, its name."""
        tokens, size = self.spec.tokens, self.measures.badge
        prompt = int(tokens.prompt[panel.start + column * panel.tokens_per_column])
        named = tokens.prompts[prompt].prompt_class if prompt >= 0 else ""
        swatch = SWATCH + 0.03 if named in self.colours else 0.0
        texts = [fonts.drawn(f"{name} · {named}"), name] if named else [name]
        text = next((text for text in texts if fonts.width(text, size) + swatch <= room), "")
        if not text:
            return []
        label = Text(x + swatch, bottom, text, size, self.theme.muted, va="bottom")
        if not swatch:
            return [label]
        top = bottom - (fonts.height(size) + SWATCH) / 2
        return [Box(x, top, SWATCH, SWATCH, fill=self.colours[named]), label]

    def _rings(self, marks: MapMarks, band: tuple[int, int], x: float, y: float, pitch: float, rows: int) -> list[Item]:
        return [
            Ring(
                x + (column - band[0] + 0.5) * pitch,
                y + (rows - row - 0.5) * self.arrangement.row,
                self.theme.ring,
                self.theme.ring_halo,
            )
            for column, row in marks.rings.tolist()
            if band[0] <= column < band[1]
        ]

    def _hatching(self, one: Map, band: tuple[int, int], x: float, y: float, pitch: float, height: float) -> list[Item]:
        """Hatching over values that rest on too little."""
        return [
            Box(x + (column - band[0]) * pitch, y, pitch, height, edge=self.theme.paper, hatched=True)
            for column in one.rarely_seen
            if band[0] <= column < band[1]
        ]

    def _predicting(
        self, panel: MapPanel, band: tuple[int, int], x: float, y: float, pitch: float, height: float
    ) -> list[Item]:
        """A frame around the column from which the model answers; the bracket below it says what it is."""
        return [
            Box(x + (column - band[0]) * pitch, y, pitch, height, edge=self.theme.ink)
            for column in panel.predicting
            if band[0] <= column < band[1] and pitch >= _LEAST_FRAME
        ]

    def _separators(
        self, panel: MapPanel, band: tuple[int, int], x: float, y: float, pitch: float, height: float
    ) -> list[Item]:
        """A line of paper where the next prompt, or an answer, begins; pooled prompts have only the bars above."""
        if not arrangement.is_labelled(panel, self.arrangement):
            return []
        return [
            Box(x + (column - band[0]) * pitch - 0.012, y, 0.024, height, fill=self.theme.paper)
            for column in (*(column for column, _ in panel.starts), *panel.answers)
            if band[0] < column < band[1]
        ]

    def _gaps(self, quantity: DrawnQuantity, x: float, y: float, width: float) -> list[Item]:
        """A line of paper between rows whose layers are not neighbours."""
        rows = quantity.rows
        return [
            Box(x, y + (len(rows) - place) * self.arrangement.row - 0.01, width, 0.02, fill=self.theme.paper)
            for place in range(1, len(rows))
            if rows[place] != rows[place - 1] + 1
        ]
