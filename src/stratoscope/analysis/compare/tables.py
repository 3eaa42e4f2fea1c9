"""A comparison as two flat tables: one row a cell, and one row a neuron that only one of the two lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.results.result import table_in
from stratoscope.analysis.values.align import GAP
from stratoscope.trace.format.text import spelled

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.export.table import Cell

Rows: TypeAlias = "tuple[tuple[str, ...], Iterator[list[Cell]]]"
_DIGITS = {4: 9, 8: 17}  # bytes of a number -> digits that give it back


def cell_rows(result: xr.DataTree) -> Rows:
    """Every cell: both prompts, the aligned token, the layer (or depth), both values and B − A.

    A token that one prompt does not have has no position, text or value there; B − A stands where the tokens are equal.
    """
    summary = result.attrs["summary"]
    quantity, kind = summary["quantity"], summary["rows"]["kind"]
    cells = table_in(result, f"tokens/{quantity}")
    tokens = _tokens(result)
    numbers = cells[kind].values.tolist()
    of = [_written(cells[name].values) for name in ("a", "b", "difference")]
    columns = (*_TOKEN_COLUMNS, kind, "quantity", "value_a", "value_b", "difference")

    def rows() -> Iterator[list[Cell]]:
        for place, token in enumerate(tokens):
            for row, number in enumerate(numbers):
                yield [*token, number, quantity, *(values[place][row] for values in of)]

    return columns, rows()


def neuron_rows(result: xr.DataTree) -> Rows:
    """Every neuron that only one of the two lists, the surest first.

    `listed_by` is the prompt that has it. `larger_by_at_least`: by how much it writes more than it can write where it
    is not among the peaks.
    """
    called = result.attrs["summary"]["called"]
    columns = ("listed_by", "in", *_TOKEN_COLUMNS, "layer", "neuron", "expert", "value", "write_norm", "larger_by_at_least")  # fmt: skip  # noqa: E501
    if "one_list_only" not in result:
        return columns, iter(())
    listed = table_in(result, "one_list_only")
    tokens = _tokens(result)
    in_b, column = listed["in_b"].values.tolist(), listed["column"].values.tolist()
    nothing: list[Cell] = [None] * len(in_b)
    whole = [listed["layer"].values.tolist(), listed["neuron"].values.tolist()]
    whole.append(listed["expert"].values.tolist() if "expert" in listed else nothing)
    real = [
        _written(listed[name].values.astype(np.float32)) if name in listed else nothing
        for name in ("value", "write", "at_least")
    ]

    def rows() -> Iterator[list[Cell]]:
        for place, (other, at) in enumerate(zip(in_b, column, strict=True)):
            numbers = (of[place] for of in (*whole, *real))
            yield [called[other], "b" if other else "a", *tokens[at], *numbers]

    return columns, rows()


def neurons_in(result: xr.DataTree, most: int) -> list[dict[str, Any]]:
    """The first neurons that only one of the two lists, the surest first, as they are printed; None = not known."""
    if "one_list_only" not in result:
        return []
    summary, tokens = result.attrs["summary"], table_in(result, "tokens")
    listed = table_in(result, "one_list_only").isel(listed=slice(most))
    found = []
    for place, column in enumerate(listed["column"].values.tolist()):
        of = {
            name: _known(listed[name].values[place].item()) if name in listed else None
            for name in ("layer", "neuron", "expert", "value", "write", "at_least")
        }
        where = {name: int(tokens[name].values[column]) for name in ("position_a", "position_b")}
        by = summary["called"][int(listed["in_b"].values[place])]
        found.append({"listed_by": by, "token": str(tokens["text_a"].values[column]), **where, **of})
    return found


def _known(value: float) -> float | None:
    return None if value != value else value


_TOKEN_COLUMNS = ("prompt_a", "prompt_b", "column", "position_a", "position_b", "token_a", "token_b", "equal",
                  "before_first_edit", "first_token")  # fmt: skip


def _tokens(result: xr.DataTree) -> list[list[Cell]]:
    """What stands of each aligned token in every row."""
    of = table_in(result, "tokens")
    prompts = result.attrs["summary"]["prompts"]
    position = [[None if place == GAP else place for place in of[f"position_{side}"].values.tolist()] for side in "ab"]
    text = [
        [
            None if place is None else spelled(str(text))
            for text, place in zip(of[f"text_{side}"].values, at, strict=True)
        ]
        for side, at in zip("ab", position, strict=True)
    ]
    flags = [of[name].values.astype(int).tolist() for name in ("equal", "before", "first")]
    return [[*prompts, column, *rest] for column, rest in enumerate(zip(*position, *text, *flags, strict=True))]


def _written(values: NDArray[np.floating]) -> list[list[Cell]]:
    """Numbers with as many digits as give them back; None where there is none."""
    form = f".{_DIGITS.get(values.dtype.itemsize, 17)}g"

    def one(value: float) -> Cell:
        return None if value != value else float(format(value, form))

    if values.ndim == 1:
        return [one(value) for value in values.tolist()]  # type: ignore[misc]
    return [[one(value) for value in row] for row in values.tolist()]
