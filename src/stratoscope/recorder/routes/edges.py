"""Edges of attention: what one head brings from one source token, along what its query reads; the largest are kept.

An edge of query q is A[q,k]·⟨v_k, r_q⟩ of a head: r_q is what the query's vector in the residual stream becomes in
front of attention's last linear map. Chunk by chunk of queries: never more than a chunk of all edges exists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stratoscope.kernels import MOST_EDGES, kernel
from stratoscope.recorder.attention.given import Given
from stratoscope.recorder.attention.rows import AttentionRows, ScoreRows
from stratoscope.recorder.reduce.scratch import Scratch

_KERNEL = "edges_f32"


class Edges(NamedTuple):
    """The edges of one layer that end in each token of a batch.

    Attributes
    ----------
    source, head
        Those of largest size, strongest first: which column of the batch, and which head; int32 [row, route], −1 where
        there are fewer. An edge of exactly 0 is none.
    weight
        What they are, float32 [row, route]; NaN where there are fewer.
    other, other_size
        Sum of all others, and of their sizes, [row].
    """

    source: Tensor
    head: Tensor
    weight: Tensor
    other: Tensor
    other_size: Tensor

    @staticmethod
    def room(rows: int, keep: int, device: torch.device) -> Edges:
        """None, of so many rows."""
        shapes = [(rows, keep)] * 3 + [(rows,)] * 2
        dtypes = [torch.int32] * 2 + [torch.float32] * 3
        found = Edges._make(
            torch.empty(*shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, dtypes, strict=True)
        )
        found.clear()
        return found

    def from_first(self, valid: Tensor) -> None:
        """Count sources from each prompt's first token on, rather than columns; `valid` as of `edges_into`."""
        first = valid.int().argmax(-1).repeat_interleave(valid.shape[1])[:, None]
        self.source.sub_(torch.where(self.source < 0, 0, first).int())

    def clear(self) -> None:
        """There are none."""
        for place, empty in zip(self, (-1, -1, torch.nan, 0.0, 0.0), strict=True):
            place.fill_(empty)


def edges_into(out: Edges, given: Given, valid: Tensor, read: Tensor, scratch: Scratch) -> None:
    """Find the edges of one layer.

    Parameters
    ----------
    out
        Filled.
    given
        The layer's attention, over whole prompts.
    valid
        Bool [B, T]: which tokens are no padding.
    read
        r_q of every query and head, float32 [B, T, H, D].
    scratch
        Room for chunks.
    """
    if given.value.shape[2] > valid.shape[1]:  # a cache of fixed size
        given = given.cropped(valid.shape[1])
    values = _contiguous(scratch, given.value)
    rows, mask = given.over(valid, valid, 0, 0)
    batch, _, keys, width = values.shape
    values = values.view(-1, keys, width)
    fits = values.device.type == "cpu" and out.weight.shape[1] <= MOST_EDGES
    compiled = kernel(_KERNEL) if fits else None
    everything = compiled is not None and isinstance(rows, ScoreRows) and mask.sees_all_before
    for start, stop, low, high in mask.chunks(rows.heads):
        reading = read[:, start:stop].transpose(1, 2).reshape(len(values), -1, width)
        along = scratch.get("edges/along", *reading.shape[:2], high - low, device=values.device)
        torch.bmm(reading, values[:, low:high].transpose(1, 2), out=along)
        along = along.view(batch, rows.heads, stop - start, high - low)
        visible = None if everything else mask.rows(start, stop, low, high)
        if compiled is not None:
            weights, applied = _unfinished(rows, start, stop, low, high, visible, scratch)
            compiled(
                weights.data_ptr(),
                along.data_ptr(),
                None if visible is None else visible.data_ptr(),
                *weights.shape,
                start,
                low,
                applied,
                keys,
                out.weight.shape[1],
                out.head.data_ptr(),
                out.source.data_ptr(),
                out.weight.data_ptr(),
                out.other.data_ptr(),
                out.other_size.data_ptr(),
            )
            continue
        assert visible is not None
        weights = rows.applied(start, stop, low, high, visible, scratch)
        _keep(out, along.mul_(weights).masked_fill_(~visible[:, None], 0), start, low, valid.shape[1])


def _unfinished(
    rows: AttentionRows, start: int, stop: int, low: int, high: int, visible: Tensor | None, scratch: Scratch
) -> tuple[Tensor, bool]:
    """Scores, or weights that are applied as they are, for the kernel to write into; and which of both."""
    if isinstance(rows, ScoreRows):
        return rows.scores(start, stop, low, high, scratch), False
    assert visible is not None
    weights = rows.applied(start, stop, low, high, visible, scratch)
    return scratch.get("weights", *weights.shape, device=rows.device).copy_(weights), True


def _keep(out: Edges, edges: Tensor, start: int, low: int, tokens: int) -> None:
    """Take the largest of a chunk of edges [B, H, rows, keys]."""
    batch, heads, count, keys = edges.shape
    flat = edges.transpose(1, 2).reshape(batch, count, heads * keys)
    few = min(out.weight.shape[1], flat.shape[-1])
    places = flat.abs().topk(few, dim=-1).indices
    kept = flat.gather(-1, places)
    flat.scatter_(-1, places, 0)
    there = kept != 0
    found = ((low + places % keys).where(there, -1), (places // keys).where(there, -1), kept.where(there, torch.nan))
    for into, values in zip(out, (*found, flat.sum(-1), flat.abs().sum(-1)), strict=True):
        chunk = into.view(batch, tokens, -1)[:, start : start + count]
        chunk[..., : values.shape[-1] if values.ndim == 3 else 1] = values.reshape(batch, count, -1).to(into.dtype)
        chunk[..., few if values.ndim == 3 else 1 :] = -1 if into.dtype == torch.int32 else torch.nan


def _contiguous(scratch: Scratch, values: Tensor) -> Tensor:
    """The values, float32 and contiguous."""
    if values.dtype == torch.float32 and values.is_contiguous():
        return values
    return scratch.get("edges/values", *values.shape, device=values.device).copy_(values)
