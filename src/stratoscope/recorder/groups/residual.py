"""Group `residual`: how long the residual stream is before each block and behind the last, and how blocks turn it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import NORMS, RESIDUAL
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.reduce.residual import Quantities, Stream
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import ByLayer, States
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class ResidualGroup(RecordGroup):
    """Every block has it."""

    name = RESIDUAL
    pairs = ("residual",)  # what leaves a block, and what entered it
    quotients = ("resid_cos",)

    def observed(self, record: Collection[str]) -> bool:
        """Also where nothing else shows in which block numbers cease to be finite."""
        return self.name in record or NORMS not in record

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, which measures the stream; `_recorded` says what of it is recorded."""
        from stratoscope.recorder.reduce.residual import ResidualReducer

        return [ResidualReducer(shared, *self.pairs, self._recorded)]

    def _recorded(self, stream: Stream) -> Quantities:
        cosine = stream.product / (stream.norm[:-1] * stream.norm[1:])
        return {"resid_norm": stream.norm, "resid_cos": cosine.clamp(-1, 1)}

    def replayed_stream(self, states: States) -> ByLayer:
        """From Hugging Face's own hidden states, where the model lists them."""
        from stratoscope.recorder.reference.formulas import residual

        return residual(states)

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """What the simulated writes add up to."""
        return prompt.norms


GROUP = ResidualGroup()
