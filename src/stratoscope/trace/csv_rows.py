"""A CSV file read row by row with Python's own reader: slow, exact, and able to say which row is wrong and why."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_LAYER, CSV_NEURON, CSV_POSITION, CSV_TOKEN, CSV_VALUE

LARGEST_ID = 2**31 - 1
ID_COLUMNS = (CSV_POSITION, CSV_LAYER, CSV_NEURON)
_NUMBER = re.compile(r"[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t]*", re.ASCII)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_SHOWN = 40  # characters of a value in a message
_MEANING = {
    CSV_POSITION: "It counts the tokens of the prompt, from 0",
    CSV_LAYER: "It is the number of a block, from 0",
    CSV_NEURON: "It is the index of a neuron, from 0",
    CSV_VALUE: "Leave out rows that have no value",
}


@dataclass(frozen=True)
class Header:
    """The column names of a file, the line they stand on, and the first row after them."""

    columns: tuple[str, ...]
    line: int
    first_row: tuple[str, ...]

    @property
    def extra(self) -> tuple[str, ...]:
        """Columns beyond the five, in the file's order."""
        return tuple(column for column in self.columns if column not in CSV_COLUMNS)

    def first_row_is_sound(self) -> bool:
        """Whether the first row has a value for each column, and numbers where numbers belong."""
        if len(self.first_row) != len(self.columns):
            return False
        row = dict(zip(self.columns, self.first_row, strict=True))
        return all(_NUMBER.fullmatch(row[column]) for column in (*ID_COLUMNS, CSV_VALUE))


def read_header(path: Path) -> Header:
    """Find and check the header of a file that has at least one row.

    Raises
    ------
    InputError
        No such file, no header, columns missing or named twice, no rows.
    """
    _check_file(path)
    records = ((line, record) for line, record in _records(path) if record)
    line, columns = next(records, (0, []))
    if not columns:
        raise InputError("the file is empty", where=str(path), fix=f"It needs the header {','.join(CSV_COLUMNS)}.")
    _check_columns(path, line, columns)
    _, first_row = next(records, (0, []))
    if not first_row:
        raise InputError("there is a header, but no row", where=str(path), fix="Give a file that holds a prompt.")
    return Header(tuple(columns), line, tuple(first_row))


def read_rows(path: Path, header: Header) -> dict[str, list[str] | list[int] | list[float]]:
    """All rows as one list per column.

    Raises
    ------
    InputError
        Of the first row that cannot be used: file, line, column, value, and what to do.
    """
    text: dict[str, list[str]] = {column: [] for column in (CSV_TOKEN, *header.extra)}
    ids: dict[str, list[int]] = {column: [] for column in ID_COLUMNS}
    values: list[float] = []
    first_at: dict[int, tuple[str, int]] = {}
    for line, record in _records(path):
        if line <= header.line or not record:
            continue
        row = _as_row(path, line, header.columns, record)
        for column in ID_COLUMNS:
            ids[column].append(_id(row[column], path, line, column))
        values.append(_value(row[CSV_VALUE], path, line))
        for column, cells in text.items():
            cells.append(row[column])
        token, position = row[CSV_TOKEN], ids[CSV_POSITION][-1]
        first = first_at.setdefault(position, (token, line))
        if token != first[0]:
            raise _two_tokens(path, line, position, token, first)
    return {**ids, CSV_VALUE: values, **text}


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError("this is a folder, not a CSV file", where=str(path), fix="Name the CSV files in it.")
    if not path.exists():
        raise InputError("there is no such file", where=str(path), fix="Check the path.")


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins on; a blank line is an empty record."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            line = 1
            try:
                for record in reader:
                    yield line, record
                    line = reader.line_num + 1
            except csv.Error as error:
                fix = "Double the quotes inside a quoted value, and close every quoted value."
                raise InputError(f"this is not valid CSV ({error})", where=f"{path}, line {line}", fix=fix) from None
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), fix="Check the file.") from None


def _encoding_error(path: Path) -> InputError:
    data = path.read_bytes()
    try:
        data.decode("utf-8")
        where, what = str(path), "the text is not UTF-8"
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(data[: error.start])) + 1
        where, what = f"{path}, line {line}", f"the byte 0x{data[error.start]:02X} is not UTF-8 text"
    return InputError(what, where=where, fix="Save the file in the encoding UTF-8.")


def _check_columns(path: Path, line: int, columns: Sequence[str]) -> None:
    where = f"{path}, line {line}"
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise InputError(
            f"the header names {_listed(twice)} more than once", where=where, fix="Give every column its own name."
        )
    missing = [column for column in CSV_COLUMNS if column not in columns]
    if not missing:
        return
    noun = "column" if len(missing) == 1 else "columns"
    raise InputError(
        f"the header lacks the {noun} {', '.join(missing)}", where=where, fix=_columns_fix(missing, columns)
    )


def _columns_fix(missing: Sequence[str], columns: Sequence[str]) -> str:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and separator in columns[0]:
            return f"The columns are separated by {name}: save the file with commas."
    plain = {re.sub(r"\W|_", "", column).lower(): column for column in columns if column not in CSV_COLUMNS}
    near = {}
    for column in missing:
        match = get_close_matches(column.replace("_", "").lower(), plain, n=1, cutoff=0.75)
        if match:
            near[column] = plain[match[0]]
    if near:
        return "Rename " + ", ".join(f"{_shown(found)} to {column}" for column, found in near.items()) + "."
    return f"It must name {','.join(CSV_COLUMNS)}, in any order; this one names {_listed(columns)}."


def _as_row(path: Path, line: int, columns: Sequence[str], record: Sequence[str]) -> dict[str, str]:
    if len(record) != len(columns):
        raise InputError(
            f"{len(record)} values where the header names {len(columns)} columns",
            where=f"{path}, line {line}",
            fix="Quote values that hold a comma, a quote or a line break.",
        )
    return dict(zip(columns, record, strict=True))


def _two_tokens(path: Path, line: int, position: int, token: str, first: tuple[str, int]) -> InputError:
    return InputError(
        f"position {position} holds {_shown(token)} here and {_shown(first[0])} on line {first[1]}",
        where=f"{path}, line {line}, column {CSV_TOKEN}",
        fix="One file is one prompt, with one token at each position: give each prompt a file of its own.",
    )


def _id(text: str, path: Path, line: int, column: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:  # nearly all: as quick as can be
        return int(text)
    number = _number(text, path, line, column)
    if not number.is_integer():
        problem = "is not a whole number"
    elif number < 0:
        problem = "is negative"
    elif number > LARGEST_ID:
        problem = f"is larger than {LARGEST_ID}"
    else:
        return int(number)
    raise _value_error(f"{_shown(text)} {problem}", path, line, column)


def _value(text: str, path: Path, line: int) -> float:
    return _number(text, path, line, CSV_VALUE)


def _number(text: str, path: Path, line: int, column: str) -> float:
    if not text.strip():
        raise _value_error("the value is empty", path, line, column)
    if not _NUMBER.fullmatch(text):
        is_unbounded = text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")
        raise _value_error(f"{_shown(text)} is not a {'finite ' if is_unbounded else ''}number", path, line, column)
    number = float(text)
    if not isfinite(number):
        raise _value_error(f"{_shown(text)} is too large for a float64", path, line, column)
    return number


def _value_error(what: str, path: Path, line: int, column: str) -> InputError:
    return InputError(what, where=f"{path}, line {line}, column {column}", fix=f"{_MEANING[column]}.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _listed(columns: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(_shown(column) for column in columns[:most])
    return listed + (f" and {len(columns) - most} more" if len(columns) > most else "")
