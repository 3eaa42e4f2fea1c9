"""Group `attention-full`: every attention weight of every head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import ATTENTION_FULL
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class AttentionFullGroup(RecordGroup):
    """Pair by pair (query, key ≤ query), streamed by attention's observer."""

    name = ATTENTION_FULL
    sees_attention = True
    planted = ("attention_sink", "routing_anomaly")

    def replayed(self, block: ShownBlock) -> Values:
        """The weights that eager attention shows, compared while the layer is there."""
        from stratoscope.recorder.reference import formulas

        return {} if block.attention is None else block.compared("attention", formulas.pairs(*block.attention))

    def simulated_rows(self, prompt: SimulatedPrompt) -> Iterator[tuple[str, int, int, np.ndarray]]:
        """In runs of queries, so that no matrix is built."""
        for layer in range(prompt.model.shape.layers):
            row = 0
            for run in prompt.attention_pairs(layer):
                yield "attention", layer, row, run
                row += len(run)


GROUP = AttentionFullGroup()
