"""Group `prompts`: mean, largest and smallest activation of every neuron over a prompt's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import PROMPTS, quantities_of
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class PromptsGroup(RecordGroup):
    """A prompt without a word of its own has none; nor has an expert to which none was sent."""

    name = PROMPTS
    needs_mlp = sees_experts = True
    planted = ("selective_neuron",)

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, for dense MLPs and mixtures of experts."""
        from stratoscope.recorder.reduce.prompt_summaries import PromptReducer

        return [PromptReducer(shared)]

    def undefined(self, sites: ModelSites) -> dict[str, list[int]]:
        """In narrower blocks beyond their width, and of experts to which no token was sent."""
        narrower = {number for number, width in enumerate(sites.widths) if width < sites.d_ff}
        experts = {number for number, layer in enumerate(sites.layers) if layer.experts}
        return {quantity.name: sorted(narrower | experts) for quantity in quantities_of([PROMPTS])}

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray:
        """Prompts without a word of their own, as a whole."""
        return np.asarray(np.isnan(values).all(axis=(1, 2), keepdims=True))

    def replayed(self, block: ShownBlock) -> Values:
        """Over the prompts' own rows, as wide as the widest block."""
        from stratoscope.recorder.reference import formulas

        if block.mlp is None:
            return {}
        if block.mixture is None:
            found = [formulas.summary(block.a[own]) for own in block.own_rows]
        else:
            found = [block.mixture.summary(own, block.sites.d_ff) for own in block.own_rows]
        return formulas.together(found, block.sites.d_ff)

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Summaries that the peaks are part of."""
        return prompt.summaries


GROUP = PromptsGroup()
