"""Which quantity of a trace is looked at: the one that a user names, else the first that has a value for each token and layer."""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.analysis.values.tables import has_cells, rank_of
from stratoscope.errors import InputError, choices
from stratoscope.trace.quantity_names import check_known, quantity_named
from stratoscope.trace.targets import Targets, has_targets

if TYPE_CHECKING:
    import xarray as xr


# record groups whose quantities have pictures of their own
_DRAWN_BY = {names.LENSES: "stratoscope lens TRACE", names.ROUTES: "stratoscope routes TRACE --prompt ID --token N"}


def default_quantity(dataset: xr.Dataset, *, by_layer: bool = False) -> str:
    """What a picture shows when nobody says: the MLP's output, an import's values, else the first that can be drawn."""
    for name in (defaults.QUANTITY, "imported_norm", *drawable_quantities(dataset, by_layer=by_layer)):
        if name in dataset:
            return name
    raise InputError(
        "nothing in it has a value for each token and layer",
        where="trace",
        fix=f"{drawn_elsewhere(dataset)}Record it: `stratoscope capture MODEL --prompts FILE --record norms -o TRACE`.",
    )


def drawable_quantities(dataset: xr.Dataset, *, by_layer: bool = False) -> list[str]:
    """Names of the quantities of a dataset that can be drawn by token and layer.

    Parameters
    ----------
    by_layer
        Leave out those that have no layers: of a target's logit there is one value a token.
    """
    drawable = [name for name, row in names.QUANTITIES.items() if name in dataset and _is_drawable(row)]
    rows = {name: names.QUANTITIES[name] for name in drawable}
    return [name for name, row in rows.items() if _has_ranks(dataset, row) and (_has_layers(row) or not by_layer)]


def checked_quantity(dataset: xr.Dataset, name: str, *, by_layer: bool = False) -> str:
    """The quantity that a user names; an `InputError` that says what there is instead unless it can be drawn."""
    check_known(dataset, name)
    there = drawable_quantities(dataset, by_layer=by_layer)
    name = quantity_named(name, there)
    row = names.QUANTITIES.get(name) if isinstance(name, str) else None
    present = ", ".join(there) or "nothing"
    if row is None:
        fix = choices(name, there, there="This input has")
        raise InputError(f"no quantity called {name!r}", where="quantity", fix=fix)
    if not _is_drawable(row) or (by_layer and not _has_layers(row)):
        fix = f"This input has: {present}."
        fix = drawn_by(name) + fix
        if name == "attention":
            fix = "Get the attention of a prompt, layer and head in Python: `stratoscope.attention_matrix`. " + fix
        raise InputError(f"{name} has no size for each token and layer", where="quantity", fix=fix)
    if name not in there:
        raise InputError(f"{name} is not in this input", where="quantity", fix=f"It has: {present}. {record(name)}")
    return name


def drawn_by(name: str) -> str:
    """The sentence, and a space, that names the command whose pictures a quantity is for; "" where there is none."""
    command = _DRAWN_BY.get(names.QUANTITIES[name].group) if name in names.QUANTITIES else None
    return f"`{command}` draws it. " if command else ""


def drawn_elsewhere(dataset: xr.Dataset) -> str:
    """The sentence, and a space, that names the commands whose pictures a trace is for; "" where there are none."""
    groups = {names.QUANTITIES[name].group for name in map(str, dataset.data_vars) if name in names.QUANTITIES}
    return "".join(f"`{command}` draws what is in it. " for group, command in _DRAWN_BY.items() if group in groups)


def record(*quantities: str) -> str:
    """The advice that brings quantities into a trace; "" where none of them can be recorded."""
    groups = [group for name in quantities if (group := names.QUANTITIES[name].group) in names.RECORD_GROUPS]
    wanted = ",".join(dict.fromkeys([*defaults.RECORD, *groups]))
    return f"Record it: `stratoscope capture MODEL --prompts FILE --record {wanted} -o TRACE`." if groups else ""


def row_numbers(dataset: xr.Dataset, name: str) -> tuple[str, tuple[int, ...]]:
    """Whether a quantity has layers or depths, and their numbers."""
    kind = names.QUANTITIES[name].row_kind
    if kind == names.TARGET:
        return kind, (0,)
    return kind, tuple(int(number) for number in dataset[kind].values)


def label_in(dataset: xr.Dataset, name: str, prompts: Iterable[int] = ()) -> str:
    """A quantity in words; of one that has a target, of the (first) target: “… to the logit of “Sorry” against …”.

    Parameters
    ----------
    prompts
        Those that are looked at: of each prompt's own target it is told which that is.
    """
    row = names.QUANTITIES[name]
    if not has_targets(name):
        return row.label
    targets = Targets(dataset)
    of = targets.label_of(prompts, 0)
    if name == "target_logit":
        return f"logit of {of}"
    return f"{row.label} {'on' if row.is_effect else 'to'} the logit of {of}"


def _is_drawable(row: names.Quantity) -> bool:
    if row.unit == "index" or row.dims[0] not in (names.TOKEN, names.ROW):
        return False
    rank = rank_of(row)
    rest = {dim for dim in row.dims if dim not in (names.TOKEN, names.LAYER, names.TARGET, rank)}
    return has_cells(row) or (bool(rank) and not rest) or row.dims == (names.TOKEN, names.TARGET)


def _has_layers(row: names.Quantity) -> bool:
    return row.row_kind != names.TARGET


def _has_ranks(dataset: xr.Dataset, row: names.Quantity) -> bool:
    """Whether a target and a rank is there at all."""
    return all(dataset.sizes[dim] for dim in (names.TARGET, rank_of(row)) if dim in row.dims)
