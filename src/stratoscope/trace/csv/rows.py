"""A CSV file read row by row with Python's own reader: slow, exact, and able to say which row is wrong and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_LAYER, CSV_NEURON, CSV_POSITION, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv.columns import ID_COLUMNS, is_row, shown
from stratoscope.trace.csv.file import TextFile
from stratoscope.trace.csv.header import SEPARATORS, Header, records

LARGEST_ID = 2**31 - 1
_POINT = re.compile(r"[ \t]*[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?[ \t]*", re.ASCII)
_COMMA = re.compile(r"[ \t]*[+-]?(\d*,\d+|\d+,)([eE][+-]?\d+)?[ \t]*", re.ASCII)
_DIGITS_TWICE = re.compile(r"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*", re.ASCII)
_WITH_GROUPS = re.compile(r"\s*[+-]?\d{1,3}([.,'’\s]\d{3})+([.,]\d*)?\s*", re.ASCII)
_SPACE_GROUPS = re.compile(r"\s*[+-]?\d{1,3}([\s\u00a0\u202f]\d{3})+([.,]\d*)?\s*")
_NOTHING = ("", "na", "n/a", "null", "none", "nil", "nan", "-", "--", "?", "#n/a", "#null!")
_MEANING = {
    CSV_POSITION: "It counts the tokens of the prompt, from 0",
    CSV_LAYER: "It is the number of a block, from 0",
    CSV_NEURON: "It is the index of a neuron, from 0",
    CSV_VALUE: f"It is a number; if another column holds it, add --columns {CSV_VALUE}=COLUMN",
}
_MARKS = {".": "a decimal point", ",": "a decimal comma"}
ABSENT = "Where nothing was measured there is no row; a number that got lost must come from where the file was made"
_UNBOUNDED = "Such a value comes from a computation that overflowed: mend it where the file was made"
_NO_COMMA = "Save the file with ; between the columns, where a decimal comma is read, or write decimal points"
_UNGROUPED = "Write numbers without thousands separators"


@dataclass(frozen=True)
class CsvRows:
    """All rows as one list per column, and the decimal mark ("" where no number has one)."""

    columns: dict[str, list[str] | list[int] | list[float]]
    mark: str


def read_rows(file: TextFile, header: Header) -> CsvRows:
    """All rows of a file.

    Raises
    ------
    InputError
        Of the first row that cannot be used: file, line, column, value, and what to do.
    """
    text: dict[str, list[str]] = {column: [] for column in (CSV_TOKEN, *header.extra)}
    ids: dict[str, list[int]] = {column: [] for column in ID_COLUMNS}
    values: list[float] = []
    first_at: dict[int, tuple[str, int]] = {}
    numbers = _Numbers(header.separator)
    for line, record in records(file, header.separator, header.line + 1):
        if not any(record):
            continue
        where = f"{file.path}, line {line}"
        row = _as_row(where, header, record)
        for column in ID_COLUMNS:
            ids[column].append(numbers.id(row[column], where, column))
        values.append(numbers.value(row[CSV_VALUE], where))
        for column, cells in text.items():
            cells.append(row[column])
        token, position = row[CSV_TOKEN], ids[CSV_POSITION][-1]
        first = first_at.setdefault(position, (token, line))
        if token != first[0]:
            raise two_tokens(where, position, token, first[0], f"on line {first[1]}")
    return CsvRows({**ids, CSV_VALUE: values, **text}, numbers.mark)


def two_tokens(where: str, position: int, token: str, first: str, first_at: str) -> InputError:
    """What to say where a position holds another token than before."""
    return InputError(
        f"position {position} holds {shown(token)} here and {shown(first)} {first_at}",
        where=f"{where}, column {CSV_TOKEN}",
        fix="One file is one prompt, with one token at each position: give each prompt a file of its own.",
    )


def _as_row(where: str, header: Header, record: Sequence[str]) -> dict[str, str]:
    if [record[0].lstrip("\ufeff"), *record[1:]] == [*header.names]:
        fix = "One file is one prompt: give files that were joined one by one."
        raise InputError("the header stands here again", where=where, fix=fix)
    if len(record) != len(header.columns):
        raise _another_length(where, header, record)
    return dict(zip(header.columns, record, strict=True))


def _another_length(where: str, header: Header, record: Sequence[str]) -> InputError:
    """What to say of a row that is not as long as the header, with the likeliest reason."""
    wide, place = len(header.columns), header.columns.index(CSV_VALUE)
    separator = SEPARATORS.get(header.separator, header.separator)
    what = f"{len(record)} values where the " + (
        f"header names {wide} columns" if header.names else f"first row has {wide}"
    )
    fix = f"Quote values that hold a {separator}, a quote or a line break."
    joined = [*record[:place], ",".join(record[place : place + 2]), *record[place + 2 :]]
    if (
        len(record) == wide + 1
        and header.separator == ","
        and _DIGITS_TWICE.fullmatch(joined[place])
        and _fits(header, joined)
    ):
        what += f": it seems that {CSV_VALUE} has a decimal comma, {joined[place]}"
        fix = f"{_NO_COMMA}."
    elif len(record) == wide + 1 and _fits(header, record[1:]):
        what += ": rows begin with a value that has no name, as R's row names do"
        fix = "Write the file without them (row.names = FALSE)."
    elif len(record) == wide + 1 and not record[-1]:
        what += f", the last value empty: a {separator} stands at the end"
        fix = "Remove it, or end the header with one too."
    elif len(record) == wide - 1 and header.names and not header.names[-1]:
        what += f", the last one without a name: a {separator} stands at the end of the header"
        fix = "Remove it, or end every row with one too."
    elif record[0].startswith("#"):
        fix = "If it is a comment, remove the line: comments stand before the header only."
    return InputError(what, where=where, fix=fix)


def _fits(header: Header, cells: Sequence[str]) -> bool:
    return is_row({column: header.columns.index(column) for column in CSV_COLUMNS}, cells)


class _Numbers:
    """The numbers of one file, which all have the same decimal mark; a comma only where it separates nothing."""

    def __init__(self, separator: str) -> None:
        self._comma_separates = separator == ","
        self._first: tuple[str, str] | None = None  # the first number with a decimal mark, and its line
        self.mark = ""

    def id(self, text: str, where: str, column: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10:  # nearly all: as quick as can be
            return int(text)
        if _is_grouped(text) and not (self._comma_separates and _POINT.fullmatch(text)):
            raise _value_error(f"{shown(text)} may have a thousands separator", where, column, _UNGROUPED)
        number = self._number(text, where, column)
        if not number.is_integer():
            problem = "is not a whole number"
        elif number < 0:
            problem = "is negative"
        elif number > LARGEST_ID:
            problem = f"is larger than {LARGEST_ID}"
        else:
            return int(number)
        raise _value_error(f"{shown(text)} {problem}", where, column)

    def value(self, text: str, where: str) -> float:
        return self._number(text, where, CSV_VALUE)

    def _number(self, text: str, where: str, column: str) -> float:
        if _POINT.fullmatch(text):
            if "." in text:
                self._check_mark(".", text, where, column)
            number = float(text)
        elif _COMMA.fullmatch(text) and not self._comma_separates:
            self._check_mark(",", text, where, column)
            number = float(text.replace(",", "."))
        else:
            raise _no_number(text, where, column)
        if not isfinite(number):
            raise _value_error(f"{shown(text)} is too large for a float64", where, column, _UNBOUNDED)
        return number

    def _check_mark(self, mark: str, text: str, where: str, column: str) -> None:
        if self._first is None:
            self.mark, self._first = mark, (text, where.rpartition(", ")[2])
        elif self.mark != mark:
            first, line = self._first
            what = f"{shown(text)} has {_MARKS[mark]}, and {shown(first)} on {line} has {_MARKS[self.mark]}"
            raise _value_error(what, where, column, f"Write all numbers of the file alike. {_UNGROUPED}")


def _no_number(text: str, where: str, column: str) -> InputError:
    plain = text.strip().lower()
    absent = ABSENT if column == CSV_VALUE else _MEANING[column]
    if not plain:
        return _value_error("the value is empty", where, column, absent)
    if plain.lstrip("+-") in ("nan", "inf", "infinity", "∞"):
        return _value_error(f"{shown(text)} is not a finite number", where, column, _UNBOUNDED)
    if plain in _NOTHING:
        return _value_error(f"{shown(text)} is not a number", where, column, absent)
    if "," in text and (_COMMA.fullmatch(text) or _WITH_GROUPS.fullmatch(text)):
        if _COMMA.fullmatch(text) and not _WITH_GROUPS.fullmatch(text):
            what = f"{shown(text)} has a decimal comma, which is not read where commas separate the columns"
        elif _COMMA.fullmatch(text):
            what = f"{shown(text)} can mean {text.strip().replace(',', '.')} as well as {text.strip().replace(',', '')}"
        else:
            what = f"{shown(text)} has a thousands separator"
            return _value_error(what, where, column, _UNGROUPED)
        return _value_error(what, where, column, _NO_COMMA)
    if _is_grouped(text):
        return _value_error(f"{shown(text)} has a thousands separator", where, column, _UNGROUPED)
    return _value_error(f"{shown(text)} is not a number", where, column)


def _is_grouped(text: str) -> bool:
    return bool(_WITH_GROUPS.fullmatch(text) or _SPACE_GROUPS.fullmatch(text))


def _value_error(what: str, where: str, column: str, fix: str = "") -> InputError:
    return InputError(what, where=f"{where}, column {column}", fix=f"{fix or _MEANING[column]}.")
