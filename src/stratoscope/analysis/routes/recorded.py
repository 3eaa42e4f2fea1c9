"""What a trace holds of the routes of one prompt, in double precision: what each node is made of, as shares of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.routes import unsplit_layers

if TYPE_CHECKING:
    import xarray as xr

RESIDUAL = ("route_source", "route_head", "route_weight", "route_other_size", "route_bias", "route_carry", "route_mid",
            "route_mlp")  # fmt: skip
EFFECTS = ("route_effect_source", "route_effect_head", "route_effect", "route_effect_other_size")
RECORD = "Record it with `capture MODEL --prompts FILE --record routes -o TRACE`."
RECORD_EFFECTS = "Record it with `capture MODEL --prompts FILE --record routes,effects --targets TEXT -o TRACE`."


@dataclass(frozen=True, eq=False)
class Edges:
    """What heads brought from token to token in one prompt: the recorded edges of each node, strongest first.

    Attributes
    ----------
    source
        Place of the token that an edge comes from, among the tokens of the prompt; −1 = there is no edge;
        [token, layer, route].
    head
        Which head; [token, layer, route].
    weight
        What it brought, with its sign; 0 where there is no edge; [token, layer, route].
    """

    source: Ints
    head: Ints
    weight: Floats

    @property
    def from_first(self) -> NDArray[np.bool_]:
        """Which edges bring something from the prompt's first token to another one; [token, layer, route]."""
        others = np.arange(len(self.source)) > 0
        from_first: NDArray[np.bool_] = (self.source == 0) & others[:, None, None]
        return from_first


@dataclass(frozen=True, eq=False)
class Made:
    """What the stream of each token is made of behind each layer.

    A layer makes x_mid of its input and of what attention writes, then its output of x_mid and of what its MLP writes.
    Both sums are split by the sizes of their signed parts, so that what cancels counts as what adds does.

    Attributes
    ----------
    edges
        What heads brought, as parts of x_mid.
    share
        Part of x_mid, by size, that an edge is; [token, layer, route].
    carry, bias, rest
        The same of the token's own stream, of attention's biases, and of what was not recorded by edge;
        with the edges they sum to 1; [token, layer].
    carry_weight, bias_weight
        Their signed weights; [token, layer].
    mlp
        Part of the layer's output, by size, that its MLP wrote; [token, layer].
    mlp_weight
        Its signed weight; [token, layer].
    """

    edges: Edges
    share: Floats
    carry: Floats
    bias: Floats
    rest: Floats
    carry_weight: Floats
    bias_weight: Floats
    mlp: Floats
    mlp_weight: Floats


@dataclass(frozen=True, eq=False)
class Effects:
    """What each edge brought to a target's logit, to first order.

    Attributes
    ----------
    edges
        Their effects, with signs.
    other
        Sum of the sizes of those that were not kept; [token, layer].
    """

    edges: Edges
    other: Floats

    @property
    def by_layer(self) -> Floats:
        """Sum of the sizes of all effects of each layer; [layer]."""
        sums: Floats = np.abs(self.edges.weight).sum(axis=(0, 2)) + self.other.sum(axis=0)
        return sums

    @property
    def whole(self) -> float:
        """Sum of the sizes of all effects."""
        return float(self.by_layer.sum())


def made(dataset: xr.Dataset, prompt: int) -> Made:
    """What each node of a prompt is made of.

    Raises
    ------
    InputError
        Routes are not recorded, or not of all layers.
    """
    _refuse_without(dataset, RESIDUAL, "no routes are recorded in it", RECORD)
    own = _own(dataset, prompt)
    source, head, weight = _edges(own, "route_source", "route_head", "route_weight")
    edges = _sound(source, head, weight, dataset.sizes.get(names.HEAD))
    other, bias, carry, mid, mlp = (
        np.asarray(own[name].values, float)
        for name in ("route_other_size", "route_bias", "route_carry", "route_mid", "route_mlp")
    )
    sizes = np.abs(edges.weight)
    whole = sizes.sum(axis=2) + np.abs(other) + np.abs(bias) + np.abs(carry)
    known = np.isfinite(whole) & (whole > 0)

    def part(size: Floats) -> Floats:
        shares: Floats = np.where(known, np.abs(size) / np.where(known, whole, 1.0), 0.0)
        return shares

    both = np.abs(mid) + np.abs(mlp)
    has_mlp = np.isfinite(both) & (both > 0)  # a block may have none
    return Made(
        edges,
        part(edges.weight.transpose(2, 0, 1)).transpose(1, 2, 0),
        part(carry),
        part(bias),
        np.where(known, part(other), 1.0),
        carry,
        bias,
        np.where(has_mlp, np.abs(mlp) / np.where(has_mlp, both, 1.0), 0.0),
        mlp,
    )


def effects(dataset: xr.Dataset, prompt: int) -> Effects:
    """What each edge of a prompt brought to the only target of a Dataset.

    Raises
    ------
    InputError
        Effects of edges are not recorded, or not of all layers.
    """
    _refuse_without(dataset, EFFECTS, "no effects of edges are recorded in it", RECORD_EFFECTS)
    own = _own(dataset, prompt).isel({names.TARGET: 0})
    edges = _sound(*_edges(own, *EFFECTS[:3]), dataset.sizes.get(names.HEAD))
    other = np.abs(np.asarray(own[EFFECTS[3]].values, float))
    return Effects(edges, np.where(np.isfinite(other), other, 0.0))


def unsplit(dataset: xr.Dataset, prompt: int) -> list[int]:
    """Layers of a prompt that cannot be split by source token."""
    return unsplit_layers(dataset.isel({names.TOKEN: Prompts(dataset).tokens(prompt)}))


def _refuse_without(dataset: xr.Dataset, wanted: Sequence[str], what: str, fix: str) -> None:
    absent = [name for name in wanted if name not in dataset.data_vars]
    if len(absent) == len(wanted):
        raise InputError(what, where="trace", fix=fix)
    if absent:
        raise InputError(f"it lacks {absent[0]}", where="trace", fix="Give the trace as it was recorded.")


def _own(dataset: xr.Dataset, prompt: int) -> xr.Dataset:
    """The Dataset of one prompt; all its tokens and all layers must be there, since a way goes through any of them."""
    prompts = Prompts(dataset)
    tokens, layers = prompts.tokens(prompt), dataset[names.LAYER].values
    if (layers != np.arange(len(layers))).any():
        fix = "Give the Dataset with all its layers."
        raise InputError("a route goes through all layers, and some were cut off", where="layer", fix=fix)
    if (prompts.position[tokens] != np.arange(tokens.stop - tokens.start)).any():
        fix = "Give the Dataset with all tokens of the prompt."
        raise InputError("a route goes through all tokens, and some were cut off", where="token", fix=fix)
    return dataset.isel({names.TOKEN: tokens})


def _edges(own: xr.Dataset, source: str, head: str, weight: str) -> tuple[Ints, Ints, Floats]:
    return (
        np.asarray(own[source].values, np.int64),
        np.asarray(own[head].values, np.int64),
        np.asarray(own[weight].values, float),
    )


def _sound(source: Ints, head: Ints, weight: Floats, heads: int | None) -> Edges:
    """Edges of which each is of a head, and comes from its token or an earlier one; others are none."""
    earlier = source <= np.arange(len(source))[:, None, None]
    there = (source >= 0) & earlier & np.isfinite(weight) & (head >= 0) & (head < (heads or np.inf))
    return Edges(np.where(there, source, -1), np.where(there, head, -1), np.where(there, weight, 0.0))
