"""Which prompts run together, and the padded tensors they run as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from stratoscope.names import SPANS

WINDOW_TOKENS = 2**16  # of whole prompts, unless one alone has more

Together = Literal["any length", "equal length", "none"]  # which other prompts a prompt may run beside
ANY_LENGTH: Together = "any length"
EQUAL_LENGTH: Together = "equal length"
NONE: Together = "none"

_USER = SPANS.index("user")


class Tokens(Protocol):
    """What a batch needs to know of a prompt: ids, int32, and spans, int8, shape (tokens,) each."""

    @property
    def ids(self) -> np.ndarray:
        """The tokenizer's ids."""

    @property
    def spans(self) -> np.ndarray:
        """Indices into `names.SPANS`."""


@dataclass(frozen=True)
class Batch:
    """Prompts as one padded rectangle.

    Attributes
    ----------
    input_ids, mask
        int64, shape (prompts, length); `mask` is 1 on tokens, 0 on padding.
    position_ids
        int64, same shape, each prompt counted from 0; None where the model's own counting is right (no left padding).
    valid
        int64, shape (tokens,): rows of the flattened rectangle that are tokens, prompt by prompt.
    user_rows
        Per prompt, the rows that are its `user` tokens, its first token left out.
    """

    input_ids: Tensor
    mask: Tensor
    position_ids: Tensor | None
    valid: Tensor
    user_rows: tuple[slice | Tensor, ...]

    @property
    def rows(self) -> int:
        """Tokens and padding together."""
        return self.input_ids.numel()

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of a forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.mask}
        return inputs if self.position_ids is None else {**inputs, "position_ids": self.position_ids}


def make_batch(prompts: Sequence[Tokens], *, pad_id: int, padding_side: str, device: torch.device) -> Batch:
    """Pad prompts to the length of the longest.

    Left padding shifts the tokens, so their positions are then given to the model: models with learned positions would
    compute something else without.
    """
    lengths = [len(prompt.ids) for prompt in prompts]
    longest = max(lengths)
    ids = np.full((len(prompts), longest), pad_id, np.int64)
    mask = np.zeros_like(ids)
    user_rows: list[slice | Tensor] = []
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        start = longest - length if padding_side == "left" else 0
        ids[index, start : start + length] = prompt.ids
        mask[index, start : start + length] = 1
        user_rows.append(_rows(np.flatnonzero(prompt.spans[1:] == _USER) + 1 + start + index * longest, device))
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0) if padding_side == "left" and min(lengths) < longest else None
    return Batch(
        input_ids=torch.from_numpy(ids).to(device),
        mask=torch.from_numpy(mask).to(device),
        position_ids=None if positions is None else torch.from_numpy(positions).to(device),
        valid=torch.from_numpy(np.flatnonzero(mask)).to(device),
        user_rows=tuple(user_rows),
    )


def _rows(rows: np.ndarray, device: torch.device) -> slice | Tensor:
    """A run of rows as a slice, which needs no copy; anything else as indices."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows).to(device)


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
