"""Group `neurons`: every activation of every neuron at every token, as the model computed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import NEURONS, NORMS
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class NeuronsGroup(RecordGroup):
    """Of a model with experts those of each token's chosen experts: which they are, the group norms says."""

    name = NEURONS
    needs_mlp = sees_experts = True
    planted = ("selective_neuron", "class_peak", "sink")

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """Neurons of experts that nobody could name."""
        if not sites.choices or NORMS in record:
            return None
        what = f"which experts its neurons are of is recorded by the group {NORMS}"
        return what, f"Use --record {','.join((NORMS, *record))}."

    def reducers(self, shared: Shared) -> list[Reducer]:
        """It holds nothing: rows go where they belong at once."""
        from stratoscope.recorder.reduce.neurons import NeuronRows

        (name,) = self.streams(shared.sites)
        return [NeuronRows(shared, name)]

    def streams(self, sites: ModelSites) -> list[str]:
        """All neurons, or those that are active in a mixture of experts."""
        return ["active_neurons" if sites.choices else "neurons"]

    def replayed(self, block: ShownBlock) -> Values:
        """The neurons of a dense block, or those that the mixture computes anew, compared while the layer is there."""
        if block.mlp is None:
            return {}
        (name,) = self.streams(block.sites)
        return block.compared(name, block.a if block.mixture is None else block.mixture.active)

    def simulated_rows(self, prompt: SimulatedPrompt) -> Iterator[tuple[str, int, int, np.ndarray]]:
        """Layer by layer: the peaks, and all others below them."""
        for layer in range(prompt.model.shape.layers):
            yield "neurons", layer, 0, prompt.neurons.layer(layer)


GROUP = NeuronsGroup()
