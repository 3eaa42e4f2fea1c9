"""Below a map: positions in the prompt, the labels of tokens, and brackets that name the parts of a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.view.sheet import arrangement, fonts
from stratoscope.view.sheet.items import LABEL_PAD, Box, Item, Text
from stratoscope.view.spec.maps import MapPanel
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.tokens import ShownTokens

Band = tuple[int, int]
_FEW = 10  # columns that are all numbered
_STEPS = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_BETWEEN = 0.05  # inches between two numbers, at least
_BRACKETED = ("system", "user", "answer", "generated")
_LINE, _HOOK, _PAD = 0.009, 0.03, 0.035  # of a bracket: how thick it is, how far its ends go up, what is free around it
_LEAST_BRACKET, _INSET = 0.05, 0.02  # inches of the shortest bracket, and between a bracket and the end of its part
PREDICTS = "predicts"  # the name of the column from which the model answers
_PREDICTS_OVERHANG = 0.5  # as below, of that one: a column is narrow
_OVERHANG = 0.12  # inches that the name of a part may stand out at either side of its bracket, where no other is near


def lie_flat(labels: Sequence[str], pitch: float, size: float) -> bool:
    """Whether all labels of a size in points fit under their columns without being turned."""
    return all(fonts.width(label, size) <= pitch - 0.05 for label in labels)


class ColumnAxis:
    """What stands under the columns of one panel."""

    def __init__(self, tokens: ShownTokens, panel: MapPanel, arranged: arrangement.Arrangement, theme: Theme) -> None:
        self.panel, self.measures, self.theme = panel, arranged.measures, theme
        self.pitch, self.by = arrangement.pitch_of(panel, arranged), panel.tokens_per_column
        mine = slice(panel.start, panel.stop)
        labelled = arrangement.is_labelled(panel, arranged)
        self.labels = [fonts.drawn_label(text) for text in tokens.text[mine]] if labelled else []
        self.position, self.span = tokens.position[mine], tokens.span[mine]
        self.starts = np.zeros(panel.tokens, bool)  # where the next prompt begins
        self.starts[[column * self.by for column, _ in panel.starts]] = True

    def depth(self, band: Band) -> float:
        """Inches that it takes under a band."""
        return self._labels_end(band) + (self._brackets_height if self._runs(band) else 0.0)

    def draw(self, band: Band, x: float, y: float) -> tuple[tuple[tuple[int, Text], ...], list[Item]]:
        """The labels of the columns of a band, and all else; its cells end below at y and begin at x on the left."""
        brackets = self._brackets(band, x, y + self._labels_end(band))
        if not self.labels:
            return self._ticks(band, x, y), brackets
        return self._token_labels(band, x, y), [*self._numbers(band, x, y), *brackets]

    # --- labels of tokens -------------------------------------------------------------------------------------------

    @property
    def _labels_begin(self) -> float:
        """Inches from the cells to the labels of tokens: positions stand between them."""
        return LABEL_PAD + 0.85 * fonts.height(self.measures.number)

    def _labels_end(self, band: Band) -> float:
        if not self.labels:
            return LABEL_PAD + fonts.height(self.measures.row)
        labels, size = self.labels[band[0] : band[1]], self.measures.label_at(self.pitch)
        if lie_flat(labels, self.pitch, size):
            return self._labels_begin + fonts.height(size)
        return self._labels_begin + max(fonts.width(label, size) for label in labels)

    def _token_labels(self, band: Band, x: float, y: float) -> tuple[tuple[int, Text], ...]:
        labels, size = self.labels[band[0] : band[1]], self.measures.label_at(self.pitch)
        turned, dim, theme = not lie_flat(labels, self.pitch, size), set(self.panel.dim), self.theme
        system = names.SPANS.index("system")
        spans = self.span[band[0] : band[1]].tolist()
        return tuple(
            (
                column,
                Text(
                    x + (column - band[0] + 0.5) * self.pitch,
                    y + self._labels_begin,
                    label,
                    size,
                    theme.faint if column in dim else theme.muted if span == system else theme.ink,
                    ha="center",
                    rotated=turned,
                ),
            )
            for column, (label, span) in enumerate(zip(labels, spans, strict=True), start=band[0])
        )

    # --- positions --------------------------------------------------------------------------------------------------

    @cached_property
    def _begins(self) -> NDArray[np.bool_]:
        """Tokens that do not stand, in their prompt, behind the token before them; [token]."""
        there = np.flatnonzero(self.position >= 0)
        begins = self.starts & (self.position >= 0)
        begins[there] |= np.diff(self.position[there], prepend=-2) != 1
        return begins

    def _numbers(self, band: Band, x: float, y: float) -> list[Item]:
        """Small numbers under every fifth token, or every tenth, and where positions do not go on from the left."""
        size, theme = self.measures.number, self.theme
        position = self.position[band[0] : band[1]]
        widest = fonts.width("0" * len(str(int(position.max(initial=0)))), size)
        apart = math.ceil((widest + _BETWEEN) / self.pitch)
        few = self.panel.columns <= _FEW and apart == 1
        step = 1 if few else next((step for step in _STEPS if step >= apart), _STEPS[-1])
        begins = self._begins[band[0] : band[1]].copy()
        begins[np.flatnonzero(position >= 0)[:1]] = True
        chosen: list[int] = []
        for column in np.flatnonzero(begins).tolist():
            if not chosen or column - chosen[-1] >= apart:
                chosen.append(column)
        fixed = np.array(chosen)
        round_ones = np.flatnonzero((position >= 0) & (position % step == 0)).tolist()
        chosen += [one for one in round_ones if np.abs(fixed - one).min(initial=apart) >= apart]
        below = y + 0.6 * LABEL_PAD
        return [
            Text(x + (one + 0.5) * self.pitch, below, str(position[one]), size, theme.muted, ha="center")
            for one in sorted(chosen)
        ]

    def _ticks(self, band: Band, x: float, y: float) -> tuple[tuple[int, Text], ...]:
        """Round positions under columns without labels; the first and the last are always there."""
        by, pitch, size = self.by, self.pitch, self.measures.row
        start, stop = band[0] * by, min(band[1] * by, self.panel.tokens)
        position = self.position[start:stop]
        known = np.flatnonzero(position >= 0)
        if not known.size:
            return ()
        step = _nice(self.measures.tick_apart * by / pitch)
        end = x + pitch * (band[1] - band[0])
        wanted = [*known[:1], *known[-1:], *np.flatnonzero(self._begins[start:stop]),
                  *np.flatnonzero((position > 0) & (position % step == 0))]  # fmt: skip
        placed: list[tuple[int, Text]] = []
        taken: list[tuple[float, float]] = []
        for number in dict.fromkeys(int(one) for one in wanted):
            column = band[0] + number // by
            text = f"token {position[number]:,}" if not placed else f"{position[number]:,}"
            wide, middle = fonts.width(text, size), x + (column - band[0] + 0.5) * pitch
            beyond = middle + wide / 2 > end and wide <= end - x
            ha = "left" if middle - wide / 2 < x else "right" if beyond else "center"
            at = {"left": x, "right": end, "center": middle}[ha]
            left = at - wide * {"left": 0.0, "right": 1.0, "center": 0.5}[ha]
            if all(left > right + 0.12 or left + wide < other - 0.12 for other, right in taken):
                placed.append((column, Text(at, y + LABEL_PAD, text, size, self.theme.muted, ha=ha)))
                taken.append((left, left + wide))
        return tuple(sorted(placed, key=lambda one: one[0]))

    # --- brackets ---------------------------------------------------------------------------------------------------

    @property
    def _brackets_height(self) -> float:
        return 1.8 * _PAD + fonts.height(self.measures.badge)

    @cached_property
    def _parts(self) -> tuple[tuple[int, int, str], ...]:
        """First and last token and name of every part that has a bracket; none where a prompt has one part only."""
        begins = np.flatnonzero((np.diff(self.span) != 0) | self.starts[1:]) + 1
        bounds = [0, *begins.tolist(), len(self.span)]
        called = [names.SPANS[span] if span >= 0 else "" for span in self.span[bounds[:-1]].tolist()]
        if len({name for name in called if name != "special"}) < 2:
            bounds, called = [0], []
        generated = "generated" if "answer" in called else "answer"
        parts = [
            (start, stop - 1, generated if name == "generated" else name)
            for start, stop, name in zip(bounds[:-1], bounds[1:], called, strict=True)
            if name in _BRACKETED
        ]
        for column in self.panel.predicting:
            parts = _with_part(parts, column * self.by, (column + 1) * self.by - 1)
        return tuple(parts)

    def _runs(self, band: Band) -> list[tuple[float, float, str, bool, bool]]:
        """Of each bracket in a band its ends in inches, its name, and whether the part begins and ends there."""
        found = []
        for first, last, name in self._parts:
            start, stop = first // self.by, last // self.by + 1
            left, right = max(start, band[0]), min(stop, band[1])
            if (right - left) * self.pitch >= _LEAST_BRACKET or (name == PREDICTS and right > left):
                ends = ((left - band[0]) * self.pitch, (right - band[0]) * self.pitch)
                found.append((*ends, name, left == start, right == stop))
        return found

    def _brackets(self, band: Band, x: float, y: float) -> list[Item]:
        size, theme, items = self.measures.badge, self.theme, list[Item]()
        top, runs = y + _PAD, self._runs(band)
        insets = [min(_INSET, (right - left) / 4) for left, right, *_ in runs]
        lefts = [x + left + inset for (left, *_), inset in zip(runs, insets, strict=True)]
        rights = [x + right - inset for (_, right, *_), inset in zip(runs, insets, strict=True)]
        end = x + (band[1] - band[0]) * self.pitch
        free = [x - _OVERHANG, *((one + other) / 2 for one, other in zip(rights, lefts[1:], strict=False)), end]
        for index, (_, _, name, begins, ends) in enumerate(runs):
            left, right = lefts[index], rights[index]
            items.append(Box(left, top, right - left, _LINE, fill=theme.muted))
            items += [Box(at, top - _HOOK, _LINE, _HOOK, fill=theme.muted)
                      for at, there in ((left, begins), (right - _LINE, ends)) if there]  # fmt: skip
            beyond = _PREDICTS_OVERHANG if name == PREDICTS else _OVERHANG
            least, most = max(free[index], left - beyond), min(free[index + 1], right + beyond)
            wide = fonts.width(name, size)
            if wide + 0.02 <= most - least:
                at = min(max((left + right - wide) / 2, least), most - wide)
                colour = theme.muted if name == "system" else theme.ink
                items.append(Text(at, top + 0.8 * _PAD, name, size, colour))
        return items


def _with_part(parts: list[tuple[int, int, str]], first: int, last: int) -> list[tuple[int, int, str]]:
    """The parts with the column from which the model answers as one more; those that it lies in are cut around it."""
    cut = [
        (start, stop, name)
        for one, other, name in parts
        for start, stop in ((one, min(other, first - 1)), (max(one, last + 1), other))
        if start <= stop
    ]
    return sorted([*dict.fromkeys(cut), (first, last, PREDICTS)])


def _nice(step: float) -> int:
    """The smallest of 1, 2, 5 × 10ⁿ that is not below `step`."""
    size = 10 ** max(0, math.floor(math.log10(max(step, 1))))
    return int(next(k * size for k in (1, 2, 5, 10) if k * size >= step))
