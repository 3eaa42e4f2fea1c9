"""What each edge of attention brings to a target: the edges of largest total effect, from the backwards of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from stratoscope import defaults
from stratoscope.errors import CaptureError
from stratoscope.model.precision import full_precision
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.attention.given import Given
from stratoscope.recorder.attention.sources import HeldAttention, factor_between, in_sentences
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.recorder.routes.edges import Edges, edges_into
from stratoscope.recorder.tolerance import Tolerance

KEEP = defaults.KEPT_EDGES
_FULL, _ROUNDINGS = 1e-5, 4  # of Σ|effect|: in float32 and float64; in half precision as many roundings
_LIMIT = "Total effects of edges add up"
_NOT_SEEN = "its attention is not seen when its block is computed once more"


class RouteEffects:
    """Effects of edges of one batch after another, to first order and from zero.

    An edge's is A[q,k]·⟨v_k, ∂y/∂z_q⟩ of what its head gives, z: its sum over all edges is the head's. Where attention
    is not split by token its whole effect is among the others.

    Parameters
    ----------
    model, sites
        The model and its proved sites.

    Attributes
    ----------
    watched
        Open while forwards run whose attention is looked at.
    """

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._model, self._sites = model, sites
        self._held = HeldAttention(model, sites, self._attended)
        self.watched: AbstractContextManager[object] = self._held
        self._tolerance = Tolerance(next(model.parameters()).dtype, full=_FULL, roundings=_ROUNDINGS)
        self._error = 0.0
        self._late: dict[int, str] = {}
        self._scratch = Scratch(sites.devices(model)[0])
        self._given: dict[int, tuple[Given, Tensor | None]] = {}
        self._valid = torch.empty(0)
        self._all = True
        self._found: dict[str, Tensor] = {}

    def begin(self, batch: Batch, targets: int, *, recompute: bool) -> None:
        """Take up a batch; with `recompute`, each block's attention is seen again just before its gradients arrive."""
        self._given.clear()
        self._valid, self._all = batch.mask.bool(), not recompute
        self._held.begin(self._valid)
        shape = (batch.rows, len(self._sites.layers), targets)
        none = torch.full((2, *shape, KEEP), -1, dtype=torch.int32)
        self._found = {
            "route_effect_source": none[0],
            "route_effect_head": none[1],
            "route_effect": torch.full((*shape, KEEP), torch.nan),
            "route_effect_other": torch.zeros(shape),
            "route_effect_other_size": torch.zeros(shape),
        }

    def end(self) -> Mapping[str, Tensor]:
        """The quantities of the batch, [row, layer, target, …]."""
        self._given.clear()
        self._held.stop()
        found, self._found = self._found, {}
        return found

    @torch.no_grad()
    def of_heads(self, layer: int, target: int, value: Tensor, gradient: Tensor, ids: list[str]) -> None:
        """Take what all heads of a layer give, [row, head × width], and ∂y/∂ of it.

        Raises
        ------
        CaptureError
            The effects of edges do not add up to those of the heads.
        """
        products = value.float() * gradient.float()
        known = self._given.get(layer)
        if known is None:
            if layer not in self._held.limits:
                self._late[layer] = _NOT_SEEN
            self.of_write(layer, target, value, gradient)
            return
        given, factor = known
        valid = self._valid.to(given.value.device)
        edges = Edges.room(valid.numel(), KEEP, valid.device)
        read = gradient.to(valid.device).float().view(*valid.shape, given.output.shape[1], -1)
        with full_precision():
            edges_into(edges, given, valid, read if factor is None else read * factor, self._scratch)
        edges.from_first(valid)
        for place, values in zip(self._found.values(), edges, strict=True):
            place[:, layer, target] = values.cpu()
        products = products.to(valid.device)
        size = edges.weight.abs().nansum(1) + edges.other_size + products.abs().sum(1)
        total = edges.weight.nansum(1) + edges.other
        error = (total - products.sum(1)).abs() / size.clamp(min=torch.finfo(torch.float32).tiny)
        self._check(layer, error.where(valid.reshape(-1), 0).cpu(), ids)

    @torch.no_grad()
    def of_write(self, layer: int, target: int, value: Tensor, gradient: Tensor) -> None:
        """Take what a mixer that is not split writes, [row, residual], and ∂y/∂ of it."""
        whole = (value.float() * gradient.float()).sum(1).cpu()
        self._found["route_effect_other"][:, layer, target] = whole
        self._found["route_effect_other_size"][:, layer, target] = whole.abs()

    @property
    def facts(self) -> dict[str, float]:
        """Facts of a receipt: the largest error of the sums so far, and what rounding explains."""
        return {"edges_error": self._error, "edges_limit": self._tolerance.limit}

    def go_on(self, facts: Mapping[str, float]) -> None:
        """Take up what was found before an interruption."""
        self._error = max(self._error, facts.get("edges_error", 0.0))

    def into(self, limits: list[str]) -> list[str]:
        """Limits of a receipt with those of these effects."""
        kept = [one for one in limits if not one.startswith(_LIMIT)]
        if self._error > self._tolerance.limit:
            kept.append(f"{_LIMIT} less exactly than within {self._tolerance.limit:.1g} of their sizes.")
        return [*kept, *in_sentences(self._late)]

    def _check(self, layer: int, error: Tensor, ids: list[str]) -> None:
        worst = float(error.max())
        if self._tolerance.stops(worst):
            row = int((~(error <= self._tolerance.limit)).nonzero()[0, 0])
            raise CaptureError(
                f"the total effects of the edges of layer {layer} do not add up to those of its heads: they are off by "
                f"{worst:.2g} of their sizes, and {self._tolerance.limit:.1g} is rounding",
                where=f"prompt {ids[row // self._valid.shape[1]]}",
                fix="This model does more than was proved of it: record without the group routes.",
            )
        self._error = max(self._error, worst)

    def _attended(self, layer: int, given: Given, reaching: Tensor, multiplied: bool) -> None:
        if not self._all:
            self._given.clear()
        kept = {one.name: getattr(given, one.name) for one in fields(given)}
        detached = {name: one.detach() for name, one in kept.items() if isinstance(one, Tensor)}
        given = replace(given, **detached)  # type: ignore[arg-type]
        self._given[layer] = given, factor_between(given, reaching) if multiplied else None
