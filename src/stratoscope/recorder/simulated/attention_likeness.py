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

_COLUMNS, _MOST_COLUMNS = 48, 96  # heads that are rehearsed: those of the model again and again, or the first of many
_SHORT, _CELLS = 64, 2**17  # tokens that are rehearsed: more only as far as layers × tokens × heads are not too many
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # over which the log odds of a head are averaged
_MOST_ODDS = 16.0  # ±, logarithm
# how far from where it stands a strength is tried, round by round, as a share of the farthest
_ROUNDS = (1, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015)
_TRIED = np.linspace(-1, 1, 9)
# of each strength: the quantity it is found by, the first that was published; least and greatest value; the farthest
_FOUND_BY = {
    "head_spread": (("attn_entropy_nosink", "attn_entropy"), 0.02, 8.0, 4.0),
    "head_contrast": (("attn_entropy",), 0.1, 12.0, 6.0),
    "head_reach": (("attn_distance_nosink", "attn_distance"), -20.0, 400.0, 100.0),
}


@dataclass(frozen=True)
class _Rehearsal:
    """Attention of one prompt, with the same random numbers whatever its strengths are.

    Attributes
    ----------
    sink, reach
        Of the heads, (layer, head).
    first, weight
        Random numbers of the first token's log odds, and of all weights, (token, layer, head).
    aim
        The share of the first token that was published, (layer,); None: none.
    """

    sink: Floats
    reach: Floats
    first: Floats
    weight: Floats
    aim: Floats | None

    @classmethod
    def of(cls, sink: Floats, reach: Floats, length: int, aim: Floats | None) -> _Rehearsal:
        columns = np.arange(min(sink.shape[1], _MOST_COLUMNS))
        wanted = _COLUMNS * _SHORT // max(_SHORT, 2 ** (length - 1).bit_length())  # long prompts need fewer of them
        columns = np.tile(columns, max(1, -(-wanted // len(columns))))
        size = (min(length, max(_SHORT, _CELLS // (len(sink) * len(columns)))), len(sink), len(columns))
        # of their own: what is drawn of a token does not depend on the length
        first, weight = (np.random.default_rng([0, number]).standard_normal(size) for number in range(2))
        sink, reach = (np.concatenate([one[:, columns]] * 2, axis=1) for one in (sink, reach))
        first, weight = (np.concatenate([one, -one], axis=2) for one in (first, weight))
        return cls(sink, reach, first, weight, aim)

    def odds(self, strengths: Mapping[str, Floats]) -> Floats:
        """Log odds of the first token beyond those of the heads, so that it gets the published share, (layer,)."""
        if self.aim is None:
            return strengths["head_sink"]
        low, high = np.full((2, len(self.sink)), [[-_MOST_ODDS], [_MOST_ODDS]])
        heads = (strengths["head_contrast"][:, None] * self.sink)[..., None] + FIRST_SPREAD * _NODES
        for _ in range(24):
            middle = (low + high) / 2
            share = 1 / (1 + np.exp(-heads - middle[:, None, None])) @ _WEIGHTS / _WEIGHTS.sum()
            is_less = share.mean(axis=1) < self.aim
            low, high = np.where(is_less, middle, low), np.where(is_less, high, middle)
        return np.where(np.isnan(self.aim), strengths["head_sink"], low)

    def profile(self, name: str, strengths: Mapping[str, Floats]) -> Floats:
        """The profile of an `attn_*` quantity, (layer,)."""
        contrast, spread, reach = (strengths[one][:, None] for one in ("head_contrast", "head_spread", "head_reach"))
        odds = contrast * self.sink + self.odds(strengths)[:, None] + FIRST_SPREAD * self.first
        nearness = np.arange(len(self.weight))[:, None, None] / len(self.weight)
        first, weight = 1 / (1 + np.exp(-odds)), np.exp(spread * self.weight + (self.reach + reach) * nearness)
        first[0], weight[0] = 1, 0
        of_token = summaries(first, weight)[name][2:].mean(axis=2)  # the second token sees nothing but the first
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
    found = {name: getattr(strengths, name) for name in ("head_sink", *_FOUND_BY)}
    aims: dict[str, str] = {}
    for strength, (quantities, *_) in _FOUND_BY.items():
        if known := [name for name in quantities if name in profiles and name not in aims.values()]:
            aims[strength] = known[0]
    rehearsal = _Rehearsal.of(sink, reach, max(4, length), profiles.get("attn_first"))
    longer = np.log(max(4, length) / len(rehearsal.weight))  # distances grow with the length, as nearness is relative
    for share in _ROUNDS:
        for strength, quantity in aims.items():
            aim = profiles[quantity] - longer if QUANTITIES[quantity].log else profiles[quantity]
            found[strength] = _nearer(rehearsal, found, strength, quantity, aim, share)
    found["head_sink"] = rehearsal.odds(found)
    return replace(strengths, **found, moved=_moved(strengths, profiles, sink.shape[1]))


def _nearer(
    rehearsal: _Rehearsal, found: dict[str, Floats], strength: str, quantity: str, aim: Floats, share: float
) -> Floats:
    """A strength that brings a profile nearer to its aim, at most that share of the farthest from where it stands."""
    _, least, greatest, farthest = _FOUND_BY[strength]
    tried = np.clip(found[strength] + share * farthest * _TRIED[:, None], least, greatest)
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
