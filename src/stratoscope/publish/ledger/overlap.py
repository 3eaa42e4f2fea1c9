"""What two publications of the same prompts give away together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stratoscope.names import AGGREGATE, PRIVATE, Level
from stratoscope.publish.ledger.prompt_keys import Keys
from stratoscope.publish.levels import OF_MEANS, PROMISES
from stratoscope.words import counted, number


@dataclass(frozen=True)
class Published:
    """What is published of some prompts.

    Attributes
    ----------
    level
        The level.
    fields
        Names of what is in it: quantities, columns.
    epsilon, delta
        What a private publication spends of each prompt; 0 at other levels.
    """

    level: Level
    fields: tuple[str, ...] = ()
    epsilon: float = 0.0
    delta: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A line of a ledger.

    Attributes
    ----------
    published
        What it was.
    day
        When, as 2026-11-27.
    prompts
        The keys of each prompt.
    """

    published: Published
    day: str
    prompts: tuple[Keys, ...]


@dataclass(frozen=True)
class Overlap:
    """An earlier publication of some of the prompts that are to be published.

    Attributes
    ----------
    path, line
        The ledger and the line of it, counted from 1.
    entry
        What was published.
    shared
        Of each prompt that is to be published whether it was in it.
    """

    path: Path
    line: int
    entry: Entry
    shared: tuple[bool, ...]

    @property
    def count(self) -> int:
        """How many of the prompts were in it."""
        return sum(self.shared)

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"at {self.entry.published.level} on {self.entry.day} (line {self.line})"

    def matters(self, level: Level) -> bool:
        """Whether publishing them again breaks a promise: two publications that promise nothing break none."""
        return self.count > 0 and bool({level, self.entry.published.level} & {*OF_MEANS})


def overlap(path: Path, line: int, entry: Entry, prompts: Sequence[Keys]) -> Overlap:
    """Which of these prompts were in an earlier publication."""
    known = frozenset[str]().union(*entry.prompts)
    return Overlap(path, line, entry, tuple(not known.isdisjoint(keys) for keys in prompts))


def costs(going: Published, overlaps: Sequence[Overlap]) -> tuple[str, ...]:
    """What it costs to publish prompts again that were in these publications, in sentences."""
    noisy = [one for one in overlaps if going.level == one.entry.published.level == PRIVATE]
    told = [_cost(going.level, one) for one in overlaps if one not in noisy]
    return tuple(dict.fromkeys([*told, *([_budget(going, noisy)] if noisy else [])]))


def _cost(level: Level, one: Overlap) -> str:
    before = one.entry.published.level
    if level == before == AGGREGATE:
        return _difference(len(one.shared) - one.count, len(one.entry.prompts) - one.count)
    if before in OF_MEANS and level != PRIVATE:
        return f"What was promised of them at {before} no longer holds: {PROMISES[before]}"
    shown = "without noise" if before == AGGREGATE else "one by one"
    return f"What was published before shows them {shown}: no promise of {level} can take that back."


def _difference(here: int, there: int) -> str:
    """What two aggregates give of the prompts that only one of them has: so many in this one, so many in the other."""
    if not here and not there:
        return "Both are of the same prompts: each further number makes it easier to test whether a prompt is in them."
    if here and there:
        both = f"{counted(here, 'prompt')} and that of {counted(there, 'prompt')}"
        return f"The two together give the sum of {both} less each other, to about 1e-6: what only one of them has."
    return f"The two together give the mean of {counted(here or there, 'prompt')} exactly, to about 1e-6."


def _budget(going: Published, noisy: Sequence[Overlap]) -> str:
    """What private publications spend together of the prompt that is in most of them."""
    spent = [
        [one.entry.published for one, shared in zip(noisy, column, strict=True) if shared]
        for column in zip(*(one.shared for one in noisy), strict=True)
    ]
    epsilon = going.epsilon + max(sum(one.epsilon for one in of_prompt) for of_prompt in spent)
    delta = going.delta + max(sum(one.delta for one in of_prompt) for of_prompt in spent)
    return f"Private publications add up: together ε = {number(epsilon)} and δ = {number(delta)} for one prompt."
