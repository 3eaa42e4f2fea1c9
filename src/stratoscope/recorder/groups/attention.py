"""Group `attention`: what each token gets of attention, and what each head does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import ATTENTION
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt

_IN_WHOLE_LAYERS = ("attn_distance", "attn_value_norm")  # all others are undefined somewhere in every prompt


class AttentionGroup(RecordGroup):
    """Of layers without attention it is NaN."""

    name = ATTENTION
    sees_attention = True
    planted = ("attention_sink", "routing_anomaly")

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray:
        """Most of them somewhere, such as where no later token sees one; the others in whole layers."""
        nan: np.ndarray = np.isnan(values)
        return nan & nan.all(axis=(0, 2), keepdims=True) if name in _IN_WHOLE_LAYERS else nan

    def replayed(self, block: ShownBlock) -> Values:
        """From the weights that eager attention shows."""
        from stratoscope.recorder.reference import formulas

        if block.attention is None:
            return {}
        weights, seen = block.attention
        found = formulas.attention(weights, seen, learned_sink=block.has_learned_sink)
        if block.out_weight is not None:
            found["attn_value_norm"] = formulas.head_writes(block.flow, block.out_weight, len(weights))
        return found

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Summaries in closed form of real attention matrices."""
        return prompt.attention


GROUP = AttentionGroup()
