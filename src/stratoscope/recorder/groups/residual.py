"""Group `residual`: how long the residual stream is before each block and behind the last."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import NORMS, RESIDUAL
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.proof.formulas import ByLayer, States
    from stratoscope.recorder.reduce.residual import Quantities, Stream
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class Residual(RecordGroup):
    """Every block has it."""

    name = RESIDUAL
    pairs = ("residual",)  # what leaves a block, and what entered it

    def observed(self, record: Collection[str]) -> bool:
        """Also where nothing else shows in which block numbers cease to be finite."""
        return self.name in record or NORMS not in record

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
