"""Norms of neurons' columns of the MLP's last linear map, read off the recorded peaks: what proves that one changed.

A peak's write is |a_i|·‖W_:,i‖₂, so that Σ write / Σ |value|, over the tokens at which a neuron is among the peaks, is
the norm of its column. What happens before the neuron does not enter, so a column of another norm is another weight.
Where the activations of a layer hardly differ between both and a neuron is among the peaks of one only, its write in
the other is at most that of the weakest peak there: an upper limit of the norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

Mask: TypeAlias = NDArray[np.bool_]
SAME_NORM = 1e-5  # relative: more than sums of float32 peaks can make of the same column
SAME_ROUNDED = 0.002  # relative: more than rounding to bfloat16 can change the norm of a column (half of 2⁻⁸)
HARDLY_MOVED = 1e-4  # of the largest activation of a layer: then those of single tokens are the same within …
SLACK = 0.02  # … this share
_PEAKS = ("peak_neuron", "peak_value", "peak_write")


@dataclass(frozen=True)
class ColumnNorms:
    """Of every neuron of the compared layers, [layer, neuron].

    Attributes
    ----------
    a, b
        Norm of its column in either model; NaN where the neuron is not among the peaks, which is not zero, and in
        mixtures of experts.
    most_a, most_b
        Where it is among the peaks of the other only: what it is at most; NaN where nothing is known.
    changed
        Whether that proves another column.
    tolerance
        Norms that are nearer to each other, relatively, are taken for the same.
    """

    a: Floats
    b: Floats
    most_a: Floats
    most_b: Floats
    changed: Mask
    tolerance: float

    @property
    def seen(self) -> Mask:
        """Whether a change of its norm would be seen: among the peaks of both, or bounded where it is not."""
        return np.isfinite(self.a + self.b) | self.changed

    def size(self) -> Floats:
        """How much the norm changed: |log₂ (B / A)|, at least, where it is proved; else 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            before = np.where(np.isnan(self.a), self.most_a, self.a)
            after = np.where(np.isnan(self.b), self.most_b, self.b)
            size: Floats = np.where(self.changed, np.abs(np.log2(after) - np.log2(before)), 0.0)
        return size


def compare_columns(
    a: xr.Dataset,
    b: xr.Dataset,
    tokens: tuple[Ints, Ints],
    layers: tuple[Ints, Ints],
    same: Mask,
    moved: Floats,
    *,
    same_dtype: bool,
) -> ColumnNorms:
    """Compare the norms of all columns.

    Parameters
    ----------
    tokens
        Indices of tokens that have seen the same tokens, in A and in B.
    layers
        Places of the compared layers in A and in B.
    same
        Whether a layer's neurons are the same in both, [layer]; others have no norms.
    moved
        How far the activations of a layer's neurons are apart at most, relative to the largest of them; [layer].
    same_dtype
        Whether the weights were not rounded differently.
    """
    width = int(a.sizes[names.NEURON])
    norms = [column_norms(one, at, width) for one, at in zip((a, b), layers, strict=True)]
    most = [np.full(norms[0].shape, np.nan) for _ in range(2)]
    if all(_has_peaks(one) for one in (a, b)):
        for place in np.flatnonzero(same & (moved <= HARDLY_MOVED)).tolist():
            peaks = [_peaks(one, at[place], of) for one, at, of in zip((a, b), layers, tokens, strict=True)]
            most[0][place] = _at_most(peaks[1], peaks[0], width)
            most[1][place] = _at_most(peaks[0], peaks[1], width)
    for one in (*norms, *most):
        one[~same] = np.nan
    for one, own in zip(most, norms, strict=True):
        one[np.isfinite(own)] = np.nan
    tolerance = SAME_NORM if same_dtype else SAME_ROUNDED
    changed = norms_differ(norms[0], norms[1], tolerance)
    with np.errstate(invalid="ignore"):
        less = 1 - np.where(moved == 0, tolerance, SLACK)[:, None]
        changed |= (most[1] < less * norms[0]) | (most[0] < less * norms[1])
    return ColumnNorms(norms[0], norms[1], most[0], most[1], changed, tolerance)


def column_norms(dataset: xr.Dataset, layers: Ints, width: int) -> Floats:
    """Norm of each neuron's column as the recorded peaks show it, [layer, neuron]; NaN where it is not among them.

    Not of experts, whose write is also multiplied by the router's weight.
    """
    norms = np.full((len(layers), width), np.nan)
    if not _has_peaks(dataset):
        return norms
    for place, layer in enumerate(layers.tolist()):
        neuron, value, write = (one.ravel() for one in _peaks(dataset, layer))
        there = (neuron >= 0) & np.isfinite(value) & np.isfinite(write)
        size = np.bincount(neuron[there], np.abs(value[there]), minlength=width)
        total = np.bincount(neuron[there], write[there], minlength=width)
        norms[place] = np.where(size > 0, total / np.where(size > 0, size, 1.0), np.nan)
    return norms


def norms_differ(a: Floats, b: Floats, tolerance: float) -> Mask:
    """Where two norms of columns are farther apart than two recordings make them."""
    with np.errstate(invalid="ignore"):
        differ: Mask = np.abs(b - a) > tolerance * np.maximum(a, b)
    return differ


def _has_peaks(dataset: xr.Dataset) -> bool:
    return all(name in dataset for name in _PEAKS) and "peak_expert" not in dataset


def _peaks(dataset: xr.Dataset, layer: int, tokens: Ints | None = None) -> tuple[Ints, Floats, Floats]:
    """Neurons, values and writes of one layer, [token, rank]."""
    neuron, value, write = (dataset[name].isel({names.LAYER: layer}).values for name in _PEAKS)
    if tokens is not None:
        neuron, value, write = neuron[tokens], value[tokens], write[tokens]
    return neuron.astype(np.int64), value.astype(np.float64), write.astype(np.float64)


def _at_most(one: tuple[Ints, Floats, Floats], other: tuple[Ints, Floats, Floats], width: int) -> Floats:
    """What a norm is at most in the other model: from tokens at which its neuron is a peak of `one` only."""
    neuron, value, _ = one
    others, _, writes = other
    weakest = np.where((others >= 0).all(axis=1), writes[:, -1], np.nan)
    absent = ~(neuron[:, :, None] == others[:, None, :]).any(axis=2) & (neuron >= 0) & (value != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = weakest[:, None] / np.abs(value)
    known = absent & np.isfinite(limit)
    most = np.full(width, np.inf)
    np.minimum.at(most, neuron[known], limit[known])
    return np.where(np.isfinite(most), most, np.nan)
