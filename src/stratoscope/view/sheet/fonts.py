"""How wide a text is, and which characters can be drawn: matplotlib's own font first, then what is installed for more."""  # noqa: E501

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from stratoscope.words import drawable_line, line_parts

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FAMILY = "DejaVu Sans"  # comes with matplotlib, so pictures look alike everywhere
FALLBACKS = (  # widespread families with scripts that it lacks; used only where installed
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Nirmala UI",
    "Noto Emoji",
    "Segoe UI Symbol",
)
_POINTS_PER_INCH = 72
_HINTED = 1.008  # a renderer that fits glyphs to pixels sets lines up to this much wider
_KERNING = 0.02  # inches that a line may be wider than its words
_LONGEST_LINE = 1_000  # characters of which a picture could show all in one line, and far more
_SUBPIXELS = 64  # FreeType measures in 1/64 of a point


@cache
def families() -> list[str]:
    """The family that every text is set in, and the installed ones that help it out."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [FAMILY, *(name for name in FALLBACKS if name in installed)]


def has_glyph(char: str) -> bool:
    """Whether a character can be drawn."""
    code = ord(char)
    return code in _characters(FAMILY) or any(code in _characters(name) for name in families()[1:])


def drawn(text: str) -> str:
    """A text as the renderers draw it: nothing invisible in it, and nothing without a glyph."""
    return drawable_line(text, has_glyph)


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in inches of a line of text at a size in points."""
    return _width_at_20(drawn(text), bold) * size / 20 * _HINTED


def height(size: float) -> float:
    """Height in inches of a line of text, ascenders and descenders included."""
    return 1.17 * size / _POINTS_PER_INCH


def wrap(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """The text in lines that fit into `room` inches, broken between words; a longer word has its middle left out."""
    text = drawn(text)
    space = _advance(" ", size, bold)
    lines: list[str] = []
    used = 0.0
    for word in line_parts(text):
        word = fit(word, size, room, bold=bold)
        wide = _advance(word, size, bold)
        if lines and used + space + wide <= room - _KERNING:
            lines[-1] += f" {word}"
            used += space + wide
        else:
            lines.append(word)
            used = wide
    return lines


def fit(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """The text, or as much of its two ends as fits into `room` inches."""
    if len(text) > _LONGEST_LINE:  # from a stranger's file: not all of it is measured
        text = f"{text[: _LONGEST_LINE // 2]}…{text[-_LONGEST_LINE // 2 :]}"
    text = drawn(text)
    if width(text, size, bold=bold) <= room:
        return text
    fitting, kept = 2, len(text) - 1
    while fitting < kept:  # halving: a longer text is never narrower
        middle = (fitting + kept + 1) // 2
        if width(_two_ends(text, middle), size, bold=bold) <= room:
            fitting = middle
        else:
            kept = middle - 1
    return _two_ends(text, fitting) if len(text) > 2 else text


def _two_ends(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _advance(text: str, size: float, bold: bool) -> float:
    """How far a text moves the pen; `width` leaves out the white at its two ends."""
    return width(f"n{text}n", size, bold=bold) - width("nn", size, bold=bold)


@lru_cache(100_000)
def _width_at_20(text: str, bold: bool) -> float:
    """Width in inches at 20 points; unhinted, so that it scales."""
    from matplotlib.ft2font import LoadFlags

    font = _font(bold)
    font.set_size(20, _POINTS_PER_INCH)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0]) / _SUBPIXELS / _POINTS_PER_INCH


@cache
def _font(bold: bool) -> FT2Font:
    from matplotlib.font_manager import get_font

    return get_font([_path(name, bold) for name in families()])


@cache
def _characters(family: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(_path(family, False)).get_charmap())


def _path(family: str, bold: bool) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=[family], weight="bold" if bold else "normal")))
