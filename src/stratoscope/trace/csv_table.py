"""One CSV file as typed columns: read by pandas at full speed, and row by row where anything looks unusual."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stratoscope.names import CSV_LAYER, CSV_NEURON, CSV_POSITION, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv_rows import ID_COLUMNS, Header, read_header, read_rows


@dataclass(frozen=True)
class Table:
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
    """

    position: np.ndarray
    text: np.ndarray
    row_token: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    extra: dict[str, np.ndarray]

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


def read_table(path: Path) -> Table:
    """Read one CSV file.

    Raises
    ------
    InputError
        The file cannot be used: says file, line, column, value, and what to do.
    """
    header = read_header(path)
    columns = _read_quickly(path, header)
    table = _table(columns, header) if columns is not None else None
    if table is not None:
        return table
    exact = _table(_as_arrays(read_rows(path, header)), header)
    assert exact is not None  # read_rows has refused a second token at a position
    return exact


def _read_quickly(path: Path, header: Header) -> dict[str, np.ndarray] | None:
    """The columns, or None where only the exact reader can tell what the file holds."""
    if header.line != 1 or not header.first_row_is_sound():
        return None  # pandas would take a column of True for numbers
    dtypes: dict[str, Any] = dict.fromkeys(header.columns, object)
    dtypes |= dict.fromkeys(ID_COLUMNS, "int32") | {CSV_VALUE: "float64"}
    try:
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(
                path,
                names=list(header.columns),
                header=0,
                index_col=False,
                dtype=dtypes,
                engine="c",
                na_filter=False,
                keep_default_na=False,
                skip_blank_lines=False,
                encoding="utf-8",
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning):
        return None
    columns = {str(column): frame[column].to_numpy() for column in frame}
    return columns if _is_sound(columns, path, header) else None


def _is_sound(columns: dict[str, np.ndarray], path: Path, header: Header) -> bool:
    """Whether every id and value is allowed, and every row is as long as the header."""
    ids = [columns[column] for column in ID_COLUMNS]
    return (
        len(ids[0]) > 0
        and all(column.min() >= 0 for column in ids)
        and bool(np.isfinite(columns[CSV_VALUE]).all())
        and not _has_short_rows(columns, path, header)
    )


def _has_short_rows(columns: dict[str, np.ndarray], path: Path, header: Header) -> bool:
    """Whether pandas has filled up a row with empty text; the commas of the file tell."""
    last = columns[header.columns[-1]]
    if last.dtype != object or not (last == "").any():
        return False
    texts = [header.columns, *(column for column in columns.values() if column.dtype == object)]
    inside_values: int = sum(cell.count(",") for cells in texts for cell in cells)
    separators = (len(header.columns) - 1) * (len(last) + 1)
    return path.read_bytes().count(b",") != inside_values + separators


def _as_arrays(columns: dict[str, list[str] | list[int] | list[float]]) -> dict[str, np.ndarray]:
    numbers = {**dict.fromkeys(ID_COLUMNS, np.int32), CSV_VALUE: np.float64}
    return {name: np.array(values, dtype=numbers.get(name, object)) for name, values in columns.items()}


def _table(columns: dict[str, np.ndarray], header: Header) -> Table | None:
    """The table, or None where a position holds two tokens."""
    first_row, row_token = _tokens(columns[CSV_POSITION])
    text = columns[CSV_TOKEN][first_row]
    if (text[row_token] != columns[CSV_TOKEN]).any():
        return None
    return Table(
        position=columns[CSV_POSITION][first_row],
        text=text,
        row_token=row_token,
        layer=columns[CSV_LAYER],
        neuron=columns[CSV_NEURON],
        value=columns[CSV_VALUE],
        extra={name: columns[name] for name in header.extra},
    )


def _tokens(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each token, ascending by position, and each row's token."""
    step = np.diff(position, prepend=-1)
    if (step >= 0).all():
        begins = step > 0
        return np.flatnonzero(begins), np.cumsum(begins, dtype=np.int64) - 1
    _, first_row, row_token = np.unique(position, return_index=True, return_inverse=True)
    return first_row, row_token.astype(np.int64)
