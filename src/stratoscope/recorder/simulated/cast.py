"""Which prompts a simulation has: of which class each is, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stratoscope.names import SIMULATED

CLASSES = ("critical", "neutral")


@dataclass(frozen=True)
class Cast:
    """The prompts of a simulation.

    Attributes
    ----------
    classes
        Their names.
    counts
        Prompts of each class.
    twins
        Whether they come as pairs, a critical prompt and a neutral one; otherwise a class after another, each prompt by
        itself.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    twins: bool

    @classmethod
    def of_twins(cls, prompts: int) -> Cast:
        """Pairs of a critical prompt and its neutral twin; the last of an odd number has none."""
        return cls(CLASSES, (-(-prompts // 2), prompts // 2), twins=True)

    @classmethod
    def of_classes(cls, classes: Sequence[str], counts: Sequence[int]) -> Cast:
        """Classes of so many prompts each, which have nothing in common."""
        return cls(tuple(classes), tuple(counts), twins=False)

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.cumsum([0, *self.counts])

    def class_of(self, index: int) -> int:
        """The number of the class of a prompt."""
        return index % 2 if self.twins else int(np.searchsorted(self._begins, index, side="right")) - 1

    def pair_of(self, index: int) -> int:
        """What a prompt shares its words and its length by: the number of its pair, or its own."""
        return index // 2 if self.twins else index

    def number_of(self, index: int) -> int:
        """Which of its class a prompt is, from 0."""
        return index // 2 if self.twins else index - int(self._begins[self.class_of(index)])

    def names(self, index: int, template: int) -> dict[str, str]:
        """`prompt_id`, `prompt_class`, `pair` and `group` of a prompt that begins with this template."""
        named = {"prompt_id": self.identity(index), "prompt_class": self.classes[self.class_of(index)]}
        if not self.twins:
            return {**named, "pair": "", "group": ""}
        pair = index // 2
        has_twin = pair < self.counts[1]
        return {**named, "pair": self._numbered(pair) if has_twin else "", "group": f"template-{template + 1}"}

    def identity(self, index: int) -> str:
        """The id of a prompt; of one by itself one that no recording is likely to have."""
        if not self.twins:
            return f"{SIMULATED}-{index + 1:0{len(str(sum(self.counts)))}d}"
        return f"{self.classes[index % 2]}-{self._numbered(index // 2)}"

    def _numbered(self, pair: int) -> str:
        return f"{pair + 1:0{len(str(max(self.counts)))}d}"
