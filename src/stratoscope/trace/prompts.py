"""Which tokens are whose: the prompts of a Dataset, also of one that was cut, and how a person names one of them.

The only code that knows where a prompt begins and ends, which token is its first, and what "fire-c" or 3 stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import InputError, choices
from stratoscope.names import EDGE, IMPORTED, NO_TEXT, PROMPT, ROW, SPANS, TOKEN, edges
from stratoscope.trace.arguments import is_whole, several
from stratoscope.trace.arrays import Ints
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.numbers import listing
from stratoscope.words import number_ranges

if TYPE_CHECKING:
    import xarray as xr

PromptChoice: TypeAlias = "str | int | Sequence[str | int] | None"
GONE = -1  # stands for a token that is not there
LEAST_QUERIES = 4  # later tokens that a mean over them must rest on
_ROWS = 2**20  # of a CSV, read together
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)  # "01" may be an id, and is never an index


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of a Dataset; of one that was cut, what is left of them.

    The tokens of a prompt stand together, in the order of the prompts (`trace.legal` sees to that). Nothing is read
    before it is asked for.

    Attributes
    ----------
    dataset
        A trace.
    """

    dataset: xr.Dataset

    def __len__(self) -> int:
        there = self.dataset.sizes
        return int(there[PROMPT] if PROMPT in there else self.of_token.max(initial=-1) + 1)

    # --- tokens -----------------------------------------------------------------------------------------------------

    @cached_property
    def of_token(self) -> NDArray[np.int32]:
        """Index of the prompt of each token; [token]."""
        return np.asarray(self.dataset["prompt"].values)

    @cached_property
    def _bounds(self) -> Ints:
        return np.searchsorted(self.of_token, np.arange(len(self) + 1)).astype(np.int64, copy=False)

    @property
    def starts(self) -> Ints:
        """Where the tokens of each prompt begin on the token axis; [prompt]."""
        return self._bounds[:-1]

    @property
    def stops(self) -> Ints:
        """Where they end; where they begin of a prompt whose tokens are all gone."""
        return self._bounds[1:]

    @property
    def lengths(self) -> Ints:
        """How many tokens of each prompt there are; [prompt]."""
        return self.stops - self.starts

    def tokens(self, prompt: int) -> slice:
        """Where the tokens of a prompt are on the token axis."""
        return slice(int(self._bounds[prompt]), int(self._bounds[prompt + 1]))

    @cached_property
    def place(self) -> Ints:
        """Place of each token among those of its prompt that are there; [token]."""
        place: Ints = np.arange(len(self.of_token)) - self.starts[self.of_token]
        return place

    @cached_property
    def position(self) -> Ints:
        """Place of each token in its whole prompt, as recorded or as the CSV has it; [token]."""
        return np.asarray(self.dataset["position"].values, np.int64)

    @cached_property
    def first(self) -> NDArray[np.bool_]:
        """Whether a token is the first of its prompt; of a prompt whose first token was cut, none is; [token].

        A recording counts positions from 0. A CSV counts as it likes, from 0 or from 1: of an import, whose tokens are
        not cut, the first token of a prompt is the first in the file if its position is 0 or 1. A file that begins
        later does not hold the first token.
        """
        most = 1 if self.dataset.attrs.get("source") == IMPORTED else 0
        first: NDArray[np.bool_] = (self.place == 0) & (self.position <= most)
        return first

    @property
    def whole(self) -> bool:
        """Whether no token of a recording lacks one before it; what was cut off behind the last cannot be known."""
        return bool((self.position == self.place).all())

    @cached_property
    def spans(self) -> NDArray[np.int8]:
        """What part of the prompt each token is, as an index into `names.SPANS`; −1 = not known; [token]."""
        if "span" not in self.dataset.variables:
            return np.full(len(self.of_token), GONE, np.int8)
        return np.asarray(self.dataset["span"].values)

    @cached_property
    def rarely_seen(self) -> NDArray[np.bool_]:
        """Whether too few later tokens of its prompt can attend to a token for a mean over them; [token]."""
        seen: NDArray[np.bool_] = self.stops[self.of_token] - 1 - np.arange(len(self.of_token)) < LEAST_QUERIES
        return seen

    @cached_property
    def has_texts(self) -> bool:
        """Whether the texts of its tokens are there: some cut them away, and some traces are published without."""
        published = self.dataset.attrs.get(PUBLISHED)
        without = isinstance(published, Mapping) and published.get("level") == NO_TEXT
        return "text" in self.dataset.variables and not without

    def words(self, tokens: slice | Ints) -> tuple[str, ...]:
        """Texts of tokens; "#3" for the fourth of a prompt where the texts are not there."""
        if not self.has_texts:
            return tuple(f"#{position}" for position in self.position[tokens].tolist())
        return tuple(str(text) for text in self.dataset["text"][tokens].values)

    def in_spans(self, wanted: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a token is in one of these spans; [token]."""
        return np.isin(self.spans, [SPANS.index(name) for name in wanted])

    @cached_property
    def answer(self) -> Ints:
        """The token from which the model answers: before the first generated one, else the last; [prompt].

        `GONE` where no token of the prompt is there, or the one before the first generated one is not.
        """
        answer = np.where(self.lengths > 0, self.stops - 1, GONE)
        generated = np.flatnonzero(self.in_spans(["generated"]))
        prompts, which = np.unique(self.of_token[generated], return_index=True)
        begins = generated[which]
        there = self.place[begins] > 0
        there[there] = np.diff(self.position)[begins[there] - 1] == 1
        answer[prompts] = np.where(there, begins - 1, GONE)
        return answer

    # --- all dimensions that grow with the prompts ------------------------------------------------------------------

    @cached_property
    def bounds(self) -> dict[str, Ints]:
        """Of each dimension that grows with the prompts, where each of them begins and the last ends; [prompt + 1].

        Pairs of tokens (`edge`) are those that these tokens have. Of rows of a CSV that are not in the order of the
        prompts nothing is said.
        """
        bounds = {
            PROMPT: np.arange(len(self) + 1),
            TOKEN: self._bounds,
            EDGE: np.cumsum([0, *map(edges, self.lengths.tolist())]),
        }
        if (rows := self._rows()) is not None:
            bounds[ROW] = np.concatenate([[0], np.cumsum(rows)])
        return {dim: ends for dim, ends in bounds.items() if dim in self.dataset.sizes}

    def _rows(self) -> Ints | None:
        """How many rows of a CSV each prompt has; None where they do not stand in the order of the prompts."""
        counts, last = np.zeros(len(self), np.int64), 0
        for start in range(0, self.dataset.sizes.get(ROW, 0), _ROWS):
            of_row = self.of_token[self.dataset["row_token"][start : start + _ROWS].values]
            if of_row[0] < last or (np.diff(of_row) < 0).any():
                return None
            last = of_row[-1]
            counts += np.bincount(of_row, minlength=len(counts))
        return counts

    def run(self, first: int, stop: int) -> dict[str, slice]:
        """Where the prompts `first` … `stop` − 1 lie along these dimensions, as `isel` takes it."""
        return {dim: slice(int(ends[first]), int(ends[stop])) for dim, ends in self.bounds.items()}

    def part(self, first: int, stop: int) -> xr.Dataset:
        """The Dataset of these prompts alone, numbered from 0 again; values stay lazy, attributes are of the whole."""
        places = self.run(first, stop)
        if ROW in self.dataset.sizes and ROW not in places:
            raise InputError("the rows of different prompts are mixed", fix="Give a trace as `import` made it.")
        part = self.dataset.isel(places)
        before = {"prompt": first, "row_token": places[TOKEN].start}
        return part.assign(
            {name: part[name].copy(data=part[name].values - count) for name, count in before.items() if name in part}
        )

    # --- what they are called -----------------------------------------------------------------------------------------

    @cached_property
    def ids(self) -> list[str]:
        """Id of each prompt; "" where it has none."""
        return self._texts("prompt_id")

    @cached_property
    def classes(self) -> list[str]:
        """Class of each prompt; "" where it has none."""
        return self._texts("prompt_class")

    @cached_property
    def pairs(self) -> list[str]:
        """Minimal pair of each prompt; "" where it has none."""
        return self._texts("pair")

    @cached_property
    def groups(self) -> list[str]:
        """Template or cluster of each prompt; "" where it has none."""
        return self._texts("group")

    @cached_property
    def labels(self) -> list[str]:
        """What each prompt is called: its id, else "prompt 3"."""
        return [identity or f"prompt {prompt}" for prompt, identity in enumerate(self.ids)]

    def _texts(self, name: str) -> list[str]:
        if name not in self.dataset.variables:
            return [""] * len(self)
        return [str(text) for text in self.dataset[name].values]

    # --- those that belong together -----------------------------------------------------------------------------------

    def first_of_each_class(self, among: Iterable[int]) -> list[int]:
        """The first of these prompts that has each class."""
        first: dict[str, int] = {}
        for prompt in among:
            first.setdefault(self.classes[prompt], prompt)
        return list(first.values())

    def first_twins(self, among: Sequence[int]) -> list[int]:
        """The first minimal pair among these prompts, one prompt of each of its classes; none where there is none."""
        for pair in dict.fromkeys(self.pairs[prompt] for prompt in among):
            twins = self.first_of_each_class(prompt for prompt in among if self.pairs[prompt] == pair)
            if pair and len(twins) > 1:
                return twins
        return []

    @property
    def are_single_files(self) -> bool:
        """Whether they are CSV files that nobody gave a class: each has its own name as its class."""
        return self.dataset.attrs.get("source") == IMPORTED and self.classes == self.ids

    # --- how a person names one ---------------------------------------------------------------------------------------

    def find(self, choice: str | int, among: Sequence[int] | None = None) -> int:
        """The index of the prompt that a person names.

        A text is an id. A text that is no id but a plain number ("1", not "01", "+1" or "-1"), and a whole number of
        any type, is an index, counted from 0, of the prompts that are there; a number is never an id. Nothing else
        names a prompt: no truth, no fraction, no part of an id, and no id that several prompts have.

        Parameters
        ----------
        choice
            What the person gave.
        among
            Only these prompts may be named.

        Raises
        ------
        InputError
            None is named, or more than one. It says which there are, and which id is the nearest.
        """
        known = range(len(self)) if among is None else among
        if isinstance(choice, str):
            named = [prompt for prompt in known if self.ids[prompt] == choice]
            if len(named) == 1:
                return named[0]
            if named:
                fix = f"Name one by its index: {listing(named)}."
                raise InputError(f"{len(named)} prompts are called {choice!r}", where="prompt", fix=fix)
            if not _INDEX.fullmatch(choice):
                ids = [self.ids[prompt] for prompt in known]
                raise InputError(f"no prompt called {choice!r}", where="prompt", fix=choices(choice, ids, most=8))
        elif not is_whole(choice):
            raise InputError(f"{choice!r} names no prompt", where="prompt", fix="Give its id, or its index, as 0.")
        if (index := int(choice)) in known:
            return index
        fix = f"There are: {number_ranges(known)}, counted from 0."
        raise InputError(f"no prompt number {choice}", where="prompt", fix=fix)

    def find_all(self, choice: PromptChoice, among: Sequence[int] | None = None) -> list[int]:
        """The indices of the prompts that a person names, one or several, in that order; all without a choice."""
        if choice is None:
            return list(range(len(self)) if among is None else among)
        if not isinstance(choice, Iterable):
            return [self.find(choice, among)]
        named = [self.find(one, among) for one in several(choice, "prompt", "[0, 1]")]
        if not named:
            raise InputError("no prompt is named", where="prompt", fix="Give its id or its index, or leave it out.")
        return named


def some_prompts(dataset: xr.Dataset) -> Prompts:
    """The prompts of a dataset that holds at least one token of one.

    Raises
    ------
    InputError
        It holds none.
    """
    prompts = Prompts(dataset)
    if not len(prompts) or not len(prompts.of_token):
        raise InputError("there is no prompt in it", where="trace", fix="Record at least one prompt.")
    return prompts
