"""Group `norms`: how large the writes into the residual stream are and how they point, and the router's choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import NORMS, PEAKS, quantities_of
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt

_WRITES = ("attn", "mlp")


class NormsGroup(RecordGroup):
    """Of every block without attention what is attention's is NaN, of one without an MLP what is the MLP's."""

    name = NORMS
    sees_experts = True
    pairs = _WRITES  # a write, and the residual it is added to
    quotients = tuple(f"{write}_write_{what}" for write in _WRITES for what in ("ratio", "cos"))
    planted = ("sink",)

    def reducers(self, shared: Shared) -> list[Reducer]:
        """The router has one of its own where there are experts."""
        from stratoscope.recorder.reduce.norms import NormReducer
        from stratoscope.recorder.reduce.router import RouterReducer

        # whoever looks for the strongest neurons has them in hand anyway
        reducers: list[Reducer] = [NormReducer(shared, norm_of_neurons=PEAKS not in shared.record)]
        return [*reducers, *([RouterReducer(shared)] if shared.sites.choices else [])]

    def undefined(self, sites: ModelSites) -> dict[str, list[int]]:
        """In blocks without what writes; of the router in any, as one may be dense or choose fewer experts."""
        from stratoscope.model.sites import ATTN_WRITE, MLP_OUT

        without = {"attn": sites.without(ATTN_WRITE), "router": [*range(len(sites.layers))]}
        names = [quantity.name for quantity in quantities_of([NORMS])]
        return {name: without.get(name.partition("_")[0], sites.without(MLP_OUT)) for name in names}

    def replayed(self, block: ShownBlock) -> Values:
        """Both writes against the residual each is added to, and the neurons."""
        from stratoscope.recorder.reference import formulas

        found: Values = {}
        if block.attn is not None:
            found |= formulas.write("attn", block.attn, block.x)
        if block.mlp is not None:
            found |= formulas.write("mlp", block.mlp, block.read_by_mlp)
            mixture, choices = block.mixture, block.sites.choices
            found |= formulas.neurons(block.a, *block.weight) if mixture is None else mixture.norms(choices)
        return found

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Writes that obey the law of cosines; the norm of the neurons is what the peaks say."""
        return {**prompt.norms, "neuron_norm": prompt.peaks.neuron_norm}


GROUP = NormsGroup()
