"""What a file says of the model's weights: matters where the model itself is not public.

Of the MLP's last map W three things follow by algebra: |a_i|·‖W_:,i‖ / |a_i| is the norm of a column; a direct
contribution s·⟨d, a_i W_:,i⟩ / (s·a_i) is where it points along the direction d of a target; and with all of a,
‖W a‖² = aᵀ(WᵀW)a is linear in WᵀW, which is solved once there are F(F + 1)/2 tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.publish.attacks.outcome import Attack, counted_share, not_run
from stratoscope.trace.arrays import AnyFloats, Bools, Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

HOLDS, UNIT = "the file alone", "columns of W"
NORMS, DIRECTIONS, PRODUCTS = "norms of columns", "directions of columns", "products of columns"
_ALIKE = 1e-3  # relative difference up to which two norms are the same
_MOST_SOLVED = 128  # neurons of a layer whose products are solved here; more only takes a larger machine


def column_norms(neuron: Ints, value: AnyFloats, write: AnyFloats, width: int) -> Floats:
    """Norms of the columns of one layer, from peaks of any shape; NaN of those that are no peak; [neuron].

    Examples
    --------
    >>> import numpy as np
    >>> column_norms(np.array([2, 0, 2]), np.array([1.0, -2.0, 3.0]), np.array([5.0, 1.0, 15.0]), 3)
    array([0.5, nan, 5. ])
    """
    there = (neuron >= 0) & (value != 0)
    ratio = np.asarray(write, np.float64)[there] / np.abs(np.asarray(value, np.float64)[there])
    order = np.lexsort((ratio, neuron[there]))
    of, ratio = neuron[there][order], ratio[order]
    first, count = np.unique(of, return_index=True, return_counts=True)[1:]
    found = np.full(width, np.nan)
    found[of[first]] = ratio[first + count // 2]  # about the median
    apart = ratio[first + count - 1] - ratio[first]
    found[of[first[apart > _ALIKE * ratio[first]]]] = np.nan  # it is no fixed number: of experts it varies
    return found


def column_products(activations: AnyFloats, norms: AnyFloats) -> Floats:
    """WᵀW of one layer from activations [token, neuron] and norms of W a [token]; [neuron, neuron].

    Raises
    ------
    ValueError
        There are fewer tokens than unknown products.
    """
    width = activations.shape[1]
    i, j = np.triu_indices(width)
    if len(activations) < len(i):
        raise ValueError(f"{len(i)} tokens are needed, there are {len(activations)}")
    a = np.asarray(activations, np.float64)
    known = a[:, i] * a[:, j] * np.where(i == j, 1.0, 2.0)
    solved = np.linalg.lstsq(known, np.square(np.asarray(norms, np.float64)), rcond=None)[0]
    found = np.zeros((width, width))
    found[i, j] = found[j, i] = solved
    return found


def weight_attacks(published: xr.Dataset) -> list[Attack]:
    """Attack a published trace: norms, directions and products of columns of W, each as a share of all columns."""
    if published.attrs.get("source") == names.SIMULATED:
        return [not_run(name, HOLDS, UNIT, "no model made these numbers, so they hold no weights") for name in _ATTACKS]
    width = int((published.attrs.get("model") or {}).get("d_ff") or published.sizes.get(names.NEURON, 0))
    columns = width * published.sizes.get(names.LAYER, 0)
    if not columns:
        return [not_run(name, HOLDS, UNIT, "how many neurons the model has is not told") for name in _ATTACKS]
    return [attack(published, width) for attack in _ATTACKS.values()]


def _norms(published: xr.Dataset, width: int) -> Attack:
    if any(one not in published for one in ("peak_neuron", "peak_value", "peak_write")):
        return not_run(NORMS, HOLDS, UNIT, "peak_value and peak_write are not both published")
    if "router_expert" in published:
        return not_run(NORMS, HOLDS, UNIT, "writes of a mixture of experts are times a router weight")
    neuron, value, write = (published[one].values for one in ("peak_neuron", "peak_value", "peak_write"))
    layers = range(published.sizes[names.LAYER])
    found = np.stack([column_norms(neuron[:, one], value[:, one], write[:, one], width) for one in layers])
    known = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        middle = np.nanmedian(found) if known.any() else np.nan
        guessed = known & (np.abs(found - middle) <= _ALIKE * middle)
    return _counted(NORMS, known, guessed, "Best guess without the file: their median.")


def _directions(published: xr.Dataset, width: int) -> Attack:
    needed = ("neuron_logit", "logit_neuron")
    if any(one not in published for one in needed):
        return not_run(DIRECTIONS, HOLDS, UNIT, "no direct contribution of a neuron is published")
    logits, neuron = (published[one].transpose(names.TOKEN, names.LAYER, ...).values for one in needed)
    known = np.zeros((published.sizes[names.LAYER], width), bool)
    for layer in range(len(known)):
        of = neuron[:, layer].reshape(len(neuron), -1)
        there = (of >= 0) & np.isfinite(logits[:, layer].reshape(len(of), -1))
        token = np.broadcast_to(np.arange(len(of))[:, None], of.shape)[there]
        some = of[there]
        known[layer, some[_activation_known(published, layer, token, some, width)]] = True
    return _counted(DIRECTIONS, known, np.zeros_like(known), "Along the directions of the explained targets only.")


def _products(published: xr.Dataset, width: int) -> Attack:
    if "neurons" not in published or "mlp_out_norm" not in published:
        return not_run(PRODUCTS, HOLDS, UNIT, "neurons and mlp_out_norm are not both published")
    tokens, needed = published.sizes[names.TOKEN], width * (width + 1) // 2
    known = np.zeros((published.sizes[names.LAYER], width), bool)
    if tokens < needed:
        note = f"Solving takes {needed:,} tokens, there are {tokens:,}."
        return _counted(PRODUCTS, known, known, note)
    if width > _MOST_SOLVED:
        return _counted(
            PRODUCTS, ~known, known, f"Told by counting: {tokens:,} tokens are enough for {needed:,} unknowns."
        )
    error = 0.0
    for layer in range(len(known)):
        a, norms = (published[one].values[:, layer].astype(np.float64) for one in ("neurons", "mlp_out_norm"))
        half = len(a) - max(1, (len(a) - needed) // 2)
        products = column_products(a[:half], norms[:half])
        again = np.sqrt(np.maximum(np.einsum("tn,nm,tm->t", a[half:], products, a[half:]), 0))
        off = float(np.median(np.abs(again / norms[half:] - 1)))
        known[layer] = off < 10 * _ALIKE
        error = max(error, off)
    return _counted(PRODUCTS, known, np.zeros_like(known), f"Norms of tokens left out are told to {error:.1e}.")


_ATTACKS = {NORMS: _norms, DIRECTIONS: _directions, PRODUCTS: _products}


def _activation_known(published: xr.Dataset, layer: int, token: Ints, neuron: Ints, width: int) -> Bools:
    """Whether the file has these neurons' activations at these tokens."""
    if "neurons" in published:
        return np.ones(len(token), bool)
    if "peak_neuron" not in published or "peak_value" not in published:
        return np.zeros(len(token), bool)
    peaks = published["peak_neuron"].values[:, layer].astype(np.int64)
    there = (np.arange(len(peaks))[:, None] * width + peaks)[peaks >= 0]
    return np.isin(token * width + neuron, there)


def _counted(name: str, known: Bools, guessed: Bools, note: str) -> Attack:
    share, blind = float(known.mean()), float(guessed.mean())
    return Attack(
        name, HOLDS, counted_share(share), counted_share(blind), known.size, UNIT, gain=counted_share(share - blind),
        note=note,
    )  # fmt: skip
