"""Texts of a CSV that would command a terminal or a spreadsheet, in a spelling that does not, and back.

Only a file that holds such a text is spelled so; its last column, `Escapes`, says that it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import numpy as np

from stratoscope.errors import CONTROL, InputError
from stratoscope.names import CSV_COLUMNS

COLUMN, MARK = "Escapes", "\\"  # a further column, and its value in every row

_UNSAFE_CHARACTER = re.compile(f"{CONTROL.pattern}|\r")
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20][^A-Za-z]*[A-Za-z].*[(|!]", re.DOTALL)  # one that acts
_ESCAPE = re.compile(r"\\(?:(\\)|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def is_harmless(text: str) -> bool:
    """Whether a terminal and a spreadsheet show a text and do nothing else."""
    return not (_UNSAFE_CHARACTER.search(text) or _FORMULA.match(text))


def are_harmless(texts: Iterable[str]) -> bool:
    """Whether all texts are."""
    return all(map(is_harmless, texts))


def escaped(text: str) -> str:
    r"""A text in which what acts is written as `\u001b` and a backslash as `\\`."""
    text = _UNSAFE_CHARACTER.sub(lambda found: _code(found[0]), text.replace("\\", "\\\\"))
    formula = _FORMULA.match(text)
    if not formula:
        return text
    blanks = len(text) - len(text.lstrip())
    return text[:blanks] + _code(text[blanks]) + text[blanks + 1 :]


def escaped_name(name: str) -> str:
    """The name of a column; of one called as the column that says that there are escapes, it is escaped as well."""
    return _code(name[0]) + name[1:] if name == COLUMN else escaped(name)


def unescaped(text: str, where: str = "") -> str:
    """The text of which `escaped` made this.

    Raises
    ------
    InputError
        An escape in it stands for no character.
    """
    return _ESCAPE.sub(lambda found: found[1] or _character(found, where), text) if "\\" in text else text


def without_escapes(columns: dict[str, np.ndarray], file: str) -> dict[str, np.ndarray]:
    """The columns of a file as they were before they were spelled, where the file says that they are.

    Raises
    ------
    InputError
        An escape stands for no character, or two columns have the same name once escapes are read.
    """
    marks = columns.get(COLUMN)
    if marks is None or marks.dtype != object or not len(marks) or not (marks == MARK).all():
        return columns
    found: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if name == COLUMN:
            continue
        read = name if name in CSV_COLUMNS else unescaped(name, f"{file}, the name of a column")
        if read in found or (read != name and read in CSV_COLUMNS):
            what = f"once its escapes are read, the column {name!r} has the name of another one"
            raise InputError(what, where=file, fix="Give every column its own name.")
        found[read] = _unescaped_all(values, file, name) if values.dtype == object else values
    return found


def _unescaped_all(values: np.ndarray, file: str, column: str) -> np.ndarray:
    known: dict[str, str] = {}
    out = np.empty(len(values), dtype=object)
    for place, text in enumerate(values):
        if text not in known:
            known[text] = unescaped(text, f"{file}, row {place + 1}, column {column}")
        out[place] = known[text]
    return out


def _character(found: re.Match[str], where: str) -> str:
    """What an escape stands for; half a pair of UTF-16 only where it is a byte that is no text by itself."""
    code = int(found[2] or found[3], 16)
    if code > sys.maxunicode or (0xD800 <= code <= 0xDFFF and not 0xDC80 <= code <= 0xDCFF):
        fix = rf"Write a backslash that begins no escape as \\, or leave out the column {COLUMN}."
        raise InputError(f"{found[0]} is an escape that stands for no character", where=where, fix=fix)
    return chr(code)


def _code(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
