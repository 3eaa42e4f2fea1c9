"""From rows of attention weights to what each token gets and each head does.

Rows are queries q, columns keys t. Everything is summed chunk by chunk of queries, so that no more than a chunk of the
T×T weights ever exists, and with a cache step by step. The token's own column and the first token's are kept apart from
the others: sums with and without them are then sums of positive numbers, exact even where a sink takes all but 1e-7 of
a row.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from stratoscope.kernels import Kernel, kernel
from stratoscope.recorder.attention.rows import AttentionRows, Chunk, Mask, ScoreRows
from stratoscope.recorder.reduce.scratch import Scratch

# Below this share of a row, what is left beside the first token is the rounding of the lowest score's e^-70.
_SMALLEST_REST = 1e-20
_OF_QUERIES = ("attn_entropy", "attn_entropy_nosink", "attn_first", "attn_distance", "attn_distance_nosink")
_GROWTH = 1.5  # of the room for keys while tokens are generated, so that it is seldom copied


class QueryRows(NamedTuple):
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

    @property
    def total(self) -> Tensor:
        """Sum of each row over the keys that it sees, a learned sink left out."""
        return self.others + self.own + self.first


class AttentionSums:
    """The attention summaries of one layer: those of queries as they come, per-key sums until the end.

    Parameters
    ----------
    valid
        Bool [B, T]: which tokens of the first forward are real.
    heads
        Number of heads.
    """

    def __init__(self, valid: Tensor, heads: int) -> None:
        self.heads = heads
        self._valid = valid
        self._first = valid.int().argmax(-1)  # position of each prompt's first real token
        self._found: list[Tensor] = []  # quantities of queries, [quantity, B, Q, H] of each forward, compiled
        self._queries: defaultdict[str, list[Tensor]] = defaultdict(list)
        batch, length = valid.shape
        # one tensor, so that all grow at once; index 1 of the third axis is without the first token; along the second:
        # Σ_{q≠t} A[q,t] of each head, the same had each row been spread evenly, and the number of other queries
        self._keys = torch.zeros(batch, 2 * heads + 1, 2, length, device=valid.device)

    def extend(self, valid: Tensor) -> None:
        """Make room for the tokens of a further forward; `valid` is bool [B, T] of all tokens so far."""
        room = self._keys.shape[-1]
        if valid.shape[1] > room:
            self._keys = functional.pad(self._keys, (0, max(valid.shape[1], int(_GROWTH * room)) - room))
        self._valid = valid

    def add(self, rows: AttentionRows, mask: Mask, scratch: Scratch) -> list[QueryRows]:
        """Add the queries of one forward; gives what is known of them, chunk by chunk, where a check may want it."""
        compiled = kernel("attention_f32") if isinstance(rows, ScoreRows) and rows.device.type == "cpu" else None
        if compiled is not None and isinstance(rows, ScoreRows):
            self._add_compiled(compiled, rows, mask, scratch)
            return []
        found = []
        for start, stop, low, high in mask.chunks(self.heads):
            visible = mask.rows(start, stop, low, high)
            chunk = rows.chunk(start, stop, low, high, visible, scratch)
            found.append(self._add(chunk, visible, mask.first_query + start, mask.first_key + low))
        return found

    def _add_compiled(self, compiled: Kernel, rows: ScoreRows, mask: Mask, scratch: Scratch) -> None:
        """As the rest of this class, in one pass over the scores."""
        batch, queries = mask.queries.shape
        found = torch.empty(len(_OF_QUERIES), batch, queries, self.heads)
        at_zero = found.data_ptr() - found.element_size() * self.heads * mask.first_query  # where query 0 would be
        first, valid, everything = self._first.data_ptr(), self._valid.contiguous(), mask.sees_all_before
        for start, stop, low, high in mask.chunks(self.heads):
            scores = rows.scores(start, stop, low, high, scratch)
            visible = None if everything else mask.rows(start, stop, low, high).contiguous()
            compiled(
                scores.data_ptr(),
                None if visible is None else visible.data_ptr(),
                *scores.shape,
                mask.first_query + start,
                mask.first_key + low,
                first,
                valid.data_ptr(),
                valid.shape[1],
                at_zero,
                found.stride(0),
                queries,
                self._keys.data_ptr(),
                self._keys.shape[-1],
            )
        self._found.append(found)

    def _add(self, chunk: Chunk, visible: Tensor, start: int, low: int) -> QueryRows:
        """Add a chunk of rows from query `start` on, of keys from `low` on, both counted from the prompt's first."""
        weights, logs, null = chunk
        rows = self._split(weights, logs, visible, start, low, null)
        self._add_queries(rows, learned_sink=null is not None)
        self._add_keys(weights, visible, rows, start, low)
        return rows

    def result(self) -> dict[str, Tensor]:
        """Name to [B, T, H]; NaN where a quantity is not defined."""
        keys = self._keys[..., : self._valid.shape[1]]
        mass, even, seen_by = keys[:, : self.heads], keys[:, self.heads : -1], keys[:, -1:]
        if self._found:
            received = (mass / even).masked_fill(seen_by < 0.5, torch.nan)
            positions = torch.arange(self._valid.shape[1])
            nowhere = (
                ~self._valid[:, None, None]
                | torch.stack((torch.zeros_like(self._valid), positions == self._first[:, None]), 1)[:, None]
            )
            received = received.masked_fill(nowhere, torch.nan).transpose(1, 3)  # [B, T, 2, H]
            values = dict(zip(_OF_QUERIES, torch.cat(self._found, 2), strict=True))
            return values | {"attn_received": received[:, :, 0], "attn_received_nosink": received[:, :, 1]}
        received = (mass / even).masked_fill(seen_by < 0.5, torch.nan)
        positions = torch.arange(self._valid.shape[1], device=self._valid.device)
        received[:, :, 1].masked_fill_((positions == self._first[:, None])[:, None], torch.nan)
        found = {name: torch.cat(parts, -1) for name, parts in self._queries.items()}
        found |= {"attn_received": received[:, :, 0], "attn_received_nosink": received[:, :, 1]}
        padding = ~self._valid[:, None]
        return {name: value.masked_fill(padding, torch.nan).transpose(1, 2) for name, value in found.items()}

    def _split(
        self, weights: Tensor, logs: Tensor, visible: Tensor, start: int, low: int, null: Tensor | None
    ) -> QueryRows:
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
        return QueryRows(
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

    def _add_queries(self, rows: QueryRows, learned_sink: bool) -> None:
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

    def _add_keys(self, weights: Tensor, visible: Tensor, rows: QueryRows, start: int, low: int) -> None:
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
        self._keys[:, heads:, :, low : low + keys] += columns.view(batch, heads + 1, 2, keys)
        self._keys[:, :heads, :, low : low + keys] += scale @ weights
        index = self._first[:, None, None].expand(batch, heads, 1)
        self._keys[:, :heads, 0].scatter_add_(-1, index, (to_first * scale[:, :, 0]).sum(-1, keepdim=True))


def _entropy(plogp: Tensor, total: Tensor, outcomes: Tensor) -> Tensor:
    """−Σ p log p / log(outcomes) of p = mass/total; NaN where there is only one outcome."""
    entropy = (total.log() - plogp / total) / outcomes.log()
    return entropy.masked_fill(outcomes < 2, torch.nan)
