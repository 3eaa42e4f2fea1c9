"""What is on a picture, fact by fact: where each map, text, box and ring stands. Any renderer draws it, none decides.

Lengths are inches from the top left corner, sizes of text are points. This list is itself the renderer of the tests: it
shows without a pixel whether anything overlaps, is cut or was forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from stratoscope.view.sheet import fonts

DPI = 200  # of a bitmap of a slide: one inch in its sheet is so many pixels
LABEL_PAD = 0.05  # inches between a map and its labels


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes
    ----------
    x, y
        The point it is anchored at: `ha` left, center or right of its box, `va` top, center or bottom.
    rotated
        Whether it runs upwards.
    """

    x: float
    y: float
    text: str
    size: float
    colour: str
    ha: str = "left"
    va: str = "top"
    bold: bool = False
    rotated: bool = False

    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of its box."""
        long, high = fonts.width(self.text, self.size, bold=self.bold), fonts.height(self.size)
        width, height = (high, long) if self.rotated else (long, high)
        left = self.x - width * {"left": 0, "center": 0.5, "right": 1}[self.ha]
        top = self.y - height * {"top": 0, "center": 0.5, "bottom": 1}[self.va]
        return left, top, left + width, top + height


@dataclass(frozen=True)
class Box:
    """A rectangle: filled, outlined, or hatched (lines in the colour of its edge)."""

    x: float
    y: float
    width: float
    height: float
    fill: str = ""
    edge: str = ""
    hatched: bool = False


@dataclass(frozen=True)
class Ring:
    """A small circle around a cell that stands out."""

    x: float
    y: float
    colour: str
    halo: str


@dataclass(frozen=True)
class Cell:
    """A number or a word written into a cell of a map, or between two."""

    column: int
    row: float
    text: str
    colour: str


@dataclass(frozen=True)
class CellMap:
    """A rectangle of cells with its labels.

    Attributes
    ----------
    index
        Which of the spec's maps.
    start, stop
        The columns shown.
    columns, rows
        (column, label) and (row, label); the labels' texts, positions and colours are in `texts`.
    cells, cell_size
        Numbers or words in the cells, and their size in points.
    lines
        Whether cells are set apart by hairlines of paper.
    """

    x: float
    y: float
    width: float
    height: float
    index: int
    start: int
    stop: int
    columns: tuple[tuple[int, Text], ...] = ()
    rows: tuple[tuple[int, Text], ...] = ()
    cells: tuple[Cell, ...] = ()
    cell_size: float = 0.0
    lines: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points: two are a straight one, four a curve from the first to the last, bent by the others.

    Attributes
    ----------
    points
        (x, y) of each.
    width
        Points.
    opacity
        0 = not to be seen, 1 = as its colour.
    """

    points: tuple[tuple[float, float], ...]
    width: float
    colour: str
    opacity: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """A disc, or a square, around a point; `size` is how wide it is."""

    x: float
    y: float
    size: float
    colour: str
    edge: str = ""
    square: bool = False
    opacity: float = 1.0


Item: TypeAlias = Text | Box | Ring | CellMap | Line | Dot


@dataclass(frozen=True)
class Sheet:
    """A picture: its size in inches, what is on it, in drawing order, and the dots that a bitmap has to an inch."""

    width: float
    height: float
    items: tuple[Item, ...]
    dots: int = DPI

    def texts(self) -> list[Text]:
        """Every text, the labels of maps included."""
        loose = [item for item in self.items if isinstance(item, Text)]
        labels = [label for item in self.maps() for _, label in (*item.columns, *item.rows)]
        return [*loose, *labels]

    def maps(self) -> list[CellMap]:
        """Every map, in drawing order."""
        return [item for item in self.items if isinstance(item, CellMap)]
