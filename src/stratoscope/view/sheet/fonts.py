"""How wide a text is, and which characters can be drawn: matplotlib's own font first, then what is installed for more."""  # noqa: E501

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope.view.sheet import missing
from stratoscope.words import drawable, drawable_line, is_selector, line_parts

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FAMILY = "DejaVu Sans"  # comes with matplotlib, so pictures look alike everywhere
FALLBACKS = (  # families with scripts that it lacks, used only where they are installed
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    *(f"Noto Sans {script}" for script in (
        "Arabic", "Hebrew", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada",
        "Malayalam", "Sinhala", "Thai", "Lao", "Khmer", "Myanmar", "Ethiopic", "Georgian", "Armenian", "Syriac",
        "Thaana", "Mongolian", "Cherokee", "Canadian Aboriginal", "Yi", "Javanese", "Math", "Symbols", "Symbols2",
    )),
    "Noto Serif Tibetan",
    "Nirmala UI",
    "Arial Unicode MS",
    "Noto Emoji",
    "Segoe UI Symbol",
    "Symbola",
)  # fmt: skip
_FILES = ("NotoSans", "NotoSerifTibetan", "NotoEmoji", "Symbola")  # of the packages that `missing` names
_POINTS_PER_INCH = 72
_HINTED = 1.008  # a renderer that fits glyphs to pixels sets lines up to this much wider
_KERNING = 0.02  # inches that a line may be wider than its words
_LONGEST_LINE = 1_000  # characters of which a picture could show all in one line, and far more
_SUBPIXELS = 64  # FreeType measures in 1/64 of a point


@cache
def families() -> list[str]:
    """The family that every text is set in, and the installed ones that help it out."""
    from matplotlib.font_manager import fontManager

    logging.getLogger("matplotlib.font_manager").addFilter(_is_worth_saying)
    installed = {font.name for font in fontManager.ttflist}
    return [FAMILY, *(name for name in FALLBACKS if name in installed)]


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Not that a family that helps out has no bold face: it is drawn in its only one."""
    return not (isinstance(record.args, tuple) and len(record.args) > 1 and record.args[1] in FALLBACKS)


def has_glyph(char: str) -> bool:
    """Whether a character can be drawn; one that only chooses a form of another is no glyph."""
    code = ord(char)
    if is_selector(char):  # some fonts show a dotted circle
        return False
    return code in _characters(FAMILY) or any(code in _characters(name) for name in families()[1:])


def is_helped_out(text: str) -> bool:
    """Whether other families draw some of a text."""
    return any(ord(char) not in _characters(FAMILY) for char in text)


def drawn(text: str) -> str:
    """A text as the renderers draw it: nothing invisible in it, and nothing without a glyph."""
    shown = drawable_line(text, has_glyph)
    return drawable_line(text, has_glyph) if shown != text and _looked_for(text) else shown


def drawn_label(label: str) -> str:
    """A token's label as the renderers draw it."""
    shown = drawable(label, has_glyph)
    return drawable(label, has_glyph) if shown != label and _looked_for(label) else shown


def _looked_for(text: str) -> bool:
    """Whether characters lacked a glyph, so that newly installed fonts were looked for; tells what is lacking still."""
    lacking = [char for char in text if missing.package_of(char) and not has_glyph(char)]
    if lacking:
        _add_new_fonts()
        missing.tell(char for char in lacking if not has_glyph(char))
    return bool(lacking)


@cache
def _add_new_fonts() -> None:
    """Fonts that were installed after matplotlib made its list of them, which it keeps from run to run."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - known):
        if Path(path).name.startswith(_FILES):
            with suppress(OSError, RuntimeError, NotImplementedError):  # what matplotlib cannot read
                fontManager.addfont(path)
    for one in (families, _font, _characters, _width_at_20):
        one.cache_clear()


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
