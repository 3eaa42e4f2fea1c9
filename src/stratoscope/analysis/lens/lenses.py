"""The lenses of a trace: the logit lens, a fitted one, and the parts of the corpus that it was fitted on by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stratoscope.errors import InputError, refuse_unknown
from stratoscope.trace.lenses import is_half, is_of_part, lens_names, parts_of
from stratoscope.trace.notes import recorded_anew
from stratoscope.words import counted, listed

if TYPE_CHECKING:
    import xarray as xr

_RECORD = "stratoscope capture MODEL --prompts FILE --record lens -o TRACE"


@dataclass(frozen=True)
class Lenses:
    """The lenses of a trace, by the names that its plan has for them.

    Attributes
    ----------
    names
        One for each place of the dimension `lens`: "logit", "jacobian", "jacobian, half 1", ….
    """

    names: tuple[str, ...]

    @property
    def whole(self) -> tuple[str, ...]:
        """Those that are not of a part of a corpus: the logit lens first."""
        return tuple(name for name in self.names if not is_of_part(name))

    @property
    def usual(self) -> str:
        """The one that is drawn where nobody chooses: the fitted one, where there is one."""
        return self.whole[-1]

    def other(self, name: str) -> str:
        """The lens beside this one; "" = none."""
        return next((one for one in self.whole if one != name), "")

    def place(self, name: str) -> int:
        """Where a lens stands on the dimension `lens`.

        Raises
        ------
        InputError
            The trace has no such lens.
        """
        refuse_unknown(name, self.whole, "lens", where="in_cells")
        return self.names.index(name)

    def parts(self, name: str) -> tuple[int, ...]:
        """Places of the same lens fitted on parts of its corpus: two halves, and each corpus if there are several."""
        return tuple(parts_of(name, self.names))

    def parts_in_words(self, name: str) -> str:
        """What those parts are fitted on: on two halves and on each of 3 corpora."""
        parts = parts_of(name, self.names).values()
        halves = sum(map(is_half, parts))
        corpora = len(parts) - halves
        words = [f"on {'two halves' if halves == 2 else counted(halves, 'half')}"] * bool(halves)
        words += ["on one corpus" if corpora == 1 else f"on each of {corpora} corpora"] * bool(corpora)
        return listed(words)


def lenses_of(dataset: xr.Dataset, command: str = _RECORD) -> Lenses:
    """The lenses of a trace.

    Raises
    ------
    InputError
        It holds none; the error names the command that records them.
    """
    if "lens_token" not in dataset:
        fix = recorded_anew(dataset.attrs, f"Record it: `{command}`.")
        raise InputError("what lenses read is not in this trace", fix=fix)
    return Lenses(lens_names(dataset.attrs.get("plan"), dataset["lens_token"].sizes["lens"]))
