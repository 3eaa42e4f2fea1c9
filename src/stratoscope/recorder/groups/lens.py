"""Group `lens`: which tokens each depth of the residual stream reads as, through the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import LENSES
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class LensGroup(RecordGroup):
    """At tokens that are not read it is NaN and −1; logits of targets are read at every token."""

    name = LENSES
    planted = ("answer_depth",)

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """Of no model yet."""
        return (
            "lens is simulated only, so far",
            "Leave it out; `stratoscope simulate --record lens` shows what it will be.",
        )

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """At tokens that are not read."""
        return np.asarray(np.isnan(values))

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """A logit lens and a Jacobian lens with its halves; the depth is planted from which each reads the answer."""
        return prompt.lenses


GROUP = LensGroup()
