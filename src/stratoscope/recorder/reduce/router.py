"""Which experts each token is routed to, and with which weights: part of the group `norms`."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.shared import Shared


class RouterReducer:
    """`router_expert` and `router_weight` of every block with experts; −1 and NaN in the others."""

    kinds: frozenset[str] = frozenset()

    def __init__(self, shared: Shared) -> None:
        self._sites, self._scratch = shared.sites, shared.scratch
        self._experts, self._weights = torch.empty(0), torch.empty(0)

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        shape = (len(self._sites.layers), batch.rows, self._sites.choices)
        self._experts = self._scratch.get("router_expert", *shape, dtype=torch.int32).fill_(-1)
        self._weights = self._scratch.get("router_weight", *shape).fill_(torch.nan)

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Nothing: the router's choice comes with the mixture."""

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Take the router's choice."""
        choices = mixture.experts.shape[1]
        self._experts[layer, :, :choices] = mixture.experts
        self._weights[layer, :, :choices] = mixture.router

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._experts, self._weights = torch.empty(0), torch.empty(0)

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, rows, choice]."""
        return {"router_expert": self._experts, "router_weight": self._weights}
