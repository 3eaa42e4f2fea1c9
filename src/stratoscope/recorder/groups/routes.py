"""Group `routes`: from which tokens, and through which heads, each token's residual stream is made, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import ROUTES
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.model.sites import Site
    from stratoscope.recorder.reduce.scratch import Reducer
    from stratoscope.recorder.reduce.shared import Shared
    from stratoscope.recorder.reference.formulas import Values
    from stratoscope.recorder.reference.shown import ShownBlock
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class RoutesGroup(RecordGroup):
    """Where a token has fewer edges than are kept, the others are NaN and −1; so is all of an answer.

    A block without attention carries everything over; one whose mixer is not split by token has no edges.
    """

    name = ROUTES
    planted = ("previous_token_head", "route", "routing_anomaly")
    pairs = ("carried", "attention", "in front of the MLP", "MLP")

    def more_sites(self, shared: Shared) -> list[Site]:
        """Behind attention's last linear map, where a norm follows."""
        from stratoscope.recorder.reduce.passages import normed_outputs

        return normed_outputs(shared.model, shared.sites)

    def reducers(self, shared: Shared) -> list[Reducer]:
        """One."""
        from stratoscope.recorder.routes.reducer import RouteReducer

        return [RouteReducer(shared, self.pairs)]

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Where there are no more edges; that the others are there, their sums show, batch by batch."""
        return np.asarray(np.isnan(values))

    def shown_by_eager(self, name: str) -> bool:
        """Edges are."""
        return name in ("route_weight", "route_other", "route_other_size")

    def replayed(self, block: ShownBlock) -> Values:
        """From the weights that eager attention applies."""
        from stratoscope.recorder.reference.routes import of_block

        return of_block(block)

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Shares that sum to 1 exactly; a head that looks at the token before is planted, and a route through it."""
        return prompt.routes


GROUP = RoutesGroup()
