"""How a user names a quantity: by its name here, or by what another tool calls the tensor that it is, or is of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from stratoscope.errors import InputError
from stratoscope.names import QUANTITIES

_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)|(?<=\[)\d+(?=\])")


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
    known = [other for name in allowed for other in (name, *QUANTITIES[name].elsewhere.values())]
    near = get_close_matches(general, known, 3)
    if not near:
        return choice
    raise InputError(
        f"no quantity called {choice!r}",
        where="quantity",
        fix=f"Did you mean {' or '.join(near)}? This input has: {', '.join(allowed)}.",
    )
