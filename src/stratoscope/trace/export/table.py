"""A table as a CSV file: control characters are made visible, and no text is a formula (docs/decisions/0022)."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stratoscope.errors import InputError
from stratoscope.replacing import write_whole
from stratoscope.trace.export.output import check_place
from stratoscope.words import visible

Cell: TypeAlias = str | float | int | None
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def check_table(out: str | os.PathLike[str], *, overwrite: bool, inputs: Any = ()) -> Path:
    """The path of a table that may be written, or an `InputError`; called before any work is done."""
    path = Path(out)
    if path.suffix.lower() != ".csv":
        raise InputError("a table is a .csv file", where=str(path), fix=f"Name it {path.stem or 'table'}.csv.")
    check_place(path, overwrite=overwrite, inputs=inputs)
    return path


def write_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], out: Path, *, overwrite: bool) -> None:
    """Write a table, whole or not at all."""
    write_whole(check_table(out, overwrite=overwrite), table_bytes(columns, rows), overwrite=overwrite)


def table_bytes(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """The content of the file; None and NaN are empty."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return file.getvalue().encode("utf-8")


def _plain(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return _text(cell)
    return "" if cell is None or (isinstance(cell, float) and cell != cell) else cell


def _text(cell: str) -> str:
    """A text as a spreadsheet shows it: an apostrophe before what it would take for a formula."""
    shown = visible(cell)
    return f"'{shown}" if _FORMULA.match(shown) and not _NUMBER.fullmatch(shown) else shown
