"""Where prompts are expected to lie before anybody looks at them: a centre for each number, and a distance from it.

Prompts are clipped around it. So it must be public: of a file that was published of other prompts, or the constants
here, measured once on the reference docstrings of `make truth` in SmolLM2-135M and rounded. Values of layers and models
differ much more than those of prompts, so that with the constants the noise is ten times as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from stratoscope.analysis.results.result import is_result, table_in
from stratoscope.errors import InputError
from stratoscope.publish.averaged import KIND, scale_of
from stratoscope.trace.arrays import Floats, Ints

_FIX = "Give a Result that was published of other prompts in the same model, with all its layers."


@dataclass(frozen=True)
class Usual:
    """What is public of a quantity, on the scale of its means: logarithms to base 2 of norms and ratios.

    Attributes
    ----------
    centre
        Its mean over layers.
    apart
        How far a prompt in any layer of any model is thought to lie from it.
    spread
        How far prompts lie from their own mean in a layer.
    """

    centre: float
    apart: float
    spread: float


KNOWN: Mapping[str, Usual] = {
    "mlp_write_ratio": Usual(-2.0, 1.25, 0.12),
    "attn_write_ratio": Usual(-2.5, 1.25, 0.12),
    "mlp_out_norm": Usual(5.5, 1.5, 0.1),
    "resid_norm": Usual(7.5, 2.0, 0.06),
    "neuron_norm": Usual(3.5, 1.5, 0.1),
    "mlp_write_norm": Usual(5.5, 1.5, 0.1),
    "attn_write_norm": Usual(5.0, 1.5, 0.12),
    "attn_value_norm": Usual(3.0, 1.5, 0.12),
    "mlp_write_cos": Usual(0.0, 0.25, 0.05),
    "attn_write_cos": Usual(0.0, 0.25, 0.05),
    "resid_cos": Usual(0.9, 0.25, 0.02),
    "attn_received": Usual(-1.0, 1.0, 0.2),
    "attn_received_nosink": Usual(0.0, 0.75, 0.3),
    "attn_entropy": Usual(0.5, 0.25, 0.06),
    "attn_entropy_nosink": Usual(0.6, 0.25, 0.06),
    "attn_first": Usual(0.5, 0.25, 0.1),
    "attn_distance": Usual(4.0, 1.0, 0.3),
    "attn_distance_nosink": Usual(2.5, 1.0, 0.3),
}


@dataclass(frozen=True, eq=False)
class Centre:
    """A centre of one quantity.

    Attributes
    ----------
    of_row
        Its value in each layer or depth.
    unit
        In how much of the quantity distances from it are measured.
    """

    of_row: Floats
    unit: float


def centre_of(quantity: str, kind: str, rows: Ints, published: xr.DataTree | None) -> Centre:
    """The public centre of a quantity.

    Parameters
    ----------
    kind, rows
        Numbers of its layers, or depths.
    published
        Class profiles of other prompts; their mean over the classes, so that no class is nearer to it by its name.

    Raises
    ------
    InputError
        Nothing is public of this quantity, or the profiles do not have it in all these layers.
    """
    if quantity not in KNOWN:
        fix = f"Choose among {', '.join(KNOWN)}."
        raise InputError(f"nothing is known of what {quantity} usually is", where="quantity", fix=fix)
    usual = KNOWN[quantity]
    if published is None:
        return Centre(np.full(len(rows), usual.centre), usual.apart)
    if not is_result(published, KIND):
        raise InputError("it holds no class profiles", where="centre", fix=_FIX)
    try:
        table = table_in(published, f"{KIND}/{quantity}")
    except KeyError:
        raise InputError(f"it holds no profile of {quantity}", where="centre", fix=_FIX) from None
    values = np.asarray(table["mean"].values, np.float64).mean(axis=0)
    known = dict(zip(table[kind].values.tolist(), values.tolist(), strict=True))
    found = np.array([known.get(row, np.nan) for row in rows.tolist()])
    if not np.isfinite(found).all() or table["mean"].attrs.get("scale") != scale_of(quantity):
        raise InputError(f"its profile of {quantity} does not fit this trace", where="centre", fix=_FIX)
    return Centre(found, usual.spread)
