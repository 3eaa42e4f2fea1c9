"""A CSV file as it is published: the rows that its level keeps, written anew."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import xarray as xr

from stratoscope.errors import InputError
from stratoscope.names import CSV_EXPERT, CSV_PEAK_VALUE, CSV_WRITE_NORM, NO_TEXT, ROW, TOKEN, Level
from stratoscope.publish.tokens.traces import published_trace
from stratoscope.trace.export.output import check_place
from stratoscope.trace.labels import object_array

_ADDED = (CSV_PEAK_VALUE, CSV_WRITE_NORM, CSV_EXPERT)  # by `export`, besides the five columns
_OF_WEIGHTS = (CSV_WRITE_NORM,)  # with Peak_Value the norm of a column of W
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def published_csv(original: xr.Dataset, level: Level, *, private_model: bool = False) -> xr.Dataset:
    """What a level keeps of an imported CSV or Parquet file: its five columns, and those that `export` adds.

    Without text the column `Token` holds places, as #3, so that the file can be imported again.
    """
    public = published_trace(original, level, private_model=private_model)
    if level == NO_TEXT:
        places = object_array([f"#{place}" for place in public["position"].values.tolist()])
        public = public.assign_coords(text=xr.Variable((TOKEN,), places, fastpath=True))
    return public.assign(_added(original, _OF_WEIGHTS if private_model else ()))


def _added(original: xr.Dataset, left_out: tuple[str, ...]) -> dict[str, xr.Variable]:
    """The columns that `export` adds, where they hold numbers and nothing else."""
    held = {str(one.attrs.get("column")): one.values for one in original.variables.values() if one.dims == (ROW,)}
    found = [name for name in _ADDED if name in held and name not in left_out and _are_numbers(held[name])]
    return {
        f"column_{place}": xr.Variable((ROW,), held[name], {"column": name}, fastpath=True)
        for place, name in enumerate(found)
    }


def _are_numbers(column: np.ndarray) -> bool:
    return all(_NUMBER.fullmatch(cell) for cell in column)


def write_csv(public: xr.Dataset, out: Path, *, overwrite: bool = False) -> None:
    """Write it as `export` does, as CSV or, where the name says so, as Parquet."""
    from stratoscope.trace.export.csv import export_csv

    export_csv(public, out, parquet=out.suffix.lower() == ".parquet", overwrite=overwrite)


def refuse_place(out: Path, *, overwrite: bool) -> None:
    """Raise where a table may not be written; asked before any work is done."""
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError("is no name of a table", where=str(out), fix=f"Name it {out.stem}.csv or {out.stem}.parquet.")
    check_place(out, overwrite=overwrite)
