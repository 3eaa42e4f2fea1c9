"""How the height of a peak becomes its place on the axis of heights, and its colour, on each scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from stratoscope import names
from stratoscope.trace.arrays import AnyFloats, Bools, Floats, Ints
from stratoscope.view.peaks3d.ticks import Ticks, round_ticks
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.peaks import Heights, PeakScale
from stratoscope.view.spec.scale import INNERMOST, Distribution

FLOOR = 1  # percentile at which the logarithmic scale begins
ROOF = 1.04  # where a peak just above the ceiling is drawn, as a share of the height …
RISE = 0.06  # … and how much higher one of 10,000 times the ceiling is
ABOVE = 0.3  # what lies beyond the upper robust limit has at most so much room, the limits being 1 apart …
BELOW = 0.1  # … and what lies below the lower one so much
_LEAST = 1e-300  # stands for zero under a logarithm
_SHARES = tuple((share / 4, f"{share * 25} %") for share in range(5))
_CLIPPED = f"limits that clip at most about {100 * INNERMOST[0]:g} % of the drawn peaks at either end"
_WORDS: dict[names.Scale, str] = {
    "robust": (
        f"Heights and colours are logarithmic between {_CLIPPED}, as in a heatmap; beyond the line at the limit "
        "heights are closer together, and the colour stays that of the limit."
    ),
    "linear": "Heights and colours are linear.",
    "log": "Heights and colours are logarithmic, from the 1 % quantile of the drawn peaks.",
    "per-layer": "Heights and colours are shares of the layer's highest peak: layers are not comparable.",
}


@dataclass(frozen=True)
class Squeezed:
    """An axis that is even between two limits and, if it must be, closer together beyond them.

    Attributes
    ----------
    least, low, high, most
        The lowest value, the limits, and the highest value.
    below, above
        How much room there is at most beyond the limits, as a share of their distance.
    """

    least: float
    low: float
    high: float
    most: float
    below: float = BELOW
    above: float = ABOVE

    def place(self, values: AnyFloats) -> Floats:
        """Where values stand; the limits stand at themselves."""
        between = np.clip(np.asarray(values, np.float64), self.low, self.high)
        wide = self.high - self.low
        above = _squeezed(self.most - self.high, self.above * wide) * np.maximum(values - self.high, 0)
        below = _squeezed(self.low - self.least, self.below * wide) * np.maximum(self.low - values, 0)
        placed: Floats = between + above - below
        return placed

    def at(self, value: float) -> float:
        """Where one value stands."""
        return float(self.place(np.array([value]))[0])


def _squeezed(extent: float, room: float) -> float:
    """What distances are multiplied by so that an extent fits into the room."""
    return min(1.0, room / extent) if extent > 0 else 1.0


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
    return {
        "robust": _robust(height, level, counted),
        "linear": _placed(height, _shares(height, top), 0.0, top),
        "log": _logarithmic(height, level, counted),
        "per-layer": _by_layer(height, layer, counted),
    }


def _placed(level: AnyFloats, share: Floats, floor: float, ceiling: float, ticks: Ticks = ()) -> Heights:
    """Levels between floor and ceiling; of those that are more than once the ceiling `share` says how many times."""
    beyond = np.flatnonzero(share > 1)
    times, place = share[beyond], level
    if len(beyond) or level.min() < floor:
        rise = ROOF + RISE * np.clip(np.log10(times) / 4, 0, 1)
        place = np.maximum(level, floor)
        place[beyond] = np.minimum(floor + (ceiling - floor) * rise, np.finfo(level.dtype).max)
    return Heights(place, indices(beyond), times, floor, ceiling, floor, ceiling, ticks)


def _robust(height: AnyFloats, level: AnyFloats, counted: Bools) -> Heights:
    """The logarithm between the limits of a map; beyond them closer together, so that few cannot flatten the others."""
    positive = height[counted & (height > _LEAST)]
    positive = positive if len(positive) else np.ones(1)
    limits = Distribution([positive[:, np.newaxis]]).fit("log", "robust")
    low, high = np.log10([float(limits.low[0]), float(limits.high[0])])
    least, most = np.log10(np.array([positive.min(), positive.max()], np.float64))
    axis = Squeezed(min(least, low), low, high, max(most, high))
    floor, ceiling = axis.place(np.array([axis.least, axis.most])).astype(np.float32).tolist()
    ticks = tuple(
        tick
        for tick in round_ticks(10.0**axis.least, 10.0**axis.most, lambda value: axis.at(np.log10(value)))
        if floor <= tick[0] <= ceiling
    )
    placed = _placed(
        axis.place(level).astype(np.float32), _shares(height, float(positive.max())), floor, ceiling, ticks
    )
    return replace(placed, low=float(low), high=float(high))


def _logarithmic(height: AnyFloats, level: AnyFloats, counted: Bools) -> Heights:
    positive = height[counted & (height > _LEAST)].astype(np.float64)
    positive = positive if len(positive) else np.ones(1)
    low, high = np.log10([np.percentile(positive, FLOOR), positive.max()]).astype(level.dtype).tolist()
    if high - low < 0.1:
        low = high - 1
    ticks = round_ticks(10.0**low, 10.0**high, lambda value: float(np.log10(value)))
    return _placed(level, _shares(height, positive.max()), low, high, ticks)


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
