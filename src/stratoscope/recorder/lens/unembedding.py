"""Residuals through the final norm and the unembedding, in float32 whatever the model computes in, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import Head
from stratoscope.model.precision import full_precision
from stratoscope.recorder.lens.tokens import room

_BYTES, _BYTES_ELSEWHERE = 2**26, 2**29  # of logits that are held at once; elsewhere: on accelerators
_ROWS_OF_WEIGHT = 4096  # of a weight in half precision, that are float32 at once


class Unembedding:
    """The head of a model as a function of residuals of any depth.

    Parameters
    ----------
    model, head
        The model, and its proved head.
    vocabulary
        How many tokens are real: rows beyond are padding, and no token. None where that is not known.

    Attributes
    ----------
    vocabulary, device
        How many tokens there are, and where their logits are computed.
    at_once
        Rows of logits that are held at once.
    """

    def __init__(self, model: nn.Module, head: Head, vocabulary: int | None) -> None:
        self._model, self._head = model, head
        weight, _ = self._own()
        self.vocabulary, self.device = min(vocabulary or len(weight), len(weight)), weight.device
        held = _BYTES if self.device.type == "cpu" else _BYTES_ELSEWHERE
        self.at_once = max(16, held // (4 * room(self.vocabulary)))
        self._whole = torch.empty(0, 0)
        gain, shift = (None, None) if head.norm is None else head.norm.vectors(model)
        self._gain = None if gain is None else gain.to(self.device)
        self._shift = None if shift is None else shift.to(self.device)

    def normed(self, x: Tensor) -> Tensor:
        """What the unembedding is given of residuals [row, residual], float32."""
        norm, x = self._head.norm, x.to(self.device).float()
        if norm is not None:
            x = norm.centre(x) * norm.scale(x)
            x = x if self._gain is None else x * self._gain
            x = x if self._shift is None else x + self._shift
        return x if self._head.input_scale == 1 else x * self._head.input_scale

    def logits(self, normed: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Logits of normed residuals, some rows after others: which rows, and [row, room(vocabulary)].

        What is behind the vocabulary is −inf. The room is used again for the next rows.
        """
        weight, bias = self._own()
        whole = self._room(min(len(normed), self.at_once))
        for first in range(0, len(normed), self.at_once):
            some = normed[first : first + self.at_once]
            logits = whole[: len(some), : self.vocabulary]
            with full_precision():
                self._multiply(some, weight, logits)
            if bias is not None:
                logits += bias[: self.vocabulary].float()
            if self._head.logit_scale != 1:
                logits *= self._head.logit_scale
            if self._head.soft_cap is not None:
                logits.div_(self._head.soft_cap).tanh_().mul_(self._head.soft_cap)
            yield slice(first, first + len(some)), whole[: len(some)]

    def padded(self, logits: Tensor) -> Tensor:
        """The model's own logits [row, …] as those of `logits` are: float32, −inf behind the vocabulary."""
        whole = torch.full((len(logits), room(self.vocabulary)), -torch.inf, device=self.device)
        whole[:, : self.vocabulary] = logits[:, : self.vocabulary]
        return whole

    def _room(self, rows: int) -> Tensor:
        """Room for rows of logits, used again: fresh memory of that size costs more than the arithmetic in it."""
        if len(self._whole) < rows:
            self._whole = torch.full((rows, room(self.vocabulary)), -torch.inf, device=self.device)
        return self._whole

    def _multiply(self, rows: Tensor, weight: Tensor, out: Tensor) -> None:
        if weight.dtype == torch.float32:
            torch.mm(rows, weight[: self.vocabulary].T, out=out)
            return
        for first in range(0, self.vocabulary, _ROWS_OF_WEIGHT):
            last = min(first + _ROWS_OF_WEIGHT, self.vocabulary)
            torch.mm(rows, weight[first:last].float().T, out=out[:, first:last])

    def _own(self) -> tuple[Tensor, Tensor | None]:
        """The weight, [vocabulary, residual], and the bias."""
        module: Any = self._model.get_submodule(self._head.unembedding)
        with weights_at_hand(module):
            weight, bias = module.weight.detach(), getattr(module, "bias", None)
        return (weight.T if self._head.transposed else weight), None if bias is None else bias.detach()
