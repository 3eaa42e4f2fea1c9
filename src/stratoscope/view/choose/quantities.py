"""Which quantity of a trace is drawn, as a table of tokens × layers, and the words for what was done to make it one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.values.quantities import (
    checked_quantity,
    default_quantity,
    drawable_quantities,
    label_in,
    record,
    row_numbers,
)
from stratoscope.analysis.values.tables import RANKED, check_head, over_heads, rank_of, table, usual_head
from stratoscope.view.spec.maps import DrawnQuantity

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_head", "checked_quantity", "default_quantity", "describe", "drawable_quantities", "over_heads",
           "record", "row_numbers", "table"]  # fmt: skip


def describe(
    dataset: xr.Dataset,
    name: str,
    rows: NDArray[np.int64],
    *,
    head: str | int | None = None,
    prompts: Iterable[int] = (),
    coloured: bool = True,
) -> DrawnQuantity:
    """The words for a quantity of which the rows at these positions are drawn, of these prompts.

    Parameters
    ----------
    coloured
        Whether its values are colours, not places on an axis.
    """
    row = names.QUANTITIES[name]
    kind, numbers = row_numbers(dataset, name)
    label, said = label_in(dataset, name, prompts), ""
    if name == "imported_norm":
        label, said = "mean imported Activation_Norm", "mean over the rows of each token and layer"
    elif names.HEAD in row.dims:
        said = _said_of_heads(dataset.sizes[names.HEAD], usual_head(row) if head is None else head, signed=row.signed)
    elif rank := rank_of(row):
        said = f"the strongest of {dataset.sizes[rank]} recorded {RANKED[rank]}"
    if row.adds_up and name != "target_logit":
        said = ", ".join(part for part in (said, SIGNS if coloured else SIGNS_OF_AXIS) if part)
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


SIGNS = "orange promotes it, blue suppresses it"  # of contributions and effects, in the words of the diverging map


SIGNS_OF_AXIS = "positive promotes it, negative suppresses it"


def reduced_in_words(row: names.Quantity) -> str:
    """What was made of heads and ranks where nobody chose, without their number; "" = nothing."""
    if names.HEAD in row.dims:
        return f"{usual_head(row)} over heads"
    rank = rank_of(row)
    return f"the strongest of the recorded {RANKED[rank]}" if rank else ""


def _said_of_heads(heads: int, head: str | int, *, signed: bool) -> str:
    if head in ("mean", "sum"):
        return f"{head} over {heads} heads"
    most = "value of largest size" if signed else "maximum"
    return f"{most} over {heads} heads" if head == "max" else f"head {check_head(head, heads)} of {heads}"
