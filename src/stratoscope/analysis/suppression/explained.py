"""What a trace holds of one target in the prompts that are explained, and two classes of them compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.classes.design import Design
from stratoscope.analysis.suppression.chosen import ChosenPrompts
from stratoscope.analysis.suppression.compared import (
    Compared,
    at_common_scale,
    compare,
    design_of,
    direct_rows,
    head_rows,
    total_rows,
)
from stratoscope.analysis.suppression.recorded import Direct, Total
from stratoscope.analysis.suppression.targets import Chosen
from stratoscope.trace.arrays import Ints
from stratoscope.trace.calibration import Calibration

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Explained:
    """Everything that is told of one target; None where the trace does not hold it."""

    dataset: xr.Dataset
    chosen: Chosen
    prompts: ChosenPrompts
    direct: Direct | None
    total: Total | None

    @property
    def layers(self) -> Ints:
        """Numbers of the blocks."""
        return np.asarray(self.dataset[names.LAYER].values, np.int64)

    @property
    def baseline(self) -> str:
        """What effects are counted from: "zero" or "mean"."""
        planned = (self.dataset.attrs.get("plan") or {}).get("baseline")
        return planned if planned in names.BASELINES else self.calibration.baseline

    @property
    def steps(self) -> int:
        """At how many points of the way from the baseline gradients were taken; 1 = first order."""
        planned = (self.dataset.attrs.get("plan") or {}).get("effect_steps")
        return planned if isinstance(planned, int) and planned > 1 else 1

    @property
    def calibration(self) -> Calibration:
        """How far the effects of the trace agree with really ablating."""
        return Calibration.from_receipt(self.dataset.attrs.get("receipt"))


@dataclass(frozen=True)
class Comparison:
    """Two classes compared.

    Attributes
    ----------
    design, tested
        How, and whether its p-values may be told.
    families
        Each compared family by the name of its table.
    """

    design: Design
    tested: bool
    families: Mapping[str, Compared]


def comparison(
    parts: Explained, *, unequal: names.Unequal, alpha: float, permutations: int, seed: int
) -> Comparison | None:
    """The comparison of the two classes that are explained; None where there are not two."""
    units = parts.prompts.units
    if units is None:
        return None
    design, tested = design_of(units, unequal=unequal, alpha=alpha, seed=seed)
    place = {prompt: row for row, prompt in enumerate(parts.prompts.prompts.tolist())}
    rows = np.array([place[prompt] for prompt in design.units.prompts.tolist()], np.int64)
    families = {}
    if (of := parts.direct) is not None and np.isfinite(of.scale[rows]).all():
        as_recorded = direct_rows(of, parts.layers).only(rows)
        families["direct_compared"] = at_common_scale(as_recorded, of.scale[rows], design.units)
    if parts.total is not None:
        families["total_compared"] = total_rows(parts.total, parts.layers).only(rows)
        if np.isfinite(parts.total.heads).any():
            families["heads_compared"] = head_rows(parts.total.heads, parts.layers).only(rows)
    options = {"permutations": permutations, "seed": seed}
    found = {name: compare(of_rows, design, tested=tested, **options) for name, of_rows in families.items()}
    return Comparison(design, tested, found)
