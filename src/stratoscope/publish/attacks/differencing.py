"""Two publications of overlapping prompts: the difference of their means points at what only one of them has.

With m = mean of n prompts and m' = the mean without one of them, x, it holds that x − m' = n·(m − m'). The direction is
known without n, so that rounding the count hides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.publish.attacks.class_means import OF_NEURONS, PROFILES, class_means, prompt_rows
from stratoscope.publish.attacks.outcome import Attack, Share, exact, not_run
from stratoscope.trace.arrays import Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

NAME, HOLDS, UNIT = "differencing", "an earlier publication of nearly the same prompts", "pairs of means"
_MATCH = 1e-2  # relative error up to which a candidate is taken for what was found
_MOST_APART = 20  # prompts that only one of two publications has, of which a set is looked for
_VALUES = 4  # values for each candidate that are looked at: more tell nothing new of so many unknowns
_SHARE_OF_LARGEST = 0.5  # of the largest weight, from which on a candidate counts as one of the set


@dataclass(frozen=True)
class Difference:
    """What the difference of two means is made of.

    Attributes
    ----------
    prompts
        Places of the candidates that explain it; none where nothing does.
    error
        How far their mean is from the line on which it must lie, relative to its distance from the mean.
    """

    prompts: Ints
    error: float


def only_in_one(mean: Floats, without: Floats, candidates: Floats) -> Difference:
    """Which candidates a mean has and the other has not.

    Parameters
    ----------
    mean, without
        The mean with them, and the mean without; [value].
    candidates
        Prompts that it may be, [prompt, value].

    Examples
    --------
    >>> import numpy as np
    >>> prompts = np.random.default_rng(0).normal(size=(30, 50))
    >>> found = only_in_one(prompts[:20].mean(axis=0), prompts[:19].mean(axis=0), prompts)
    >>> found.prompts, found.error < 1e-9
    (array([19]), True)
    """
    from scipy.optimize import nnls

    step, away = mean - without, candidates - without
    errors = np.array([_off_the_line(one, step) for one in away])
    nearest = int(errors.argmin())
    if errors[nearest] < _MATCH:
        return Difference(np.array([nearest]), float(errors[nearest]))
    weights, _ = nnls(away.T, step / np.linalg.norm(step) * np.linalg.norm(away, axis=1).mean())
    some = np.flatnonzero(weights > _SHARE_OF_LARGEST * weights.max()) if weights.any() else np.array([nearest])
    error = _off_the_line(away[some].mean(axis=0), step)
    if len(some) > _MOST_APART or error >= min(_MATCH, errors[nearest]):
        return Difference(np.array([nearest]), float(errors[nearest]))
    return Difference(some, error)


def differencing(
    published: xr.Dataset | xr.DataTree,
    earlier: Sequence[xr.Dataset | xr.DataTree],
    among: Sequence[xr.Dataset],
) -> Attack:
    """Name the prompts that only one of two publications has.

    Parameters
    ----------
    published, earlier
        What was published now, and before.
    among
        Traces whose prompts are the candidates.
    """
    found = [
        one for old in earlier for part in (PROFILES, OF_NEURONS) for one in _compared(published, old, part, among)
    ]
    if not found:
        return not_run(NAME, HOLDS, UNIT, "no earlier publication has means of the same quantities of other prompts")
    recovered = exact(sum(one.error < _MATCH for one, _ in found), len(found))
    chance = float(np.mean([1 / candidates for _, candidates in found]))
    best = min((one for one, _ in found), key=lambda one: one.error)
    what = "one prompt" if len(best.prompts) == 1 else f"the mean of {len(best.prompts)} prompts"
    return Attack(
        NAME, HOLDS, recovered, Share(chance, chance, chance), len(found), UNIT,
        gain=Share(recovered.value - chance, recovered.low - chance, recovered.high - chance),
        note=f"Nearest to a candidate came {what}, with a relative error of {best.error:.1e}.",
    )  # fmt: skip


def _compared(
    published: xr.Dataset | xr.DataTree, earlier: xr.Dataset | xr.DataTree, part: str, among: Sequence[xr.Dataset]
) -> list[tuple[Difference, int]]:
    """Of each class whose means differ, what only one of them has, and how many prompts it was looked for among."""
    new, old = class_means(published, part), class_means(earlier, part)
    if new is None or old is None:
        return []
    both = [one for one in new.quantities if one in old.quantities and all(one in trace for trace in among)]
    if not both:
        return []
    rows = np.concatenate([prompt_rows(trace, both, new.bands) for trace in among])
    found = []
    for name in new.means.keys() & old.means.keys():
        sides = [of.only(both).means[name] for of in (new, old)]
        if any(len(side) != rows.shape[1] for side in sides) or np.array_equal(sides[0], sides[1], equal_nan=True):
            continue
        known = np.flatnonzero(np.isfinite(rows).all(axis=0) & np.isfinite(sides).all(axis=0))
        known = known[:: max(1, len(known) // (_VALUES * len(rows)))]
        spread = rows[:, known].std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        here, there, candidates = (one[..., known] / scale for one in (*sides, rows))
        both_ways = [only_in_one(there, here, candidates), only_in_one(here, there, candidates)]
        found.append((min(both_ways, key=lambda one: one.error), len(candidates)))
    return found


def _off_the_line(away: Floats, step: Floats) -> float:
    """How far a candidate is from the half-line on which it must lie, relative to its distance from the mean."""
    length = float(away @ step / (step @ step))
    distance = float(np.linalg.norm(away))
    return float(np.linalg.norm(away - max(length, 0.0) * step)) / distance if distance else 1.0
