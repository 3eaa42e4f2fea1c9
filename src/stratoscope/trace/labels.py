"""The labels that every Dataset made without a model carries: where it comes from, units, formulas, unique ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr

from stratoscope.names import PROMPT, PROMPT_TEXTS
from stratoscope.trace.schema import COMPLETE, FORMAT, FORMAT_VERSION, known_layout, quantity_layout, text_dimension


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
        "software": {name: version(name) for name in ("stratoscope", *packages)},
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
    return {"id": identity, "severity": severity, "text": text}


def quantity(name: str, values: np.ndarray, source: str) -> xr.Variable:
    """A labelled data variable in the data type of `names.QUANTITIES`."""
    layout = quantity_layout(name, source)
    return xr.Variable(layout.dims, values.astype(layout.dtype, copy=False), layout.attrs)


def coordinates(
    arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str] | np.ndarray]
) -> dict[str, xr.Variable]:
    """Labelled coordinates; prompt texts that are not given are empty."""
    prompts = len(texts["prompt_id"])
    coords = {}
    for name, values in arrays.items():
        layout = known_layout(name)
        assert layout is not None, name
        coords[name] = xr.Variable(layout.dims, values.astype(layout.dtype, copy=False), layout.attrs)
    for name, column in ({name: [""] * prompts for name in PROMPT_TEXTS} | dict(texts)).items():
        coords[name] = xr.Variable((text_dimension(name) or PROMPT,), object_array(column))
    return coords


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
