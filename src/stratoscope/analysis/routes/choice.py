"""Which edges are shown: the strongest, one after the other, each of which leads into what is shown already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.analysis.routes.recorded import Effects, Made
from stratoscope.trace.arrays import Floats, Ints


@dataclass(frozen=True, eq=False)
class Chosen:
    """The edges that are shown of one prompt, and what runs through the nodes that they reach.

    Attributes
    ----------
    token, layer, route
        Places of the edges in `Edges`, in the order in which they were chosen.
    flow
        Share of the whole that runs through each.
    covered_by
        Share of the whole that each accounts for with all that were chosen before it.
    columns
        Tokens that are reached: the one at the end of the way, then others as they were reached.
    at_node
        Share of the whole that runs through the stream of each token at each depth; 0 where no edge leads; [token,
        depth].
    covered
        Share of the whole that the shown edges account for.
    first
        Share of the whole that nodes which are reached take from the prompt's first token, shown or not.
    """

    token: Ints
    layer: Ints
    route: Ints
    flow: Floats
    covered_by: Floats
    columns: Ints
    at_node: Floats
    covered: float
    first: float


def along(made: Made, end: int, most: int, *, first_token: bool) -> Chosen:
    """Choose edges along the way that ends in the stream of the token `end` behind the last layer.

    All of it is one whole. Each node passes on what runs through it to what it is made of, by `Made`'s shares: to its
    own stream, which is always shown, to the edges that are shown, and the rest is lost from view. Of all edges that
    lead into a node which is reached, the one is taken next through which most would run. So a longer list begins with
    the shorter one, and covers at least as much: what of the whole reaches the embeddings.
    """
    share, source = made.share, made.edges.source
    tokens, layers, _ = share.shape
    allowed = share if first_token else np.where(made.edges.from_first, 0.0, share)
    reached, kept = [end], list[tuple[int, int, int]]()
    flow = np.zeros((tokens, layers + 1))
    kept_at: list[list[tuple[int, int]]] = [[] for _ in range(layers)]  # (token, route) of the edges of each layer
    free = allowed.copy()
    _pass_down(flow, made, kept_at, end, layers, 1.0)
    covered: list[float] = []
    while len(kept) < most:
        rows = np.asarray(reached)
        through = flow[rows, 1:, None] * free[rows]
        best = int(through.argmax())
        row, layer, route = (int(one) for one in np.unravel_index(best, through.shape))
        amount = float(through[row, layer, route])
        if not amount > 0.0:
            break
        token = reached[row]
        kept.append((token, layer, route))
        free[token, layer, route] = 0.0
        kept_at[layer].append((token, route))
        start = int(source[token, layer, route])
        if start not in reached:
            reached.append(start)
        _pass_down(flow, made, kept_at, start, layer, amount)
        covered.append(float(flow[:, 0].sum()))
    at = _places(kept)
    from_first = np.where(made.edges.from_first, share, 0.0).sum(axis=2)
    return Chosen(
        *at,
        flow[at[0], at[1] + 1] * share[at],
        np.asarray(covered),
        np.asarray(reached),
        flow,
        float(flow[:, 0].sum()),
        float((flow[:, 1:] * from_first).sum()),
    )


def _pass_down(
    flow: Floats, made: Made, kept_at: list[list[tuple[int, int]]], token: int, depth: int, amount: float
) -> None:
    """Add what newly arrives at a node to all nodes below it that it is passed on to."""
    arriving = np.zeros(len(flow))
    arriving[token] = amount
    flow[token, depth] += amount
    for layer in reversed(range(depth)):
        passed = arriving * made.carry[:, layer]
        for at, route in kept_at[layer]:
            passed[made.edges.source[at, layer, route]] += arriving[at] * made.share[at, layer, route]
        flow[:, layer] += passed
        arriving = passed


def towards(effects: Effects, end: int, most: int, *, first_token: bool) -> Chosen:
    """Choose edges by what they bring to a target's logit, along ways that end in the token `end`.

    The whole is the sum of the sizes of all effects. An effect already counts all ways on from its edge, so nothing is
    passed on: what is covered is the sum of the sizes of the edges that are shown. An edge leads on where the token
    into which it leads is reached behind it.
    """
    edges, whole = effects.edges, effects.whole or 1.0
    size = np.abs(edges.weight) / whole
    tokens, layers, _ = size.shape
    free = size if first_token else np.where(edges.from_first, 0.0, size)
    free = free.copy()
    height = np.full(tokens, -1)  # up to which depth the stream of a token leads on to the end
    height[end] = layers
    reached, kept = [end], list[tuple[int, int, int]]()
    while len(kept) < most:
        rows = np.asarray(reached)
        leads = np.arange(layers) < height[rows][:, None]
        candidates = np.where(leads[:, :, None], free[rows], 0.0)
        row, layer, route = (int(one) for one in np.unravel_index(int(candidates.argmax()), candidates.shape))
        if not candidates[row, layer, route] > 0.0:
            break
        token = reached[row]
        kept.append((token, layer, route))
        free[token, layer, route] = 0.0
        start = int(edges.source[token, layer, route])
        if start not in reached:
            reached.append(start)
        height[start] = max(height[start], layer)
    at = _places(kept)
    of_node = size.sum(axis=2) + effects.other / whole
    at_node = np.zeros((tokens, layers + 1))
    at_node[:, 1:] = np.where(np.arange(layers) < height[:, None], of_node, 0.0)
    flow = size[at]
    return Chosen(
        *at,
        flow,
        flow.cumsum(),
        np.asarray(reached),
        at_node,
        float(flow.sum()),
        float(size[edges.from_first].sum()),
    )


def _places(kept: list[tuple[int, int, int]]) -> tuple[Ints, Ints, Ints]:
    """Token, layer and route of each edge, as arrays are indexed."""
    token, layer, route = np.asarray(kept, np.int64).reshape(-1, 3).T
    return token, layer, route
