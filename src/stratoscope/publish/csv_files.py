"""A CSV file as it is published: the rows that its level keeps, written anew."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from stratoscope.errors import InputError
from stratoscope.names import Level
from stratoscope.publish.traces import published_trace


def published_csv(path: Path, level: Level, *, private_model: bool = False) -> xr.Dataset:
    """What a level keeps of a CSV or Parquet file: its five columns, and those that `export` adds.

    Without text the column `Token` is there and empty, so that the file can be imported again.

    Raises
    ------
    InputError
        It is no such file.
    """
    from stratoscope.trace.csv.read import read_csv

    return published_trace(read_csv([path]), level, private_model=private_model)


def write_csv(public: xr.Dataset, out: Path, *, overwrite: bool = False) -> None:
    """Write it as `export` does, as CSV or, where the name says so, as Parquet."""
    from stratoscope.trace.export.csv import export_csv

    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError("is no name of a table", where=str(out), fix=f"Name it {out.stem}.csv or {out.stem}.parquet.")
    export_csv(public, out, parquet=out.suffix.lower() == ".parquet", overwrite=overwrite)
