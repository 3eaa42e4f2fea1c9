"""What detectors of heads share: heads of one prompt held against the same heads of the other prompts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.anomalies.finding import Index, NamedPrompts
from stratoscope.analysis.statistics.known import quantile
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

LEAST_PROMPTS = 4  # of a distribution over prompts
LEAST_TOKENS = 6  # of a prompt: shorter ones say nothing about a head
LEAST_QUERIES = 4  # later tokens that must be able to see a token
_RECURS = 2  # other prompts that do the same
_STRONG = 3.0  # robust standard deviations from which it is asked whether others do the same


def classes_of(prompts: NamedPrompts) -> list[NDArray[np.int64]]:
    """Prompts of each class that has enough of them, else all together."""
    classes = np.array(prompts.classes)
    sizes = {name: int((classes == name).sum()) for name in set(prompts.classes)}
    if min(sizes.values()) < LEAST_PROMPTS:
        return [np.arange(len(prompts))]
    return [np.flatnonzero(classes == name) for name in sorted(sizes)]


def angle(shares: Floats) -> Floats:
    """Shares on the scale on which they vary alike wherever they are: 2 asin √share."""
    angle: Floats = 2 * np.arcsin(np.sqrt(np.clip(shares, 0.0, 1.0)))
    return angle


def alone(scores: Floats, prompts: NamedPrompts, enough: bool) -> Floats:
    """Scores; NaN where a head does half as much in enough other prompts, twins counting once: it recurs."""
    if not enough:
        return scores
    strongest = np.full((max(prompts.unit_numbers()) + 1, *scores.shape[1:]), -np.inf)
    np.maximum.at(strongest, prompts.unit_numbers(), np.where(np.isnan(scores), -np.inf, scores))
    if len(strongest) <= _RECURS:
        return scores
    other = np.sort(strongest, axis=0)[-_RECURS - 1]
    found: Floats = np.where((scores > _STRONG) & (other >= scores / 2), np.nan, scores)
    return found


def typical(means: Floats, of: Floats, index: Index, reference: xr.Dataset | None) -> float:
    """The median of the other prompts, or of the reference."""
    prompt, layer, head = index
    if reference is None:
        return quantile(np.delete(means[:, layer, head], prompt), 0.5)
    return float(np.sin(quantile(of[:, layer, head], 0.5) / 2) ** 2)


def others(reference: xr.Dataset | None) -> str:
    """What a prompt is held against, in words."""
    return "the other prompts" if reference is None else "the reference"


def same_prompt(prompts: NamedPrompts, index: Index) -> tuple[Hashable, ...]:
    """All heads of a prompt are one thing; the same head in its twin is, too."""
    prompt, layer, head = index
    return ("heads", prompt), ("head", prompts.units[prompt], layer, head)
