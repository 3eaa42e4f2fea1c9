"""What an attack found: the share it recovered, beside what somebody recovers who never opens the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults
from stratoscope.trace.arrays import Bools, Floats

_DRAWS = 2000  # of a bootstrap


@dataclass(frozen=True)
class Share:
    """A share, or a chance, and the interval that holds the true one in 95 % of such measurements."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Attack:
    """The outcome of one attack.

    Attributes
    ----------
    name
        What is attacked how: "look-up of peak neurons".
    holds
        What the attacker has besides the published file: "other prompts of the same model".
    recovered
        The share that was found, or where members are told from others the chance that a member looks more like one
        (the area under the ROC curve: 0.5 = nothing is known); None where the attack could not run.
    baseline
        The same of the best guess without the file.
    count, unit
        How many of what were attacked: 480 "tokens".
    reason
        Why it could not run; "" where it ran.
    gain
        Recovered less baseline, of the same tokens or prompts in every draw.
    at_one_percent
        Of membership: the share of members that are found where 1 % of the others are taken for members.
    note
        One sentence on what was left out or assumed; "" = none.
    """

    name: str
    holds: str
    recovered: Share | None
    baseline: Share | None
    count: int
    unit: str
    reason: str = ""
    gain: Share | None = None
    at_one_percent: Share | None = None
    note: str = ""

    @property
    def succeeds(self) -> bool:
        """Whether it finds more than is found without the file, beyond what chance explains."""
        return self.gain is not None and self.gain.low > 0


def not_run(name: str, holds: str, unit: str, reason: str) -> Attack:
    """An attack that could not run, and why."""
    return Attack(name, holds, None, None, 0, unit, reason)


def exact(found: int, count: int) -> Share:
    """A share of things that are independent of each other, with the interval of Clopper and Pearson."""
    from scipy.stats import beta

    half = defaults.ALPHA / 2
    low = float(beta.ppf(half, found, count - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - half, found + 1, count - found)) if found < count else 1.0
    return Share(found / count, low, high)


def counted_share(value: float) -> Share:
    """A share that is counted, not estimated: there is no other file to be drawn."""
    return Share(value, value, value)


def guessed(
    name: str,
    holds: str,
    unit: str,
    hits: Bools,
    blind: Mapping[str, Bools],
    cluster: NDArray[np.integer],
    *,
    note: str = "",
) -> Attack:
    """The outcome of guesses, each right or wrong, beside the best of the guesses without the file.

    Intervals are a bootstrap over clusters, the prompts: the tokens of one prompt are not independent.

    Parameters
    ----------
    name, holds, unit, note
        As of `Attack`.
    hits
        Whether each guess is right; [guess].
    blind
        The same of guesses without the file, by what they are called.
    cluster
        Of each guess its prompt.

    Examples
    --------
    >>> import numpy as np
    >>> prompt = np.repeat(np.arange(30), 10)
    >>> right, wrong = np.ones(300, bool), np.zeros(300, bool)
    >>> attack = guessed("look-up", "other prompts", "tokens", right, {"commonest token": wrong}, prompt)
    >>> attack.recovered.value, attack.baseline.value, attack.succeeds
    (1.0, 0.0, True)
    """
    if not len(hits):
        return not_run(name, holds, unit, f"there are no {unit} to attack")
    best = max(blind, key=lambda one: float(blind[one].mean()))
    recovered, baseline, gain = _clustered(hits, blind[best], cluster)
    said = f"Best guess without the file: {best}."
    return Attack(name, holds, recovered, baseline, len(hits), unit, gain=gain, note=f"{said} {note}".strip())


def _clustered(hits: Bools, blind: Bools, cluster: NDArray[np.integer]) -> tuple[Share, Share, Share]:
    """Both shares and their difference, with percentile intervals of one bootstrap over clusters."""
    _, place = np.unique(cluster, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    sums = np.stack([np.bincount(place, weights=one) for one in (hits, blind)], axis=1)
    drawn = np.random.default_rng(defaults.SEED).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _DRAWS)
    shares = (drawn @ sums) / (drawn @ counts)[:, None]
    found, guess = (
        _share(float(hits.mean()), shares[:, 0], len(counts)),
        _share(float(blind.mean()), shares[:, 1], len(counts)),
    )
    apart = shares[:, 0] - shares[:, 1]
    low, high = np.quantile(apart, [defaults.ALPHA / 2, 1 - defaults.ALPHA / 2])
    if (hits != blind).any() and np.ptp(apart) == 0:  # all prompts alike: nothing spreads, and the two bounds add up
        low, high = found.low - guess.high, found.high - guess.low
    if (hits == blind).all():  # in none of so many prompts did they differ; in others they may
        high = exact(0, len(counts)).high
        low = -high
    return found, guess, Share(found.value - guess.value, float(low), float(high))


def _share(value: float, drawn: Floats, clusters: int) -> Share:
    """A percentile interval; where all guesses are right, or all wrong, the exact bound for so many prompts."""
    if value in (0.0, 1.0):
        return exact(round(value) * clusters, clusters)
    low, high = np.quantile(drawn, [defaults.ALPHA / 2, 1 - defaults.ALPHA / 2])
    return Share(value, float(low), float(high))
