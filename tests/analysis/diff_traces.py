"""Small simulated traces, one a changed copy of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.analysis.results.result import notes_in

NO_FLOOR = "The traces differ; without a noise floor it is not known whether by more than noise"


def simulated(**options: Any) -> xr.Dataset:
    shape: dict[str, Any] = {"prompts": 16, "tokens": 12, "layers": 4, "d_ff": 48, "heads": 2, "seed": 2}
    return stratoscope.simulate(**{**shape, **options})


def with_floor(trace: xr.Dataset, size: float = 0.01, nuisances: Sequence[str] = tuple(names.NUISANCES)) -> xr.Dataset:
    """The trace with the same floor for every quantity and layer, under these nuisances ("": as format 1 had it)."""
    found = {}
    for name, row in names.QUANTITIES.items():
        if name in trace and names.has_floor(row):
            values = (row.dims[1], np.full(trace.sizes[row.dims[1]], size, "float32"))
            found |= {names.floor_name(name, nuisance): values for nuisance in nuisances}
    return trace.assign(found)


def of_model(trace: xr.Dataset, weights: str = "", dtype: str = "float32") -> xr.Dataset:
    """The trace as if a model with these weights had been recorded."""
    model = {**trace.attrs["model"], "weights_sha256": weights, "dtype": dtype}
    return trace.assign_attrs(source=names.REAL, model=model)


def nudged(trace: xr.Dataset, name: str, where: Any, by: float) -> xr.Dataset:
    changed = trace.copy(deep=True)
    changed[name].values[where] += by
    return changed


def longer(trace: xr.Dataset, at: int = 3) -> xr.Dataset:
    """The trace with two more tokens in its first prompt."""
    found = trace.isel(token=np.insert(np.arange(trace.sizes["token"]), at, [at, at]))
    ids, position = found["token_id"].values.copy(), found["position"].values.copy()
    ids[at : at + 2] = 9000
    first = found["prompt"].values == 0
    position[first] = np.arange(first.sum())
    return found.assign_coords(token_id=("token", ids), position=("token", position))


def noisy(trace: xr.Dataset, share: float, seed: int = 0) -> xr.Dataset:
    """A lightly tuned copy: every neuron's means move by this share of their spread."""
    mean = trace["prompt_mean"].values
    noise = np.random.default_rng(seed).normal(size=mean.shape) * mean.std(axis=0)
    return trace.assign(prompt_mean=(trace["prompt_mean"].dims, (mean + share * noise).astype("float32")))


def said(result: xr.DataTree, line: str, severity: str = "") -> str:
    return " ".join(note.text for note in notes_in(result) if note.id == line and severity in ("", note.severity))
