"""What a picture can be made of: a trace, CSV files of today's tools, or a Dataset in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from stratoscope.errors import InputError
from stratoscope.trace.opened import opened

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.csv_columns import Columns

PathLike: TypeAlias = "str | os.PathLike[str]"
Inputs: TypeAlias = "PathLike | Sequence[PathLike] | xr.Dataset"


def open_input(inputs: Inputs, columns: Columns = None) -> xr.Dataset:
    """The Dataset behind what a person gave.

    Parameters
    ----------
    inputs
        A trace (a folder), one or several CSV or Parquet files (one prompt each), or a Dataset, which is returned as it
        is.
    columns
        Which column of the files is which, as in `import_csv`.

    Raises
    ------
    InputError
        A path does not exist, several traces or a mixture are given, a file is neither, or `columns` is given for what
        has none.
    TraceError
        A trace cannot be opened, or its recording has begun and nothing is committed yet.
    """
    if hasattr(inputs, "data_vars"):
        _refuse_columns(columns)
        return opened(cast("xr.Dataset", inputs))
    paths = _paths(inputs)
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise InputError(
            "a picture is made of one trace, or of CSV files, not of several traces or both",
            where=", ".join(path.name for path in paths),
            fix="Give one trace; record prompts that belong together into the same trace.",
        )
    if folders:
        _refuse_columns(columns)
        return opened(folders[0])
    from stratoscope.trace.csv import read_csv

    return read_csv(paths, columns=columns)


def _refuse_columns(columns: Columns) -> None:
    if columns is not None:
        raise InputError("this is a trace, which has no columns to name", where="columns", fix="Leave columns out.")


def _paths(inputs: Inputs) -> list[Path]:
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(cast("Sequence[PathLike]", inputs))
    if not given:
        raise InputError("nothing to draw", fix="Give a trace, or one or several CSV files.")
    for item in given:
        if not isinstance(item, str | os.PathLike):
            raise InputError(
                f"cannot draw a {type(item).__name__}", fix="Give a trace, CSV files, or one xarray Dataset."
            )
    paths = [Path(item) for item in given]
    for path in paths:
        if not path.exists():
            from stratoscope.trace.place import refuse_absent

            refuse_absent(path)
            raise InputError(
                "does not exist", where=str(path), fix="Give the path of a trace, or of one or several CSV files."
            )
    return paths
