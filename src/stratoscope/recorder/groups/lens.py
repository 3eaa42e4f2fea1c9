"""Group `lens`: which tokens each depth of the residual stream reads as, through the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import LENSES
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import ByLayer, Values
    from stratoscope.recorder.reference.shown import ShownBlock, ShownEnds
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class LensGroup(RecordGroup):
    """At tokens that are not read it is NaN and −1; logits of targets are read at every token."""

    name = LENSES
    planted = ("answer_depth",)

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One, which reads all depths at once when the forward has ended."""
        from stratoscope.recorder.reduce.lens import LensReducer

        return [LensReducer(shared)]

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """At tokens that are not read, and at depths that a fitted lens lacks; logits of targets everywhere else."""
        missing = np.isnan(values)
        if name == "lens_target_logit":
            missing[:, :, 0] = False
        return np.asarray(missing)

    def replayed(self, block: ShownBlock) -> Values:
        """Of what enters a block."""
        return {} if block.lenses is None else block.lenses.at(block.number, block.x)

    def replayed_end(self, found: ByLayer, shown: ShownEnds) -> ByLayer:
        """Of what leaves the last."""
        if shown.lenses is None:
            return {}
        last = max(found["lens_logprob"]) + 1
        return {
            name: {**found.get(name, {}), last: values} for name, values in shown.lenses.at(last, shown.last).items()
        }

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """A logit lens and a Jacobian lens with its halves; the depth is planted from which each reads the answer."""
        return prompt.lenses


GROUP = LensGroup()
