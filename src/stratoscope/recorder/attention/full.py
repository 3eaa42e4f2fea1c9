"""Group `attention-full`: every weight of every head, pair by pair, without ever holding more than a chunk of T × T."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stratoscope.recorder.attention.rows import AttentionRows, Mask
from stratoscope.recorder.reduce.arrivals import Arrivals
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.recorder.reduce.streams import Streams

PAIRS = "attention"  # the quantity


class PairRows:
    """Sends every weight of every head to where the quantity `attention` goes.

    Parameters
    ----------
    streams, arrivals
        Where rows go, and how they come from their device.
    """

    def __init__(self, streams: Streams, arrivals: Arrivals) -> None:
        self._streams, self._arrivals = streams, arrivals
        self._first: list[int] = []  # position of each prompt's first real token
        self._runs: list[tuple[int, int]] = []  # where its real queries begin and end in the present forward

    def __bool__(self) -> bool:
        """Whether somebody wants them at present."""
        return PAIRS in self._streams

    def begin(self, real: np.ndarray, *, goes_on: bool) -> None:
        """Another forward comes with these queries, bool [B, Q]; a prompt's real ones are one run."""
        first, count = real.argmax(1), real.sum(1)
        if not goes_on:
            self._first = first.tolist()
        self._runs = [*zip(first.tolist(), (first + count).tolist(), strict=True)]

    def write(self, layer: int, rows: AttentionRows, mask: Mask, scratch: Scratch) -> None:
        """Send the present forward's queries of a layer."""
        for start, stop, low, high in mask.chunks(rows.heads):
            visible = mask.rows(start, stop, low, high)
            weights, _, null = rows.chunk(start, stop, low, high, visible, scratch)
            weights = weights.masked_fill(~visible[:, None], 0)
            total = weights.sum(-1) if null is None else weights.sum(-1) + null
            weights = (weights / total[..., None]).masked_fill(~visible[:, None], torch.nan).half()
            for prompt, (begin, end) in enumerate(self._runs):
                begin, end = max(begin, start), min(end, stop)
                if begin < end:
                    query, key = (
                        place - self._first[prompt] for place in (mask.first_query + begin, mask.first_key + low)
                    )
                    pairs = _lower(weights[prompt, :, begin - start : end - start], query, key)
                    self._arrivals.bring(pairs, self._writer(layer, prompt, query))

    def fill(self, layers: Sequence[int]) -> None:
        """These layers had no attention in any forward of the batch."""
        for layer in layers if self else ():
            self._streams.fill_prompts(PAIRS, layer)

    def _writer(self, layer: int, prompt: int, query: int) -> Callable[[Tensor], None]:
        return lambda pairs: self._streams.write_edges(PAIRS, layer, prompt, query, pairs.numpy())


def _lower(weights: Tensor, query: int, key: int) -> Tensor:
    """[H, rows, keys] from `query` and `key` on as [pair, H]: all keys up to each query's own, NaN where none is given.

    Both are counted from the prompt's first token; keys before it are padding.
    """
    heads, length, keys = weights.shape
    reached = query + length
    whole = weights.new_full((length, reached, heads), torch.nan)
    low, high = max(key, 0), min(key + keys, reached)
    whole[:, low:high] = weights[:, :, low - key : high - key].permute(1, 2, 0)
    rows, columns = torch.tril_indices(length, reached, query, device=weights.device)  # how many, the host knows
    return whole[rows, columns]
