"""What a patch claims to change: a CSV of `Layer,Neuron_ID,Old_Norm,New_Norm`, read so that nothing slips through."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.csv.file import encoding_error, text_file
from stratoscope.trace.csv.header import SEPARATORS, records
from stratoscope.trace.format.attributes import count_in
from stratoscope.words import neuron_name, number_ranges

if TYPE_CHECKING:
    import xarray as xr

LAYER, NEURON, OLD, NEW = COLUMNS = ("Layer", "Neuron_ID", "Old_Norm", "New_Norm")
_WHOLE = re.compile(r"\+?(\d{1,9})(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # no nan, inf, NA, 1_000; not negative
_MEANING = {
    LAYER: "It is the number of a block, from 0",
    NEURON: "It is the index of a neuron, from 0",
    OLD: "It is a norm before the patch: a number above 0",
    NEW: "It is a norm after the patch: a number from 0 on",
}
_MOST_BYTES = 64 * 2**20  # of a file of claims: a million rows


@dataclass(frozen=True)
class Claim:
    """One row: a neuron, and a norm before and after; `line` of the file, 0 where there is none."""

    layer: int
    neuron: int
    old: float
    new: float
    line: int = 0

    @property
    def ratio(self) -> float:
        """New / old."""
        return self.new / self.old

    def __str__(self) -> str:
        return neuron_name(self.layer, self.neuron)


def read_claims(path: str | os.PathLike[str]) -> list[Claim]:
    """Read a file of claims.

    Raises
    ------
    InputError
        Of the first row that cannot be used: file, line, column, value, and what to do.
    """
    file = Path(path)
    if file.is_file() and file.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"has more than {_MOST_BYTES:,} bytes", where=str(file), fix="Claims are some rows of numbers."
        )
    claims: list[Claim] = []
    seen: dict[tuple[int, int], int] = {}
    where = _header(file)
    for line, record in _records(file):
        if line <= where.line or not any(cell.strip() for cell in record):
            continue
        if len(record) != where.width:
            raise _refuse(file, line, f"{len(record)} values under {where.width} columns", "Give each column a value.")
        cells = {column: record[place].strip() for column, place in where.places.items()}
        layer, neuron = (_whole(cells[column], file, line, column) for column in (LAYER, NEURON))
        old, new = (_norm(cells[column], file, line, column) for column in (OLD, NEW))
        claim = Claim(layer, neuron, old, new, line)
        key = claim.layer, claim.neuron
        if key in seen:
            raise _refuse(file, line, f"{claim} is claimed again, after line {seen[key]}", "Keep one of the two rows.")
        seen[key] = line
        claims.append(claim)
    if not claims:
        raise InputError("there is a header, but no row", where=str(file), fix="Give a file that claims something.")
    return claims


def check_claims(claims: Sequence[Claim], dataset: xr.Dataset, where: str) -> None:
    """Raise `InputError` for a claim about a layer or a neuron that the model does not have."""
    layers = np.asarray(dataset[names.LAYER].values).tolist()
    model = dataset.attrs.get("model") or {}
    d_ff = int(dataset.sizes.get(names.NEURON) or count_in(model.get("d_ff")))
    d_model = count_in(model.get("d_model"))
    for claim in claims:
        at = f"{where}, line {claim.line}" if claim.line else where
        if claim.layer not in layers:
            fix = f"There are: {number_ranges(layers)}."
            raise InputError(f"the model has no layer {claim.layer}", where=at, fix=fix)
        if d_ff and claim.neuron >= d_ff:
            maybe = f", and it may be one of the {d_model} residual coordinates" if claim.neuron < d_model else ""
            raise InputError(
                f"{NEURON} {claim.neuron} is beyond the {d_ff} neurons of layer {claim.layer}{maybe}",
                where=at,
                fix="Neurons are indices of the down projection's input, from 0; its output has residual coordinates.",
            )


def may_be_residual(claims: Sequence[Claim], dataset: xr.Dataset) -> bool:
    """Whether every claimed index could as well be a residual coordinate; few claims show nothing."""
    model = dataset.attrs.get("model") or {}
    d_ff, d_model = (count_in(model.get(name)) for name in ("d_ff", "d_model"))
    return 0 < d_model < d_ff and all(claim.neuron < d_model for claim in claims)


@dataclass(frozen=True)
class _Header:
    line: int
    width: int
    places: dict[str, int]


def _header(file: Path) -> _Header:
    if file.is_dir() or not file.exists():
        what = "this is a folder, not a CSV file" if file.is_dir() else "there is no such file"
        raise InputError(what, where=str(file), fix=f"Give a CSV file with the columns {','.join(COLUMNS)}.")
    for line, record in _records(file):
        if any(cell.strip() for cell in record):
            names_ = [cell.strip() for cell in record]
            missing = [column for column in COLUMNS if names_.count(column) != 1]
            if missing:
                problem = "is missing" if missing[0] not in names_ else "stands there twice"
                raise _refuse(file, line, f"the column {missing[0]} {problem}", f"The header is {','.join(COLUMNS)}.")
            return _Header(line, len(names_), {column: names_.index(column) for column in COLUMNS})
    raise InputError("the file is empty", where=str(file), fix=f"It needs the header {','.join(COLUMNS)}.")


def _records(file: Path) -> list[tuple[int, list[str]]]:
    """Each record with the line it begins on; packed, encoded and separated in any way that `import` reads."""
    text = text_file(file)
    with text.open_text() as stream:
        try:
            first = next((line for line in stream if line.strip()), "")
        except UnicodeError:
            raise encoding_error(text) from None
    return list(records(text, max(SEPARATORS, key=first.count)))


def _whole(cell: str, file: Path, line: int, column: str) -> int:
    found = _WHOLE.fullmatch(cell)
    if not found:
        raise _refuse(file, line, f"{column} is {cell[:40]!r}", f"{_MEANING[column]}.")
    return int(found[1])


def _norm(cell: str, file: Path, line: int, column: str) -> float:
    value = float(cell) if _NUMBER.fullmatch(cell) else float("nan")
    if not isfinite(value) or (column == OLD and value == 0):
        fix = "Write decimal points, and no thousands separators." if "," in cell else f"{_MEANING[column]}."
        raise _refuse(file, line, f"{column} is {cell[:40]!r}", fix)
    return value


def _refuse(file: Path, line: int, what: str, fix: str) -> InputError:
    return InputError(what, where=f"{file}, line {line}", fix=fix)
