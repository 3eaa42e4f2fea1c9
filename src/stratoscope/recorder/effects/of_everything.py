"""The total effects of everything in one prompt at some of its tokens: neurons, MLPs, heads, attention blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stratoscope.model import sites as s
from stratoscope.model.heads import Heads
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.effects.gradients import EXPERTS, SiteGradient
from stratoscope.recorder.effects.strongest import EffectTables
from stratoscope.trace.calibration import Kind

OfLayers = list[NDArray[np.float32] | None]  # of each layer, [token, number]; None where it has nothing of the kind


class OfEverything:
    """Effects that are filled by the backwards of all targets, of one prompt alone in its batch.

    Parameters
    ----------
    sites, heads
        Where neurons and heads are.
    tables
        The sums of the same batch; they say what activations are compared with.
    tokens
        Positions at which effects are kept.
    """

    def __init__(
        self, sites: ModelSites, heads: Sequence[Heads | None], tables: EffectTables, tokens: NDArray[np.int64]
    ) -> None:
        self._sites, self._heads, self._tables, self._tokens = sites, heads, tables, tokens
        self._neurons: defaultdict[tuple[int, int], list[NDArray[np.float32]]] = defaultdict(list)
        self._numbers: dict[int, list[NDArray[np.int64]]] = {}
        self._last: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}

    def receive(self, seen: SiteGradient) -> None:
        """Take what one backward shows at one place."""
        self._tables.receive(seen)
        if seen.kind not in (s.NEURONS, EXPERTS):
            return
        effect = (self._tables.difference(seen) * seen.gradient.float())[self._tokens].cpu()
        found = self._neurons[seen.layer, seen.target]
        if not found:
            self._numbers[seen.layer], self._last[seen.layer] = [], []
        found.append(effect.flatten(1).numpy())
        self._numbers[seen.layer].append(self._numbers_of(seen))
        self._last[seen.layer].append(_at_last_token(seen))

    def _numbers_of(self, seen: SiteGradient) -> NDArray[np.int64]:
        """Which neurons stand in the columns, flat as on the axis `neuron`: [token or 1, column]."""
        width, experts = seen.value.shape[-1], self._sites.layers[seen.layer].experts
        if seen.kind != EXPERTS or experts is None or seen.experts is None:
            first = self._sites.widths[seen.layer] - width  # a shared expert stands behind the others
            return np.arange(first, first + width)[None].repeat(len(self._tokens), 0)
        chosen = seen.experts[self._tokens].cpu().numpy()
        found: NDArray[np.int64] = (chosen[..., None] * width + np.arange(width)).reshape(len(chosen), -1)
        return found

    def of(self, kind: Kind, target: int) -> OfLayers:
        """The effects of a kind on a target."""
        layers = range(len(self._sites.layers))
        if kind == "neuron":
            parts = [self._neurons.get((layer, target)) for layer in layers]
            return [None if some is None else np.concatenate(some, axis=1) for some in parts]
        table = {"mlp": self._tables.mlp, "head": self._tables.head, "attn": self._tables.attn}[kind]
        values = table[self._tokens, ..., target].numpy()
        there = [self._sites.widths[n] > 0 if kind == "mlp" else self._heads[n] is not None for n in layers]
        return [values[:, layer].reshape(len(values), -1) if there[layer] else None for layer in layers]

    def at_answer(self, layer: int, neuron: int) -> tuple[float, float]:
        """A neuron at the answer position: its activation, and what a router multiplies its write by."""
        value, factor = (np.concatenate(parts) for parts in zip(*self._last[layer], strict=True))
        numbers = np.concatenate(self._numbers[layer], axis=1)[-1]
        place = int(np.flatnonzero(numbers == neuron)[0])
        return float(value[place]), float(factor[place])

    def number(self, kind: Kind, layer: int, token: int, column: int) -> int:
        """Which neuron or head it is; −1 for all of a layer."""
        if kind == "neuron":
            return int(np.concatenate(self._numbers[layer], axis=1)[token, column])
        return column if kind == "head" else -1


def _at_last_token(seen: SiteGradient) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Activations, and what a router multiplies the writes by, [column]."""
    value = seen.value[-1].float().cpu()
    factor = torch.ones(1) if seen.weights is None else seen.weights[-1].float().cpu()[:, None]
    return value.flatten().numpy(), factor.expand_as(value).flatten().numpy()
