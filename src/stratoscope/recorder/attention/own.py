"""Attention that a model computes in its own code: seen where its softmax, or torch's fused function, is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stratoscope.recorder.attention.given import GivenScores, GivenWeights

_SOFTMAX = {functional.softmax, torch.softmax, Tensor.softmax}
_PRODUCT = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}
# Scores below hide a key: a mask that was added may since have been divided by √D ≤ 16, and float16's minimum is small.
_HIDDEN, _HIDDEN_FLOAT16 = -1e30, torch.finfo(torch.float16).min / 16
_FUSED = functional.scaled_dot_product_attention


class OwnAttention(TorchFunctionMode):
    """While open, `receive` gets each attention that is computed over the expected queries; nothing is changed.

    What multiplies the values is taken, not what the softmax gave: code between the two may change the weights. The
    scores that went into the softmax tell which keys were hidden.

    Parameters
    ----------
    expected
        Gives (prompts, queries) of the present forward, or None while nothing is to be observed.
    receive
        Called with the attention once the model has its result.
    """

    def __init__(
        self, expected: Callable[[], tuple[int, int] | None], receive: Callable[[GivenScores | GivenWeights], None]
    ) -> None:
        super().__init__()
        self._expected, self._receive = expected, receive
        self._scores: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, then look at it."""
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        expected = self._expected()
        if expected is not None:
            if func is _FUSED:
                self._fused(expected, answer, *args, **kwargs)
            elif func in _SOFTMAX:
                scores = args[0] if args else kwargs["input"]
                self._scores = scores if self._fits(scores, expected) else None
            elif func in _PRODUCT and self._scores is not None:
                self._product(expected, answer, args[0], args[1] if len(args) > 1 else next(iter(kwargs.values())))
        return answer

    def forget(self) -> None:
        """Let go of scores that no product has followed."""
        self._scores = None

    @staticmethod
    def _fits(scores: Tensor, expected: tuple[int, int]) -> bool:
        """Whether a tensor is [B, H, Q, K] or [B·H, Q, K]."""
        prompts, queries = expected
        if scores.ndim not in (3, 4) or scores.shape[-2] != queries or scores.shape[-1] < queries:
            return False
        return scores.shape[0] == prompts if scores.ndim == 4 else scores.shape[0] % prompts == 0

    def _product(self, expected: tuple[int, int], answer: Tensor, weights: Tensor, value: Tensor) -> None:
        scores = self._scores
        assert scores is not None
        if weights.shape[-2:] != scores.shape[-2:] or weights.numel() != scores.numel():
            return
        self._scores = None
        prompts = expected[0]
        hidden = _HIDDEN_FLOAT16 if weights.dtype == torch.float16 else _HIDDEN
        shown = scores.reshape(prompts, -1, *scores.shape[-2:])[:, :1] > hidden
        self._receive(
            GivenWeights(
                weights=weights.reshape(prompts, -1, *weights.shape[-2:]),
                shown=shown,
                learned_sink=False,
                key=None,
                value=value.reshape(prompts, -1, *value.shape[-2:]),
                output=answer.reshape(prompts, -1, *answer.shape[-2:]),
                answer=answer,
                by_token=False,
            )
        )

    def _fused(
        self,
        expected: tuple[int, int],
        answer: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if query.ndim != 4 or (query.shape[0], query.shape[2]) != expected:
            return
        given = (query, key, value, attn_mask, is_causal, scale, None)
        self._receive(GivenScores(*given, answer, answer, by_token=False))
