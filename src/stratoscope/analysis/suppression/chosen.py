"""Which prompts are explained, and how they are grouped: one alone, the means of classes, or two classes compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.classes.units import Units, make_units
from stratoscope.errors import InputError, choices
from stratoscope.trace.arguments import several
from stratoscope.trace.arrays import Ints
from stratoscope.trace.prompts import PromptChoice, Prompts, some_prompts

if TYPE_CHECKING:
    import xarray as xr

MOST_CLASSES = 6


@dataclass(frozen=True)
class ChosenPrompts:
    """The prompts that are explained.

    Attributes
    ----------
    prompts
        Their indices, ascending.
    classes
        Names of their classes; one, "", where they have none, or too many to tell apart.
    of
        The class of each of them, by its place in `classes`.
    units
        Where two classes are compared, what is one observation of them; else None.
    """

    prompts: Ints
    classes: tuple[str, ...]
    of: Ints
    units: Units | None

    @property
    def single(self) -> bool:
        """Whether it is one prompt."""
        return len(self.prompts) == 1


def choose_prompts(
    dataset: xr.Dataset, prompt: PromptChoice, prompt_class: str | Sequence[str] | None, *, groups: bool
) -> ChosenPrompts:
    """The prompts that a person asks for; without a choice all that there are.

    Raises
    ------
    InputError
        There are none, or a class is not there, or more than two are to be compared.
    """
    of = some_prompts(dataset)
    prompts = np.array(sorted(set(of.find_all(prompt))), np.int64)
    wanted = None if prompt_class is None else list(dict.fromkeys(several(prompt_class, "prompt_class", '"critical"')))
    there = list(dict.fromkeys(of.classes[one] for one in prompts.tolist()))
    if wanted is not None:
        for name in wanted:
            if name not in there or not name:
                known = [one for one in there if one]
                raise InputError(f"no prompt of class {name!r}", where="class", fix=choices(str(name), known))
        if len(wanted) > 2:
            raise InputError(f"{len(wanted)} classes are named", where="class", fix="Name one, or two to compare.")
        prompts = np.array([one for one in prompts.tolist() if of.classes[one] in wanted], np.int64)
        there = [str(name) for name in wanted]
    if len(there) > MOST_CLASSES or "" in there or len(prompts) == 1:
        return ChosenPrompts(prompts, ("",), np.zeros(len(prompts), np.int64), None)
    number = np.array([there.index(of.classes[one]) for one in prompts.tolist()], np.int64)
    units = _units(dataset, of, prompts, there, groups=groups) if len(there) == 2 else None
    return ChosenPrompts(prompts, tuple(there), number, units)


def _units(dataset: xr.Dataset, of: Prompts, prompts: Ints, classes: list[str], *, groups: bool) -> Units:
    units = make_units(dataset, *classes, groups=groups)
    some = units.having(np.isin(units.prompts, prompts), "")
    return replace(some, left_out=units.left_out) if len(prompts) < len(of) else units
