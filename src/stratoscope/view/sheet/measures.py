"""How wide a page is and how large its text: a slide's sizes, or those that a person asks for on paper."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stratoscope.errors import InputError
from stratoscope.view.sheet.items import DPI
from stratoscope.view.spec.page import EDGE, PAPER_POINTS, ROW_LABELS, Page
from stratoscope.words import number

_SLIDE_WIDTH = 12.75  # inches between the margins, at most: a slide, or a double column
_FINE = 8.5  # inches up to which a page of its own width has three times the dots: 600 an inch
_LEAST_LEGEND = 1.5  # inches, at 7 points
_PAGE_HEIGHT = 9.2  # inches of a printed page


@dataclass(frozen=True)
class Measures:
    """Lengths in inches and sizes in points that everything on a page goes by.

    Attributes
    ----------
    width
        Inches of the page, exactly; None = as wide as its content.
    height
        Inches that are reckoned with where a picture has a given width: it should fit a printed page.
    room
        Inches between its margins, at most.
    margin, bottom
        Inches of paper around everything, and below the last line.
    gap, beside
        Inches between maps that stand side by side, and of those, as at the right of every map, what the marks of its
        rows take.
    unit
        Times that lengths which hold text are those of a slide.
    dots
        To an inch of a bitmap; cells are whole dots.
    title, subtitle, panel, detail, label, narrow_label, tight_label, row, badge, number, legend_name, legend, note,
    source
        Points of the title, what stands below it, titles of panels and what follows them, labels of tokens in wide, in
        narrow and in the narrowest columns, labels of rows and of numbers along an axis, marks above a map, positions
        above labels, the name of a legend and what else it says, the footer, and in it where the numbers come from.
    """

    width: float | None = None
    height: float = _PAGE_HEIGHT
    room: float = _SLIDE_WIDTH
    margin: float = 0.34
    bottom: float = 0.272
    gap: float = 0.32
    beside: float = 0.0
    unit: float = 1.0
    dots: int = DPI
    title: float = 13.0
    subtitle: float = 8.2
    panel: float = 8.6
    detail: float = 7.2
    label: float = 7.6
    narrow_label: float = 6.8
    tight_label: float = 6.2
    row: float = 7.0
    badge: float = 6.6
    number: float = 5.412
    legend_name: float = 7.6
    legend: float = 6.6
    note: float = 6.8
    source: float = 5.9

    @property
    def row_labels(self) -> float:
        """Inches beside a map for the labels of its rows."""
        return ROW_LABELS * self.unit

    @property
    def body(self) -> float:
        """Inches for maps, at most."""
        return self.room - self.row_labels

    @property
    def legend_width(self) -> float:
        """Inches of a legend, at most."""
        return 2.75 * self.unit

    @property
    def tick_apart(self) -> float:
        """Inches from one number along an axis to the next, at least."""
        return 0.9 if self.width is None else 0.5 * self.unit

    @property
    def is_narrow(self) -> bool:
        """Whether a legend has no room beside a title."""
        return self.room < 5.5 * self.unit

    def label_at(self, pitch: float) -> float:
        """Points of the labels of tokens in columns of so many inches."""
        return self.label if pitch >= 0.165 else self.narrow_label if pitch >= 0.1 else self.tight_label

    def snapped(self, length: float) -> float:
        """Whole dots, so that all cells of a bitmap are equally large."""
        return max(1, int(length * self.dots + 1e-6)) / self.dots

    def whole(self, length: float) -> float:
        """Rounded to a dot."""
        return round(length * self.dots) / self.dots


SLIDE = Measures()


def measures_of(page: Page) -> Measures:
    """The measures of a page.

    Raises
    ------
    InputError
        It is too narrow for text of its size.
    """
    if not page.is_sized:
        return SLIDE
    points = page.points
    unit, small = points / PAPER_POINTS, 0.9 * points
    sized = replace(
        SLIDE, unit=unit, title=1.2 * points, subtitle=points, panel=points, detail=points, label=points,
        narrow_label=points, tight_label=points, row=points, badge=small, number=small, legend_name=points,
        legend=small, note=small, source=small,
    )  # fmt: skip
    if page.width is None:
        return sized
    least = (_LEAST_LEGEND + ROW_LABELS) * unit + 2 * EDGE
    if page.width < least:
        raise InputError(
            f"{number(page.width)} inches are too narrow for text of {number(points)} points",
            where="width",
            fix=f"Give at least {number(least + 0.005)}in ({number(25.4 * least + 0.5, 2)}mm), or a smaller font size.",
        )
    return replace(
        sized, width=page.width, room=page.width - 2 * EDGE, margin=EDGE, bottom=EDGE,
        dots=3 * DPI if page.width <= _FINE else DPI,
    )  # fmt: skip
