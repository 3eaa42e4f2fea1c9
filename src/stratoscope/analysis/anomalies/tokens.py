"""Tokens with a massive activation where no sink is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Finding, Look, Picture, Prompts, layer_numbers, nothing
from stratoscope.analysis.anomalies.tails import standardised

if TYPE_CHECKING:
    import xarray as xr

_NOT_SINKS = [names.SPANS.index(name) for name in names.TEMPLATE_SPANS]
_WHAT = {"mlp_out_norm": "massive activation", "resid_norm": "massive residual"}


def massive_activation(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """An MLP output far larger than that of other tokens in the same layer."""
    return _massive(dataset, reference, "mlp_out_norm")


def massive_residual(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A residual stream far larger than that of other tokens at the same depth."""
    return _massive(dataset, reference, "resid_norm")


def _massive(dataset: xr.Dataset, reference: xr.Dataset | None, quantity: str) -> Look:
    detector = _WHAT[quantity]
    if quantity not in dataset:
        return nothing(detector, f"no {quantity} recorded")
    prompts = Prompts(dataset)
    values = outside_sinks(dataset, quantity)
    of = None if reference is None or quantity not in reference else outside_sinks(reference, quantity)
    scores = standardised(np.log(values), 0, None if of is None else np.log(of))
    row = names.QUANTITIES[quantity]
    numbers = layer_numbers(dataset, row.dims[1])
    letter = "D" if row.dims[1] == names.DEPTH else "L"

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        token, layer = index
        prompt = int(prompts.of_token[token])
        value = float(values[token, layer])
        typical = float(np.nanmedian((values if of is None else of)[:, layer]))
        here = slice(int(prompts.starts[prompt]), int(prompts.stops[prompt]))
        words = (
            f"{row.label[0].upper() + row.label[1:]} of {prompts.token(token)} in {letter}{numbers[layer]} is "
            f"{value:.3g}, {value / typical:.0f} times the median of tokens there."
        )
        return Finding(
            detector,
            {"prompt": prompt, "position": int(prompts.place[token]), "layer": int(numbers[layer])},
            value,
            typical,
            expected,
            words,
            picture=Picture(
                np.asarray(dataset[quantity].values[here], np.float64),
                prompts.words(prompt),
                (int(prompts.place[token]), layer),
                quantity,
                tuple(numbers.tolist()),
            ),
        )

    among = None if of is None else standardised(np.log(of), 0)
    return Look(detector, f"token × {row.dims[1]}", scores, tell, same=lambda index: index[0], among=among)


def outside_sinks(dataset: xr.Dataset, quantity: str) -> NDArray[np.float64]:
    """Values; NaN at first tokens, at template and special tokens, and where there is nothing above zero."""
    values: NDArray[np.float64] = np.asarray(dataset[quantity].values, np.float64).copy()
    prompts = Prompts(dataset)
    aside = (prompts.place == 0) | np.isin(np.asarray(dataset["span"].values), _NOT_SINKS)
    values[aside] = np.nan
    values[~(values > 0)] = np.nan
    return values
