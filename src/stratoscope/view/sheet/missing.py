"""Characters that no installed font has: which package brings them is said once, as a warning of the logger `stratoscope`."""  # noqa: E501

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from functools import cache

from stratoscope.words import is_selector

CJK, SYMBOLS, SCRIPTS = "fonts-noto-cjk", "fonts-symbola", "fonts-noto-core"  # packages of Debian and Ubuntu
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "KANGXI")
_LETTERS = "LMN"  # categories of what a script writes
_told: set[str] = set()


@cache
def package_of(char: str) -> str:
    """The package with a font that matplotlib can read and that has the character; "" where none is known.

    `fonts-noto-color-emoji` is none: its glyphs are bitmaps, which matplotlib refuses.
    """
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    if not name or category[0] in "CZ" or is_selector(char) or name.startswith("SYMBOL FOR"):  # for what is no glyph
        return ""
    if name.startswith(_CJK):
        return CJK
    return SCRIPTS if category[0] in _LETTERS else SYMBOLS


def tell(chars: Iterable[str]) -> None:
    """Say which packages bring these characters, each package once."""
    for char in chars:
        package = package_of(char)
        if package and package not in _told:
            _told.add(package)
            logging.getLogger("stratoscope").warning(
                "no installed font has U+%04X (%s) and its like, so code points are drawn; on Debian and Ubuntu "
                "`apt install %s` brings them",
                ord(char), unicodedata.name(char), package,
            )  # fmt: skip
