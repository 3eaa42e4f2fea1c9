"""Why neurons are not renumbered with a secret key instead: what each of them does gives its number away.

A neuron is known by how active it is in other prompts: layer by layer, neurons of either side are matched so that
their statistics lie nearest together (Kuhn 1955).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.publish.attacks.class_means import OF_NEURONS, class_means
from stratoscope.publish.attacks.outcome import Attack, guessed, not_run
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

NAME, HOLDS, UNIT = "permutation matching", "other prompts recorded with the same model", "neurons"
_OF_PROMPTS = ("prompt_mean", "prompt_max", "prompt_min")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_LAYERS = 8  # that are matched, evenly spread


def match(permuted: Floats, known: Floats) -> Ints:
    """Which known neuron each permuted one is, by their statistics.

    Parameters
    ----------
    permuted, known
        Statistics of the neurons of one layer; [neuron, statistic].

    Examples
    --------
    >>> import numpy as np
    >>> known = np.array([[0.0, 1.0], [5.0, 2.0], [9.0, 0.0]])
    >>> match(known[[2, 0, 1]] + 0.1, known)
    array([2, 0, 1])
    """
    from scipy.optimize import linear_sum_assignment

    own, other = _comparable(permuted), _comparable(known)
    apart = np.square(own).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * own @ other.T
    return np.asarray(linear_sum_assignment(apart)[1], np.int64)


def statistics(dataset: xr.Dataset, layer: int, classes: Sequence[str]) -> Floats:
    """What is known of the neurons of a layer: quantiles over prompts, the mean of classes; [neuron, statistic]."""
    columns = []
    for name in (one for one in _OF_PROMPTS if one in dataset):
        values = np.asarray(dataset[name].isel({names.LAYER: layer}).values, np.float64)
        columns += [*np.nanquantile(values, _QUANTILES, axis=0), np.nanstd(values, axis=0)]
        if name == _OF_PROMPTS[0]:
            of = np.array(Prompts(dataset).classes, object)
            columns += [np.nanmean(values[of == one], axis=0) for one in classes]
    return np.stack(columns, axis=1)


def permutation_attack(published: xr.Dataset | xr.DataTree, reference: xr.Dataset) -> Attack:
    """Renumber the neurons of what was published with a secret key, and undo it.

    Parameters
    ----------
    published
        A trace with summaries of neurons, or class means of neurons.
    reference
        Other prompts recorded with the same model.
    """
    sides = _sides(published, reference)
    if sides is None:
        return not_run(NAME, HOLDS, UNIT, "no statistics of single neurons are published")
    random = np.random.default_rng(defaults.SEED)
    hits, layers = [], []
    for layer, (theirs, mine) in enumerate(sides):
        key = random.permutation(len(theirs))
        hits.append(match(theirs[key], mine) == key)
        layers.append(np.full(len(key), layer))
    right = np.concatenate(hits)
    chance = np.concatenate([random.permutation(len(one)) == np.arange(len(one)) for one in hits])
    note = f"Neurons of {len(hits)} layers, renumbered here with a secret key."
    return guessed(NAME, HOLDS, UNIT, right, {"any number": chance}, np.concatenate(layers), note=note)


def _sides(published: xr.Dataset | xr.DataTree, reference: xr.Dataset) -> list[tuple[Floats, Floats]] | None:
    """Statistics of both sides, layer by layer; None where either has none."""
    import xarray as xr

    if not any(one in reference for one in _OF_PROMPTS):
        return None
    count = reference.sizes[names.LAYER]
    some = np.unique(np.linspace(0, count - 1, min(count, _MOST_LAYERS)).round().astype(int)).tolist()
    if isinstance(published, xr.Dataset):
        shared = [one for one in _OF_PROMPTS if one in published and one in reference]
        if not shared or published[shared[0]].shape[1:] != reference[shared[0]].shape[1:]:
            return None
        others = [one for one in _OF_PROMPTS if one not in shared]
        own, other = published.drop_vars(others, errors="ignore"), reference.drop_vars(others, errors="ignore")
        both = sorted(set(Prompts(own).classes) & set(Prompts(other).classes))
        return [(statistics(own, layer, both), statistics(other, layer, both)) for layer in some]
    mine, theirs = class_means(reference, OF_NEURONS), class_means(published, OF_NEURONS)
    if mine is None or theirs is None:
        return None
    classes = sorted(mine.means.keys() & theirs.means.keys())
    if not classes or len({len(of.means[one]) for of in (mine, theirs) for one in classes}) > 1:
        return None
    rows = [np.stack([of.means[one].reshape(count, -1) for one in classes], axis=-1) for of in (theirs, mine)]
    return [(rows[0][layer], rows[1][layer]) for layer in some]


def _comparable(values: Floats) -> Floats:
    """Statistics on one scale: ranks of neurons are spread evenly, so that a few large ones do not outweigh all others.

    Where nothing is known of a neuron it is taken for one in the middle.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    filled = np.where(np.isfinite(values), values, np.nanmedian(values, axis=0))
    found: Floats = ndtri((rankdata(filled, axis=0) - 0.5) / len(values))
    return found
