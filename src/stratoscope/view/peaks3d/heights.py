"""How the height of a peak becomes its place on the axis of heights, and its colour, on each scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from stratoscope import names
from stratoscope.trace.arrays import AnyFloats, Bools, Floats, Ints
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.peaks import Heights, PeakScale
from stratoscope.view.spec.scale import INNERMOST, Distribution
from stratoscope.words import number

FLOOR = 1  # percentile at which the logarithmic scale begins
ROOF = 1.04  # where a peak just above the ceiling is drawn, as a share of the height …
RISE = 0.06  # … and how much higher one of 10,000 times the ceiling is
_LEAST = 1e-300  # stands for zero under a logarithm
_SHARES = tuple((share / 4, f"{share * 25} %") for share in range(5))
_WORDS: dict[names.Scale, str] = {
    "robust": (
        f"Heights are linear; colours clip at most about {100 * INNERMOST[0]:g} % of the drawn peaks at either end "
        "(Tukey's fences)."
    ),
    "linear": "Heights and colours are linear.",
    "log": "Heights and colours are logarithmic, from the 1 % quantile of the drawn peaks.",
    "per-layer": "Heights and colours are shares of the layer's highest peak: layers are not comparable.",
}


def scales_of(height: AnyFloats, layer: Ints, first: Bools, title: str) -> dict[names.Scale, PeakScale]:
    """Every scale, with the first tokens in its limits and without; arrays that are equal are the same.

    Parameters
    ----------
    height, layer
        Height and block number of each drawn peak, of shape (points,).
    first
        Whether it belongs to the first token of its prompt, of shape (points,); if all do, they make the limits.
    title
        What the height is, in words.
    """
    level = np.log10(np.maximum(height, _LEAST, dtype=np.float64)).astype(np.float32)
    with_first = _on_each_scale(height, level, layer, np.ones(len(height), bool))
    some = first.any() and not first.all()
    without = _on_each_scale(height, level, layer, ~first) if some else with_first
    titles = {"per-layer": f"share of the layer's highest {title.split(' (')[0]}"}
    return {
        scale: PeakScale(
            titles.get(scale, title), _WORDS[scale], {"with_first": with_first[scale], "without_first": without[scale]}
        )
        for scale in names.SCALES
    }


def _on_each_scale(height: AnyFloats, level: AnyFloats, layer: Ints, counted: Bools) -> dict[names.Scale, Heights]:
    """Heights on all scales, whose limits are those of the counted peaks; `level` is the logarithm of `height`."""
    top = float(height[counted].max()) or 1.0
    linear = _placed(height, _shares(height, top), 0.0, top)
    robust = Distribution([height[counted, np.newaxis]]).fit("linear", "robust")
    return {
        "robust": replace(linear, low=float(robust.low[0]), high=float(robust.high[0])),
        "linear": linear,
        "log": _logarithmic(height, level, counted),
        "per-layer": _by_layer(height, layer, counted),
    }


def _placed(
    level: AnyFloats, share: Floats, floor: float, ceiling: float, ticks: tuple[tuple[float, str], ...] = ()
) -> Heights:
    """Levels between floor and ceiling; of those that are more than once the ceiling `share` says how many times."""
    beyond = np.flatnonzero(share > 1)
    times, place = share[beyond], level
    if len(beyond) or level.min() < floor:
        rise = ROOF + RISE * np.clip(np.log10(times) / 4, 0, 1)
        place = np.maximum(level, floor)
        place[beyond] = np.minimum(floor + (ceiling - floor) * rise, np.finfo(level.dtype).max)
    return Heights(place, indices(beyond), times, floor, ceiling, floor, ceiling, ticks)


def _logarithmic(height: AnyFloats, level: AnyFloats, counted: Bools) -> Heights:
    positive = height[counted & (height > _LEAST)].astype(np.float64)
    positive = positive if len(positive) else np.ones(1)
    low, high = np.log10([np.percentile(positive, FLOOR), positive.max()]).astype(level.dtype).tolist()
    if high - low < 0.1:
        low = high - 1
    return _placed(level, _shares(height, positive.max()), low, high, _log_ticks(low, high))


def _by_layer(height: AnyFloats, layer: Ints, counted: Bools) -> Heights:
    found, place = np.unique(layer, return_inverse=True)
    tops = np.zeros(len(found))
    np.maximum.at(tops, place[counted], height[counted])
    share = _shares(height, np.where(tops > 0, tops, 1.0)[place])
    level = np.minimum(share, 2).astype(np.float32)  # a ratio may be larger than float32 can be
    return _placed(level, share, 0.0, 1.0, _SHARES)


def _shares(height: AnyFloats, top: ArrayLike) -> Floats:
    """Heights as multiples of others; infinite where these are next to nothing."""
    with np.errstate(over="ignore"):
        return np.divide(height, top, dtype=np.float64)


def _log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Round numbers within the limits: fewer of each decade, the more decades there are."""
    steps = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 5 else (1,)
    ticks: list[tuple[float, str]] = []
    for power in range(int(np.floor(low)), int(np.ceil(high)) + 1):
        ticks += [(float(np.log10(step)) + power, number(float(f"{step}e{power}"))) for step in steps]
    return tuple(tick for tick in ticks if low <= tick[0] <= high)
