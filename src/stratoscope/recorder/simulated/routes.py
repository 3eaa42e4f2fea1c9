"""Simulated routes of one prompt: the edges of attention that make each token in each layer, and what they bring to targets.

Some turns of every head are drawn, each from another source; the strongest edges are kept, and all others are summed.
"""  # noqa: E501

from __future__ import annotations

from functools import cached_property

import numpy as np

from stratoscope.defaults import KEPT_EDGES
from stratoscope.recorder.simulated.model import PREVIOUS_WEIGHT, ROUTE_WEIGHT, Anomaly, SimulatedModel, SimulatedTokens
from stratoscope.trace.arrays import Bools, Floats, Ints

_TURNS = 4  # sources that are drawn of every head, at least
_MOVED = 0.4  # typical sum of all sizes of the edges of a token and layer
_LARGEST = 0.25  # of an edge that is not planted
_ODD = 0.375  # of the edges of the head that is routed oddly
_NEGATIVE = 0.25  # share of edges that take away
_FIRST = 0.3  # share of heads that look at the first token
_REST = 0.05  # of the edges that are not drawn one by one: their sum, at most
_GRID = 2**20  # shares are multiples of 1 / 2²⁰, so that they sum to 1 exactly
_EFFECT_GRID = 2**14  # of effects, whose wholes are multiples of 1 / 1024
_OF_EFFECTS = (
    "route_effect_source",
    "route_effect_head",
    "route_effect",
    "route_effect_other",
    "route_effect_other_size",
)


class SimulatedRoutes:
    """The quantities of the group `routes`.

    Parameters
    ----------
    model, text
        The pretended model and the prompt.
    """

    def __init__(self, model: SimulatedModel, text: SimulatedTokens) -> None:
        self._model, self._text = model, text
        self._length, shape = len(text.words), model.shape
        turns = max(_TURNS, -(-KEPT_EDGES // shape.heads))
        self._size = (self._length, shape.layers, turns, shape.heads)

    def shares(self, norms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What needs no targets; of the MLP as ratio and cosine of its writes say."""
        edges = self._drawn_weights * self._there
        rest = _grid(self._rest(-_REST, _REST), _GRID)
        rest_size = np.maximum(np.abs(rest), _grid(self._rest(0, 3 * _REST), _GRID))
        source, head, weight, other, other_size = self._kept(edges, rest, rest_size)
        bias = np.zeros(other.shape)
        ratio, cosine = norms["mlp_write_ratio"], norms["mlp_write_cos"]
        out = 1 + ratio**2 + 2 * ratio * cosine
        mlp = _grid((ratio**2 + ratio * cosine) / out, _GRID)
        return {
            "route_source": source,
            "route_head": head,
            "route_weight": weight,
            "route_other": other,
            "route_other_size": other_size,
            "route_bias": bias,
            "route_carry": 1 - np.nansum(weight, axis=-1) - other - bias,
            "route_mid": 1 - mlp,
            "route_mlp": mlp,
        }

    def effects(self, head_effect: np.ndarray) -> dict[str, np.ndarray]:
        """The effects of heads [token, layer, head, target], split by source."""
        random = self._model.shape.random("route effects", self._text.index)
        turns = self._size[2]
        found: dict[str, list[np.ndarray]] = {}
        for target in range(head_effect.shape[-1]):
            whole = head_effect[:, :, None, :, target]
            drawn = np.exp(1.5 * random.standard_normal((self._length, self._size[1], turns + 1, self._size[3])))
            more = (np.arange(self._length) >= turns)[:, None, None, None]  # sources that are not drawn
            there = np.concatenate([self._there, np.broadcast_to(more, drawn[:, :, -1:].shape)], axis=2)
            share = drawn * there / (drawn * there).sum(axis=2, keepdims=True)
            edges = _grid(whole * share, _EFFECT_GRID)
            left = whole[:, :, 0] - edges.sum(axis=2)
            edges[:, :, -1] += np.where(more[..., 0], left, 0)
            edges[:, :, 0] += np.where(more[..., 0], 0, left)
            rest = edges[:, :, -1]
            kept = self._kept(edges[:, :, :-1], rest.sum(axis=-1), np.abs(rest).sum(axis=-1))
            for name, values in zip(_OF_EFFECTS, kept, strict=True):
                found.setdefault(name, []).append(values)
        return {name: np.stack(by_target, axis=2) for name, by_target in found.items()}

    # --- edges --------------------------------------------------------------------------------------------------------

    @cached_property
    def _random(self) -> np.random.Generator:
        return self._model.shape.random("routes", 1 + self._text.index)

    @property
    def _odd(self) -> Anomaly | None:
        """The head that takes what it brings from one token, where it is planted in this prompt."""
        at = self._model.anomaly
        return at if at and at.prompt == self._text.index else None

    @cached_property
    def _there(self) -> Bools:
        """Which turns of a head have a source of their own, [token, layer, turn, head]."""
        queries, turns = np.arange(self._length)[:, None, None, None], np.arange(self._size[2])[:, None]
        return np.broadcast_to(turns <= queries, self._size)

    @cached_property
    def _sources(self) -> Ints:
        """Another source for each turn of a head: the first token or one nearby, then those behind it."""
        length, layers, turns, heads = self._size
        query = np.arange(length)[:, None, None]
        back = np.minimum(self._random.geometric(0.25, (length, layers, heads)) - 1, query)
        first = self._random.random((length, layers, heads)) < _FIRST
        base = np.where(first, 0, query - back)
        if odd := self._odd:
            base[odd.token :, odd.layer, odd.head] = odd.token
        if (planted := self._model.route) and length > 1:
            (early, late), (one, other) = planted.layers, planted.heads
            base[1:, early, one] = np.arange(length - 1)
            base[-1, late, other] = length // 2
        return np.asarray((base[:, :, None] + np.arange(turns)[:, None]) % (query[..., None] + 1))

    @cached_property
    def _drawn_weights(self) -> Floats:
        sources = self._sources  # drawn before, whatever is asked for first
        scale = _MOVED / (self._size[2] * self._size[3])
        sizes = np.minimum(scale * self._random.lognormal(0, 1, sources.shape), _LARGEST)
        found = _grid(np.where(self._random.random(sources.shape) < _NEGATIVE, -sizes, sizes), _GRID)
        if odd := self._odd:
            found[odd.token :, odd.layer, 0, odd.head] = _ODD
        if (planted := self._model.route) and self._length > 1:
            (early, late), (one, other) = planted.layers, planted.heads
            found[1:, early, 0, one] = PREVIOUS_WEIGHT
            found[-1, late, 0, other] = _grid(np.array(ROUTE_WEIGHT), _GRID)
        return found

    def _rest(self, low: float, high: float) -> Floats:
        """What the edges that are not drawn sum to, [token, layer]; 0 where all are."""
        drawn = self._random.uniform(low, high, self._size[:2])
        return np.where((np.arange(self._length) >= self._size[2])[:, None], drawn, 0)

    def _kept(self, edges: Floats, rest: Floats, rest_size: Floats) -> tuple[np.ndarray, ...]:
        """Source, head and size of the strongest edges, [token, layer, route], and the sum and size of all others."""
        flat = (*edges.shape[:2], -1)
        there = np.broadcast_to(self._there, edges.shape).reshape(flat)
        weights = np.where(there, edges.reshape(flat), 0)
        order = np.argsort(np.where(there, -np.abs(weights), 1), axis=-1, kind="stable")
        kept, left = order[..., :KEPT_EDGES], order[..., KEPT_EDGES:]
        heads = np.broadcast_to(np.arange(edges.shape[3]), edges.shape).reshape(flat)
        known, weight, source, head = (
            np.take_along_axis(of, kept, axis=-1) for of in (there, weights, self._sources.reshape(flat), heads)
        )
        others = np.take_along_axis(weights, left, axis=-1)
        return (
            np.where(known, source, -1),
            np.where(known, head, -1),
            np.where(known, weight, np.nan),
            others.sum(axis=-1) + rest,
            np.abs(others).sum(axis=-1) + rest_size,
        )


def _grid(values: Floats, steps: int) -> Floats:
    return np.rint(values * steps) / steps
