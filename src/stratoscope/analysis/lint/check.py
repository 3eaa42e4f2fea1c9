"""A check, and the list of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.values.finite import finite
from stratoscope.trace.notes import Note
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

Find = Callable[["xr.Dataset"], "str | Note | None"]
EVERYTHING = frozenset({"*"})  # concerns every picture
COMPARISONS = frozenset({"comparison"})  # concerns what sets prompts or classes side by side
LOOKED_AT = 16_384  # tokens: a chunk of a trace, so that a check of a large one takes no longer
PAGE = "docs/pitfalls.md"


@dataclass(frozen=True)
class Check:
    """One way in which data mislead.

    Attributes
    ----------
    id, name
        Line of the list of pitfalls, and what this check is called.
    severity
        "warning" where a reader would conclude something false, else "info"; a note that is found has its own.
    why
        In a short sentence, what is misread.
    concerns
        Names of quantities, `EVERYTHING` or `COMPARISONS`: which pictures carry it.
    find
        What the data show, in a sentence or as a note that the trace holds; None where they do not.
    """

    id: str
    name: str
    severity: str
    why: str
    concerns: frozenset[str]
    find: Find

    @property
    def page(self) -> str:
        """Where it is documented."""
        return f"{PAGE}#{self.id.lower()}"

    def note(self, dataset: xr.Dataset) -> Note | None:
        """The note that it leaves on a trace."""
        found = self.find(dataset)
        return Note(self.id, self.severity, found) if isinstance(found, str) else found


CHECKS: list[Check] = []


def check(identity: str, severity: str, why: str, concerns: Iterable[str]) -> Callable[[Find], Find]:
    """Add the decorated function to the list of checks; its name is the check's."""

    def add(find: Find) -> Find:
        CHECKS.append(Check(identity, find.__name__, severity, why, frozenset(concerns), find))
        return find

    return add


def some_tokens(dataset: xr.Dataset, name: str) -> NDArray[np.floating]:
    """Values of a quantity at the first `LOOKED_AT` tokens, first tokens of prompts left out; NaN for infinite ones."""
    values: NDArray[np.floating] = finite(dataset[name].isel({names.TOKEN: slice(LOOKED_AT)}).values)
    return values[~Prompts(dataset).first[:LOOKED_AT]]


def class_sizes(prompts: Prompts) -> dict[str, int]:
    """Prompts of each class."""
    return {name: count for name, count in Counter(prompts.classes).items() if name}
