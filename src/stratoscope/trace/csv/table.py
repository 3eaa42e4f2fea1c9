"""One CSV file as typed columns: read by pandas at full speed, and row by row where anything looks unusual."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_LAYER, CSV_NEURON, CSV_POSITION, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv.columns import ID_COLUMNS, Wanted
from stratoscope.trace.csv.escapes import without_escapes
from stratoscope.trace.csv.file import PARQUET, TextFile, first_bytes, text_file
from stratoscope.trace.csv.header import Header, open_at, read_header
from stratoscope.trace.csv.rows import LARGEST_ID, read_rows, two_tokens
from stratoscope.trace.format.bounds import LONGEST_TEXT

ANY_COLUMNS = Wanted()


@dataclass(frozen=True)
class CsvPrompt:
    """One prompt as a CSV file gives it; rows stand in file order.

    Attributes
    ----------
    position, text
        Of the tokens, ascending by position: int32 and object (str), shape (token,).
    row_token
        Index on those tokens, int64, shape (row,).
    layer, neuron, value
        Of the rows: int32, int32, float64, shape (row,).
    extra
        Further columns by name: object (str), shape (row,).
    called
        What the file calls those of the five columns that it calls otherwise.
    remarks
        What a person should know about how it was read.
    """

    position: np.ndarray
    text: np.ndarray
    row_token: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    extra: dict[str, np.ndarray]
    called: dict[str, str]
    remarks: tuple[str, ...] = ()

    def repeated_rows(self) -> int:
        """How many rows name a token, layer and neuron that an earlier row has named."""
        key = self.row_token.copy()
        for column in (self.layer, self.neuron):
            width = int(column.max()) + 1
            if (int(key.max()) + 1) * width > np.iinfo(np.int64).max:  # close the gaps between the numbers used
                key = np.unique(key, return_inverse=True)[1]
                column = np.unique(column, return_inverse=True)[1]
                width = int(column.max()) + 1
            key = key * width + column
        key.sort(kind="stable")  # rows mostly come in order, which a stable sort is quick at
        return int(np.count_nonzero(key[1:] == key[:-1]))


def read_table(path: Path, wanted: Wanted = ANY_COLUMNS) -> CsvPrompt:
    """Read one CSV or Parquet file.

    Raises
    ------
    InputError
        The file cannot be used: says file, line, column, value, and what to do.
    """
    if first_bytes(path).startswith(PARQUET):
        from stratoscope.trace.csv.parquet import read_parquet

        columns, called = read_parquet(path, wanted)
        table = _table(path, columns, called)
        if table is None:
            raise _two_tokens_in(path, columns)
        return table
    file = text_file(path)
    header = read_header(file, wanted)
    for mark in _marks(header):
        quick = _read_quickly(file, header, mark)
        table = _table(path, quick, header.called) if quick is not None else None
        if table is not None:
            return replace(table, remarks=_remarks(header, mark))
    rows = read_rows(file, header)
    exact = _table(path, _as_arrays(rows.columns), header.called)
    assert exact is not None  # read_rows has refused a second token at a position
    return replace(exact, remarks=_remarks(header, rows.mark))


def _marks(header: Header) -> tuple[str, ...]:
    """The decimal marks to try, the likelier first."""
    if header.separator == ",":
        return (".",)
    first = header.first_row[header.columns.index(CSV_VALUE)] if header.first_row_is_sound() else ""
    return (",",) if "," in first else (".", ",")


def _remarks(header: Header, mark: str) -> tuple[str, ...]:
    left_out = f"{header.left_out} lines of comments before the header were left out" if header.left_out else ""
    comma = "a comma was read as the decimal mark" if mark == "," else ""
    return tuple(remark for remark in (left_out, comma) if remark)


def _two_tokens_in(path: Path, columns: dict[str, np.ndarray]) -> InputError:
    """Of a file without lines: the first row that holds another token at a position than before."""
    seen: dict[int, tuple[str, int]] = {}
    rows = zip(columns[CSV_POSITION].tolist(), columns[CSV_TOKEN].tolist(), strict=True)
    for row, (position, token) in enumerate(rows, start=1):
        first, earlier = seen.setdefault(position, (token, row))
        if token != first:
            return two_tokens(f"{path}, row {row}", position, token, first, f"in row {earlier}")
    raise AssertionError("every position holds one token")


def _read_quickly(file: TextFile, header: Header, mark: str = ".") -> dict[str, np.ndarray] | None:
    """The columns, or None where only the exact reader can tell what the file holds."""
    if not header.first_row_is_sound():
        return None  # pandas would take a column of True for numbers
    dtypes: dict[str, Any] = dict.fromkeys(header.columns, object) | {CSV_VALUE: "float64"}
    for column in ID_COLUMNS:
        del dtypes[column]
    if header.separator == ",":  # elsewhere 4.000 may be four thousand: pandas must not take it for 4
        dtypes |= dict.fromkeys(ID_COLUMNS, "int32")
    at_start = file.is_plain and header.begins == 1
    try:
        with warnings.catch_warnings(), np.errstate(invalid="ignore"), ExitStack() as opened:
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(
                file.path if at_start else opened.enter_context(open_at(file, header.begins)),
                sep=header.separator,
                decimal=mark,
                names=list(header.columns),
                header=0 if header.names else None,
                index_col=False,
                dtype=dtypes,
                engine="c",
                na_filter=False,
                keep_default_na=False,
                skip_blank_lines=False,
                compression=None,
                encoding=file.encoding,
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning):
        return None
    columns = {str(column): frame[column].to_numpy() for column in frame}
    return _sound(columns, file, header)


def _sound(columns: dict[str, np.ndarray], file: TextFile, header: Header) -> dict[str, np.ndarray] | None:
    """The columns, where every id and value is allowed and every row is as long as the header."""
    ids = {column: columns[column] for column in ID_COLUMNS}
    sound = (
        len(columns[CSV_VALUE]) > 0
        and all(one.dtype.kind == "i" and one.min() >= 0 and one.max() <= LARGEST_ID for one in ids.values())
        and bool(np.isfinite(columns[CSV_VALUE]).all())
        and not any(max(map(len, one)) > LONGEST_TEXT for one in columns.values() if one.dtype == object)
        and not _has_short_rows(columns, file, header)
    )
    return {**columns, **{name: column.astype(np.int32, copy=False) for name, column in ids.items()}} if sound else None


def _has_short_rows(columns: dict[str, np.ndarray], file: TextFile, header: Header) -> bool:
    """Whether pandas has filled up a row with empty text; the separators of the file tell."""
    last = columns[header.columns[-1]]
    if last.dtype != object or not (last == "").any():
        return False
    texts = [header.names, *(column for column in columns.values() if column.dtype == object)]
    inside_values: int = sum(cell.count(header.separator) for cells in texts for cell in cells)
    separators = (len(header.columns) - 1) * (len(last) + bool(header.names))
    with open_at(file, header.begins) as stream:
        found: int = sum(part.count(header.separator) for part in iter(lambda: stream.read(2**20), ""))
    return found != inside_values + separators


def _as_arrays(columns: dict[str, list[str] | list[int] | list[float]]) -> dict[str, np.ndarray]:
    numbers = {**dict.fromkeys(ID_COLUMNS, np.int32), CSV_VALUE: np.float64}
    return {name: np.array(values, dtype=numbers.get(name, object)) for name, values in columns.items()}


def _table(path: Path, columns: dict[str, np.ndarray], called: dict[str, str]) -> CsvPrompt | None:
    """The table, or None where a position holds two tokens."""
    columns = without_escapes(columns, str(path))
    first_row, row_token = _tokens(columns[CSV_POSITION])
    text = columns[CSV_TOKEN][first_row]
    if (text[row_token] != columns[CSV_TOKEN]).any():
        return None
    return CsvPrompt(
        position=columns[CSV_POSITION][first_row],
        text=text,
        row_token=row_token,
        layer=columns[CSV_LAYER],
        neuron=columns[CSV_NEURON],
        value=columns[CSV_VALUE],
        extra={name: column for name, column in columns.items() if name not in CSV_COLUMNS},
        called=called,
    )


def _tokens(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each token, ascending by position, and each row's token."""
    step = np.diff(position, prepend=-1)
    if (step >= 0).all():
        begins = step > 0
        return np.flatnonzero(begins), np.cumsum(begins, dtype=np.int64) - 1
    _, first_row, row_token = np.unique(position, return_index=True, return_inverse=True)
    return first_row, row_token.astype(np.int64)
