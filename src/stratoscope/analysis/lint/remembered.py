"""What the checks found in a Dataset is remembered as long as it lives, so that each picture of it need not look again.

A Dataset of which variables or attributes were assigned since is looked at anew. Values that were changed in place, in
the arrays themselves, are not noticed: `dataset.copy()` is a Dataset of which nothing is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import ref

from stratoscope.trace.notes import Note

if TYPE_CHECKING:
    import xarray as xr


@dataclass
class _Remembered:
    """What was found in a Dataset, and what it was made of then; it goes with the Dataset."""

    dataset: ref[xr.Dataset]
    variables: dict[object, xr.Variable]
    attributes: str
    notes: dict[str, Note | None] = field(default_factory=dict)

    def holds(self, dataset: xr.Dataset) -> bool:
        """Whether nothing else was assigned to it since."""
        return (
            self.dataset() is dataset
            and self.variables.keys() == dataset.variables.keys()
            and all(self.variables[name] is one for name, one in dataset.variables.items())
            and self.attributes == _attributes(dataset)
        )


_FOUND: dict[int, _Remembered] = {}


def notes_found(dataset: xr.Dataset) -> dict[str, Note | None]:
    """Notes by the name of their check, to be added to by who runs another."""
    key = id(dataset)
    found = _FOUND.get(key)
    if found is None or not found.holds(dataset):
        gone = ref(dataset, lambda _: _FOUND.pop(key, None))
        found = _FOUND[key] = _Remembered(gone, dict(dataset.variables), _attributes(dataset))
    return found.notes


def _attributes(dataset: xr.Dataset) -> str:
    return repr((dataset.attrs, [one.attrs for one in dataset.variables.values()]))
