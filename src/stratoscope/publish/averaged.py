"""Of which quantities class means are published, and what a single prompt adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.contrast.profiles import prompt_profiles
from stratoscope.errors import InputError, choices
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.quantity_names import quantity_named

if TYPE_CHECKING:
    import xarray as xr

KIND = "profiles"
PROMPT_CLASS = "prompt_class"  # the first dimension of every table
USUAL = ("mlp_write_ratio", "attn_write_ratio", "mlp_out_norm", "resid_norm")  # of which profiles are published …
PROFILED = (  # … and all of which they can be: sizes of each token in each layer; no peaks, no texts, no targets
    *USUAL,
    "neuron_norm",
    "mlp_write_norm",
    "attn_write_norm",
    "mlp_write_cos",
    "attn_write_cos",
    "resid_cos",
    "attn_received",
    "attn_received_nosink",
    "attn_entropy",
    "attn_entropy_nosink",
    "attn_first",
    "attn_distance",
    "attn_distance_nosink",
    "attn_value_norm",
    "attn_null",
    "imported_norm",
)
NEURONS = "prompt_mean"  # the quantity of single neurons; their extremes are never published
LOG, LINEAR = "log2", "linear"
FIRST_TOKENS = Note("L05", INFO, "First tokens are left out of every mean.")


def profiled(dataset: xr.Dataset, quantities: Sequence[str] | None = None) -> tuple[str, ...]:
    """The quantities of which profiles are published: those asked for, else the usual ones that a trace holds.

    Raises
    ------
    InputError
        There is none, or of one that is asked for no profile may be published.
    """
    there = [name for name in PROFILED if name in dataset]
    if quantities is None:
        usual = tuple(name for name in (*USUAL, "imported_norm") if name in there) or tuple(there[:1])
        if not usual:
            fix = "Record it: `stratoscope capture MODEL --prompts FILE --record norms,residual -o TRACE`."
            raise InputError("it holds nothing of which class profiles are made", where="trace", fix=fix)
        return usual
    wanted = tuple(dict.fromkeys(quantity_named(name, there) for name in quantities))
    for name in wanted:
        if name not in there:
            raise InputError(
                f"no class profile of {name!r} can be published",
                where="quantity",
                fix=choices(name, there, there="There is"),
            )
    return wanted


def scale_of(quantity: str) -> str:
    """On which scale it is averaged: "log2" of sizes and ratios, else "linear"."""
    return LOG if names.QUANTITIES[quantity].log else LINEAR


def of_prompts(dataset: xr.Dataset, quantity: str, prompts: Ints, counted: NDArray[np.bool_]) -> Floats:
    """Means over the counted tokens of each of some prompts; of later tokens' means only those of enough tokens."""
    if names.QUANTITIES[quantity].of_later_tokens:
        counted = counted & ~Prompts(dataset).rarely_seen
    return prompt_profiles(dataset, quantity, prompts, counted)


def banded(values: Floats, bands: int) -> Floats:
    """Means over so many runs of neighbouring layers, as even as can be; `values` is [prompt, layer]."""
    return np.stack([part.mean(axis=1) for part in np.array_split(values, bands, axis=1)], axis=1)
