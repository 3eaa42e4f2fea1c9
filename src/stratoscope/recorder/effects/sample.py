"""Which (neuron, token), (MLP, token), … are really ablated: a seeded draw over depth and size of their effects.

Depth is cut into quarters of the layers. In each, effects are ranked by size, and the ranks are cut into four classes
by equal steps of their logarithm: of 160,000 the strongest 20, then up to rank 400, 8,000 and the last. So both what a
picture shows first and the many small ones are tried. What has no effect at all is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults

DEPTHS, SIZES = 4, 4
STRATA = DEPTHS * SIZES
MOST_PROMPTS = 16
MOST_TOKENS = 64  # of a prompt that may be drawn from …
MOST_EFFECTS = 2**26  # … fewer, where their effects would be more numbers than this
_TURN = 5  # strata by which each round begins later, so that a prompt is asked for others

Place = tuple[int, int, int]  # token, layer, number of the neuron or head


def calibration_prompts(prompts: int, items: int) -> list[int]:
    """Indices of the prompts on which items are ablated: the same for every part of a recording."""
    order: list[int] = np.random.default_rng(defaults.SEED).permutation(prompts).tolist()
    return order[: min(MOST_PROMPTS, items)]


def tokens_drawn_from(length: int, effects: int, seed: int) -> NDArray[np.int64]:
    """Positions of a prompt of which items may be drawn: all, or of a long one the last and seeded others.

    `effects`: how many numbers are kept of one of its tokens.
    """
    most = max(1, min(MOST_TOKENS, MOST_EFFECTS // max(1, effects)))
    if length <= most:
        return np.arange(length)
    others = np.random.default_rng((defaults.SEED, seed)).permutation(length - 1)[: most - 1]
    return np.sort(np.append(others, length - 1))


def portions(items: int, prompts: int) -> list[list[int]]:
    """The strata that each prompt is asked for: each stratum about as often as any other, spread over the prompts."""
    once = np.random.default_rng(defaults.SEED).permutation(STRATA).tolist()
    order = [once[(item + _TURN * (item // STRATA)) % STRATA] for item in range(items)]
    return [order[prompt::prompts] for prompt in range(prompts)]


def draw(effects: Sequence[NDArray[np.floating] | None], strata: Sequence[int], seed: int) -> list[Place]:
    """Some of a prompt's items, no two the same.

    Parameters
    ----------
    effects
        Of each layer, [token, number]; NaN where there is none, None where the layer has nothing of the kind.
    strata
        The stratum of each item; where it has none left, another of the same depth is drawn, else one of any.
    seed
        Of the draw.

    Returns
    -------
    list
        (token, layer, number) of each; fewer than strata where there are no more.
    """
    random = np.random.default_rng((defaults.SEED, seed))
    chosen: dict[Place, None] = {}
    classes = [_classes(effects, layers) for layers in _depths(len(effects))]
    everything = [places for depth in classes for places in depth]
    for stratum in strata:
        depth, size = divmod(stratum, SIZES)
        of_depth = classes[depth % len(classes)]
        for places in (of_depth[size], np.concatenate(of_depth), np.concatenate(everything)):
            left = [place for place in _some(places, random, len(chosen) + 1) if place not in chosen]
            if left:
                chosen[left[0]] = None
                break
    return [*chosen]


def _depths(layers: int) -> Iterator[range]:
    """The layers of each depth."""
    depths = min(DEPTHS, layers)
    for depth in range(depths):
        yield range(depth * layers // depths, (depth + 1) * layers // depths)


def _classes(effects: Sequence[NDArray[np.floating] | None], layers: range) -> list[NDArray[np.int64]]:
    """Places of some layers in classes of size, the largest first: int64 [place, (token, layer, number)] each."""
    sizes, places = [np.empty(0)], [np.empty((0, 3), np.int64)]
    for layer in layers:
        given = effects[layer]
        if given is not None:
            token, number = np.nonzero(np.nan_to_num(given))
            sizes.append(np.abs(given[token, number]))
            places.append(np.stack([token, np.full_like(token, layer), number], axis=1))
    size, place = np.concatenate(sizes), np.concatenate(places)
    if not len(size):
        return [place] * SIZES
    edges = [min(len(size), round(len(size) ** (step / SIZES))) for step in range(1, SIZES + 1)]
    order = np.argpartition(-size, [edge - 1 for edge in edges])  # so that each edge is in its place
    return [place[order[first:last]] for first, last in zip([0, *edges[:-1]], edges, strict=True)]


def _some(places: NDArray[np.int64], random: np.random.Generator, count: int) -> Iterator[Place]:
    """Up to so many of the places, in a random order, each once."""
    for index in random.choice(len(places), min(count, len(places)), replace=False).tolist() if len(places) else ():
        token, layer, number = places[index].tolist()
        yield token, layer, number
