"""The labels that every Dataset made without a model carries: where it comes from, units, formulas, unique ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr

from stratoscope.names import PROMPT, PROMPT_TEXTS, QUANTITIES, is_streamed
from stratoscope.trace.format.attributes import software
from stratoscope.trace.format.schema import (
    AXIS_COORDS,
    COMPLETE,
    FORMAT,
    FORMAT_VERSION,
    MAYBE_TOKEN_COORDS,
    TEXTS,
    TOKEN_COORDS,
    known_layout,
    quantity_layout,
    text_dimension,
)
from stratoscope.trace.notes import Note


def root_attributes(source: str, packages: Iterable[str] = ("numpy", "xarray"), **more: Any) -> dict[str, Any]:
    """The root attributes of docs/format.md, complete; `more` fills in what the caller knows."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "state": COMPLETE,
        "uuid": str(uuid4()),
        "source": source,
        "created": now,
        "finished": now,
        "software": software(*packages),
        "model": {},
        "tokenizer": {},
        "token_spelling": "text",
        "plan": {},
        "receipt": {},
        "notes": [],
        **more,
    }


def note(identity: str, severity: str, text: str) -> dict[str, str]:
    """A note that every picture of the trace carries; `identity` is a line of the design's list, as L01."""
    return Note(identity, severity, text).stored()


def labelled(
    arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str] | np.ndarray], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """A Dataset as `open_trace` gives it, in the data types of the format.

    Parameters
    ----------
    arrays
        Coordinates and quantities by name, in the dimensions of docs/format.md.
    texts
        Text columns by name; texts of prompts that are not given are empty.
    attrs
        Root attributes; `source` goes to every quantity.
    """
    variables = {}
    for name, values in arrays.items():
        stored = str(values.dtype) if is_streamed(name) else ""
        layout = quantity_layout(name, attrs["source"], stored) if name in QUANTITIES else known_layout(name)
        assert layout is not None, name
        variables[name] = xr.Variable(layout.dims, values.astype(layout.dtype, copy=False), layout.attrs)
    nothing = [""] * len(texts["prompt_id"])
    for name, column in {**dict.fromkeys(PROMPT_TEXTS, nothing), **texts}.items():
        # fastpath: pandas must not look at the texts, since with pyarrow it fails on the stray bytes of tokens
        variables[name] = xr.Variable((text_dimension(name) or PROMPT,), object_array(column), fastpath=True)
    on_axes = {*TOKEN_COORDS, *MAYBE_TOKEN_COORDS, *AXIS_COORDS, *TEXTS}
    coords = {name: variable for name, variable in variables.items() if name in on_axes}
    return xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in on_axes}, coords, dict(attrs)
    )


def object_array(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Texts as an object array; NumPy would cut off trailing NULs in an array of its own text type."""
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def unique(wanted: Iterable[str], *, fold: bool = False) -> list[str]:
    """The same names with -2, -3, … where one has been used; `fold` takes `A` and `a` for the same."""
    used: set[str] = set()
    names = []
    for name in wanted:
        candidate, number = name, 1
        while (candidate.casefold() if fold else candidate) in used:
            number += 1
            candidate = f"{name}-{number}"
        used.add(candidate.casefold() if fold else candidate)
        names.append(candidate)
    return names
