"""The door of every verb: a trace, or a Dataset that somebody cut from one, as pictures and statistics rely on it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.names import EDGE, PROMPT, TOKEN
from stratoscope.trace.labels import note, object_array
from stratoscope.trace.legal import check_dataset
from stratoscope.trace.prompts import GONE, Prompts
from stratoscope.trace.schema import TOKEN_COORDS


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
        from stratoscope.trace.reader import open_trace  # a picture of a CSV needs no Zarr

        trace = open_trace(Path(trace))
    check_dataset(trace)
    return _without_empty_prompts(_with_what_may_lack(_without_cut_pairs(trace)))


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
    return _noted(
        dataset.drop_dims(EDGE), "Tokens of this Dataset were cut and its attention pairs were not: left out."
    )


def _noted(dataset: xr.Dataset, text: str) -> xr.Dataset:
    notes = dataset.attrs.get("notes")
    return dataset.assign_attrs(notes=[*(notes if isinstance(notes, list) else []), note("L26", "info", text)])


def _without_empty_prompts(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without the prompts of which somebody has left out all tokens; says so in a note."""
    prompts = Prompts(dataset)
    there = prompts.lengths > 0
    if there.all():
        return dataset
    renumbered = (np.cumsum(there) - 1).astype(prompts.of_token.dtype)[prompts.of_token]
    text = f"{int((~there).sum()):,} prompts have no token in this Dataset and are left out."
    return _noted(dataset.isel({PROMPT: there}).assign_coords(prompt=(TOKEN, renumbered)), text)
