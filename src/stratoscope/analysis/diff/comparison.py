"""Everything that a diff compared, from which its Result is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.diff.ancestry import Ancestry
    from stratoscope.analysis.diff.cells import Compared, SharedLayers
    from stratoscope.analysis.diff.claims import Claim
    from stratoscope.analysis.diff.conditions import Conditions
    from stratoscope.analysis.diff.contributions import Explained
    from stratoscope.analysis.diff.exact import Exact
    from stratoscope.analysis.diff.floor import Noise
    from stratoscope.analysis.diff.neurons import NeuronDifferences
    from stratoscope.analysis.diff.prompts import Columns, Pair, Side
    from stratoscope.trace.arrays import Ints


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared."""

    a: xr.Dataset
    b: xr.Dataset
    sides: tuple[Side, Side]
    pairs: list[Pair]
    columns: Columns
    shown: Ints
    noise: Noise
    conditions: Conditions
    compared: list[Compared]
    exact: Exact
    rows: SharedLayers
    ancestry: Ancestry
    neurons: NeuronDifferences | None
    prompts_of_neurons: int
    other_context: int
    claims: list[Claim]
    null: xr.DataTree | None
    explained: Explained | None = None
