"""Where the columns and rows of routes stand: tokens in reading order, gaps where tokens are left out, depths upwards."""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import LABEL_PAD, Item, Line, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.routes import RoutePanel
from stratoscope.view.spec.tokens import ShownTokens

_MOST, _MOST_OF_FEW = 0.34, 1.1  # inches of a column; of so few that their labels may lie flat
_FEW = 5
_GAP, _NARROW_GAP = 0.16, 0.035  # inches where tokens are left out: with their number, and too many for that


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of one panel.

    Attributes
    ----------
    x
        Inches from the left end of the panel to each column's middle.
    pitch
        Inches of a column.
    width
        Inches of all.
    gaps
        Middle of each gap, and how many tokens are left out there.
    """

    x: tuple[float, ...]
    pitch: float
    width: float
    gaps: tuple[tuple[float, int], ...]
    numbered: bool


def columns_in(panel: RoutePanel, room: float, unit: float) -> Columns:
    """The columns of a panel that has so many inches at most."""
    count, gaps = panel.columns, int((panel.left_out > 0).sum())
    most = (_MOST_OF_FEW if count <= _FEW else _MOST) * unit
    pitch = min(most, (room - gaps * _GAP * unit) / count)
    numbered = pitch >= 0.075 * unit
    gap = _GAP * unit
    if not numbered:
        gap = min(_NARROW_GAP * unit, room / (4 * max(gaps, 1)))
        pitch = min(most, (room - gaps * gap) / count)
    x, places, at = 0.0, list[float](), list[tuple[float, int]]()
    for column, absent in enumerate(panel.left_out.tolist()):
        if absent:
            at.append((x + gap / 2, absent))
            x += gap
        if column < count:
            places.append(x + pitch / 2)
            x += pitch
    return Columns(tuple(places), pitch, x, tuple(at), numbered)


class RouteAxis:
    """What stands under the columns of one panel: positions, texts of tokens, and how many are left out."""

    def __init__(
        self, tokens: ShownTokens, panel: RoutePanel, columns: Columns, theme: Theme, measures: Measures
    ) -> None:
        self.columns, self.theme, self.measures, self.panel = columns, theme, measures, panel
        mine = slice(panel.start, panel.stop)
        self.labels = [fonts.drawn_label(text) for text in tokens.text[mine]]
        self.position = tokens.position[mine]
        self.size = measures.label_at(columns.pitch)
        self.flat = all(fonts.width(label, self.size) <= columns.pitch - 0.05 for label in self.labels)
        self.shown = self._shown()

    @property
    def depth(self) -> float:
        """Inches that it takes."""
        longest = max((fonts.width(self.labels[one], self.size) for one in self.shown), default=0.0)
        return self._below + (fonts.height(self.size) if self.flat else longest)

    @property
    def _below(self) -> float:
        return LABEL_PAD + 0.85 * fonts.height(self.measures.number)

    def draw(self, x: float, y: float) -> list[Item]:
        """Everything below a panel that begins at x on the left and ends at y below."""
        items: list[Item] = [
            Text(
                x + self.columns.x[one], y + self._below, self.labels[one], self.size,
                self.theme.ink, ha="center", rotated=not self.flat, bold=one == self.panel.end,
            )
            for one in self.shown
        ]  # fmt: skip
        return [*items, *self._numbers(x, y), *self._gaps(x, y)]

    def _shown(self) -> list[int]:
        """Columns whose token is written: all that fit; the end and those through which most runs first."""
        if self.flat:
            return list(range(len(self.labels)))
        through = np.zeros(self.panel.columns)
        np.maximum.at(through, self.panel.node_column, np.nan_to_num(self.panel.node_flow))
        through[self.panel.end] = np.inf
        high, taken = fonts.height(self.size) * 0.9, list[float]()
        for column in np.argsort(-through, kind="stable").tolist():
            at = self.columns.x[column]
            if all(abs(at - other) >= high for other in taken):
                taken.append(at)
        return [place for place, at in enumerate(self.columns.x) if at in taken]

    def _numbers(self, x: float, y: float) -> list[Item]:
        """Positions: of the end, behind each gap, and every fifth, where they fit."""
        size, taken, items = self.measures.number, list[tuple[float, float]](), list[Item]()
        behind = [place for place, absent in enumerate(self.panel.left_out[:-1].tolist()) if absent or place == 0]
        every = [place for place, position in enumerate(self.position.tolist()) if position % 5 == 0]
        for column in dict.fromkeys((self.panel.end, *behind, *every)):
            text = f"{int(self.position[column]):,}"
            middle, half = self.columns.x[column], fonts.width(text, size) / 2
            if self.position[column] >= 0 and all(
                middle - half > b + 0.04 or middle + half < a - 0.04 for a, b in taken
            ):
                taken.append((middle - half, middle + half))
                items.append(Text(x + middle, y + 0.6 * LABEL_PAD, text, size, self.theme.muted, ha="center"))
        return items

    def _gaps(self, x: float, y: float) -> list[Item]:
        """How many tokens are left out, where there is room for it."""
        if not self.columns.numbered:
            return []
        size = self.measures.number
        return [
            Text(x + at, y + self._below, f"⋯{absent:,}", size, self.theme.faint, ha="center", rotated=True)
            for at, absent in self.columns.gaps
        ]


def gap_lines(columns: Columns, x: float, top: float, bottom: float, theme: Theme) -> list[Item]:
    """A dotted line through each gap; where there are very many, a short one at its foot."""
    top = top if columns.numbered else bottom - 0.07
    return [Line(((x + at, top), (x + at, bottom)), 0.5, theme.line, dashed=True) for at, _ in columns.gaps]
