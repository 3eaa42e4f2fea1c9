"""What simulated attention must be like so that its class profiles come out as those that were published.

How much goes to the first token, how uneven the rest is and how near it stays are found one after the other, a few
times, on attention that is rehearsed with the model's heads. What other tokens receive follows from these three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from stratoscope.names import QUANTITIES
from stratoscope.recorder.simulated.attention import FIRST_SPREAD, shares_of_heads, summaries
from stratoscope.recorder.simulated.strengths import Strengths
from stratoscope.trace.arrays import Floats

_COLUMNS = 48  # about so many heads are rehearsed of each layer: those of the model, again and again
_CELLS, _SHORTEST = 2**18, 16  # of the prompt that is rehearsed: about so many cells, and no fewer tokens
_ROUNDS = (6.0, 3.0, 1.5, 0.8, 0.4, 0.2, 0.1)  # how far from where it stands a strength is tried, round by round
_TRIED = np.linspace(-1, 1, 9)
# of each strength: what it is found by, the first of these that was published, and its least and greatest value
_FOUND_BY = {
    "head_spread": (("attn_entropy_nosink", "attn_entropy"), 0.02, 8.0),
    "head_contrast": (("attn_entropy",), 0.1, 12.0),
    "head_reach": (("attn_distance_nosink", "attn_distance"), -20.0, 60.0),
    "head_sink": (("attn_first",), -12.0, 12.0),
}


@dataclass(frozen=True)
class _Rehearsal:
    """Attention of one prompt, with the same random numbers whatever its strengths are; arrays (token, layer, head)."""

    sink: Floats
    first: Floats
    reach: Floats
    weight: Floats
    nearness: Floats

    @classmethod
    def of(cls, sink: Floats, reach: Floats, length: int) -> _Rehearsal:
        times = -(-_COLUMNS // sink.shape[1])
        sink, reach = (np.tile(one, times)[:, : 2 * _COLUMNS] for one in (sink, reach))
        random = np.random.default_rng(0)
        size = (min(length, max(_SHORTEST, _CELLS // sink.size)), *sink.shape)
        first, weight = FIRST_SPREAD * random.standard_normal(size), random.standard_normal(size)
        return cls(sink, first, reach, weight, np.arange(size[0])[:, None, None] / size[0])

    def profile(self, name: str, strengths: Mapping[str, Floats]) -> Floats:
        """The profile of an `attn_*` quantity, (layer,)."""
        sink, spread, reach = (strengths[one][:, None] for one in ("head_sink", "head_spread", "head_reach"))
        log_odds = strengths["head_contrast"][:, None] * self.sink + sink + self.first
        first = 1 / (1 + np.exp(-log_odds))
        weight = np.exp(spread * self.weight + (self.reach + reach) * self.nearness)
        first[0], weight[0] = 1, 0
        values = first if name == "attn_first" else summaries(first, weight)[name]
        of_token = values[2:].mean(axis=2)  # at the second token nothing but the first is seen
        return np.asarray((np.log(of_token) if QUANTITIES[name].log else of_token).mean(axis=0))


def like_attention(
    strengths: Strengths, profiles: Mapping[str, Floats], sink: Floats, reach: Floats, length: int
) -> Strengths:
    """Strengths whose attention is like the profiles of a class.

    Parameters
    ----------
    strengths
        What they are otherwise.
    profiles
        Quantity → (layer,).
    sink, reach
        Of the heads, (layer, head).
    length
        Tokens of a typical prompt.
    """
    found = {name: getattr(strengths, name) for name in _FOUND_BY}
    aims = {}
    for strength, (quantities, _, _) in _FOUND_BY.items():
        if known := [name for name in quantities if name in profiles and name not in aims.values()]:
            aims[strength] = known[0]
    if aims and length > 3:
        rehearsal = _Rehearsal.of(sink, reach, length)
        for distance in _ROUNDS:
            for strength, quantity in aims.items():
                found[strength] = _nearer(rehearsal, found, strength, quantity, profiles[quantity], distance)
    return replace(strengths, **found, moved=_moved(strengths, profiles, sink.shape[1]))


def _nearer(
    rehearsal: _Rehearsal, found: dict[str, Floats], strength: str, quantity: str, aim: Floats, distance: float
) -> Floats:
    """A strength that brings a profile nearer to its aim, at most so far from where it stands."""
    _, least, greatest = _FOUND_BY[strength]
    tried = np.clip(found[strength] + distance * _TRIED[:, None], least, greatest)
    gives = np.array([rehearsal.profile(quantity, {**found, strength: one}) for one in tried])
    rising = 1 if gives[-1].sum() >= gives[0].sum() else -1
    nearer = [
        np.interp(rising * one, rising * curve, values) if np.isfinite(one) else now
        for one, curve, values, now in zip(aim, gives.T, tried.T, found[strength], strict=True)
    ]
    return np.array(nearer)


def _moved(strengths: Strengths, profiles: Mapping[str, Floats], heads: int) -> Floats:
    """What heads move, as a multiple of what they would at right angles."""
    if "attn_value_norm" not in profiles:
        return strengths.moved
    shares = shares_of_heads(np.random.default_rng(0), (4096, heads))
    usual = np.log(np.sqrt(shares).mean(axis=1)).mean() + np.log(strengths.attn.size)
    moved = np.exp(profiles["attn_value_norm"] - usual)
    return np.where(np.isfinite(moved), moved, 1)
