"""Rows of attention weights, chunk by chunk: recomputed from queries and keys, or read from the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stratoscope.recorder.reduce.scratch import Scratch

# Scores this far below their row's maximum count as e^-70: exp of anything that is not a normal float32 number is up
# to 100 times slower on CPUs.
_LOWEST_SCORE = -70.0
_HIDDEN, _LARGEST = 1e30, 3e38
_CHUNK_ELEMENTS = {"cpu": 1 << 19}  # 2 MB, about a core's second-level cache
_CHUNK_ELEMENTS_ELSEWHERE = 1 << 26
_FEWEST_ROWS = 16
_CAUSAL_PIECES, _CAUSAL_ROWS = 8, 64  # what causal queries do not see is the less computed the shorter their runs are


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees: the model's own mask, and only valid queries and keys.

    Attributes
    ----------
    queries, keys
        bool [B, Q] and [B, K]: which are real tokens.
    given
        The model's mask [B or 1, 1, Q, K or more], bool or additive, or None.
    causal
        Whether no given mask means a causal one.
    first_query, first_key
        Where the first of each stands in the prompt: with a cache neither need be 0.
    """

    queries: Tensor
    keys: Tensor
    given: Tensor | None
    causal: bool
    first_query: int = 0
    first_key: int = 0

    @staticmethod
    def whole(valid: Tensor, given: Tensor | None, causal: bool) -> Mask:
        """The mask of whole prompts, whose queries are also the keys."""
        return Mask(valid, valid, given, causal)

    @property
    def sees_all_before(self) -> bool:
        """Whether each query is real and sees every key up to its own."""
        last = self.causal or self.queries.shape[1] == 1
        return self.given is None and last and bool(self.queries.all()) and bool(self.keys.all())

    def rows(self, start: int, stop: int, low: int, high: int) -> Tensor:
        """Bool [B, rows, keys]: M of queries start..stop and keys low..high, both counted from the first given."""
        visible = self.queries[:, start:stop, None] & self.keys[:, None, low:high]
        if self.given is not None:
            given = self.given[:, 0, start:stop, low:high]
            visible &= given if given.dtype == torch.bool else given > torch.finfo(given.dtype).min / 2
        elif self.causal:
            visible &= torch.ones_like(visible[0]).tril(start - low)
        return visible

    def chunks(self, heads: int) -> Iterator[tuple[int, int, int, int]]:
        """Runs of queries (start, stop) with the range of keys (low, high) that holds them and all they see."""
        batch, length = self.queries.shape
        keys = self.keys.shape[1]
        before = self.first_query - self.first_key  # a query's own key, counted from the first key
        elements = _CHUNK_ELEMENTS.get(self.queries.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
        step = max(_FEWEST_ROWS, elements // (batch * heads * keys))
        if self.given is None and self.causal:
            step = min(step, max(_CAUSAL_ROWS, -(-length // _CAUSAL_PIECES)))
        for start in range(0, length, step):
            stop = min(start + step, length)
            low, high = 0, keys
            if self.given is not None and length > step and self.queries.device.type == "cpu":  # elsewhere: who waits
                seen = self.rows(start, stop, 0, keys).any(dim=1).any(dim=0).nonzero()
                low, high = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (before + start, before + stop)
            elif self.given is None and self.causal:
                high = stop
            yield start, stop, min(low, before + start), max(high, before + stop)


class Chunk(NamedTuple):
    """Weights [B, H, rows, keys], not normalised, their logarithms, and a learned sink's weight [B, H, rows]."""

    weights: Tensor
    logs: Tensor
    null: Tensor | None


class AttentionRows(Protocol):
    """One layer's attention as it was applied."""

    @property
    def heads(self) -> int:
        """H."""

    @property
    def device(self) -> torch.device:
        """Where it was computed."""

    def chunk(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Chunk:
        """Queries start..stop over keys low..high; in scratch, which the next chunk overwrites."""

    def applied(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Tensor:
        """What multiplies the values, [B, H, rows, keys]; in scratch, which the next rows overwrite."""

    def relative_error(self, start: int, stop: int, visible: Tensor) -> Tensor:
        """How far that may be off, relative to it, [B, H, rows, 1]."""


class ScoreRows:
    """softmax(scaling·QKᵀ + bias), recomputed.

    Parameters
    ----------
    query, key
        [B, H, Q, D] and [B, H or fewer, K, D], positions already applied.
    scaling
        Factor of the scores.
    additive, bias
        Added to the scores where not None: a mask [B or 1, 1, Q, K], and what is broadcastable to [B, H, Q, K].
    """

    def __init__(
        self, query: Tensor, key: Tensor, scaling: float, additive: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        self._batch, self.heads, _, self._width = query.shape
        self._groups = key.shape[1]
        self._query, self._scaling = query, scaling
        self._keys = key.float().reshape(self._batch * self._groups, -1, self._width)
        self._added = [given for given in (bias, additive) if given is not None]
        self.device = query.device

    def chunk(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Chunk:
        """Queries start..stop over keys low..high."""
        scores = self.scores(start, stop, low, high, scratch)
        scores += ((visible.float() - 1) * _HIDDEN)[:, None]  # many times faster than masked_fill_ of an expanded mask
        scores -= scores.amax(-1, keepdim=True)
        scores.clamp_(min=_LOWEST_SCORE)
        weights = torch.exp(scores, out=scratch.get("weights", *scores.shape, device=self.device))
        return Chunk(weights, scores, None)

    def scores(self, start: int, stop: int, low: int, high: int, scratch: Scratch) -> Tensor:
        """Scores of all keys, also hidden ones, [B, H, rows, keys]; in scratch, which the next call overwrites."""
        rows = self._rows(start, stop)
        scores = scratch.get("scores", *rows.shape[:2], high - low, device=self.device)
        torch.bmm(rows, self._keys[:, low:high].transpose(1, 2), out=scores)
        scores = scores.view(self._batch, self.heads, stop - start, high - low)
        for added in self._added:
            scores += added[:, :, start:stop, low:high]
            scores.clamp_(min=-_LARGEST)  # -inf would make rows without any key NaN
        return scores

    def applied(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Tensor:
        """Rows, normalised."""
        weights = self.chunk(start, stop, low, high, visible, scratch).weights
        return weights.div_(weights.sum(-1, keepdim=True))

    def relative_error(self, start: int, stop: int, visible: Tensor) -> Tensor:
        """That of the scores' sums, at most D+4 roundings of Σ|q||k| each."""
        sizes = torch.bmm(self._rows(start, stop).abs(), self._keys.abs().transpose(1, 2))
        sizes = sizes.view(self._batch, self.heads, stop - start, -1)
        largest = sizes.where(visible[:, None], 0).amax(-1, keepdim=True)
        for added in self._added:
            rows = added[:, :, start:stop, : visible.shape[-1]].float().abs()
            largest = largest + rows.where(visible[:, None], 0).amax(-1, keepdim=True)
        return 2 * (self._width + 4) * float32_unit(self.device) * largest

    def _rows(self, start: int, stop: int) -> Tensor:
        """Scaled queries [B·groups, heads of a group · rows, D]."""
        rows = self._query[:, :, start:stop].float() * self._scaling
        return rows.reshape(self._batch * self._groups, -1, self._width)


class WeightRows:
    """The weights [B, H, Q, K] that the model itself computed.

    With a learned sink their rows do not reach 1: the rest is the sink's.
    """

    def __init__(self, weights: Tensor, learned_sink: bool = False) -> None:
        self._weights, self.learned_sink = weights, learned_sink
        self.heads = weights.shape[1]
        self.device = weights.device
        self.dtype = weights.dtype

    def chunk(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Chunk:
        """Queries start..stop over keys low..high."""
        part = self._weights[:, :, start:stop, low:high]
        weights = scratch.get("weights", *part.shape, device=self.device).copy_(part)
        weights *= visible[:, None]  # what a row gives to keys that the mask hides is then missing from its sum
        logs = scratch.get("scores", *part.shape, device=self.device).copy_(part)
        logs.clamp_(min=torch.finfo(torch.float32).tiny).log_()
        null = (1 - weights.sum(-1)).clamp_(min=0) if self.learned_sink else None
        return Chunk(weights, logs, null)

    def applied(self, start: int, stop: int, low: int, high: int, visible: Tensor, scratch: Scratch) -> Tensor:
        """Rows as they are."""
        return self._weights[:, :, start:stop, low:high].float()

    def relative_error(self, start: int, stop: int, visible: Tensor) -> Tensor:
        """None: they are the model's own."""
        return self._weights.new_zeros(1, dtype=torch.float32)


def float32_unit(device: torch.device) -> float:
    """Unit roundoff of products of float32 matrices there: torch may be told to use fewer bits."""
    backend = torch.backends.mkldnn if device.type == "cpu" else torch.backends.cuda
    try:
        precision = backend.matmul.fp32_precision
    except AttributeError:  # torch before 2.9; later ones refuse the older question once the newer setting was used
        precision = {"highest": "ieee", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "bf16")
    return {"ieee": 2.0**-24, "none": 2.0**-24, "tf32": 2.0**-11}.get(precision, 2.0**-8)
