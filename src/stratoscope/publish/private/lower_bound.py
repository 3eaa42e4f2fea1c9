"""How private the noise is at least not: an attack on the mechanism itself, run often on two neighbouring inputs.

A promise of ε is broken if an output is more than e^ε times as likely (but for δ) with one prompt as with another in
its place. The two inputs here are as far apart as two can be. What is found is a lower bound of ε: above the promised
one something is broken, below it this attack found nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from stratoscope.publish.private.noise import Mechanism, on_grid
from stratoscope.trace.arrays import Floats

Release: TypeAlias = Callable[[Floats, int], Floats]  # rows of one number, and how often: so many noisy means of them


@dataclass(frozen=True)
class LowerBound:
    """What the attack found.

    Attributes
    ----------
    epsilon
        ε is at least this, with the confidence asked for; −∞ where nothing is known.
    runs
        How often either input was published.
    threshold
        An output above it was taken for one of the first input.
    right, wrong
        How many outputs of the first input were above it, and how many of the second.
    """

    epsilon: float
    runs: int
    threshold: float
    right: int
    wrong: int


def epsilon_at_least(
    mechanism: Mechanism, *, runs: int, confidence: float = 0.95, release: Release | None = None
) -> LowerBound:
    """Publish two inputs often that differ in one prompt as far as they can, and bound ε from below.

    The likelihood ratio of two Gaussians grows with the output, so that the best test is a threshold. It is chosen on
    outputs that do not count afterwards, a tenth more; the shares above it are bounded as Clopper and Pearson do.

    Parameters
    ----------
    mechanism
        What is attacked.
    runs
        How often it publishes either input.
    confidence
        That the bound holds.
    release
        What publishes; the mechanism itself where it is None.

    Examples
    --------
    >>> from stratoscope.publish.private.noise import calibrated
    >>> mechanism = calibrated(prompts=20, bound=1.0, epsilon=1.0, delta=1e-5)
    >>> epsilon_at_least(mechanism, runs=2000).epsilon < 1.0
    True
    """
    publish = release or published_often(mechanism)
    first = np.full((mechanism.prompts, 1), mechanism.bound)
    second = first.copy()
    second[0] = -mechanism.bound
    pilot = publish(second, max(1, runs // 10))
    threshold = float(np.quantile(pilot, 1 - _rarity(mechanism, runs, confidence)))
    right, wrong = (int((publish(rows, runs) > threshold).sum()) for rows in (first, second))
    return LowerBound(bound_of(right, wrong, runs, mechanism.delta, confidence), runs, threshold, right, wrong)


def published_often(mechanism: Mechanism) -> Release:
    """The mechanism run often on one input; the noise of all runs is drawn together, as that of all numbers is."""

    def release(rows: Floats, runs: int) -> Floats:
        return mechanism.released(np.repeat(on_grid(rows, mechanism.bound).sum(axis=0), runs))

    return release


def bound_of(right: int, wrong: int, runs: int, delta: float, confidence: float = 0.95) -> float:
    """The least ε with which an event can be so frequent under one input and so rare under its neighbour."""
    from scipy.stats import beta

    miss = (1 - confidence) / 2  # either share may be out of its interval
    least = beta.ppf(miss, right, runs - right + 1) if right else 0.0
    most = beta.ppf(1 - miss, wrong + 1, runs - wrong) if wrong < runs else 1.0
    return float(np.log((least - delta) / most)) if least > delta else -np.inf


def _rarity(mechanism: Mechanism, runs: int, confidence: float) -> float:
    """How seldom the second input's output should be above the threshold: as is best if the noise is what it says."""
    from scipy.stats import norm

    shift = mechanism.sensitivity / mechanism.sigma
    tails = np.linspace(0, 5, 51)
    bounds = [
        bound_of(round(norm.sf(tail - shift) * runs), round(norm.sf(tail) * runs), runs, mechanism.delta, confidence)
        for tail in tails
    ]
    return float(norm.sf(tails[int(np.argmax(bounds))]))
