"""The norms of each token, layer by layer, and what surrounds each of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import NamedPrompts
from stratoscope.analysis.statistics.known import medians
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

LOOKED_AT = {  # quantity -> the detector that looks at it
    "neuron_norm": "massive activation",
    "mlp_out_norm": "massive activation",
    "mlp_write_norm": "massive activation",
    "mlp_write_ratio": "massive activation",
    "attn_write_norm": "massive attention write",
    "attn_write_ratio": "massive attention write",
    "resid_norm": "massive residual",
}
PEAK = "peak_write"  # of the strongest neuron
WRITES = ("neuron_norm", "mlp_out_norm", "mlp_write_norm", PEAK, "mlp_write_ratio")  # of the MLP
SHAPE = ("neuron_norm", "mlp_out_norm", PEAK, "attn_write_norm", "resid_norm")  # of what surrounds a cell
_REACH = 2  # layers on either side


@dataclass(frozen=True)
class Norms:
    """Norms of tokens beside the typical ones of their layer.

    Attributes
    ----------
    prompts
        Whose tokens they are.
    values
        Quantity -> [token, row]; a row is a layer, or a depth of the residual stream. NaN where there is nothing.
    typical
        Quantity -> [row], the median of tokens that are not first ones.
    """

    prompts: NamedPrompts
    values: dict[str, Floats]
    typical: dict[str, Floats]

    @property
    def first(self) -> NDArray[np.bool_]:
        """Which tokens are the first of their prompt."""
        return self.prompts.first

    @cached_property
    def logs(self) -> dict[str, Floats]:
        """Log of each value over the typical one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.log(values) - np.log(self.typical[name]) for name, values in self.values.items()}

    @cached_property
    def _padded(self) -> dict[str, Floats]:
        """Logs above zero of the quantities that make a shape; a depth stands at the layer that writes it."""
        padded = {}
        for name in SHAPE:
            if name in self.logs:
                above = np.nan_to_num(np.maximum(self.logs[name], 0.0))
                before = _REACH if names.QUANTITIES[name].row_kind == names.DEPTH else _REACH + 1
                padded[name] = np.pad(above, ((0, 0), (before, _REACH + 1)))
        return padded

    def shapes(self, writer: int, tokens: NDArray[np.integer] | NDArray[np.bool_], other: Norms) -> Floats:
        """How far above the typical ones the norms around a layer are, of what the other holds too, [token, place]."""
        here = slice(writer + 1, writer + 2 + 2 * _REACH)
        parts = [padded[tokens, here] for name, padded in self._padded.items() if name in other.logs]
        if "resid_norm" in self.logs and "resid_norm" in other.logs:
            parts.append(np.diff(parts[-1], axis=1))  # where it begins and ends
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(self.prompts.first[tokens]), 0))


def writer_of(quantity: str, row: int) -> int:
    """The layer that writes a row; −1 = the embedding."""
    return row - 1 if names.QUANTITIES[quantity].row_kind == names.DEPTH else row


def norms_of(dataset: xr.Dataset, beside: Norms | None = None) -> Norms:
    """The norms of a trace, beside its own typical ones or those of another."""
    prompts, values = NamedPrompts(dataset), {}
    for name in (*LOOKED_AT, PEAK):
        if name in dataset:
            array = dataset[name].isel({names.PEAK: 0}) if name == PEAK else dataset[name]
            numbers = np.asarray(array.values, np.float64)
            values[name] = np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan)
    if "mlp_out_norm" in values and _equal(values.get("mlp_write_norm"), values["mlp_out_norm"]):
        del values["mlp_write_norm"]  # nothing lies between the two in this model
    if "resid_norm" not in values and {"attn_write_norm", "attn_write_ratio"} <= set(values):
        entering = (
            values["attn_write_norm"] / values["attn_write_ratio"]
        )  # not recorded, but known up to the last block
        values["resid_norm"] = np.column_stack([entering, np.full(len(entering), np.nan)])
    typical = {name: medians(one[~prompts.first]) for name, one in values.items()}
    if beside is not None:
        typical |= {name: row for name, row in beside.typical.items() if name in typical}
    return Norms(prompts, values, typical)


def _equal(one: Floats | None, other: Floats) -> bool:
    return one is not None and np.array_equal(one, other, equal_nan=True)
