"""Which quantity of a trace is looked at: the one that a user names, else the first that has a value for each token and layer."""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.analysis.values.tables import has_cells
from stratoscope.errors import InputError, choices
from stratoscope.trace.quantity_names import check_known, quantity_named

if TYPE_CHECKING:
    import xarray as xr


def default_quantity(dataset: xr.Dataset) -> str:
    """What a picture shows when nobody says: the MLP's output, an import's values, else the first that can be drawn."""
    for name in (defaults.QUANTITY, "imported_norm", *drawable_quantities(dataset)):
        if name in dataset:
            return name
    raise InputError(
        "nothing in it has a value for each token and layer",
        where="trace",
        fix="Record it: `stratoscope capture MODEL --prompts FILE --record norms -o TRACE`.",
    )


def drawable_quantities(dataset: xr.Dataset) -> list[str]:
    """Names of the quantities of a dataset that can be drawn by token and layer."""
    return [name for name, row in names.QUANTITIES.items() if name in dataset and _is_drawable(row)]


def checked_quantity(dataset: xr.Dataset, name: str) -> str:
    """The quantity that a user names; an `InputError` that says what there is instead unless it can be drawn."""
    check_known(dataset, name)
    name = quantity_named(name, drawable_quantities(dataset))
    row = names.QUANTITIES.get(name) if isinstance(name, str) else None
    present = ", ".join(drawable_quantities(dataset)) or "nothing"
    if row is None:
        fix = choices(name, drawable_quantities(dataset), there="This input has")
        raise InputError(f"no quantity called {name!r}", where="quantity", fix=fix)
    if not _is_drawable(row):
        fix = f"This input has: {present}."
        if name == "attention":
            fix = "Get the attention of a prompt, layer and head in Python: `stratoscope.attention_matrix`. " + fix
        raise InputError(f"{name} has no size for each token and layer", where="quantity", fix=fix)
    if name not in dataset:
        raise InputError(f"{name} is not in this input", where="quantity", fix=f"It has: {present}. {record(name)}")
    return name


def record(*quantities: str) -> str:
    """The advice that brings quantities into a trace; "" where none of them can be recorded."""
    groups = [group for name in quantities if (group := names.QUANTITIES[name].group) in names.RECORD_GROUPS]
    wanted = ",".join(dict.fromkeys([*defaults.RECORD, *groups]))
    return f"Record it: `stratoscope capture MODEL --prompts FILE --record {wanted} -o TRACE`." if groups else ""


def row_numbers(dataset: xr.Dataset, name: str) -> tuple[str, tuple[int, ...]]:
    """Whether a quantity has layers or depths, and their numbers."""
    kind = names.QUANTITIES[name].row_kind
    return kind, tuple(int(number) for number in dataset[kind].values)


def _is_drawable(row: names.Quantity) -> bool:
    return has_cells(row) or (names.PEAK in row.dims and row.unit != "index")
