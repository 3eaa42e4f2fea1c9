"""The routes of one panel on the sheet: streams, edges, MLPs, the end, names of heads, and what is in view at each depth."""  # noqa: E501

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import LABEL_PAD, Box, Dot, Item, Line, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.sheet.route_columns import Columns, gap_lines
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.routes import CARRY_OVER, LEAST_MLP, MLP, RoutePanel, Routes
from stratoscope.words import percent

WIDEST, _THINNEST = 5.0, 0.45  # points of an edge
_STREAM = 1.6  # points of a token's own stream that is all of the next one
BOW = 0.3  # inches of the widest bow of a head that brings a token's own value
BESIDE = 0.45  # inches at the right of a panel for bows and names of its last column
_MOST_NAMES = 14  # heads that are named in a panel
_OPACITIES = 8  # steps, so that a stream is a few lines and not one for each layer
_BARS_APART = 5  # depths between bars that say their share
_LEAST_DASHED = 0.11  # inches of a row that has a dashed line of its own for what is not in view
_ROW_STEP = 0.125  # inches between row labels, at least
_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128)


def edge_width(weight: float, content: Routes) -> float:
    """Points of an edge of a weight."""
    return max(_THINNEST, WIDEST * min(1.0, abs(weight) / content.widest))


def drawn_weight(panel: RoutePanel, place: int) -> tuple[float, bool]:
    """The weight that an edge is drawn by, and whether it is that of one of two prompts, as the other's is unknown."""
    weight = float(panel.weight[place])
    if panel.sides is None or not math.isnan(weight):
        return weight, False
    a, b = float(panel.sides.a[place]), float(panel.sides.b[place])
    return (a if math.isnan(b) else b), True


def seen(flow: float) -> float:
    """How opaque that is through which this share of the whole runs; where no share is known, as what has one."""
    if math.isnan(flow):
        return 0.85
    return 0.25 + 0.75 * min(1.0, math.sqrt(max(flow, 0.0) / 0.1))


@dataclass(frozen=True, eq=False)
class RouteDrawing:
    """Draws one panel, whose lowest depth lies at `bottom` and whose columns begin at `left`."""

    content: Routes
    panel: RoutePanel
    columns: Columns
    left: float
    bottom: float
    row: float
    theme: Theme
    measures: Measures

    @property
    def top(self) -> float:
        """Where the highest depth lies."""
        return self.y(self.content.depths - 1)

    def x(self, column: int) -> float:
        """Middle of a column."""
        return self.left + self.columns.x[column]

    def y(self, depth: float) -> float:
        """Where a depth lies."""
        return self.bottom - depth * self.row

    def draw(self) -> list[Item]:
        """Everything inside the panel, and the labels of its rows."""
        curves = self._edges()
        return [
            *self._unmatched(),
            *self._rows(),
            *gap_lines(self.columns, self.left, self.top - 0.05, self.bottom + 0.05, self.theme),
            *self._streams(),
            *(line for line, _ in curves),
            *self._mlps(),
            *self._nodes(),
            *self._names(curves),
        ]

    def _rows(self) -> list[Item]:
        """A hairline and the name of every depth that has room for it; the first and the last always have."""
        count, apart = self.content.depths, _ROW_STEP * self.measures.unit
        step = next((step for step in _STEPS if step * self.row >= apart), count)
        chosen = [one for one in range(0, count, step) if one == 0 or (count - 1 - one) * self.row >= apart]
        items: list[Item] = []
        for depth in sorted({*chosen, count - 1}):
            y, end = self.y(depth), self.left + self.columns.width
            items.append(Line(((self.left, y), (end, y)), 0.4, self.theme.line, opacity=0.5))
            items.append(
                Text(self.left - LABEL_PAD, y, f"D{self.content.weight.rows[depth]}", self.measures.row, self.theme.ink,
                     ha="right", va="center")
            )  # fmt: skip
        return items

    def _unmatched(self) -> list[Item]:
        """Hatching where the other prompt has no equal token."""
        half, top = self.columns.pitch / 2, self.top - 0.05
        high = self.bottom + 0.05 - top
        edge = self.theme.missing_line
        return [
            Box(self.x(column) - half, top, 2 * half, high, fill=self.theme.missing, edge=edge, hatched=True)
            for column in np.flatnonzero(self.panel.unmatched).tolist()
        ]

    def _streams(self) -> list[Item]:
        """Tokens' own streams: as wide as their weight, fainter where less runs through them."""
        panel, items = self.panel, list[Item]()
        runs: dict[int, list[tuple[int, float, float]]] = {}
        for place in np.flatnonzero(panel.edge_kind == CARRY_OVER).tolist():
            weight, flow = float(panel.weight[place]), float(panel.flow[place])
            known = not math.isnan(weight) and panel.sides is None
            width = round(_STREAM * min(1.5, abs(weight)) * 4) / 4 if known else 0.75
            opacity = round(seen(flow) * _OPACITIES) / _OPACITIES if known else 0.4
            runs.setdefault(int(panel.to_column[place]), []).append((int(panel.to_depth[place]), width, opacity))
        for column, parts in runs.items():
            x, begin = self.x(column), 0
            parts.sort()
            for end in range(1, len(parts) + 1):
                same = (
                    end < len(parts) and parts[end][1:] == parts[begin][1:] and parts[end][0] == parts[end - 1][0] + 1
                )
                if not same:
                    low, high = parts[begin][0] - 1, parts[end - 1][0]
                    ends = ((x, self.y(low)), (x, self.y(high)))
                    items.append(Line(ends, max(parts[begin][1], 0.5), self.theme.faint, parts[begin][2]))
                    begin = end
        return items

    def _edges(self) -> list[tuple[Line, int]]:
        """Edges of heads, those through which most runs on top; those between the same nodes lie beside each other."""
        panel, found = self.panel, list[tuple[Line, int]]()
        beside: dict[tuple[int, int, int], int] = {}
        places = np.flatnonzero(panel.of_heads)
        for place in places[np.argsort(-panel.flow[places], kind="stable")].tolist():
            start, end, low = (int(of[place]) for of in (panel.from_column, panel.to_column, panel.from_depth))
            if start < 0:
                continue
            nth = beside[start, end, low] = beside.get((start, end, low), -1) + 1
            weight, only = drawn_weight(panel, place)
            colour = self.theme.ink if only else self.theme.side_a if weight >= 0 else self.theme.side_b
            points = self._curve(start, end, low, nth)
            width, opacity = edge_width(weight, self.content), seen(float(panel.flow[place]))
            found.append((Line(points, width, colour, opacity, dashed=only), place))
        return found[::-1]

    def _curve(self, start: int, end: int, low: int, nth: int) -> tuple[tuple[float, float], ...]:
        x0, x1, y0, y1 = self.x(start), self.x(end), self.y(low), self.y(low + 1)
        if start == end:  # a head that brings a token's own value: a bow at its stream
            bow = BOW * self.measures.unit * (1 - 0.75 / (1 + 0.3 * nth))
            return (x0, y0), (x0 + bow, y0 - 0.2 * self.row), (x0 + bow, y1 + 0.2 * self.row), (x0, y1)
        middle = y0 - self.row * (0.5 + 0.16 * ((nth + 1) // 2) * (-1 if nth % 2 else 1))
        return (x0, y0), (x0 + 0.15 * (x1 - x0), middle), (x1 - 0.15 * (x1 - x0), middle), (x1, y1)

    def _mlps(self) -> list[Item]:
        """A square on the stream, as large as the MLP's weight, where much runs through it."""
        panel, items = self.panel, list[Item]()
        for place in np.flatnonzero(panel.edge_kind == MLP).tolist():
            weight, flow = drawn_weight(panel, place)[0], float(panel.flow[place])
            if flow < LEAST_MLP:
                continue
            size = min(0.1, 0.6 * self.row, 0.03 + 0.1 * math.sqrt(min(abs(weight), 1.0)))
            colour = self.theme.side_a if weight >= 0 else self.theme.side_b
            x, y = self.x(int(panel.to_column[place])), self.y(int(panel.to_depth[place]) - 0.42)
            items.append(Dot(x, y, size, colour, edge=self.theme.paper, square=True, opacity=seen(flow)))
        return items

    def _nodes(self) -> list[Item]:
        """A dot wherever a shown edge begins or ends, and the end of all ways."""
        panel, size = self.panel, min(0.05, 0.4 * self.row)
        heads = panel.of_heads & (panel.from_column >= 0)
        ends = zip(panel.to_column[heads].tolist(), panel.to_depth[heads].tolist(), strict=True)
        starts = zip(panel.from_column[heads].tolist(), panel.from_depth[heads].tolist(), strict=True)
        items: list[Item] = [
            Dot(self.x(column), self.y(depth), size, self.theme.muted) for column, depth in sorted({*ends, *starts})
        ]
        last = self.content.depths - 1
        return [*items, Dot(self.x(panel.end), self.y(last), 0.11, self.theme.accent, edge=self.theme.paper)]

    # --- names of heads -----------------------------------------------------------------------------------------------

    def _names(self, curves: list[tuple[Line, int]]) -> list[Item]:
        """`L5 h3` on the edges through which most runs, wherever one finds a place."""
        size, items, taken = self.measures.number + 0.6, list[Item](), list[tuple[float, float, float, float]]()
        most = _MOST_NAMES if self.measures.width is None else int(1.6 * self.measures.width)
        nodes = [_around(item) for item in self._nodes() if isinstance(item, Dot)]
        named, right = set[tuple[str, int]](), self.left + self.columns.width + BESIDE * self.measures.unit
        for line, place in reversed(curves):
            if len(taken) >= most:
                break
            text = f"L{int(self.panel.from_depth[place])} h{int(self.panel.head[place])}"
            end = int(self.panel.to_column[place])
            if (text, end) in named:
                continue
            own = int(self.panel.from_column[place]) == end
            wide, high = fonts.width(text, size) + 0.03, fonts.height(size) * 0.9
            for share in (0.5,) if own else (0.5, 0.35, 0.65, 0.2, 0.8):
                x, y = _at(line.points, share)
                x += wide / 2 if own else 0.0
                x = min(max(x, self.left + wide / 2), right - wide / 2)
                box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
                if not any(_meet(box, other) for other in (*taken, *nodes)) and self.top - 0.02 <= box[1]:
                    taken.append(box)
                    named.add((text, end))
                    items.append(Box(box[0], box[1], wide, high, fill=self.theme.paper))
                    items.append(Text(x, y, text, size, line.colour, ha="center", va="center", bold=True))
                    break
        return items

    # --- what is in view ----------------------------------------------------------------------------------------------

    def view_strip(self, x: float, width: float) -> list[Item]:
        """Beside a panel, at each depth how much of the whole is in view; what is not is dashed."""
        panel, theme, size = self.panel, self.theme, self.measures.number
        if panel.rest is None:
            return []
        most, beyond = float(panel.there.max()) or 1.0, min(0.5 * self.row, 0.07) + 0.03
        items: list[Item] = []
        outline = [(x + width * float(share) / most, self.y(depth)) for depth, share in enumerate(panel.there.tolist())]
        inside = [
            (x + width * float(share) / most, self.y(depth)) for depth, share in enumerate(panel.in_view.tolist())
        ]
        for depth, (right, y) in enumerate(inside):
            high = min(0.7 * self.row, 0.13)
            items.append(Box(x, y - high / 2, max(right - x, 0.005), high, fill=theme.faint))
            if outline[depth][0] - right > 0.01 and self.row >= _LEAST_DASHED:
                items.append(Line(((right, y), (outline[depth][0], y)), 0.5, theme.missing_line, dashed=True))
        if self.row < _LEAST_DASHED:
            ends = pairwise(outline)
            items += [Line((start, end), 0.6, theme.missing_line, dashed=True) for start, end in ends]
        items += self._shares_in_view(x, width, most)
        head = "100 % in view" if most == panel.in_view[-1] == 1 else "in view"
        items.append(Text(x, self.top - beyond, head, size, theme.muted, va="bottom"))
        rest = f"rest ({percent(panel.rest)})"
        items.append(Text(x, self.bottom + beyond, rest, size, theme.ink))
        return items

    def _shares_in_view(self, x: float, width: float, most: float) -> list[Item]:
        """The number at every fifth bar from the top: behind it, or inside where it is long."""
        size, theme, items = self.measures.number, self.theme, list[Item]()
        high, last = fonts.height(size), self.content.depths - 1
        for depth in range(last - _BARS_APART, 0, -_BARS_APART):
            share = float(self.panel.in_view[depth])
            text, end = percent(share), x + width * share / most
            wide, y = fonts.width(text, size) + 0.04, self.y(depth)
            if end + wide <= x + width:
                items.append(Box(end + 0.01, y - high / 2, wide, high, fill=theme.paper))
                items.append(Text(end + 0.03, y, text, size, theme.muted, va="center"))
            elif min(0.7 * self.row, 0.13) >= 0.8 * high:
                items.append(Text(end - 0.03, y, text, size, theme.paper, ha="right", va="center"))
        return items


def _at(points: tuple[tuple[float, float], ...], t: float) -> tuple[float, float]:
    """The point of a curve at a share of its way."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    return (sum(w * x for w, (x, _) in zip(weights, points, strict=True)),
            sum(w * y for w, (_, y) in zip(weights, points, strict=True)))  # fmt: skip


def _around(dot: Dot) -> tuple[float, float, float, float]:
    """The box of a dot."""
    half = dot.size / 2
    return dot.x - half, dot.y - half, dot.x + half, dot.y + half


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
