"""A Parquet file as rows: only the columns that are used are read, batch by batch, within a bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files.content import refuse_too_large
from stratoscope.recorder.prompts.files.table import CONTENTS, LABELS, Python, Row, Table
from stratoscope.trace.csv.file import AS_CSV, check_unpacked

_BATCH = 256  # rows that are unpacked at once
_SAMPLE = 64 * 2**20  # bytes of rows that tell what an unknown table holds


def read_parquet(path: Path, column: str | None) -> Table:
    """Rows of a `.parquet` file.

    Raises
    ------
    InputError
        It cannot be read, or holds too much.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise InputError(
            "Parquet needs pyarrow, which is not installed",
            where=str(path),
            fix="Install it: `pip install 'stratoscope[parquet]'`.",
        ) from None
    python = Python(("pyarrow.parquet",), "pyarrow.parquet.read_table(sys.argv[1]).to_pylist()")
    try:
        with parquet.ParquetFile(path) as file:
            names = tuple(map(str, file.schema_arrow.names))
            used = [name for name in names if name == column or name in LABELS or (not column and name in CONTENTS)]
            unknown = column not in names if column else len(used) < len(names)
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise InputError(f"the column {twice[0]!r} stands twice", where=str(path), fix="Keep one of them.")
            rows = list(_rows(path, file, None if unknown else used, sample=unknown))
            complete = len(rows) == file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a name in it may be no text
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"cannot be read as Parquet: {reason}", where=str(path), fix="Copy or download it again."
        ) from None
    return Table(path, rows, python, str(path), names, complete)


def _rows(path: Path, file: Any, columns: list[str] | None, *, sample: bool) -> Iterator[Row]:
    """All rows, or the first ones of an unknown table."""
    unpacked, number = 0, 0
    for batch in file.iter_batches(_BATCH, columns=columns):
        unpacked += _as_texts(batch)
        if sample and number and unpacked > _SAMPLE:
            return
        check_unpacked(path, unpacked, AS_CSV)
        if unpacked > defaults.PROMPTS_BYTES:
            refuse_too_large(path)
        for values in batch.to_pylist():
            number += 1
            yield Row(f"{path}: row {number}", {key: _without_empty_fields(value) for key, value in values.items()})


def _as_texts(batch: Any) -> int:
    """Bytes that a batch stands for: a text that is stored once is there again in every row that names it."""
    from pyarrow import compute, types

    size = int(batch.nbytes)
    for column in batch.columns:
        if types.is_dictionary(column.type) and not types.is_nested(column.type.value_type):
            texts = column.dictionary
            if any(is_text(texts.type) for is_text in (types.is_string, types.is_binary, types.is_large_string)):
                size += compute.sum(compute.take(compute.binary_length(texts), column.indices)).as_py() or 0
    return size


def _without_empty_fields(value: Any) -> Any:
    """A list of structs without fields that are null: a table of messages has the fields of all of them in each."""
    if not isinstance(value, list):
        return value
    return [
        {key: field for key, field in one.items() if field is not None or key in ("role", "content")}
        if isinstance(one, dict)
        else one
        for one in value
    ]
