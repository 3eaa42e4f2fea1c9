"""The door of every verb: a trace, CSV files, or a Dataset that somebody cut, as pictures and statistics rely on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.names import EDGE, PROMPT, TOKEN
from stratoscope.trace.format.legal import check_dataset
from stratoscope.trace.format.place import is_trace, refuse_absent
from stratoscope.trace.format.schema import TOKEN_COORDS
from stratoscope.trace.labels import note, object_array
from stratoscope.trace.prompts import GONE, Prompts
from stratoscope.words import counted

if TYPE_CHECKING:
    from stratoscope.trace.csv.columns import Columns

PathLike: TypeAlias = "str | os.PathLike[str]"
Inputs: TypeAlias = "PathLike | Sequence[PathLike] | xr.Dataset"
PAIRS_LEFT_OUT = "Tokens of this Dataset were cut and its attention pairs were not: left out."
_GIVE = "Give a trace, one or several CSV files, or a Dataset."


def opened(inputs: Inputs, columns: Columns = None) -> xr.Dataset:
    """The Dataset of a trace or of CSV files, or the one given, which holds what the format allows.

    Parameters
    ----------
    inputs
        A trace (a folder), one or several CSV or Parquet files (one prompt each), or a Dataset.
    columns
        Which column of the files is which, as in `import_csv`.

    Raises
    ------
    InputError
        A path does not exist, several traces or a mixture are given, a file is neither, or `columns` is given for what
        has none.
    TraceError
        A trace cannot be opened, its recording has begun and nothing is committed yet, or it holds something that no
        trace may hold.

    Notes
    -----
    Prompts without any token, of a Dataset that was cut, are left out; a note counts them.
    """
    (dataset,) = opened_each([inputs], columns)
    return dataset


def opened_each(inputs: Sequence[Inputs], columns: Columns = None) -> list[xr.Dataset]:
    """Several inputs, each opened by itself; a column that is named must be in one of their files."""
    datasets = [_as_read(one, columns) for one in inputs]
    _refuse_unheard(columns, datasets)
    for dataset in datasets:
        check_dataset(dataset)
    return [_without_empty_prompts(_with_what_may_lack(_without_cut_pairs(dataset))) for dataset in datasets]


def dataset_of(inputs: Inputs, columns: Columns = None) -> xr.Dataset:
    """An input as it is, whatever it holds: a recording that has just begun, too."""
    dataset = _as_read(inputs, columns)
    _refuse_unheard(columns, [dataset])
    return dataset


def _refuse_unheard(columns: Columns, datasets: Sequence[xr.Dataset]) -> None:
    if columns is not None:
        from stratoscope.trace.csv.read import refuse_unheard

        refuse_unheard(columns, datasets)


def _as_read(inputs: Inputs, columns: Columns) -> xr.Dataset:
    if isinstance(inputs, xr.Dataset):
        _refuse_columns(columns)
        return inputs
    if isinstance(inputs, xr.DataTree):
        raise InputError(
            "this is a result, not a trace",
            fix="Give the trace that it was made of; `result[TABLE].to_dataset().to_dataframe()` is a table of it.",
        )
    paths = existing_paths(inputs)
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise InputError(
            "several traces, or a trace and CSV files, are not taken together",
            where=", ".join(path.name for path in paths),
            fix="Give one trace; record prompts that belong together into the same trace.",
        )
    if folders:
        _refuse_columns(columns)
        if names.RESULT_STORE in (folders[0].name, *(one.name for one in folders[0].glob(names.RESULT_STORE))):
            fix = f"Give the trace that it was made of; `stratoscope info {folders[0]}` says what is in it."
            raise InputError("is a result, not a trace", where=str(folders[0]), fix=fix)
        if not is_trace(folders[0]) and any(folders[0].glob("*.csv")):
            fix = f"Name the files: {folders[0] / '*.csv'}."
            raise InputError("is a folder of CSV files, not a trace", where=str(folders[0]), fix=fix)
        from stratoscope.trace.read.reader import open_trace  # CSV files need no Zarr

        return open_trace(folders[0])
    from stratoscope.trace.csv.read import read_csv

    return read_csv(paths, columns=columns)


def _refuse_columns(columns: Columns) -> None:
    if columns is not None:
        raise InputError("this is a trace, which has no columns to name", where="columns", fix="Leave columns out.")


def input_name(path: Path) -> str:
    """What a trace or a CSV file is called: the name of its folder or file, without what says how it is written."""
    from stratoscope.trace.csv.file import stem

    return path.name.removesuffix(".trace").removesuffix(".zarr") if path.is_dir() else stem(path)


def existing_paths(inputs: PathLike | Sequence[PathLike]) -> list[Path]:
    """The paths among what a person gave, each of something that exists.

    Raises
    ------
    InputError
        One does not, is no path, or none is given.
    """
    given = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, str) else [inputs]
    if not given:
        raise InputError("nothing is given", fix=_GIVE)
    for one in given:
        if not isinstance(one, str | os.PathLike):
            raise InputError(f"{type(one).__name__} is no path", fix=_GIVE)
    paths = [Path(one) for one in given]
    for path in paths:
        refuse_absent(path)
        if not path.exists():
            raise InputError("does not exist", where=str(path), fix="Give the path of a trace, or of CSV files.")
    return paths


def _with_what_may_lack(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with token ids and spans, unknown where it has none, and with the texts of its prompts.

    xarray drops the texts where nothing of a prompt was chosen.
    """
    for name in ("token_id", "span"):
        if name not in dataset.variables:
            unknown = np.full(dataset.sizes[TOKEN], GONE, TOKEN_COORDS[name][0])
            dataset = dataset.assign_coords({name: (TOKEN, unknown)})
    absent = [name for name in names.PROMPT_TEXTS if name not in dataset.variables]
    if not absent:
        return dataset
    prompts = len(Prompts(dataset))
    texts = {name: [""] * prompts for name in absent}
    if "prompt_id" in texts:
        texts["prompt_id"] = [str(number) for number in range(prompts)]
    return dataset.assign_coords({name: (PROMPT, object_array(column)) for name, column in texts.items()})


def _without_cut_pairs(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without its attention pairs, where tokens were cut and pairs were not; says so in a note."""
    if EDGE not in dataset.sizes or Prompts(dataset).bounds[EDGE][-1] == dataset.sizes[EDGE]:
        return dataset
    return with_note(dataset.drop_dims(EDGE), PAIRS_LEFT_OUT)


def with_note(dataset: xr.Dataset, text: str) -> xr.Dataset:
    """The Dataset with one more note: what it is not the whole of."""
    notes = dataset.attrs.get("notes")
    return dataset.assign_attrs(notes=[*(notes if isinstance(notes, list) else []), note("L26", "info", text)])


def _without_empty_prompts(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without the prompts of which somebody has left out all tokens; says so in a note."""
    prompts = Prompts(dataset)
    there = prompts.lengths > 0
    if there.all():
        return dataset
    renumbered = (np.cumsum(there) - 1).astype(prompts.of_token.dtype)[prompts.of_token]
    text = f"Left out: {counted(int((~there).sum()), 'prompt')} without a token in this Dataset."
    return with_note(dataset.isel({PROMPT: there}).assign_coords(prompt=(TOKEN, renumbered)), text)
