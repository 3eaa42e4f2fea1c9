"""Group `routes`: from which tokens, and through which heads, each token's residual stream is made, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import ROUTES
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import ModelSites
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class RoutesGroup(RecordGroup):
    """Where a token has fewer edges than are kept, the others are NaN and −1."""

    name = ROUTES
    planted = ("previous_token_head", "route", "routing_anomaly")

    def refusal(self, sites: ModelSites, record: tuple[str, ...], top_k: int) -> tuple[str, str] | None:
        """Of no model yet."""
        return (
            "routes are simulated only, so far",
            "Leave them out; `stratoscope simulate --record routes` shows what they will be.",
        )

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Where there are no more edges."""
        return np.asarray(np.isnan(values))

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Shares that sum to 1 exactly; a head that looks at the token before is planted, and a route through it."""
        return prompt.routes


GROUP = RoutesGroup()
