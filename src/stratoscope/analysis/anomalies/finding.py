"""What a detector looked at, and what it found there."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.anomalies.tails import expected_beyond, expected_beyond_few, least_beyond
from stratoscope.trace.arrays import Floats
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

Index: TypeAlias = "tuple[int, ...]"
PLACES = ("prompt", "position", "layer", "head", "neuron", "expert")


@dataclass(frozen=True)
class Evidence:
    """What a finding is seen in.

    Attributes
    ----------
    values
        [column, row] of a map, or [point] of a series.
    labels
        Of the columns or points.
    rows
        Layer numbers of a map's rows.
    mark
        (column, row), or (point,).
    quantity
        The quantity of a map; what a series shows, in words.
    first
        The column of the prompt's first token; −1 = there is none.
    """

    values: Floats
    labels: tuple[str, ...]
    mark: tuple[int, ...]
    quantity: str
    rows: tuple[int, ...] = ()
    first: int = -1


@dataclass(frozen=True)
class Member:
    """One value far outside its own distribution.

    Attributes
    ----------
    detector
        Which one found it.
    quantity
        What is far out, as `names.QUANTITIES` or the detector calls it.
    place
        Of `PLACES` those that apply: index of the prompt, position in it, numbers of layer, head, neuron, expert.
    value, typical
        Its value, and the median of its own distribution, in the same unit.
    expected
        How many units as strange are expected by chance.
    """

    detector: str
    quantity: str
    place: dict[str, int]
    value: float
    typical: float
    expected: float

    @property
    def ratio(self) -> float:
        """How many times the typical value it is; NaN where that is zero."""
        return self.value / self.typical if self.typical else float("nan")


@dataclass(frozen=True)
class Finding:
    """One thing far outside its own distribution.

    Attributes
    ----------
    members
        All that is far out of it, least expected first.
    words
        Sentences.
    of_model
        Whether it holds in all prompts alike, so that nothing in the trace can say whether the model is always so.
    picture
        What the first member is seen in.
    """

    members: tuple[Member, ...]
    words: str
    of_model: bool = False
    picture: Evidence | None = None

    @property
    def first(self) -> Member:
        """The member that is expected least."""
        return self.members[0]


@dataclass(frozen=True)
class Look:
    """What a detector looked at.

    Attributes
    ----------
    detector
        Its name.
    quantity
        What of, "" where it has only one.
    what
        What one unit is, such as "token × layer".
    scores
        How strange each unit is, any shape; NaN = not looked at. None: nothing to look at, and `why`.
    tell
        Makes a member of the index of a unit and the number expected.
    describe
        A sentence about the strongest member, and what it is seen in.
    things
        What a unit belongs to, such as its token: members that share any of these are one finding.
    among
        Scores whose tail counts; None = that of `scores`.
    certain
        Whether a unit beyond is wrong by definition: no false finding is expected, and scores above 0 are beyond.
    few
        Whether there are too few units to tell their tail from themselves.
    of_model
        Whether what it finds holds in all prompts alike.
    least
        How many times the typical value a unit with a score is, in nine of ten layers at most; None: not told.
    why
        Why there is nothing to look at.
    """

    detector: str
    what: str
    scores: NDArray[np.floating] | None
    tell: Callable[[Index, float], Member] | None = None
    describe: Callable[[Index], tuple[str, Evidence | None]] | None = None
    things: Callable[[Index], tuple[Hashable, ...]] = lambda index: (index,)
    among: NDArray[np.floating] | None = None
    quantity: str = ""
    certain: bool = False
    few: bool = False
    of_model: bool = False
    least: Callable[[float], float] | None = None
    why: str = ""

    @property
    def units(self) -> int:
        """How many units were looked at."""
        return 0 if self.scores is None else int((~np.isnan(self.scores)).sum())

    def beyond(self, most_expected: float) -> list[tuple[Index, float]]:
        """Units that are stranger than so many expected ones, and how many of each are; strangest first."""
        if self.scores is None:
            return []
        scores = self.scores
        if self.certain:
            expected = np.where(scores > 0, 0.0, np.inf)
        else:
            expected = expected_beyond_few(scores) if self.few else expected_beyond(scores, self.among)
        indices = map(tuple, np.argwhere(expected <= most_expected).tolist())
        order = sorted(indices, key=lambda index: (expected[index], -float(scores[index])))
        return [(index, float(expected[index])) for index in order]

    def found_from(self, most_expected: float) -> float:
        """How many times the typical value a unit would have to be to be found; NaN where that is not told."""
        among = self.scores if self.among is None else self.among
        if self.least is None or among is None:
            return float("nan")
        return self.least(least_beyond(among, self.units, most_expected))


def nothing(detector: str, why: str, quantity: str = "") -> Look:
    """A detector that has nothing to look at."""
    return Look(detector, "", None, quantity=quantity, why=why)


def holding(reference: xr.Dataset | None, *quantities: str) -> xr.Dataset | None:
    """The reference, if it holds these quantities; otherwise the trace's own distributions count."""
    return reference if reference is not None and set(quantities) <= set(reference.data_vars) else None


class NamedPrompts(Prompts):
    """Prompts, and what their tokens are called in a finding."""

    @cached_property
    def units(self) -> list[tuple[str, str]]:
        """What each prompt belongs to that is independent of others: its pair, or itself."""
        return [("pair", pair) if pair else ("prompt", str(at)) for at, pair in enumerate(self.pairs)]

    def text(self, token: int) -> str:
        """Text of a token."""
        return self.words(slice(token, token + 1))[0]

    def token(self, token: int) -> str:
        """A token in words: its text, as Python writes it, its position and its prompt."""
        return f"{self.text(token)!r} (token {self.position[token]} of {self.ids[int(self.of_token[token])]})"

    def evidence(
        self, prompt: int, values: Floats, mark: tuple[int, int], quantity: str, numbers: NDArray[np.int64]
    ) -> Evidence:
        """The map of a prompt, of [token of it, layer] values."""
        own = self.tokens(prompt)
        first = 0 if self.first[own].any() else -1
        return Evidence(values, self.words(own), mark, quantity, tuple(numbers.tolist()), first)

    def at(self, prompt: int, position: int) -> int:
        """The token of a prompt at a position."""
        own = self.tokens(prompt)
        return int(own.start + np.argmax(self.position[own] == position))

    def unit_numbers(self) -> NDArray[np.int64]:
        """The same number for prompts that are not independent of one another."""
        numbers = {unit: number for number, unit in enumerate(dict.fromkeys(self.units))}
        return np.array([numbers[unit] for unit in self.units], np.int64)


def layer_numbers(dataset: xr.Dataset, dim: str = "layer") -> NDArray[np.int64]:
    """Numbers of the layers or depths."""
    return np.asarray(dataset[dim].values, np.int64)
