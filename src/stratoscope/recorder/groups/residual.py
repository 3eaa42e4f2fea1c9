"""Group `residual`: how long the residual stream is before each block and behind the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import RESIDUAL
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.proof.formulas import ByLayer, States
    from stratoscope.recorder.reduce.residual import Quantities, Stream
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class Residual(RecordGroup):
    """Every block has it, and it shows in which one numbers stop to be finite: so it is always observed."""

    name = RESIDUAL
    always = True
    pairs = ("residual",)  # what leaves a block, and what entered it

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, which measures the stream; `_recorded` says what of it is recorded."""
        from stratoscope.recorder.reduce.residual import ResidualReducer

        return [ResidualReducer(shared, *self.pairs, self._recorded)]

    def _recorded(self, stream: Stream) -> Quantities:
        return {"resid_norm": stream.norm}

    def replayed_stream(self, states: States) -> ByLayer:
        """From Hugging Face's own hidden states, where the model lists them."""
        from stratoscope.recorder.proof.formulas import residual

        return residual(states)

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """What the simulated writes add up to."""
        return {"resid_norm": prompt.norms["resid_norm"]}


GROUP = Residual()
