"""How the height of a peak becomes its place between floor and ceiling, and its colour, on each scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import Floats
from stratoscope.words import number

QUANTILES = (0.01, 0.99)  # of the drawn peaks, between which the colours of the robust scale run
FLOOR = 1  # percentile at which the logarithmic scale begins
_WORDS = {
    "robust": "Heights are linear; colours run between the 1 % and 99 % quantiles of the drawn peaks.",
    "linear": "Heights and colours are linear.",
    "log": "Heights and colours are logarithmic, from the 1 % quantile of the drawn peaks.",
    "per-layer": "Heights and colours are shares of the layer's highest peak: layers are not comparable.",
}
_LEAST = 1e-300  # stands for zero under a logarithm


def levels(height: Floats, layer: NDArray[np.int64], first: NDArray[np.bool_], title: str) -> dict[str, dict[str, Any]]:
    """Limits of every scale, with the first tokens taken into account (`with_first`) and without (`without_first`).

    Parameters
    ----------
    height, layer
        Height and block number of each drawn peak, of shape (points,).
    first
        Whether it belongs to the first token of its prompt, of shape (points,).
    title
        What the height is, in words.

    Returns
    -------
    dict
        Scale → `title`, `words` (what it does), and `with_first` and `without_first`, each of which has `floor`,
        `ceiling`, `colour` (two limits) in levels, `ticks` (pairs of level and words; none = evenly) and, for
        per-layer, `tops` (pairs of block number and height).
    """
    others = height[~first] if (~first).any() else height
    other_layers = layer[~first] if (~first).any() else layer
    titles = {"per-layer": f"share of the layer's highest {title.split(' (')[0]}"}
    return {
        scale: {
            "title": titles.get(scale, title),
            "words": _WORDS[scale],
            "with_first": _limits(scale, height, layer, layer),
            "without_first": _limits(scale, others, other_layers, layer),
        }
        for scale in names.SCALES
    }


def level(height: Floats, layer: NDArray[np.int64], scale: str, limits: dict[str, Any]) -> Floats:
    """Level of each peak, of shape (points,); `web/peaks3d.js` computes the same."""
    if scale == "log":
        result: Floats = np.log10(np.maximum(height, _LEAST))
        return result
    if scale == "per-layer":
        tops = dict(limits["tops"])
        shares: Floats = height / np.array([tops[number] for number in layer.tolist()])
        return shares
    return height


def _limits(scale: str, height: Floats, layer: NDArray[np.int64], all_layers: NDArray[np.int64]) -> dict[str, Any]:
    if scale == "log":
        return _log_limits(height)
    if scale == "per-layer":
        tops = [[int(number), float(height[layer == number].max(initial=0)) or 1.0] for number in np.unique(all_layers)]
        return {"floor": 0.0, "ceiling": 1.0, "colour": [0.0, 1.0], "ticks": _shares(), "tops": tops}
    top = float(height.max()) or 1.0
    colour = [0.0, top]
    if scale == "robust":
        low, high = (float(limit) for limit in np.quantile(height, QUANTILES))
        colour = [low, high] if high > low else colour
    return {"floor": 0.0, "ceiling": top, "colour": colour, "ticks": []}


def _log_limits(height: Floats) -> dict[str, Any]:
    positive = height[height > _LEAST] if (height > _LEAST).any() else np.ones(1)
    low, high = float(np.log10(np.percentile(positive, FLOOR))), float(np.log10(positive.max()))
    if high - low < 0.1:
        low = high - 1
    return {"floor": low, "ceiling": high, "colour": [low, high], "ticks": _log_ticks(low, high)}


def _log_ticks(low: float, high: float) -> list[list[Any]]:
    """Round numbers within the limits: fewer of each decade, the more decades there are."""
    steps = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 5 else (1,)
    ticks: list[list[Any]] = []
    for power in range(int(np.floor(low)), int(np.ceil(high)) + 1):
        ticks += [[float(np.log10(step)) + power, number(float(f"{step}e{power}"))] for step in steps]
    return [tick for tick in ticks if low <= tick[0] <= high]


def _shares() -> list[list[Any]]:
    return [[share / 4, f"{share * 25} %"] for share in range(5)]
