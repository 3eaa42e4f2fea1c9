"""What is done about a batch that does not fit into memory: it is run in halves, and that is not kept secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from stratoscope.errors import CaptureError, OutOfMemory, is_out_of_memory

Result = TypeVar("Result")

SMALLEST = "smallest_batch"  # in the receipt: the fewest prompts that a batch had to be cut down to
_LIMIT = "Some batches"


class BatchSplitter:
    """Runs batches, halved as often as it takes until they fit.

    Parameters
    ----------
    size
        Prompts of a batch that fits.
    receipt
        Of the recording that is gone on with, if there is one.
    """

    def __init__(self, size: int, receipt: Mapping[str, Any] | None = None) -> None:
        self._size = size
        self._smallest = int((receipt or {}).get(SMALLEST, size))
        self._too_large: set[tuple[int, int]] = set()  # prompts and longest of each batch that did not fit

    @property
    def were_needed(self) -> bool:
        """Whether any batch of this recording did not fit."""
        return self._smallest < self._size

    def run(
        self,
        batch: Sequence[int],
        lengths: Sequence[int],
        ids: Sequence[str],
        work: Callable[[Sequence[int]], Result],
        forget: Callable[[], None],
    ) -> Iterator[tuple[Sequence[int], Result]]:
        """Each part of the batch that fitted, and what `work` made of it, in order.

        Parameters
        ----------
        batch
            Indices of prompts.
        lengths, ids
            Tokens and name of every prompt.
        work
            Runs some of them.
        forget
            Lets go of what a failed run has left behind.

        Raises
        ------
        CaptureError
            Not even one prompt fits.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            longest = max(lengths[index] for index in part)
            known = len(part) > 1 and any(n <= len(part) and length <= longest for n, length in self._too_large)
            result = None if known else _tried(work, part)
            if result is not None:
                yield part, result
                continue
            if not known:
                forget()
            if len(part) == 1:
                raise CaptureError(
                    f"its {longest} tokens do not fit into memory, not even in a batch of their own",
                    where=f"prompt {ids[part[0]]}",
                    fix="Use --dtype bfloat16, fewer --record groups, a larger device, or shorten the prompt.",
                )
            self._too_large.add((len(part), longest))
            middle = (len(part) + 1) // 2
            self._smallest = min(self._smallest, middle)
            waiting[:0] = [part[:middle], part[middle:]]

    def into(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with this limit, if it is one: the batch size changes the last bits of what is computed."""
        if not self.were_needed:
            return dict(receipt)
        words = (
            f"{_LIMIT} of {self._size} prompts did not fit into memory and were run in parts, down to "
            f"{self._smallest}: their last bits may differ from those of whole batches."
        )
        others = [limit for limit in receipt["limits"] if not limit.startswith(_LIMIT)]
        return {**receipt, SMALLEST: self._smallest, "limits": [*others, words]}


@contextmanager
def must_fit(what: str, fix: str = "Use --dtype bfloat16, a larger device or --device cpu.") -> Iterator[None]:
    """OutOfMemory that says in words what does not fit."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    raise OutOfMemory(f"{what} does not fit into memory", fix=fix)


def _tried(work: Callable[[Sequence[int]], Result], part: Sequence[int]) -> Result | None:
    """What the work gave; None where it ran out of memory, with all that it held let go."""
    try:
        return work(part)
    except (OutOfMemory, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def unless_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """What the work gave; None where it ran out of memory, with all that it held let go."""
    try:
        return work()
    except (OutOfMemory, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None
