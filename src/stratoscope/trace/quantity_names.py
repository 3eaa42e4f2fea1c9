"""How a user names a quantity: by its name here, or by what another tool calls the tensor that it is, or is of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stratoscope.errors import InputError, did_you_mean
from stratoscope.names import QUANTITIES
from stratoscope.trace.format.schema import UNKNOWN_ARRAYS

if TYPE_CHECKING:
    import xarray as xr

_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)|(?<=\[)\d+(?=\])")
_PREDICTION = re.compile(r"lens|logit|predict|unembed", re.IGNORECASE)
_BEHIND_BLOCK = re.compile(r"blocks\.(\d+|L)\.hook_resid_post|resid_post\.(\d+|L)", re.IGNORECASE)


def check_known(dataset: xr.Dataset, choice: object) -> None:
    """An `InputError` where a user names an array that a newer Stratoscope wrote and this one cannot read."""
    if choice in (dataset.attrs.get(UNKNOWN_ARRAYS) or ()):
        raise InputError(
            f"{choice!r} is not read", where="quantity", fix="Install the newer Stratoscope that wrote it."
        )


def layer_in(choice: str) -> str:
    """The number in another tool's name, which chooses no layer; "" where there is none."""
    found = _LAYER.search(choice)
    return found[0] if found else ""


def quantity_named(choice: str, allowed: Iterable[str]) -> str:
    """The quantity of that name, where the layer in another tool's name may be L or any number.

    The number chooses no layer: `blocks.3.mlp.hook_out` is `mlp_out_norm` of all layers.

    Parameters
    ----------
    choice
        `mlp_out_norm`, `blocks.L.mlp.hook_out`, `mlp_out.7`, …
    allowed
        Quantities that can be asked for here.

    Returns
    -------
    str
        A name of `names.QUANTITIES`; one that nothing is like is given back, to be refused with what there is.

    Raises
    ------
    InputError
        It is another tool's name of several quantities that can be asked for, or a mistyped one.
    """
    allowed = [*allowed]
    if not isinstance(choice, str) or choice in allowed or choice in QUANTITIES:
        return choice
    general = _LAYER.sub("L", choice)
    called = [name for name, row in QUANTITIES.items() if general in row.elsewhere.values()]
    here = [name for name in called if name in allowed]
    if len(here) > 1:
        one_of = f"Use one of these names: {', '.join(here)}."
        raise InputError(f"{choice!r} may be {' and '.join(here)}", where="quantity", fix=one_of)
    if called:
        return (here or called)[0]
    if behind := _BEHIND_BLOCK.fullmatch(choice):
        depth = str(int(layer) + 1) if (layer := behind[1] or behind[2]).isdecimal() else "L + 1"
        fix = f"It is resid_norm at depth {depth}, where depth 0 is before the first block."
        raise InputError(f"no quantity called {choice!r}", where="quantity", fix=fix)
    if _PREDICTION.search(choice) and not any(_PREDICTION.search(name) for name in allowed):
        fix = (
            "What each depth reads as tokens is recorded by `capture --record lens` and drawn by `stratoscope lens`. "
            f"This input has: {', '.join(allowed) or 'none'}."
        )
        raise InputError(f"no quantity called {choice!r}", where="quantity", fix=fix)
    known = [other for name in allowed for other in (name, *QUANTITIES[name].elsewhere.values())]
    if not (near := did_you_mean(general, known, 3)):
        return choice
    fix = f"{near}This input has: {', '.join(allowed)}."
    raise InputError(f"no quantity called {choice!r}", where="quantity", fix=fix)
