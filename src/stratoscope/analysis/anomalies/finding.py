"""What a detector looked at, and what it found there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.anomalies.tails import expected_beyond, expected_beyond_few

if TYPE_CHECKING:
    import xarray as xr

Floats: TypeAlias = NDArray[np.float64]
PLACES = ("prompt", "position", "layer", "head", "neuron", "expert")


@dataclass(frozen=True)
class Picture:
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
    """

    values: Floats
    labels: tuple[str, ...]
    mark: tuple[int, ...]
    quantity: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing far outside its own distribution.

    Attributes
    ----------
    detector
        Which one found it.
    place
        Of `PLACES` those that apply: index of the prompt, position in it, numbers of layer, head, neuron, expert.
    value, typical
        Its value, and the median of its own distribution, in the same unit.
    expected
        How many units as strange are expected by chance.
    words
        One sentence.
    also
        How many further cells of the same token, prompt or neuron are beyond the threshold.
    picture
        What it is seen in.
    """

    detector: str
    place: dict[str, int]
    value: float
    typical: float
    expected: float
    words: str
    also: int = 0
    picture: Picture | None = None


@dataclass(frozen=True)
class Look:
    """What a detector looked at.

    Attributes
    ----------
    detector
        Its name.
    what
        What one unit is, such as "token × layer".
    scores
        How strange each unit is, any shape; NaN = not looked at. None: nothing to look at, and `why`.
    tell
        Makes a finding of the index of a unit and the number expected.
    same
        The part of an index that makes two units the same thing, such as the token of (token, layer).
    among
        Scores of the reference, whose tail counts; None = that of `scores`.
    certain
        Whether a unit beyond is wrong by definition: no false alarm is expected, and scores above 0 are beyond.
    few
        Whether there are too few units to tell their tail from themselves.
    why
        Why there is nothing to look at.
    """

    detector: str
    what: str
    scores: NDArray[np.floating] | None
    tell: Callable[[tuple[int, ...], float], Finding] | None = None
    same: Callable[[tuple[int, ...]], object] = field(default=lambda index: index)
    among: NDArray[np.floating] | None = None
    certain: bool = False
    few: bool = False
    why: str = ""

    @property
    def units(self) -> int:
        """How many units were looked at."""
        return 0 if self.scores is None else int((~np.isnan(self.scores)).sum())

    def found(self, most_expected: float) -> list[Finding]:
        """What is stranger than so many expected units, strongest first; cells of the same thing once."""
        if self.scores is None or self.tell is None:
            return []
        scores = self.scores
        if self.certain:
            expected = np.where(scores > 0, 0.0, np.inf)
        else:
            expected = expected_beyond_few(scores) if self.few else expected_beyond(scores, self.among)
        beyond = np.argwhere(expected <= most_expected)
        order = sorted(map(tuple, beyond.tolist()), key=lambda index: (expected[index], -float(scores[index])))
        groups: dict[object, list[tuple[int, ...]]] = {}
        for index in order:
            groups.setdefault(self.same(index), []).append(index)
        return [
            replace(self.tell(members[0], float(expected[members[0]])), also=len(members) - 1)
            for members in groups.values()
        ]


def nothing(detector: str, why: str) -> Look:
    """A detector that has nothing to look at."""
    return Look(detector, "", None, why=why)


def holding(reference: xr.Dataset | None, *quantities: str) -> xr.Dataset | None:
    """The reference, if it holds these quantities; otherwise the trace's own distributions count."""
    return reference if reference is not None and set(quantities) <= set(reference.data_vars) else None


class Prompts:
    """Where the tokens of each prompt are, and what they are called."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self.of_token = np.asarray(dataset["prompt"].values)
        self.count = int(self.of_token.max()) + 1 if len(self.of_token) else 0
        edges = np.searchsorted(self.of_token, np.arange(self.count + 1))
        self.starts, self.stops = edges[:-1], edges[1:]
        self.place = np.arange(len(self.of_token)) - self.starts[self.of_token]
        self.ids = _texts(dataset, "prompt_id", self.count)
        self.classes = _texts(dataset, "prompt_class", self.count)
        self._dataset = dataset

    def words(self, prompt: int) -> tuple[str, ...]:
        """Texts of the tokens of a prompt."""
        here = slice(int(self.starts[prompt]), int(self.stops[prompt]))
        if "text" in self._dataset.coords:
            return tuple(str(text) for text in self._dataset["text"].isel(token=here).values)
        return tuple(f"#{place}" for place in range(here.stop - here.start))

    def token(self, token: int) -> str:
        """A token in words: its text, as Python writes it, its place and its prompt."""
        prompt = int(self.of_token[token])
        place = int(self.place[token])
        return f"{self.words(prompt)[place]!r} (token {place} of {self.ids[prompt]})"


def layer_numbers(dataset: xr.Dataset, dim: str = "layer") -> NDArray[np.int64]:
    """Numbers of the layers or depths."""
    return np.asarray(dataset[dim].values, np.int64)


def _texts(dataset: xr.Dataset, column: str, count: int) -> Sequence[str]:
    if column in dataset.coords:
        return [str(text) for text in dataset[column].values]
    return [""] * count
