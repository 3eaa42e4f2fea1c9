"""Where two traces hold exactly the same numbers, and the first layer in which they do not.

Equal numbers need no floor: nothing is smaller than no difference. A causal model that is changed in one block computes
the same before it, bit for bit, if it is run alike; so the first layer that differs is where the change is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.cells import Compared, SharedLayers
from stratoscope.analysis.diff.neurons import NeuronDifferences

EMBEDDING = -1  # the "layer" whose outcome is depth 0


@dataclass(frozen=True)
class Exact:
    """Counts of numbers, of tokens that have seen the same tokens in both traces.

    Attributes
    ----------
    numbers, changed
        How many were compared, and how many of them are not the same.
    equal
        The layers before the first that changed, all of whose numbers are the same.
    first
        The first layer in which a number differs, its outcome in the residual stream included; `EMBEDDING` where
        the residual stream differs before the first block; None where nothing does.
    same_there, other_there
        The quantities of that layer that are exactly the same, and those that are not.
    share_there
        The largest share of cells of one quantity that differ in it.
    share_after
        The share of the numbers of later layers that differ; None where there are none.
    """

    numbers: int
    changed: int
    equal: list[int]
    first: int | None
    same_there: list[str]
    other_there: list[str]
    share_there: float | None
    share_after: float | None


def exactness(compared: Sequence[Compared], neurons: NeuronDifferences | None, rows: SharedLayers) -> Exact:
    """Where everything is the same; `neurons`: only where their prompts have the same context in both traces."""
    counts: dict[int, dict[str, tuple[int, int]]] = {}  # layer -> quantity -> how many differ, of how many
    for one in compared:
        behind = one.rows.kind == names.DEPTH  # depth d is what block d − 1 made
        for row, number in enumerate(one.rows.numbers.tolist()):
            layer = counts.setdefault(number - behind, {})
            layer[one.quantity] = int(one.exact["changed"][row]), int(one.exact["numbers"][row])
    if neurons is not None:
        for place in np.flatnonzero(neurons.same).tolist():
            known = neurons.largest[place][np.isfinite(neurons.largest[place])]
            counts.setdefault(int(rows.numbers[place]), {})["prompt_mean"] = int((known > 0).sum()), len(known)
    changed = {layer: sum(one for one, _ in found.values()) for layer, found in counts.items()}
    own = set(rows.numbers.tolist()) if any(one.rows.kind == names.LAYER for one in compared) else set(counts)
    first = min((layer for layer, count in changed.items() if count), default=None)
    there = {} if first is None else counts[first]
    later = [one for layer, found in counts.items() if first is not None and layer > first for one in found.values()]
    cells_later = sum(of for _, of in later)
    return Exact(
        numbers=sum(of for found in counts.values() for _, of in found.values()),
        changed=sum(changed.values()),
        equal=sorted(layer for layer in own & counts.keys() if layer != EMBEDDING and (first is None or layer < first)),
        first=first,
        same_there=[name for name, (count, of) in there.items() if of and not count],
        other_there=[name for name, (count, _) in there.items() if count],
        share_there=max((count / of for count, of in there.values() if of), default=None),
        share_after=sum(count for count, _ in later) / cells_later if cells_later else None,
    )
