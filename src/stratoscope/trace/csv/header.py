"""How a text file is laid out: what separates its columns, where its rows begin, and which column is which."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS
from stratoscope.trace.csv.columns import (
    IN_ORDER,
    MOST_COLUMNS,
    Wanted,
    are_pandas_numbers,
    find_columns,
    is_number,
    is_row,
    known_names,
    numbered,
    refuse_wide,
    shown,
)
from stratoscope.trace.csv.file import TextFile, cells_of, encoding_error, lines_of
from stratoscope.trace.format.bounds import LONGEST_TEXT
from stratoscope.words import listed

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_EXCEL_SEPARATOR = re.compile(r'\ufeff*sep=([^"\r\n])\s*', re.IGNORECASE)
_SHORTEN = "Shorten the value, or close the quote."
_LONGEST_HEADER = 2**20  # characters of a line that begins with # in which names are looked for
_LEAST_NUMBERS = 3  # in a first line that is taken for a row


@dataclass(frozen=True)
class Header:
    """What must be known of a file before its rows are read.

    Attributes
    ----------
    columns
        Names of all columns in the file's order, the five as the format calls them, each once.
    names
        The same as the file calls them; empty where it has no header.
    line
        The line that the names stand on, or the one before the first row.
    separator
        What stands between two values.
    first_row
        The values of the first row.
    left_out
        How many lines of comments stand before the names.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    line: int
    separator: str
    first_row: tuple[str, ...]
    left_out: int = 0

    @property
    def begins(self) -> int:
        """The line of the names, or of the first row where there are none."""
        return self.line if self.names else self.line + 1

    @property
    def extra(self) -> tuple[str, ...]:
        """Columns beyond the five, in the file's order."""
        return tuple(column for column in self.columns if column not in CSV_COLUMNS)

    @property
    def called(self) -> dict[str, str]:
        """What the file calls those of the five that it calls otherwise."""
        names = self.names or tuple(map(str, range(1, len(self.columns) + 1)))
        pairs = dict(zip(self.columns, names, strict=True))
        return {column: pairs[column] for column in CSV_COLUMNS if pairs[column] != column}

    def first_row_is_sound(self) -> bool:
        """Whether the first row has a value for each column, and numbers where numbers belong."""
        places = {column: self.columns.index(column) for column in CSV_COLUMNS}
        return len(self.first_row) == len(self.columns) and is_row(places, self.first_row)


def read_header(file: TextFile, wanted: Wanted) -> Header:
    """Find and check the header of a file that has at least one row, or its columns where it has no header.

    Raises
    ------
    InputError
        No header where one is needed, columns missing or named twice, no rows.
    """
    skipped, left_out, separator = _before_header(file)
    separator = separator or _separator(file, skipped, wanted)
    found = ((line, cells) for line, cells in records(file, separator, skipped + 1) if any(cells) or len(cells) > 1)
    line, cells = next(found, (0, []))
    if not cells:
        fix = f"It needs the header {','.join(CSV_COLUMNS)}."
        raise InputError("the file is empty", where=str(file.path), fix=fix)
    where = f"{file.path}, line {line}"
    refuse_wide(cells, where)
    if _is_headless(wanted, cells):
        columns = _numbered_columns(wanted, cells, where)
        return Header(columns, (), line - 1, separator, tuple(cells), left_out)
    if len(cells) == 1:
        what = f"this is no CSV: nothing separates columns in the first line ({shown(cells[0])})"
        raise InputError(what, where=where, fix=f"It needs the header {','.join(CSV_COLUMNS)}.")
    _, first_row = next(found, (0, []))
    if not first_row:
        raise InputError("there is a header, but no row", where=str(file.path), fix="Give a file that holds a prompt.")
    columns = _named_columns(wanted, cells, first_row, where)
    return Header(columns, tuple(cells), line, separator, tuple(first_row), left_out)


def records(file: TextFile, separator: str, first_line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Each record from a line on, with the line it begins on; a blank line is an empty record.

    Raises
    ------
    InputError
        The file is not text, or not CSV.
    """
    try:
        with open_at(file, first_line) as stream:
            reader = cells_of(lines_of(file, stream), separator)
            line = first_line
            try:
                for record in reader:
                    yield line, record
                    line = first_line + reader.line_num
            except csv.Error as error:
                if "field limit" in str(error):
                    what = f"a value has more than {LONGEST_TEXT:,} bytes, or a quote is never closed"
                    raise InputError(what, where=f"{file.path}, line {line}", fix=_SHORTEN) from None
                where = f"{file.path}, line {line}"
                fix = "Double the quotes inside a quoted value, and close every quoted value."
                raise InputError(f"this is not valid CSV ({error})", where=where, fix=fix) from None
    except UnicodeError:
        raise encoding_error(file) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(file.path), fix="Check the file.") from None


def open_at(file: TextFile, line: int) -> IO[str]:
    """The text of a file from a line on."""
    stream = file.open_text()
    for _ in islice(lines_of(file, stream), line - 1):
        pass
    return stream


# --- where the header is --------------------------------------------------------------------------------------------


def _before_header(file: TextFile) -> tuple[int, int, str]:
    """How many lines come before the header, how many of them are comments, and the separator if one says so.

    A line of names may begin with # as well; it is followed by a row, a comment is not.
    """
    skipped = comments = 0
    separator = ""
    with open_at(file, 1) as stream:
        try:
            for line in lines_of(file, stream):
                excel = _EXCEL_SEPARATOR.fullmatch(line)
                if excel and not skipped:
                    separator = excel[1]
                elif _is_comment(line):
                    comments += 1
                elif line.strip():
                    break
                skipped += 1
        except UnicodeError:
            raise encoding_error(file) from None
    return skipped, comments, separator


def _is_comment(line: str) -> bool:
    if not line.lstrip("\ufeff").startswith("#"):
        return False
    cells = re.split(r"[,;\t|]", line[:_LONGEST_HEADER])
    return known_names(cells, Wanted()) <= 1 and sum(map(is_number, cells)) < _LEAST_NUMBERS


def _separator(file: TextFile, skipped: int, wanted: Wanted) -> str:
    """What the first line is best read with: by names that are known, else by numbers, else by cells."""

    def found(separator: str) -> tuple[int, int, int]:
        try:
            _, cells = next(records(file, separator, skipped + 1), (0, []))
        except InputError:
            return (0, 0, 0)
        looked_at = cells[:MOST_COLUMNS]
        return known_names(looked_at, wanted), sum(map(is_number, looked_at)), len(cells)

    return max(SEPARATORS, key=found)


def _is_headless(wanted: Wanted, cells: Sequence[str]) -> bool:
    """Whether the first line is a row."""
    if are_pandas_numbers(cells):
        return False
    if wanted.are_places:
        places = {target: int(source) - 1 for target, source in wanted.sources.items()}
        if all(0 <= place < len(cells) for place in places.values()) and is_row(places, cells):
            return known_names(cells, Wanted()) == 0
    return known_names(cells, wanted) == 0 and sum(map(is_number, cells)) >= _LEAST_NUMBERS


def _numbered_columns(wanted: Wanted, cells: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns of a file without a header, which a person must have numbered."""
    fix = IN_ORDER
    if not (len(cells) >= len(CSV_COLUMNS) and is_row(numbered(), cells)):
        fix = (
            "Say which column is which, counted from 1: `--columns "
            + ",".join(f"{one}=N" for one in CSV_COLUMNS)
            + "`."
        )
    if not wanted.are_places:
        what = f"there is no header: the first line looks like a row ({listed(map(shown, cells), 5)})"
        raise InputError(what, where=where, fix=fix)
    missing = [column for column in CSV_COLUMNS if column not in wanted.sources]
    if missing:
        what = f"there is no header, and it is not said which column is {', '.join(missing)}"
        raise InputError(what, where=where, fix=fix)
    places = wanted.places(where, len(cells))
    return _unique({place: column for column, place in places.items()}, [""] * len(cells), where)


def _named_columns(wanted: Wanted, names: Sequence[str], first_row: Sequence[str], where: str) -> tuple[str, ...]:
    _refuse_twice([name for name in names if name], where)
    if not wanted.sources and all(cell.startswith(" ") for cell in (*names[1:], *first_row[1:])):
        what = "a space stands before every name and value, and it may belong to the tokens or not"
        fix = (
            f"Write the file without these spaces; where tokens begin with them, write {','.join(CSV_COLUMNS)} without."
        )
        raise InputError(what, where=where, fix=fix)
    places = find_columns(wanted, names, first_row, where)
    return _unique({place: column for column, place in places.items()}, names, where)


def _unique(five: dict[int, str], names: Sequence[str], where: str) -> tuple[str, ...]:
    """A name for every column, each once: one of the five's names is given to no other, one column may have no name."""
    columns: list[str] = []
    nameless = not any(names)  # whether a further column without a name is called by its place
    for place, name in enumerate(names):
        is_taken = name in CSV_COLUMNS or (not name and nameless)
        columns.append(five.get(place, f"Column_{place + 1}" if is_taken else name))
        nameless = nameless or not columns[-1]
    _refuse_twice(columns, where)
    return tuple(columns)


def _refuse_twice(columns: Sequence[str], where: str) -> None:
    twice = sorted(column for column, count in Counter(columns).items() if count > 1)
    if twice:
        what = f"the header names {listed(map(shown, twice))} more than once"
        raise InputError(what, where=where, fix="Give every column its own name.")
