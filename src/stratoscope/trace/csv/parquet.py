"""A Parquet file of the same five columns, typed: nothing in it is converted that could change by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope.errors import InputError, first_line
from stratoscope.names import CSV_COLUMNS, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv.columns import ID_COLUMNS, Wanted, find_columns, refuse_wide, shown
from stratoscope.trace.csv.file import AS_CSV, check_unpacked
from stratoscope.trace.csv.rows import ABSENT, LARGEST_ID
from stratoscope.trace.labels import object_array

_BATCH = 2**10  # rows that are unpacked at once
_BYTES_OF_ROW = 28  # of the five columns in memory: three whole numbers, a value, a reference to a token


def arrow() -> Any:
    """The package pyarrow, with its module `parquet`.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow", fix="Install it: `pip install 'stratoscope[parquet]'`.") from None
    return pyarrow


def read_parquet(path: Path, wanted: Wanted) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The columns, the five under the format's own names, and what the file calls those that it calls otherwise.

    Raises
    ------
    InputError
        The file is damaged, a column is not there or not of its type, or a value is missing or not allowed.
    """
    pyarrow = arrow()
    try:
        file = pyarrow.parquet.ParquetFile(path, memory_map=False)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        at_least = max(file.metadata.num_rows * _BYTES_OF_ROW, sum(group.total_byte_size for group in groups))
        check_unpacked(path, at_least, AS_CSV)
        names = list(file.schema_arrow.names)
        if len(set(names)) < len(names):
            raise InputError("two columns have the same name", where=str(path), fix="Give every column its own name.")
        refuse_wide(names, str(path))
        if not file.metadata.num_rows:
            raise InputError("there are columns, but no row", where=str(path), fix="Give a file that holds a prompt.")
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
        file = pyarrow.parquet.ParquetFile(path, memory_map=False, read_dictionary=texts)
        table = pyarrow.Table.from_batches(_batches(path, file))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a name in it may be no text
        what = f"cannot be read as Parquet: {first_line(error)}"
        raise InputError(what, where=str(path), fix="Copy or write it again.") from None
    places = find_columns(wanted, names, _first_row(table), str(path))
    called = {column: names[place] for column, place in places.items() if names[place] != column}
    columns = {CSV_TOKEN: _texts(table.column(places[CSV_TOKEN]), path)}
    for column in (*ID_COLUMNS, CSV_VALUE):
        columns[column] = _numbers(table.column(places[column]), column, path)
    for place, name in enumerate(names):
        if place not in places.values():
            columns[f"Column_{place + 1}" if name in CSV_COLUMNS else name] = _as_text(table.column(place))
    return columns, called


def _batches(path: Path, file: Any) -> Iterator[Any]:
    """All rows, counted while they are read: what the file says of its size leaves out what is encoded shorter."""
    unpacked = 0
    for batch in file.iter_batches(_BATCH, use_threads=False):
        unpacked += sum(map(_size, batch.columns))
        check_unpacked(path, unpacked, AS_CSV)
        yield batch


def _size(column: Any) -> int:
    """Its bytes, with each text counted in every row that has it."""
    if not (hasattr(column, "dictionary") and _is_text(column.type)):
        return int(column.nbytes)
    import pyarrow.compute

    lengths = pyarrow.compute.binary_length(column.dictionary).take(column.indices)
    return int(column.indices.nbytes) + int(pyarrow.compute.sum(lengths).as_py() or 0)


def _is_text(kind: Any) -> bool:
    """Whether it is text, or a dictionary of texts."""
    held = kind.value_type if str(kind).startswith("dictionary") else kind
    return str(held) in ("string", "large_string", "string_view")


def _first_row(table: Any) -> Sequence[str]:
    return ["" if (value := column[0].as_py()) is None else str(value) for column in table.columns]


def _texts(column: Any, path: Path) -> np.ndarray:
    if not _is_text(column.type):
        fix = "Write the tokens as text."
        raise InputError(f"it is of the type {column.type}", where=f"{path}, column {CSV_TOKEN}", fix=fix)
    _refuse_missing(column, CSV_TOKEN, path)
    return _shared(column)


def _shared(column: Any) -> np.ndarray:
    """The values as Python objects; a text that stands in many rows is in memory once."""
    parts = [np.empty(0, dtype=object)]
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            different = np.array([*chunk.dictionary.to_pylist(), None], dtype=object)
            parts.append(different[chunk.indices.fill_null(len(different) - 1).to_numpy(zero_copy_only=False)])
        else:
            parts.append(object_array(chunk.to_pylist()))
    return np.concatenate(parts)


def _refuse_missing(column: Any, name: str, path: Path) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
        raise InputError("the value is missing", where=f"{path}, row {row}, column {name}", fix=f"{ABSENT}.")


def _numbers(column: Any, name: str, path: Path) -> np.ndarray:
    _refuse_missing(column, name, path)
    values = column.to_numpy()
    if values.dtype.kind not in "iuf":
        fix = "Write numbers as numbers."
        raise InputError(f"it is of the type {column.type}", where=f"{path}, column {name}", fix=fix)
    if name == CSV_VALUE:
        bad, problem = ~np.isfinite(values.astype(np.float64)), "is not a finite number"
    else:
        whole = values == np.floor(values)
        bad, problem = ~whole | (values < 0) | (values > LARGEST_ID), f"is no whole number from 0 to {LARGEST_ID}"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        where = f"{path}, row {row + 1}, column {name}"
        raise InputError(f"{shown(str(values[row]))} {problem}", where=where, fix="Mend it where the file was made.")
    return np.asarray(values.astype(np.float64 if name == CSV_VALUE else np.int32))


def _as_text(column: Any) -> np.ndarray:
    """A further column, as CSV would hold it; what is missing is empty."""
    values = _shared(column)
    return object_array(["" if value is None else value if isinstance(value, str) else str(value) for value in values])
