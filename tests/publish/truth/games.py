"""Who was in it? Many draws of members and others from one pool of prompts, each draw published and attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from measuring import interval

from stratoscope.trace.arrays import Floats, Ints

OTHERS = 60  # prompts of a draw that are not in what is published, and are held against those that are
FALSE_ALARMS = 0.01
_BOOTSTRAPS = 500


@dataclass(frozen=True)
class Draw:
    """Prompts of one class, by index: those published, others of the same kind, and the attacker's own."""

    name: str
    members: Ints
    others: Ints
    own: Ints


@dataclass(frozen=True)
class Scored:
    """How much each prompt of a draw looks as if it were in what was published."""

    draw: Draw
    members: Floats
    others: Floats


@dataclass(frozen=True)
class Told:
    """How well members are told from others: each a value and the interval of a bootstrap over prompts."""

    auc: tuple[float, float, float]
    found: tuple[float, float, float]  # share of members found where 1 % of the others are taken for members


def draws(pool: Mapping[str, Ints], published: int, members: int, count: int) -> list[list[Draw]]:
    """So many draws, each of every class; members are among the first `published` prompts of the pool."""
    found: list[list[Draw]] = []
    for turn in range(count):
        found.append([])
        for number, (name, prompts) in enumerate(pool.items()):
            random = np.random.default_rng([members, number, turn])
            inside = random.choice(prompts[prompts < published], members, replace=False)
            rest = random.permutation(np.setdiff1d(prompts, inside))
            found[-1].append(Draw(name, np.sort(inside), np.sort(rest[:OTHERS]), np.sort(rest[OTHERS:])))
    return found


def strongest(tests: Mapping[str, Sequence[Scored]], prompts: int) -> Told:
    """The most that any of an attacker's tests tells, in either measure."""
    found = [told(scored, prompts) for scored in tests.values()]
    return Told(max(one.auc for one in found), max(one.found for one in found))


def told(scored: Sequence[Scored], prompts: int) -> Told:
    """Both measures over all draws; intervals by drawing prompts, which stand in many draws, with replacement."""
    random = np.random.default_rng(0)
    weights = random.multinomial(prompts, np.full(prompts, 1 / prompts), _BOOTSTRAPS).astype(np.float64)
    plain = np.ones((1, prompts))
    measures: list[Callable[[Sequence[Scored], Floats], Floats]] = [_areas, _found]
    values = [(float(one(scored, plain)[0]), *interval(one(scored, weights))) for one in measures]
    return Told(*values)


def _areas(scored: Sequence[Scored], weights: Floats) -> Floats:
    """The area under the ROC curve for each row of weights of prompts: pairs are compared within a draw."""
    above, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for one in scored:
        wins = (one.members[:, None] > one.others) + 0.5 * (one.members[:, None] == one.others)
        inside, others = weights[:, one.draw.members], weights[:, one.draw.others]
        above += np.einsum("bm,mo,bo->b", inside, wins, others, optimize=True)
        pairs += inside.sum(axis=1) * others.sum(axis=1)
    return above / pairs


def _found(scored: Sequence[Scored], weights: Floats) -> Floats:
    """The share of members above the one limit that 1 % of all others exceed, for each row of weights."""
    members, others = (np.concatenate(some) for some in zip(*map(_standard, scored), strict=True))
    of_member = weights[:, np.concatenate([one.draw.members for one in scored])]
    order = np.argsort(-others, kind="stable")
    of_other = weights[:, np.concatenate([one.draw.others for one in scored])[order]]
    beyond = np.cumsum(of_other, axis=1) / of_other.sum(axis=1, keepdims=True)
    limit = others[order][np.argmax(beyond > FALSE_ALARMS, axis=1)]  # the first that would be one false alarm too many
    inside: Floats = (of_member * (members > limit[:, None])).sum(axis=1) / of_member.sum(axis=1)
    return inside


def _standard(one: Scored) -> tuple[Floats, Floats]:
    """Scores of a draw in units of what its others have, so that one limit does for all draws."""
    middle, size = one.others.mean(), max(one.others.std(), 1e-300)
    return (one.members - middle) / size, (one.others - middle) / size


def allowed_auc(epsilon: float, delta: float) -> float:
    """The largest area that any attacker can have of what is (ε, δ) private: that under the bound on its ROC curve."""
    alarms = np.linspace(0, 1, 100_001)
    bound = np.minimum(np.exp(epsilon) * alarms + delta, 1 - np.exp(-epsilon) * (1 - delta - alarms))
    return float(np.trapezoid(np.clip(bound, 0, 1), alarms))


def allowed_found(epsilon: float, delta: float, false_alarms: float = FALSE_ALARMS) -> float:
    """The largest share of members that any attacker finds at this share of false alarms."""
    return min(1.0, float(np.exp(epsilon)) * false_alarms + delta)
