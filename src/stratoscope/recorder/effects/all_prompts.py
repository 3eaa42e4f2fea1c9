"""All prompts of a recording, as what runs some of them before anything is recorded needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.grouping import Batching
from stratoscope.recorder.input.tokens import TokenisedPrompt


@dataclass(frozen=True)
class AllPrompts:
    """All prompts of a recording, also those of other parts.

    Attributes
    ----------
    names, lengths
        Id and tokens of each, answers not counted.
    encoded, batch
        Give the tokens of a prompt by its index, and some prompts padded to one batch.
    batches
        Indices of the prompts that this part runs together.
    batching
        Which prompts may run together.
    """

    names: Sequence[str]
    lengths: Sequence[int]
    encoded: Callable[[int], TokenisedPrompt]
    batch: Callable[[Sequence[int]], Batch]
    batches: Sequence[Sequence[int]]
    batching: Batching
