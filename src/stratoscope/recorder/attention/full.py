"""Group `attention-full`: every weight of every head, pair by pair, without ever holding more than a chunk of T × T."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.recorder.attention.rows import AttentionRows, Mask
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.recorder.streams import Streams

PAIRS = "attention"  # the quantity


def write_pairs(streams: Streams, layer: int, rows: AttentionRows, mask: Mask, first: Tensor, scratch: Scratch) -> None:
    """Write one forward's queries of a layer.

    Parameters
    ----------
    streams
        Where rows go; a prompt's real tokens are one run.
    layer
        Number of the block.
    rows, mask
        Its attention.
    first
        Position [B] of each prompt's first real token.
    scratch
        Room for a chunk.
    """
    starts = first.tolist()
    for start, stop, low, high in mask.chunks(rows.heads):
        visible = mask.rows(start, stop, low, high)
        weights, _, null = rows.chunk(start, stop, low, high, visible, scratch)
        weights = weights.masked_fill(~visible[:, None], 0)
        total = weights.sum(-1) if null is None else weights.sum(-1) + null
        weights = (weights / total[..., None]).masked_fill(~visible[:, None], torch.nan).half()
        for prompt, begin in enumerate(starts):
            real = mask.queries[prompt, start:stop].nonzero()[:, 0]
            if len(real):
                run = slice(int(real[0]), int(real[-1]) + 1)
                query = mask.first_query + start + run.start - begin
                pairs = _lower(weights[prompt, :, run], query, mask.first_key + low - begin)
                streams.write_edges(PAIRS, layer, prompt, query, pairs.cpu().numpy())


def _lower(weights: Tensor, query: int, key: int) -> Tensor:
    """[H, rows, keys] from `query` and `key` on as [pair, H]: all keys up to each query's own, NaN where none is given.

    Both are counted from the prompt's first token; keys before it are padding.
    """
    heads, length, keys = weights.shape
    reached = query + length
    whole = weights.new_full((length, reached, heads), torch.nan)
    low, high = max(key, 0), min(key + keys, reached)
    whole[:, low:high] = weights[:, :, low - key : high - key].permute(1, 2, 0)
    own = torch.arange(query, reached, device=weights.device)
    return whole[torch.arange(reached, device=weights.device) <= own[:, None]]
