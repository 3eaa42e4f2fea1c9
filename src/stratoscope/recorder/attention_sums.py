"""From queries and keys, or from attention weights, to what each token gets and each head does.

Rows are queries q, columns keys t. Everything is summed chunk by chunk of queries, so that no more than a chunk of the
T×T weights ever exists. The token's own column and the first token's are kept apart from the others: sums with and
without them are then sums of positive numbers, exact even where a sink takes all but 1e-7 of a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Scores this far below their row's maximum count as e^-70: exp of anything that is not a normal float32 number is up
# to 100 times slower on CPUs.
_LOWEST_SCORE = -70.0
_HIDDEN = 1e30
# Below this share of a row, what is left beside the first token is the rounding of that -70.
_SMALLEST_REST = 1e-20
_CHUNK_ELEMENTS = {"cpu": 1 << 20}  # 4 MB, about a core's second-level cache
_CHUNK_ELEMENTS_ELSEWHERE = 1 << 26
_FEWEST_ROWS = 16


class Scratch:
    """Buffers that are used again for every chunk and layer, as fresh ones cost more than the arithmetic in them."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """An uninitialised float32 tensor; it is valid until the same name is taken again."""
        size = torch.Size(shape).numel()
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.device != device:
            buffer = self._buffers[name] = torch.empty(size, dtype=torch.float32, device=device)
        return buffer[:size].view(shape)


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees: the model's own mask, and only valid queries and keys.

    Attributes
    ----------
    valid
        bool [B, T]: real tokens.
    given
        The model's mask [B or 1, 1, T, T], bool or additive, or None.
    causal
        Whether no given mask means a causal one.
    """

    valid: Tensor
    given: Tensor | None
    causal: bool

    def rows(self, start: int, stop: int, low: int, high: int) -> Tensor:
        """Bool [B, rows, keys]: M of queries start..stop and keys low..high."""
        visible = self.valid[:, start:stop, None] & self.valid[:, None, low:high]
        if self.given is not None:
            given = self.given[:, 0, start:stop, low:high]
            visible &= given if given.dtype == torch.bool else given > torch.finfo(given.dtype).min / 2
        elif self.causal:
            visible &= torch.ones_like(visible[0]).tril(start - low)
        return visible

    def chunks(self, heads: int) -> Iterator[tuple[int, int, int, int]]:
        """Runs of queries (start, stop) with the range of keys (low, high) that any of them sees."""
        batch, length = self.valid.shape
        elements = _CHUNK_ELEMENTS.get(self.valid.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
        step = max(_FEWEST_ROWS, elements // (batch * heads * length))
        for start in range(0, length, step):
            stop = min(start + step, length)
            low, high = 0, length
            if self.given is not None:
                seen = self.rows(start, stop, 0, length).any(dim=1).any(dim=0).nonzero()
                low, high = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (start, stop)
            elif self.causal:
                high = stop
            yield start, stop, min(low, start), max(high, stop)


def reduce_scores(
    query: Tensor, key: Tensor, mask: Mask, scaling: float, bias: Tensor | None, scratch: Scratch
) -> dict[str, Tensor]:
    """The attention summaries of a layer that computes softmax(scaling·QKᵀ + bias).

    Parameters
    ----------
    query, key
        [B, H, T, D] and [B, H or fewer, T, D], positions already applied.
    mask
        Which keys each query sees.
    bias
        Added to the scores, broadcastable to [B, H, T, T].
    """
    batch, heads, _, width = query.shape
    groups = key.shape[1]
    keys = key.float().reshape(batch * groups, -1, width)
    sums = _Sums(mask, heads)
    for start, stop, low, high in mask.chunks(heads):
        rows = (query[:, :, start:stop].float() * scaling).reshape(batch * groups, -1, width)
        scores = scratch.take("scores", (*rows.shape[:2], high - low), query.device)
        torch.bmm(rows, keys[:, low:high].transpose(1, 2), out=scores)
        scores = scores.view(batch, heads, stop - start, high - low)
        if bias is not None:
            scores += bias[:, :, start:stop, low:high]
        if mask.given is not None and mask.given.dtype != torch.bool:
            scores += mask.given[:, :, start:stop, low:high]
        visible = mask.rows(start, stop, low, high)
        scores += ((visible.float() - 1) * _HIDDEN)[:, None]  # many times faster than masked_fill_ of an expanded mask
        scores -= scores.amax(-1, keepdim=True)
        scores.clamp_(min=_LOWEST_SCORE)
        weights = torch.exp(scores, out=scratch.take("weights", tuple(scores.shape), query.device))
        sums.add(weights, scores, visible, start, low)
    return sums.result()


def reduce_weights(weights: Tensor, mask: Mask, learned_sink: bool, scratch: Scratch) -> dict[str, Tensor]:
    """The same from the attention weights [B, H, T, T] themselves.

    With a learned sink the rows of `weights` do not reach 1: the rest is the sink's.
    """
    heads = weights.shape[1]
    sums = _Sums(mask, heads)
    for start, stop, low, high in mask.chunks(heads):
        part = weights[:, :, start:stop, low:high]
        chunk = scratch.take("weights", tuple(part.shape), weights.device).copy_(part)
        logs = scratch.take("scores", tuple(part.shape), weights.device).copy_(part)
        logs.clamp_(min=torch.finfo(torch.float32).tiny).log_()
        null = (1 - chunk.sum(-1)).clamp_(min=0) if learned_sink else None
        sums.add(chunk, logs, mask.rows(start, stop, low, high), start, low, null)
    return sums.result()


class _Rows(NamedTuple):
    """What is known of a chunk of queries, each [B, H or 1, rows].

    Masses are not normalised; `others` leaves out the token itself and the first token.
    """

    own: Tensor
    first: Tensor
    others: Tensor
    null: Tensor
    away: Tensor  # Σ over others of mass·(q − t)
    plogp: Tensor  # Σ over others, the token itself and a learned sink of mass·log mass
    plogp_first: Tensor
    to_first: Tensor  # q − first token
    sees_first: Tensor
    seen: Tensor  # n_q
    valid: Tensor


class _Sums:
    """Per-query results as they come, per-key sums until the end; index 1 of the sums is without the first token."""

    def __init__(self, mask: Mask, heads: int) -> None:
        batch, length = mask.valid.shape
        device = mask.valid.device
        self._valid = mask.valid
        self._first = mask.valid.int().argmax(-1)  # position of each prompt's first real token
        self._queries: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._mass = torch.zeros(batch, heads, 2, length, device=device)  # Σ_{q≠t} A[q,t]
        self._even = torch.zeros(batch, heads, 2, length, device=device)  # had each row spread evenly over the others
        self._seen_by = torch.zeros(batch, 1, 2, length, device=device)  # number of other queries

    def add(
        self, weights: Tensor, logs: Tensor, visible: Tensor, start: int, low: int, null: Tensor | None = None
    ) -> None:
        """Add a chunk of rows.

        Parameters
        ----------
        weights, logs
            Weights [B, H, rows, keys], not normalised, and their logarithms; both are overwritten.
        visible
            Bool [B, rows, keys].
        start, low
            The first query and the first key.
        null
            Weight [B, H, rows] of a learned sink, None where the model has none.
        """
        rows = self._split(weights, logs, visible, start, low, null)
        self._add_queries(rows, learned_sink=null is not None)
        self._add_keys(weights, visible, rows, start, low)

    def result(self) -> dict[str, Tensor]:
        """Name to [B, T, H]; NaN where a quantity is not defined."""
        received = (self._mass / self._even).masked_fill(self._seen_by < 0.5, torch.nan)
        positions = torch.arange(self._valid.shape[1], device=self._valid.device)
        received[:, :, 1].masked_fill_((positions == self._first[:, None])[:, None], torch.nan)
        found = {name: torch.cat(parts, -1) for name, parts in self._queries.items()}
        found |= {"attn_received": received[:, :, 0], "attn_received_nosink": received[:, :, 1]}
        padding = ~self._valid[:, None]
        return {name: value.masked_fill(padding, torch.nan).transpose(1, 2) for name, value in found.items()}

    def _split(
        self, weights: Tensor, logs: Tensor, visible: Tensor, start: int, low: int, null: Tensor | None
    ) -> _Rows:
        """Take the token's own column and the first token's out of the weights, then sum the others."""
        batch, heads, length, keys = weights.shape
        stop = start + length
        position = torch.arange(start, stop, device=weights.device)
        to_first = position - self._first[:, None]
        inside = (self._first >= low) & (self._first < low + keys)
        column = (self._first - low).clamp(0, keys - 1)
        sees_first = visible.gather(-1, column[:, None, None].expand(batch, length, 1))[..., 0] & inside[:, None]

        index = column[:, None, None, None].expand(batch, heads, length, 1)
        at_column = weights.gather(-1, index)
        first = at_column[..., 0] * sees_first[:, None]
        plogp_first = first * logs.gather(-1, index)[..., 0]
        weights.scatter_(-1, index, at_column.masked_fill_(inside[:, None, None, None], 0))
        diagonal = weights.diagonal(start - low, -2, -1)
        own = diagonal.clone()  # zero for the first token, whose own column has just been taken
        diagonal.zero_()
        plogp = own * logs.diagonal(start - low, -2, -1) + torch.mul(weights, logs, out=logs).sum(-1)

        offsets = torch.arange(low - start, low - start + keys, device=weights.device, dtype=torch.float32)
        others, moment = weights.sum(-1), weights @ offsets
        if null is not None:
            plogp = plogp + torch.special.xlogy(null, null)
        return _Rows(
            own=own,
            first=first,
            others=others,
            null=torch.zeros_like(own) if null is None else null,
            away=(position - start) * others - moment,
            plogp=plogp,
            plogp_first=plogp_first,
            to_first=to_first[:, None],
            sees_first=sees_first[:, None],
            seen=visible.sum(-1, dtype=torch.float32)[:, None],
            valid=self._valid[:, None, start:stop],
        )

    def _add_queries(self, rows: _Rows, learned_sink: bool) -> None:
        rest = rows.others + rows.own + rows.null
        total = rest + rows.first
        seen_rest = rows.seen - rows.sees_first.float()
        undefined = (rest <= _SMALLEST_REST) | (seen_rest < 1) | (rows.to_first == 0)
        found = {
            "attn_entropy": _entropy(rows.plogp + rows.plogp_first, total, rows.seen + learned_sink),
            "attn_entropy_nosink": _entropy(rows.plogp, rest, seen_rest + learned_sink).masked_fill(
                undefined, torch.nan
            ),
            "attn_first": (rows.first / total).masked_fill(~rows.sees_first, torch.nan),
            "attn_distance": (rows.away + rows.first * rows.to_first) / total,
            "attn_distance_nosink": (rows.away / rest).masked_fill(undefined, torch.nan),
        }
        if learned_sink:
            found["attn_null"] = rows.null / total
        for name, value in found.items():
            self._queries[name].append(value)

    def _add_keys(self, weights: Tensor, visible: Tensor, rows: _Rows, start: int, low: int) -> None:
        """Σ_{q≠t} A[q,t] and Σ_{q≠t} M[q,t] r_q/(n_q−1), with the first token and without it."""
        batch, heads, length, keys = weights.shape
        is_first = rows.to_first == 0
        rest = rows.others + rows.own + rows.null
        usable = rows.valid & ~is_first & (rest > _SMALLEST_REST)
        scale = torch.stack((1 / (rest + rows.first), 1 / rest), 2)
        scale = scale.where(torch.stack((rows.valid.expand_as(rest), usable), 2), 0)  # [B, H, 2, rows]

        to_first = rows.first.masked_fill(is_first, 0)
        seen = torch.stack((rows.seen, rows.seen - rows.sees_first.float()), 2) - 1  # n_q − 1
        even = torch.stack((rows.others + to_first, rows.others), 2) * scale / seen
        even = even.where(seen > 0, 0)

        counted = torch.stack((rows.valid, rows.valid & ~is_first), 2).float()  # [B, 1, 2, rows]
        other = visible.float()
        other.diagonal(start - low, -2, -1).zero_()
        columns = torch.cat((even, counted), 1).reshape(batch, -1, length) @ other
        columns = columns.view(batch, heads + 1, 2, keys)
        self._even[..., low : low + keys] += columns[:, :heads]
        self._seen_by[..., low : low + keys] += columns[:, heads:]
        self._mass[..., low : low + keys] += scale @ weights
        index = self._first[:, None, None].expand(batch, heads, 1)
        self._mass[:, :, 0].scatter_add_(-1, index, (to_first * scale[:, :, 0]).sum(-1, keepdim=True))


def _entropy(plogp: Tensor, total: Tensor, outcomes: Tensor) -> Tensor:
    """−Σ p log p / log(outcomes) of p = mass/total; NaN where there is only one outcome."""
    entropy = (total.log() - plogp / total) / outcomes.log()
    return entropy.masked_fill(outcomes < 2, torch.nan)
