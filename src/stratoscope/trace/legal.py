"""What every verb may rely on: a trace, or a Dataset that somebody made of one, is what the format says, or is refused.

A Dataset may be changed in Python before it is handed over. Here it is looked at once, at the door, so that no
picture and no statistic has to ask again whether the tokens of a prompt stand together or a layer has one number.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.names import DEPTH, EDGE, LAYER, PROMPT, ROW, TOKEN
from stratoscope.trace.labels import note, object_array

if TYPE_CHECKING:
    import xarray as xr

_ROWS = 2**20  # of an import, looked at together
_MADE = "Give one that open_trace, simulate or import made."
_ROWS_TOO = "Rows of a CSV are not cut with tokens and layers: give the whole, and choose by the verb's own arguments."
_KINDS = {"f": "fiu", "i": "iu"}  # kind of number in the format -> kinds in memory that stand for it
NEEDED = ("prompt", "position", LAYER)
_UNKNOWN = -1  # a token id or a span that nobody told


def opened(trace: str | os.PathLike[str] | xr.Dataset) -> xr.Dataset:
    """The Dataset of a trace, or the one given, which holds what the format allows.

    Raises
    ------
    TraceError
        It cannot be opened, or holds something that no trace may hold.

    Notes
    -----
    Prompts without any token, of a Dataset that was cut, are left out; a note counts them.
    """
    if isinstance(trace, str | os.PathLike):
        from stratoscope.trace.reader import open_trace

        trace = open_trace(Path(trace))
    check_dataset(trace)
    return _without_empty_prompts(_with_what_may_lack(_without_cut_pairs(trace)))


def _with_what_may_lack(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with token ids and spans, unknown where it has none, and with the texts of its prompts.

    xarray drops the texts where nothing of a prompt was chosen.
    """
    from stratoscope.trace.schema import TOKEN_COORDS

    for name in ("token_id", "span"):
        if name not in dataset.variables:
            unknown = np.full(dataset.sizes[TOKEN], _UNKNOWN, TOKEN_COORDS[name][0])
            dataset = dataset.assign_coords({name: (TOKEN, unknown)})
    absent = [name for name in names.PROMPT_TEXTS if name not in dataset.variables]
    if not absent:
        return dataset
    prompts = dataset.sizes.get(PROMPT, int(dataset["prompt"].values.max()) + 1)
    texts = {name: [""] * prompts for name in absent}
    if "prompt_id" in texts:
        texts["prompt_id"] = [str(number) for number in range(prompts)]
    return dataset.assign_coords({name: (PROMPT, object_array(column)) for name, column in texts.items()})


def _without_cut_pairs(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without its attention pairs, where tokens were cut and pairs were not; says so in a note."""
    if EDGE not in dataset.sizes:
        return dataset
    pairs = sum(map(names.edges, np.bincount(dataset["prompt"].values).tolist()))
    if pairs == dataset.sizes[EDGE]:
        return dataset
    return _noted(
        dataset.drop_dims(EDGE), "Tokens of this Dataset were cut and its attention pairs were not: left out."
    )


def _noted(dataset: xr.Dataset, text: str) -> xr.Dataset:
    notes = dataset.attrs.get("notes")
    return dataset.assign_attrs(notes=[*(notes if isinstance(notes, list) else []), note("L26", "info", text)])


def _without_empty_prompts(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without the prompts of which somebody has left out all tokens; says so in a note."""
    of_token = np.asarray(dataset["prompt"].values)
    present, renumbered = np.unique(of_token, return_inverse=True)
    if len(present) == dataset.sizes.get(PROMPT, len(present)):
        return dataset
    text = f"{dataset.sizes[PROMPT] - len(present):,} prompts have no token in this Dataset and are left out."
    return _noted(
        dataset.isel({PROMPT: present}).assign_coords(prompt=(TOKEN, renumbered.astype(of_token.dtype))), text
    )


def check_dataset(dataset: xr.Dataset) -> None:
    """Raise a `TraceError` that says what of a Dataset no trace may hold; values of quantities are not read."""
    if not hasattr(dataset, "data_vars"):
        raise InputError(f"a {type(dataset).__name__} is no trace", fix=_MADE)
    _check_arrays(dataset)
    _check_attributes(dataset)
    check_numbers(dataset[LAYER].values, LAYER)
    for dim in (LAYER, TOKEN, PROMPT):
        if not dataset.sizes.get(dim, 1):
            raise TraceError(f"it has no {dim}", fix="Keep at least one.")
    prompts = dataset.sizes.get(PROMPT)
    of_token = np.asarray(dataset["prompt"].values)
    check_prompts(of_token, prompts)
    if "span" in dataset.variables:
        _check_range("span", dataset["span"].values, -1, len(names.SPANS) - 1)
    if DEPTH in dataset.coords:
        check_numbers(dataset[DEPTH].values, DEPTH)
    if ROW in dataset.sizes:
        _check_rows(dataset)


def check_numbers(numbers: NDArray[np.integer], kind: str) -> None:
    """Raise a `TraceError` unless these are numbers of layers or depths: 0 or more, ascending, each once."""
    values = np.asarray(numbers).astype(np.int64)
    if len(values) and values[0] < 0:
        raise TraceError(f"it has a {kind} {values[0]}, and numbers of {kind}s begin at 0", fix=_MADE)
    steps = np.diff(values)
    if (steps == 0).any():
        raise TraceError(f"{kind} {values[:-1][steps == 0][0]} is there twice", fix="Keep each once.")
    if (steps < 0).any():
        raise TraceError(f"its {kind}s do not ascend", fix=f"Sort them: dataset.sortby({kind!r}).")


def check_prompts(of_token: NDArray[np.integer], prompts: int | None = None) -> None:
    """Raise a `TraceError` unless the tokens of each prompt stand together, in the order of the prompts."""
    if len(of_token) and (int(of_token.min()) < 0 or (prompts is not None and int(of_token.max()) >= prompts)):
        fix = "Cut the tokens, and the prompts follow: trace.isel(token=trace.prompt.isin([0, 3]).values)."
        raise TraceError(
            "it has tokens of a prompt that is not there: its prompts were cut, its tokens were not", fix=fix
        )
    backwards = np.flatnonzero(np.diff(of_token.astype(np.int64)) < 0)
    if len(backwards):
        place = int(backwards[0]) + 1
        raise TraceError(
            f"its prompts are not contiguous: token {place:,} is of prompt {of_token[place]}, the one before it of "
            f"{of_token[place - 1]}",
            fix="Keep the tokens of a prompt together: dataset.sortby('prompt').",
        )


def _check_arrays(dataset: xr.Dataset) -> None:
    from stratoscope.trace import schema

    absent = [name for name in NEEDED if name not in dataset.variables]
    if absent:
        raise TraceError(f"this Dataset has no '{absent[0]}'", fix=_MADE)
    texts = {name: (dim,) for name, dim in schema.TEXTS.items()}
    for name in map(str, dataset.variables):
        variable = dataset.variables[name]
        layout = schema.known_layout(name)
        dims = layout.dims if layout is not None else texts.get(name)
        if dims is not None and variable.dims != dims:
            there, wanted = (" × ".join(map(str, some)) or "no dimension" for some in (variable.dims, dims))
            raise TraceError(f"'{name}' is {there} instead of {wanted}", fix=_how_to_keep(dataset, variable.dims, dims))
        if layout is not None and variable.dtype.kind not in _KINDS.get(np.dtype(_dtype(layout.dtype)).kind, "iu"):
            raise TraceError(f"'{name}' holds {variable.dtype}, not {_dtype(layout.dtype)}", fix=_MADE)
        if name in texts and variable.dtype.kind not in "OUT":
            raise TraceError(f"'{name}' holds {variable.dtype}, not texts", fix=_MADE)


def _how_to_keep(dataset: xr.Dataset, there: tuple[Hashable, ...], wanted: tuple[str, ...]) -> str:
    if set(there) == set(wanted):
        first = [dim for dim in (TOKEN, PROMPT, EDGE, ROW, LAYER) if dim in dataset.sizes]
        return f"Put them in order: dataset.transpose({', '.join(map(repr, first))}, ...)."
    missing = [dim for dim in wanted if dim not in there]
    if missing:
        return f"Choose with a list, which keeps the dimension: dataset.isel({missing[0]}=[0])."
    return _MADE


def _dtype(of_layout: str) -> str:
    return "float32" if of_layout == "model" else of_layout


def _check_attributes(dataset: xr.Dataset) -> None:
    from stratoscope.trace.document import wrong_attributes

    if wrong := wrong_attributes(dataset.attrs, needed=False):
        raise TraceError(f"its attribute '{wrong[0]}' is not what it must be", fix=_MADE)


def _check_rows(dataset: xr.Dataset) -> None:
    absent = [name for name in ("row_token", "row_layer", "row_neuron") if name not in dataset.variables]
    if absent:
        raise TraceError(f"this Dataset has rows of a CSV and no '{absent[0]}'", fix=_MADE)
    layers = dataset[LAYER].values
    for start in range(0, dataset.sizes[ROW], _ROWS):
        here = slice(start, start + _ROWS)
        tokens, of_row = dataset["row_token"][here].values, dataset["row_layer"][here].values
        if tokens.size and not (int(tokens.min()) >= 0 and int(tokens.max()) < dataset.sizes[TOKEN]):
            raise TraceError("it has rows of tokens that are not there", fix=_ROWS_TOO)
        if not np.isin(of_row, layers).all():
            raise TraceError("it has rows of layers that are not there", fix=_ROWS_TOO)


def _check_range(name: str, values: NDArray[np.integer], low: int, high: int) -> None:
    if values.size and not (low <= int(values.min()) and int(values.max()) <= high):
        raise TraceError(f"'{name}' has values outside {low} … {high}", fix=_MADE)
