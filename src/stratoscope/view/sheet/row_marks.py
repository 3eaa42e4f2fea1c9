"""Marks of rows that are another scale altogether: a bar at the right end of the row, and how far it lies beyond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import Maps
from stratoscope.view.spec.palette import Theme

_APART, _BAR = 0.012, 0.035  # inches between a map and the bar, and across it
_PAD = 0.03  # around the words
_FARTHEST = 1.6  # lines that words may stand from their row; those of more crowded rows are left out


def with_row_marks(measures: Measures, content: Maps, look: Look) -> Measures:
    """The measures of a page on which every map has room for the marks of its rows."""
    words = [text for one in content.maps for _, text in one.marks[look.scale][look.first].row_badges]
    if not words:
        return measures
    widest = max(fonts.width(text, measures.badge, bold=True) if text else 0.0 for text in words)
    beside = _APART + _BAR + (widest + 2 * _PAD if widest else 0.0)
    return replace(measures, beside=beside, room=measures.room - beside, gap=measures.gap + beside)


def row_marks(
    badges: Sequence[tuple[int, str]], rows: int, x: float, y: float, row: float, theme: Theme, measures: Measures
) -> list[Item]:
    """The marks of a map whose cells, in rows of a height, have their upper right corner at (x, y)."""
    middles = {place: y + (rows - place - 0.5) * row for place, _ in sorted(badges, reverse=True)}
    inset = min(0.01, row / 8)
    items: list[Item] = [
        Box(x + _APART, middle - row / 2 + inset, _BAR, row - 2 * inset, fill=theme.accent)
        for middle in middles.values()
    ]
    words = {place: text for place, text in badges if text}
    line, left = fonts.height(measures.badge), x + _APART + _BAR + _PAD
    places = [place for place in middles if place in words]
    for place, at in zip(places, _apart([middles[place] for place in places], line, y, y + rows * row), strict=True):
        if abs(at - middles[place]) <= _FARTHEST * line:
            items.append(Text(left, at, words[place], measures.badge, theme.accent, va="center", bold=True))
    return items


def _apart(middles: Sequence[float], line: float, top: float, bottom: float) -> list[float]:
    """Places of lines from the top down, each near its middle, none on another, none beyond the bottom of a map."""
    placed: list[float] = []
    for middle in middles:
        placed.append(max([middle, *(one + line for one in placed[-1:])]))
    limit = max(bottom, top + line) - line / 2
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], max(limit, middles[index]) if index + 1 == len(placed) else limit)
        limit = placed[index] - line
    return placed
