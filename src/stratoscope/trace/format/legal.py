"""What every verb may rely on: a trace, or a Dataset that somebody made of one, is what the format says, or is refused.

A Dataset may be changed in Python before it is handed over. It is looked at once, at the door (`opened`), so that no
picture and no statistic has to ask again whether the tokens of a prompt stand together or a layer has one number.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.names import DEPTH, EDGE, LAYER, PROMPT, ROW, TOKEN

if TYPE_CHECKING:
    import xarray as xr

_ROWS = 2**20  # of an import, looked at together
_MADE = "Give one that open_trace, simulate or import made."
_ROWS_TOO = "Rows of a CSV are not cut with tokens and layers: give the whole, and choose by the verb's own arguments."
_KINDS = {"f": "fiu", "i": "iu"}  # kind of number in the format -> kinds in memory that stand for it
NEEDED = ("prompt", "position", LAYER)


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
    if dataset.attrs.get("source") != names.IMPORTED:  # a CSV counts as it likes
        _check_positions(of_token, np.asarray(dataset["position"].values))
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
            fix="Keep the tokens of a prompt together: dataset.sortby(['prompt', 'position']).",
        )


def _check_positions(of_token: NDArray[np.integer], position: NDArray[np.integer]) -> None:
    """Raise a `TraceError` unless the tokens of each prompt stand in reading order, none twice."""
    astray = np.flatnonzero((np.diff(of_token) == 0) & (np.diff(position.astype(np.int64)) <= 0))
    if len(astray):
        place = int(astray[0]) + 1
        raise TraceError(
            f"its tokens are not in reading order: in prompt {of_token[place]}, position {position[place]} comes after "
            f"position {position[place - 1]}",
            fix="Put them in order: dataset.sortby(['prompt', 'position']); and choose no token twice.",
        )


def _check_arrays(dataset: xr.Dataset) -> None:
    from stratoscope.trace.format import schema

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
        return f"Choose with a list, which keeps the dimension, such as dataset.isel({missing[0]}=[0])."
    return _MADE


def _dtype(of_layout: str) -> str:
    return "float32" if of_layout == "model" else of_layout


def _check_attributes(dataset: xr.Dataset) -> None:
    from stratoscope.trace.format.document import wrong_attributes

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
