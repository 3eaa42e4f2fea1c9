"""Prompts as one padded rectangle of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stratoscope.names import SPANS

_USER, _GENERATED = SPANS.index("user"), SPANS.index("generated")


class PromptTokens(Protocol):
    """What a batch needs to know of a prompt: ids, int32, and spans, int8, shape (tokens,) each."""

    @property
    def ids(self) -> np.ndarray:
        """The tokenizer's ids."""

    @property
    def spans(self) -> np.ndarray:
        """Indices into `names.SPANS`."""


@dataclass(frozen=True)
class GivenTokens:
    """Ids and spans of a prompt, and nothing else: as a trace holds them, or of a prompt that nobody wrote."""

    ids: np.ndarray
    spans: np.ndarray


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
    answers
        Per prompt, the place in it of the token from which the model answers: before the first generated one, else the
        last.
    """

    input_ids: Tensor
    mask: Tensor
    position_ids: Tensor | None
    valid: Tensor
    user_rows: tuple[slice | Tensor, ...]
    answers: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Tokens and padding together."""
        return self.input_ids.numel()

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of a forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.mask}
        return inputs if self.position_ids is None else {**inputs, "position_ids": self.position_ids}


def make_batch(prompts: Sequence[PromptTokens], *, pad_id: int, padding_side: str, device: torch.device) -> Batch:
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
        answers=tuple(_answer(prompt.spans) for prompt in prompts),
    )


def _answer(spans: np.ndarray) -> int:
    """The place before the first generated token, else the last."""
    generated = np.flatnonzero(spans == _GENERATED)
    return int(generated[0] if len(generated) else len(spans)) - 1


def _rows(rows: np.ndarray, device: torch.device) -> slice | Tensor:
    """A run of rows as a slice, which needs no copy; anything else as indices."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows).to(device)
