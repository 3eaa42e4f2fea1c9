"""Group `peaks`: the neurons that write most at each token, and how much of the MLP's output they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import PEAKS, quantities_of
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class PeaksGroup(RecordGroup):
    """A block without an MLP has none: −1 and NaN."""

    name = PEAKS
    needs_mlp = sees_experts = True
    pairs = ("peaks",)  # what the peaks write, and the MLP's output
    quotients = ("peak_share", "peak_explained")
    planted = ("class_peak", "sink")

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """More peaks than neurons."""
        if top_k <= sites.fewest_neurons:
            return None
        what = f"the top-k is {top_k}, but at a token {sites.fewest_neurons} neurons are active in an MLP"
        return what, "Use a smaller one."

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, for dense MLPs and mixtures of experts."""
        from stratoscope.recorder.reduce.peaks import PeakReducer

        return [PeakReducer(shared, *self.pairs)]

    def undefined(self, sites: ModelSites) -> dict[str, list[int]]:
        """In blocks without an MLP."""
        from stratoscope.model.sites import MLP_OUT

        return {quantity.name: sites.without(MLP_OUT) for quantity in quantities_of([PEAKS])}

    def replayed(self, block: ShownBlock) -> Values:
        """The recorded neurons, and what the truly strongest write."""
        from stratoscope.recorder.reference import formulas
        from stratoscope.recorder.reference.differences import STRONGEST

        if block.mlp is None:
            return {}
        neuron, expert = block.recorded_peaks
        if block.mixture is None:
            values, strongest = formulas.peaks(block.a, block.weight[0], neuron)
        else:
            values, strongest = block.mixture.peaks(expert, neuron)
        return {STRONGEST: strongest, **values}

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """True order statistics."""
        peaks = prompt.peaks
        found = {"peak_neuron": peaks.neuron, "peak_value": peaks.value, "peak_write": peaks.write}
        return {**found, "peak_share": peaks.share, "peak_explained": peaks.explained}


GROUP = PeaksGroup()
