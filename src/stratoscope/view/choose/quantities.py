"""Which quantity of a trace is drawn, as a table of tokens × layers, and the words for what was done to make it one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.values.quantities import (
    checked_quantity,
    default_quantity,
    drawable_quantities,
    record,
    row_numbers,
)
from stratoscope.analysis.values.tables import check_head, over_heads, table
from stratoscope.view.spec.maps import DrawnQuantity

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_head", "checked_quantity", "default_quantity", "describe", "drawable_quantities", "over_heads",
           "record", "row_numbers", "table"]  # fmt: skip


def describe(
    dataset: xr.Dataset, name: str, rows: NDArray[np.int64], *, head: str | int = defaults.HEAD
) -> DrawnQuantity:
    """The words for a quantity of which the rows at these positions are drawn."""
    row = names.QUANTITIES[name]
    kind, numbers = row_numbers(dataset, name)
    label, said = row.label, ""
    if name == "imported_norm":
        label, said = "mean imported Activation_Norm", "mean over the rows of each token and layer"
    elif names.HEAD in row.dims:
        said = _said_of_heads(dataset.sizes[names.HEAD], head)
    elif names.PEAK in row.dims:
        said = f"the strongest of {dataset.sizes[names.PEAK]} recorded peaks"
    return DrawnQuantity(
        name,
        label,
        row.unit,
        row.formula_in(dataset),
        said,
        row.signed,
        row.log,
        kind,
        tuple(numbers[index] for index in rows),
    )


def _said_of_heads(heads: int, head: str | int) -> str:
    if head == "mean":
        return f"mean over {heads} heads"
    return f"maximum over {heads} heads" if head == "max" else f"head {check_head(head, heads)} of {heads}"
