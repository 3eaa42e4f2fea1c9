"""Neurons of two models: whether they are the same ones, and how much each changed.

Neuron i of two models is the same neuron only if one's weights come from the other's (L15). Weights that are equal
prove it; otherwise it is measured: over the prompts, the mean activation of neuron i of one model must correlate with
that of neuron i of the other more than with those of other neurons. In models that share no ancestry it does so as
often as by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.diff.cells import Floor, floor_of
from stratoscope.analysis.diff.prompts import Match
from stratoscope.analysis.layers import by_layer

if TYPE_CHECKING:
    import xarray as xr

Floats: TypeAlias = NDArray[np.float64]
_SUMMARY = "prompt_mean"
_SAMPLE = 256  # neurons of a layer that are matched
_LEAST_PROMPTS = 8
_LEAST_SHARE = 0.5  # of the sample must match themselves, in the median layer; by chance 1 in 256 does


@dataclass(frozen=True)
class Ancestry:
    """Whether neurons may be compared.

    Attributes
    ----------
    shared
        Whether they may.
    words
        Why, or why not, in a sentence.
    shares
        [layer], the share of sampled neurons that match themselves best; NaN where that was not measured.
    """

    shared: bool
    words: str
    shares: Floats


def ancestry(a: xr.Dataset, b: xr.Dataset, matches: list[Match]) -> Ancestry:
    """Find out whether neuron i is the same neuron in both traces."""
    layers = a.sizes.get(names.LAYER, 0)
    unknown = np.full(layers, np.nan)
    same_shape = all(a.sizes.get(dim) == b.sizes.get(dim) for dim in (names.LAYER, names.NEURON))
    if _SUMMARY not in a or _SUMMARY not in b:
        return Ancestry(False, "no prompt_mean in both traces", unknown)
    if not same_shape:
        return Ancestry(False, "the models differ in layers or neurons", unknown)
    hashes = [str((one.attrs.get("model") or {}).get("weights_sha256", "")) for one in (a, b)]
    if hashes[0] and hashes[0] == hashes[1]:
        return Ancestry(True, "the weights are the same", unknown)
    alike = [match for match in matches if match.same]
    if len(alike) < _LEAST_PROMPTS:
        return Ancestry(False, f"fewer than {_LEAST_PROMPTS} equal prompts tell whether neurons are the same", unknown)
    shares = np.array([_share(one, other) for _, one, other in _both(a, b, alike)])
    middle = float(np.nanmedian(shares)) if np.isfinite(shares).any() else 0.0
    words = f"{middle:.0%} of the neurons are most like themselves, in the median layer ({_SAMPLE} compared)"
    return Ancestry(middle >= _LEAST_SHARE, words, shares)


@dataclass(frozen=True)
class NeuronChange:
    """How the mean activation of each neuron changed over the prompts; [layer, neuron] each.

    Attributes
    ----------
    mean, largest
        Mean of b − a, and the largest |b − a|, over prompts.
    times
        `largest` over the noise floor of its layer; NaN without one.
    """

    mean: Floats
    largest: Floats
    times: Floats


def neuron_change(a: xr.Dataset, b: xr.Dataset, matches: list[Match]) -> NeuronChange:
    """Compare every neuron, layer by layer; only prompts of equal tokens count."""
    shape = (a.sizes[names.LAYER], a.sizes[names.NEURON])
    mean, largest, times = (np.full(shape, np.nan) for _ in range(3))
    floor = floor_of(a, b, _SUMMARY)
    alike = [match for match in matches if match.same]
    for layer, one, other in _both(a, b, alike):
        apart = other.astype(np.float64) - one
        mean[layer] = apart.mean(axis=0)
        largest[layer] = np.abs(apart).max(axis=0)
        if floor.measured is not None:
            own = Floor(floor.measured[layer : layer + 1], floor.roundoff)
            times[layer] = own.times(one.astype(np.float64), other.astype(np.float64)).max(axis=0)
    return NeuronChange(mean, largest, times)


def column_norms(trace: xr.Dataset) -> Floats | None:
    """‖W_:,i‖₂ of every neuron that is among the recorded peaks, [layer, neuron]: peak_write / |peak_value|, the
    median.

    NaN for all others; None where no peaks of dense MLPs were recorded.
    """
    needed = {"peak_neuron", "peak_value", "peak_write"}
    if not needed <= set(trace.data_vars) or "peak_expert" in trace or names.NEURON not in trace.sizes:
        return None
    found = np.full((trace.sizes[names.LAYER], trace.sizes[names.NEURON]), np.nan)
    for layer in range(len(found)):
        here = trace.isel({names.LAYER: layer})
        neuron, value, write = (
            np.asarray(here[name].values).ravel() for name in ("peak_neuron", "peak_value", "peak_write")
        )
        known = (neuron >= 0) & (value != 0) & np.isfinite(value)
        norm = write[known].astype(np.float64) / np.abs(value[known])
        order = np.argsort(neuron[known], kind="stable")
        which, first = np.unique(neuron[known][order], return_index=True)
        for number, values in zip(which.tolist(), np.split(norm[order], first[1:]), strict=True):
            found[layer, number] = np.median(values)
    return found


def _both(
    a: xr.Dataset, b: xr.Dataset, matches: list[Match]
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Layer by layer, the summaries of the matched prompts of both traces, in the order of the matches."""
    layers = range(a.sizes[names.LAYER])
    of_a, of_b = np.array([match.a for match in matches]), np.array([match.b for match in matches])
    prompts_a, order_a = np.unique(of_a, return_inverse=True)
    prompts_b, order_b = np.unique(of_b, return_inverse=True)
    sides = (by_layer(a, _SUMMARY, prompts_a, layers), by_layer(b, _SUMMARY, prompts_b, layers))
    for (layer, one), (_, other) in zip(*sides, strict=True):
        yield layer, one[order_a], other[order_b]


def _share(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The share of sampled neurons whose best match by correlation over prompts is themselves."""
    varies = np.flatnonzero((a.std(axis=0) > 0) & (b.std(axis=0) > 0) & np.isfinite(a + b).all(axis=0))
    if len(varies) < 2:
        return np.nan
    chosen = np.random.default_rng(0).permutation(varies)[:_SAMPLE]
    one, other = (_unit(values[:, chosen].astype(np.float64)) for values in (a, b))
    return float((np.argmax(one.T @ other, axis=1) == np.arange(len(chosen))).mean())


def _unit(values: Floats) -> Floats:
    values = values - values.mean(axis=0)
    unit: Floats = values / np.linalg.norm(values, axis=0)
    return unit
