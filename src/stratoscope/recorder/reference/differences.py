"""How far recorded values are from values computed otherwise, relative to their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from stratoscope.names import PROMPT, QUANTITIES, Quantity

Replayed = dict[str, dict[int, Tensor]]  # quantity -> layer (or depth) -> float64 values, tokens or prompts first
STRONGEST = "strongest writes"  # compared with peak_write: no stronger neuron was left out
_LOG_ODDS = ("lens_target_logit",)  # of two tokens: 0 where both are as likely
DIFFERENCE = "difference of "  # before the name of what was compared during the replay: relative differences


def differences(recorded: Mapping[str, np.ndarray], again: Replayed) -> Iterator[tuple[str, np.ndarray, list[int]]]:
    """Quantity, relative differences [token or prompt, layer or depth], and which layers those are."""
    for key, layers_of in again.items():
        name, layers = "peak_write" if key == STRONGEST else key, sorted(layers_of)
        if key.startswith(DIFFERENCE):
            compared = torch.stack([layers_of[layer] for layer in layers], dim=1).numpy()
            yield key.removeprefix(DIFFERENCE), compared, layers
        elif name in recorded:
            wanted = torch.stack([layers_of[layer] for layer in layers], dim=1).numpy()
            given = recorded[name]
            given = given[:, None] if given.ndim == 1 else given  # one number a prompt
            yield name, relative_difference(given[:, layers], wanted, QUANTITIES[name]), layers


def relative_difference(recorded: np.ndarray, wanted: np.ndarray, quantity: Quantity) -> np.ndarray:
    """How far recorded values are from wanted ones, as a share of their size.

    Parameters
    ----------
    recorded, wanted
        [token or prompt, layer or depth, …].
    quantity
        What they are.

    Returns
    -------
    ndarray
        float64 [token or prompt, layer or depth]: root mean square of the difference over the other axes, divided by
        that of the wanted values or, where those are small, by their median over the tokens of the layer. Quantities
        between −1 and 1 are taken as they are, and so are logarithms of probabilities and of odds where they are small:
        a difference between two is a ratio already, and they are nearly 0 where a model is sure. Infinite where only
        one of the two is defined, or where only one is infinite (a norm relative to an input of zero); NaN where none
        is defined.
    """
    only_one = np.isnan(recorded) != np.isnan(wanted)
    given, infinite = wanted, np.isinf(wanted)
    wanted = np.where(infinite, np.nan, wanted)  # an infinite value has no size that a difference could be a share of
    difference = np.where(only_one, np.inf, recorded.astype(np.float64) - wanted)
    difference = np.where(infinite, np.where(recorded == given, 0.0, np.inf), difference)
    bounded = quantity.unit == "1" and not quantity.log
    size, error = (_root_mean_square(wanted), _root_mean_square(difference))
    typical = np.ones_like(size[:1]) if bounded or quantity.unit == "tokens" else _median(size, axis=0)[None]
    typical = np.fmax(typical, 1.0) if quantity.unit == "nat" or quantity.name in _LOG_ODDS else typical
    scale = np.fmax(size, typical)
    return np.where(error == 0, 0.0, error / np.where(scale > 0, scale, 1.0))


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    axes = tuple(range(2, values.ndim))
    with np.errstate(invalid="ignore"):
        squares = np.square(values)
    count = np.maximum((~np.isnan(values)).sum(axis=axes), 1)
    total = np.nansum(squares, axis=axes)
    return np.where(np.isnan(values).all(axis=axes), np.nan, np.sqrt(total / count))


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """Median of what is defined, 0 where nothing is."""
    nothing = np.isnan(values).all(axis=axis, keepdims=True)
    return np.asarray(np.nanmedian(np.where(nothing, 0.0, values), axis=axis))


def by_layer(difference: np.ndarray, quantity: Quantity, *, median: bool) -> np.ndarray:
    """[layer or depth]: the largest (or median) over tokens; of prompts there are few, so theirs is over layers too."""
    if not median:
        return np.asarray(np.fmax.reduce(np.nan_to_num(difference, posinf=np.inf), axis=0))
    if quantity.dims[0] == PROMPT:
        return np.full(difference.shape[1], _median(difference.reshape(-1, 1), axis=0)[0])
    return _median(difference, axis=0)
