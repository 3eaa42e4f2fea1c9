"""Which prompts run together. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

WINDOW_TOKENS = 2**16  # of whole prompts, unless one alone has more

Together = Literal["any length", "equal length", "none"]  # which other prompts a prompt may run beside
ANY_LENGTH: Together = "any length"
EQUAL_LENGTH: Together = "equal length"
NONE: Together = "none"


def windows(lengths: Sequence[int], size: int, start: int = 0) -> Iterator[range]:
    """Consecutive runs of prompts from `start` on; each is recorded, put back into file order and stored at once.

    A run is of `size` prompts, or of fewer where they are long: what is recorded of it waits in memory.
    """
    first, tokens = start, 0
    for index in range(start, len(lengths)):
        if index > first and (index == first + size or tokens + lengths[index] > WINDOW_TOKENS):
            yield range(first, index)
            first, tokens = index, 0
        tokens += lengths[index]
    if first < len(lengths):
        yield range(first, len(lengths))


@dataclass(frozen=True)
class Batching:
    """Which prompts may run together, so that no value depends on which they are.

    Attributes
    ----------
    size
        The most prompts of a batch.
    together
        Beside which others a prompt may run.
    longest_short, shortest_long
        Prompts of at most `longest_short` tokens may run beside each other, those of at least `shortest_long` too, and
        whatever is between beside those of equal length: the model counts positions otherwise where the longest prompt
        of a batch passes a length. None where it does not.
    """

    size: int
    together: Together = ANY_LENGTH
    longest_short: int | None = None
    shortest_long: int | None = None

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of prompts of these lengths in batches of similar lengths, so that little of a batch is padding."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
            if batch and (len(batch) == self.size or not self._may(lengths[batch[0]], lengths[index])):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _may(self, shorter: int, longer: int) -> bool:
        """Whether prompts of these lengths may run beside each other."""
        if self.together == NONE:
            return False
        if shorter == longer:
            return True
        return self.together == ANY_LENGTH and self._alike_in_positions(shorter, longer)

    def _alike_in_positions(self, shorter: int, longer: int) -> bool:
        if self.longest_short is None or self.shortest_long is None:
            return True
        return longer <= self.longest_short or shorter >= self.shortest_long


def batching_of(plan: Mapping[str, Any], size: int) -> Batching:
    """How the prompts of a trace were batched, by its stored plan; `size` where that does not say how many."""
    apart = (plan.get("longest_short"), plan.get("shortest_long"))
    return Batching(int(plan.get("batch_size") or size), plan.get("together", ANY_LENGTH), *apart)
