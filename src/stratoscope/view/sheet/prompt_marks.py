"""Prompts on the sheet: their names beside rows, a colour for each class, and a key of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice

from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import LABEL_PAD, Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.maps import Map
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.tokens import ShownPrompt
from stratoscope.words import counted

SWATCH = 0.075  # inches of the colour of a class beside a name
_BAR, _APART = 0.035, 0.018  # inches of the colour of a class beside rows, and between it and the rows
_WIDEST = 1.9  # inches of the longest name beside a row
_CLOSE = 0.89  # of the height of a name: names may stand so near to each other
_END = 0.01  # inches of the line where a prompt ends
_SEAM = 0.0025  # inches by which paper covers the edge of what it hides
_BETWEEN = 0.16  # between two classes of the key


def class_colours(prompts: Sequence[ShownPrompt], theme: Theme) -> Mapping[str, str]:
    """A colour for each class, in the order of the prompts; none where prompts have no class. Many share the last."""
    classes = dict.fromkeys(one.prompt_class for one in prompts if one.prompt_class)
    sides = list(theme.sides.values())
    return dict(zip(classes, [*sides, *[theme.muted] * len(classes)], strict=False))


def key(
    prompts: Sequence[ShownPrompt], x: float, y: float, width: float, theme: Theme, measures: Measures
) -> list[Item]:
    """The classes in their colours, in one line of text whose top left corner is (x, y)."""
    items: list[Item] = []
    counts, size, end = Counter(one.prompt_class for one in prompts), measures.detail, x + width
    high = fonts.height(size)
    colours = class_colours(prompts, theme)
    for place, (name, colour) in enumerate(colours.items()):
        text = f"{fonts.fit(name, size, width / 3)} ({counted(counts[name], 'prompt')})"
        wide = SWATCH + 0.05 + fonts.width(text, size)
        left = len(colours) - place - 1
        rest = _BETWEEN + fonts.width(f"… {left} more", size) if left else 0.0
        if x + wide + rest > end:
            items.append(Text(x, y, f"… {left + 1} more", size, theme.muted))
            break
        items.append(Box(x, y + (high - SWATCH) / 2, SWATCH, SWATCH, fill=colour))
        items.append(Text(x + SWATCH + 0.05, y, text, size, theme.ink))
        x += wide + _BETWEEN
    return items


class PromptRows:
    """Rows that are prompts, the first at the bottom."""

    def __init__(self, prompts: Sequence[ShownPrompt], row: float, theme: Theme, measures: Measures) -> None:
        self.prompts, self.row, self.theme, self.measures = prompts, row, theme, measures
        self.colours = class_colours(prompts[::-1], theme)

    def labels(self, x: float, y: float) -> tuple[tuple[int, Text], ...]:
        """Names at the left of rows whose top left corner is (x, y); of many every second, third, …, and the ends."""
        count, size = len(self.prompts), self.measures.tight_label
        least = _CLOSE * fonts.height(size)
        step = max(1, -int(-least // self.row) if self.row < least else 1)
        chosen = [place for place in range(count - 1, -1, -step) if place * self.row >= least or place == 0]
        left = x - LABEL_PAD - (_BAR + _APART if self.colours else 0.0)
        return tuple(
            (
                place,
                Text(
                    left,
                    y + (count - place - 0.5) * self.row,
                    fonts.fit(self.prompts[place].id, size, _WIDEST),
                    size,
                    self.theme.ink,
                    ha="right",
                    va="center",
                ),
            )
            for place in sorted({0, *chosen})
        )

    def marks(self, x: float, y: float, width: float) -> Iterator[Item]:
        """The colour of each class beside its rows, and a line of paper between two."""
        places = groupby(range(len(self.prompts)), key=lambda place: self.prompts[place].prompt_class)
        for name, group in places:
            rows = list(group)
            top = y + (len(self.prompts) - rows[-1] - 1) * self.row
            if colour := self.colours.get(name):
                yield Box(x - _APART - _BAR, top, _BAR, len(rows) * self.row, fill=colour)
            if rows[0]:
                bottom, line = top + len(rows) * self.row, min(0.02, self.row / 2)
                yield Box(x - _APART - _BAR, bottom - line / 2, width + _APART + _BAR, line, fill=self.theme.paper)

    def blanks(self, one: Map, x: float, y: float, pitch: float) -> Iterator[Item]:
        """Paper where a row has no token; runs that are alike in rows beside each other are one box.

        A line stands where they begin: the ends of the colours are like the paper of a theme.
        """
        runs = sorted((start, stop, row) for row, start, stop in one.absent.tolist())
        for (start, stop, _), group in groupby(
            enumerate(runs), key=lambda pair: (pair[1][0], pair[1][1], pair[1][2] - pair[0])
        ):
            rows = [run[2] for _, run in group]
            top = y + (len(self.prompts) - rows[-1] - 1) * self.row
            wide, high = (stop - start) * pitch, len(rows) * self.row
            yield Box(x + start * pitch, top - _SEAM, wide + _SEAM, high + 2 * _SEAM, fill=self.theme.paper)
            if start:
                yield Box(x + start * pitch, top, _END, high, fill=self.theme.muted)


def names_room(prompts: Sequence[ShownPrompt], measures: Measures) -> float:
    """Inches at the left of rows for the names of prompts and the colours of their classes."""
    widest = max((min(fonts.width(one.id, measures.tight_label), _WIDEST) for one in islice(prompts, 2_000)), default=0)
    return float(widest) + LABEL_PAD + _BAR + _APART
