"""What can be asked of a sheet without drawing it."""

from __future__ import annotations

import numpy as np

from stratoscope.view.sheet.footer import explained, scaled
from stratoscope.view.sheet.items import CellMap, Sheet, Text
from stratoscope.view.spec.viewspec import ViewSpec

TOLERANCE = 0.012  # inches: glyphs are never as tall as their line


def outside(sheet: Sheet) -> list[str]:
    """Texts and maps that are cut by the edge of the page."""
    boxes = [(text.text, text.extent()) for text in sheet.texts()]
    boxes += [(f"map {one.index}", (one.x, one.y, one.x + one.width, one.y + one.height)) for one in sheet.maps()]
    return [
        name
        for name, (left, top, right, bottom) in boxes
        if left < 0 or top < 0 or right > sheet.width + 1e-6 or bottom > sheet.height + 1e-6
    ]


def overlapping(sheet: Sheet) -> list[tuple[str, str]]:
    """Pairs of texts, or of a text and a map, that lie on each other."""
    texts = sheet.texts()
    boxes = [text.extent() for text in texts] + [(m.x, m.y, m.x + m.width, m.y + m.height) for m in sheet.maps()]
    called = [text.text for text in texts] + [f"map {one.index}" for one in sheet.maps()]
    left, top, right, bottom = np.array(boxes).T
    across = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    down = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    both = (across > TOLERANCE) & (down > TOLERANCE) & np.triu(np.ones(across.shape, bool), 1)
    return [(called[one], called[other]) for one, other in np.argwhere(both)]


def words(sheet: Sheet) -> str:
    """Everything that is written, as one text."""
    return " ".join(text.text for text in sheet.texts())


def said(spec: ViewSpec) -> str:
    """What a footer explains, without its warnings."""
    return f"{scaled(spec)} {explained(spec)}"


def row_labels(one: CellMap) -> dict[int, str]:
    return {row: label.text for row, label in one.rows}


def column_labels(one: CellMap) -> dict[int, Text]:
    return dict(one.columns)
