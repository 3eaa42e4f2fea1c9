"""The page of a static picture: how wide it is, how large its text, and what is written around the maps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from stratoscope import defaults, names
from stratoscope.errors import InputError, refuse_unknown
from stratoscope.trace.arguments import real_number

Width: TypeAlias = "float | str | None"
NO_TITLE = "none"
_INCHES = {"in": 1.0, "mm": 1 / 25.4, "cm": 1 / 2.54, "pt": 1 / 72}
_LENGTH = re.compile(rf"([0-9]*\.?[0-9]+)\s*({'|'.join(_INCHES)})")
_WIDEST = 40.0  # inches: a poster
_SIZES = (4.0, 40.0)  # points
PAPER_POINTS = 7.0  # of labels, unless asked otherwise
ROW_LABELS = 0.36  # inches beside a map for the labels of its rows, at that size
EDGE = 0.04  # inches of paper around everything, so that a slightly wider font is not cut
_COLUMNS_PER_INCH = 300  # of a map whose tokens are pooled: two dots of a bitmap each


@dataclass(frozen=True)
class Page:
    """The page of a static picture.

    Attributes
    ----------
    width
        Inches that it is wide, exactly; None = as wide as its content, at most a slide.
    font_size
        Points of its labels; None = 7 where there is a width, else as on a slide.
    title
        Stands in the place of the picture's own title; "none" = nothing stands above the maps; None = its own title.
    caption
        Where what was done stands: "below" the maps, in a text "file" beside the picture, or "none".
    """

    width: float | None = None
    font_size: float | None = None
    title: str | None = None
    caption: names.Caption = defaults.CAPTION

    def __post_init__(self) -> None:
        refuse_unknown(self.caption, names.CAPTIONS, "caption")

    @property
    def titled(self) -> bool:
        """Whether a title, and what belongs to it, stands above the maps."""
        return self.title != NO_TITLE

    @property
    def is_sized(self) -> bool:
        """Whether its sizes are those that were asked for, and not those of a slide."""
        return self.width is not None or self.font_size is not None

    @property
    def most_columns(self) -> int | None:
        """How many columns of a map fit; None = as many as on a slide."""
        if self.width is None:
            return None
        room = self.width - 2 * EDGE - ROW_LABELS * self.points / PAPER_POINTS
        return max(1, int(room * _COLUMNS_PER_INCH))

    @property
    def points(self) -> float:
        """Points of its labels, where its sizes were asked for."""
        return self.font_size or PAPER_POINTS


PLAIN_PAGE = Page()


def page_of(
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
) -> Page:
    """The page that a person asks for.

    Parameters
    ----------
    width
        Inches, or a text with its unit: "3.3in", "85mm", "8.5cm", "240pt".
    font_size
        Points.

    Raises
    ------
    InputError
        There is no such length, size or place of a caption.
    """
    if title is not None and not str(title).strip():
        raise InputError("is empty", where="title", fix="Give a text, or `none` for a picture without a title.")
    points = None if font_size is None else real_number(font_size, "font_size")
    if points is not None and not _SIZES[0] <= points <= _SIZES[1]:
        fix = f"Give {_SIZES[0]:g} to {_SIZES[1]:g}; 7 is usual in a journal."
        raise InputError(f"{points:g} points are no size of text", where="font_size", fix=fix)
    return Page(None if width is None else _inches(width), points, None if title is None else str(title), caption)


def _inches(width: float | str) -> float:
    """A length in inches."""
    fix = "Give a number of inches, or one with its unit: 3.3in, 85mm, 8.5cm."
    if isinstance(width, str):
        written = _LENGTH.fullmatch(width.strip().lower())
        if written is None:
            raise InputError(f"{width!r} is no length", where="width", fix=fix)
        inches = float(written[1]) * _INCHES[written[2]]
    else:
        inches = real_number(width, "width")
    if not 0 < inches <= _WIDEST:
        fix = f"Give at most {_WIDEST:g}in (a poster)." if inches > 0 else "Give more than 0, such as 85mm."
        raise InputError(f"{width} is no width of a picture", where="width", fix=fix)
    return inches
