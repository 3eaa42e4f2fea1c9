"""Two classes of prompts compared layer by layer, as numbers: what the profile of both and their difference shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.errors import UsageError
from stratoscope.trace.arguments import several
from stratoscope.trace.targets import TargetChoice, one_target
from stratoscope.view.charts.profile import Profile, Spread, layer_profile, profiled_quantity, spec_of_profile
from stratoscope.view.choose.selection import Selection
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import agreeing

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.export.table import Cell


@dataclass(frozen=True)
class TwoClasses:
    """Two classes of one trace, layer by layer.

    Attributes
    ----------
    inputs, columns, quantity, target
        As in `heatmap`.
    selection
        It names two classes; differences are the second − the first.
    look
        How they are drawn: whether first tokens take part.
    """

    inputs: Any
    columns: Columns
    selection: Selection
    quantity: str | None
    look: Look
    target: TargetChoice = None

    def __post_init__(self) -> None:
        classes = several(self.selection.prompt_class, "prompt_class", "['critical', 'neutral']")
        if len(classes) != 2 or classes[0] == classes[1]:
            count = f"{len(classes)} {agreeing(len(classes), 'is', 'are')} named"
            count = f"{classes[0]} is named twice" if len(classes) == 2 else count
            fix = "Name two: `--class A --class B`; `heatmap --profile` draws more or fewer."
            raise UsageError(f"a comparison takes two classes, and {count}", where="prompt_class", fix=fix)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The trace that holds both, of one target."""
        from stratoscope.trace.opened import opened

        dataset = opened(self.inputs, self.columns)
        return one_target(dataset, [profiled_quantity(dataset, self.quantity)], self.target)

    @cached_property
    def profile(self) -> Profile:
        """Both classes and their difference, as numbers."""
        return layer_profile(self.dataset, self.selection, self.look, quantity=self.quantity, difference=True)

    def spec(self, look: Look) -> ViewSpec:
        """Both profiles, and the difference beside them; `look` is its own."""
        return spec_of_profile(self.dataset, self.profile, look)


def refuse_beside_classes(**given: object) -> None:
    """Refuse what is of two prompts alone."""
    for name, value in given.items():
        if value is not None:
            fix = "Leave it out, or leave out the classes."
            raise UsageError("this is of two prompts, and two classes are compared", where=name, fix=fix)


def class_rows(found: Profile) -> tuple[tuple[str, ...], Iterator[list[Cell]]]:
    """One row a layer (or depth): of either class the median prompt between its quartiles, and the difference.

    `difference` is log₂ of the ratio where means are geometric, else B − A, within pairs where there are pairs; of
    fewer than four prompts the smallest and the largest stand in place of the quartiles.
    """
    spreads = _spreads(found)
    kind = names.QUANTITIES[found.name].row_kind
    heads = [f"{end}_{side}" for side in spreads for end in ("low", "median", "high")]
    columns = ("class_a", "class_b", "quantity", kind, *heads, "prompts_a", "prompts_b", "pairs", "difference_is")
    called = [one.name for one in found.classes]
    counts = [spreads[side].count for side in spreads]
    how = "log2 of the ratio" if found.log else "b - a"

    def rows() -> Iterator[list[Cell]]:
        for place, number in enumerate(found.rows):
            ends = [float(end[place]) for one in spreads.values() for end in (one.low, one.middle, one.high)]
            yield [*called, found.name, number, *(float(f"{end:.9g}") for end in ends), *counts, how]

    return columns, rows()


def strongest_layers(found: Profile, most: int) -> list[int]:
    """Places of the rows in which the classes are farthest apart, the farthest first."""
    assert found.difference is not None
    sizes = np.nan_to_num(np.abs(found.difference.middle), nan=-1.0)
    return [place for place in np.argsort(-sizes, kind="stable")[:most].tolist() if sizes[place] > 0]


def _spreads(found: Profile) -> dict[str, Spread]:
    assert found.difference is not None
    return {"a": found.classes[0], "b": found.classes[1], "difference": found.difference}
