"""A matplotlib figure as notebooks show it, with the texts and boxes of a sheet: what maps and charts share."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stratoscope.view.matplotlib.save import picture_bytes
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import DPI, Box, Sheet, Text


class Picture(Figure):
    """A figure that a notebook shows by itself; its bitmap has so many dots to an inch."""

    dots: int = DPI

    def _repr_png_(self) -> bytes:
        return picture_bytes(self, ".png", "{}")


def draw_text(figure: Picture, sheet: Sheet, item: Text) -> None:
    """Put a text at its place on the sheet."""
    figure.text(
        item.x / sheet.width, 1 - item.y / sheet.height, fonts.drawn(item.text), ha=item.ha, va=item.va, **font(item)
    )


def font(item: Text) -> dict[str, Any]:
    """How matplotlib draws a text."""
    return {
        "size": item.size,
        "color": item.colour,
        "weight": "bold" if item.bold else "normal",
        "rotation": 90 if item.rotated else 0,
        "family": fonts.families(),
        "parse_math": False,
    }


def draw_boxes(figure: Picture, sheet: Sheet) -> None:
    """Draw every box of the sheet."""
    for item in sheet.items:
        if isinstance(item, Box):
            left, bottom, width, height = place(sheet, item.x, item.y, item.width, item.height)
            figure.add_artist(
                Rectangle(
                    (left, bottom),
                    width,
                    height,
                    facecolor=item.fill or "none",
                    edgecolor=item.edge or "none",
                    linewidth=0 if item.hatched or not item.edge else 0.6,
                    hatch="//////" if item.hatched else None,
                    antialiased=bool(item.edge),
                    transform=figure.transFigure,
                    zorder=1,
                )
            )


def place(sheet: Sheet, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height as fractions of the figure."""
    return x / sheet.width, 1 - (y + height) / sheet.height, width / sheet.width, height / sheet.height
