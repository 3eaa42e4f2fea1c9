"""What `ablate` found as plain rows: one for each set, prompt and target, or one for each step of a curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

_EFFECTS = ("ablated", "members", "prompt", "class", "pair", "target", "direct", "first_order", "measured",
            "matched", "direction", "floor", "how", "positions")  # fmt: skip
_CURVES = ("order", "taken", "added", "target", "removed", "kept", "completeness", "faithfulness", "how", "positions")


def rows_of(found: xr.Dataset) -> tuple[tuple[str, ...], Iterator[list[Any]]]:
    """Columns and rows: of the curves, where things were ablated one after the other, else of every prompt.

    `matched` and `direction` are means over the draws.
    """
    return (_CURVES, _curves(found)) if "completeness" in found else (_EFFECTS, _effects(found))


def _effects(found: xr.Dataset) -> Iterator[list[Any]]:
    how = [found.attrs["how"], found.attrs["positions"]]
    values = [found[name].values for name in ("direct", "first_order", "measured")]
    with np.errstate(invalid="ignore"):
        control = _mean_of_draws(found["control"].values)
    sets, prompts, targets = (found[name].values for name in ("set", "prompt", "target"))
    for place in np.ndindex(values[0].shape):
        one, prompt, target = place
        told = [sets[one], found["members"].values[one], prompts[prompt], *(
            found[name].values[prompt] for name in ("prompt_class", "pair")
        ), targets[target]]  # fmt: skip
        numbers = [_digits(some[place]) for some in (*values, *control)]
        yield [*told, *numbers, _digits(found["floor"].values[target]), *how]


def _mean_of_draws(control: np.ndarray) -> np.ndarray:
    """Mean over what was drawn, [control, set, prompt, target]."""
    known = np.isfinite(control)
    count = known.sum(2)
    mean: np.ndarray = np.where(count > 0, np.where(known, control, 0).sum(2) / np.maximum(count, 1), np.nan)
    return mean


def _curves(found: xr.Dataset) -> Iterator[list[Any]]:
    how = [found.attrs["how"], found.attrs["positions"]]
    values = [found[name].mean("prompt").values for name in ("removed", "kept")]
    values += [found[name].values for name in ("completeness", "faithfulness")]
    orders, steps, targets = (found[name].values for name in ("order", "step", "target"))
    for order, step, target in np.ndindex(values[0].shape):
        numbers = [_digits(some[order, step, target]) for some in values]
        yield [orders[order], int(steps[step]), added(found, order, step), targets[target], *numbers, *how]


def added(found: xr.Dataset, order: int, step: int) -> str:
    """What is taken at a step that was not at the one before."""
    steps = found["step"].values
    return ", ".join(found["taken"].values[order, steps[step - 1] if step else 0 : steps[step]])


def _digits(value: Any) -> float:
    return float(f"{value:.9g}")
