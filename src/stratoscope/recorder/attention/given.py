"""What one attention was computed from, as the model gave it, and how it lies over the prompt's positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stratoscope.errors import ModelError
from stratoscope.recorder.attention.rows import AttentionRows, Mask, ScoreRows, WeightRows

WITHOUT = "Record without the group attention."


@dataclass(frozen=True)
class GivenScores:
    """Queries [B, H, Q, D], keys and values [B, H or fewer, K, D], and the output [B, H, Q, D] made of them.

    `mask` is bool or additive, `bias` is added to the scores, `scaling` None means D^-½. `answer` is the tensor
    that the model goes on with, of which `output` is another view: where `by_token`, as [B, Q, H, D].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scaling: float | None
    bias: Tensor | None
    output: Tensor
    answer: Tensor
    by_token: bool

    def reaches(self, keys: int, queries: Tensor) -> Tensor:
        """Whether one of the real queries, bool [B, Q], sees more than the first keys: a bool on their device."""
        if self.mask is None:
            return torch.full((), not self.causal or queries.shape[1] > keys, device=queries.device)
        tail = self.mask[..., keys:]
        shown = tail if tail.dtype == torch.bool else tail > torch.finfo(tail.dtype).min / 2
        return (shown & queries[:, None, :, None]).any()

    def cropped(self, keys: int) -> GivenScores:
        """Only the first keys: what lies behind them is empty room of a cache of fixed size."""
        mask, bias = (None if given is None else given[..., :keys] for given in (self.mask, self.bias))
        key, value = self.key[:, :, :keys], self.value[:, :, :keys]
        return replace(self, key=key, value=value, mask=mask, bias=bias)

    def chosen(self, queries: Tensor) -> GivenScores:
        """Only some of each prompt's queries, int [B, N], of a forward without a cache; its mask says what they see."""
        mask, bias = (None if given is None else _rows(given, queries) for given in (self.mask, self.bias))
        if mask is None and self.causal:
            keys = torch.arange(self.key.shape[2], device=queries.device)
            mask = (keys <= queries[:, :, None])[:, None]
        query, output = _rows(self.query, queries), _rows(self.output, queries)
        return replace(self, query=query, mask=mask, bias=bias, output=output)

    def over(self, queries: Tensor, keys: Tensor, first_query: int, first_key: int) -> tuple[AttentionRows, Mask]:
        """Its rows and its mask, queries and keys being real tokens where True."""
        shown, bias = self.mask, self.bias
        if shown is not None and shown.shape[1] > 1:  # each head has its own bias, as in ALiBi, added to the mask
            if shown.dtype == torch.bool or bias is not None:
                raise ModelError("heads that see different keys", where="attention mask", fix=WITHOUT)
            shown, bias = shown[:, :1] > torch.finfo(shown.dtype).min / 2, shown
        scaling = self.query.shape[-1] ** -0.5 if self.scaling is None else float(self.scaling)
        additive = shown if shown is not None and shown.dtype != torch.bool else None
        mask = Mask(queries, keys, shown, self.causal, first_query, first_key)
        return ScoreRows(self.query, self.key, scaling, additive, bias), mask


@dataclass(frozen=True)
class GivenWeights:
    """Weights [B, H, Q, K] of a model that computes them, with keys, values and output as above.

    `shown` is the mask [B or 1, 1, Q, K], bool or additive, or None where every key is seen; `key` is None where only
    the model's own code knows the keys.
    """

    weights: Tensor
    shown: Tensor | None
    learned_sink: bool
    key: Tensor | None
    value: Tensor
    output: Tensor
    answer: Tensor
    by_token: bool

    def reaches(self, keys: int, queries: Tensor) -> Tensor:
        """Whether one of the real queries, bool [B, Q], sees more than the first keys: a bool on their device."""
        return (self.weights[..., keys:] * queries[:, None, :, None]).any()

    def cropped(self, keys: int) -> GivenWeights:
        """Only the first keys."""
        shown = None if self.shown is None else self.shown[..., :keys]
        key = None if self.key is None else self.key[:, :, :keys]
        return replace(self, weights=self.weights[..., :keys], shown=shown, key=key, value=self.value[:, :, :keys])

    def chosen(self, queries: Tensor) -> GivenWeights:
        """Only some of each prompt's queries, int [B, N], of a forward without a cache."""
        shown = None if self.shown is None else _rows(self.shown, queries)
        return replace(self, weights=_rows(self.weights, queries), shown=shown, output=_rows(self.output, queries))

    def over(self, queries: Tensor, keys: Tensor, first_query: int, first_key: int) -> tuple[AttentionRows, Mask]:
        """Its rows and its mask."""
        if self.shown is not None and self.shown.shape[1] > 1:
            raise ModelError("heads that see different keys", where="attention mask", fix=WITHOUT)
        mask = Mask(queries, keys, self.shown, False, first_query, first_key)
        return WeightRows(self.weights, self.learned_sink), mask


Given = GivenScores | GivenWeights


def _rows(given: Tensor, queries: Tensor) -> Tensor:
    """Rows [B, H or 1, N, width] of what is broadcastable to [B, H, Q, width]; `queries` is int [B, N]."""
    if given.shape[2] == 1:  # the same for every query, or all that a prompt of one token has
        return given.expand(-1, -1, queries.shape[1], -1)
    given = given.expand(len(queries), *given.shape[1:])
    index = queries[:, None, :, None].expand(-1, given.shape[1], -1, given.shape[3])
    return given.gather(2, index)
