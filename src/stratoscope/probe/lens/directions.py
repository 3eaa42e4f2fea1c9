"""Directions of the output in which a low-rank lens is fitted: those that carry most of what the model's logits are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import Head, Unproved

_ROWS = 4096  # of the vocabulary, that are multiplied at once
_OUTSIDE = 16  # random directions beside the chosen ones, by which what is lost is measured
_NOTHING = 1e-9  # of the largest: what the unembedding does not read


@dataclass(frozen=True)
class LowRank:
    """A low-rank lens writes `write` @ `read` @ J.

    Attributes
    ----------
    read
        The chosen directions, [rank, d_model].
    outside
        Random ones beside them, of equal size to the logits, [direction, d_model].
    others
        How many directions there are beside the chosen ones.
    write
        What makes a residual of them, [d_model, rank].
    """

    read: Tensor
    outside: Tensor
    others: int
    write: Tensor

    @property
    def rows(self) -> Tensor:
        """All directions that are run."""
        return torch.cat([self.read, self.outside])


def low_rank(moments: Tensor, metric: Tensor, rank: int) -> LowRank:
    """The directions that lose least of the logits of residuals with these second moments.

    Parameters
    ----------
    moments
        Σ x xᵀ of what the last block gives, float64, [d_model, d_model].
    metric
        G, so that xᵀ G x is the sum of squares of the logits that x makes, float64, [d_model, d_model].
    rank
        How many directions.
    """
    size, vectors = torch.linalg.eigh(metric)
    size = torch.where(size > size[-1] * _NOTHING, size, 0).sqrt()
    root = vectors * size @ vectors.T
    back = vectors * torch.where(size > 0, 1 / size.clamp(min=1e-300), 0) @ vectors.T
    there = (vectors * (size > 0)) @ vectors.T
    squares = root @ moments @ root
    _, ordered = torch.linalg.eigh(squares + _NOTHING * squares.trace() * there)  # what is read at all comes first
    chosen, others = ordered[:, -rank:].flip(1), ordered[:, :-rank]
    draw = torch.Generator().manual_seed(0)
    count = min(_OUTSIDE, others.shape[1])
    mixed = torch.linalg.qr(torch.randn(others.shape[1], count, generator=draw, dtype=torch.float64)).Q
    return LowRank(chosen.T @ root, (others @ mixed).T @ root, others.shape[1], back @ chosen)


def metric_of(model: nn.Module, head: Head | Unproved, d_model: int) -> Tensor:
    """G of the model's head: of logits less their mean, the norm's scale aside; I where the head is unknown."""
    if isinstance(head, Unproved):
        return torch.eye(d_model, dtype=torch.float64)
    module: Any = model.get_submodule(head.unembedding)
    with weights_at_hand(module):
        weight = module.weight.detach()
        weight = (weight.T if head.transposed else weight)[: head.vocabulary].cpu()
        found, total = torch.zeros(d_model, d_model, dtype=torch.float64), torch.zeros(d_model, dtype=torch.float64)
        for start in range(0, len(weight), _ROWS):
            rows = weight[start : start + _ROWS].double()
            found += rows.T @ rows
            total += rows.sum(0)
        found -= torch.outer(total, total) / len(weight)
    if head.norm is not None:
        gain, _ = head.norm.vectors(model)
        if gain is not None:
            found *= torch.outer(gain.cpu().double(), gain.cpu().double())
        if head.norm.centred:
            found -= found.mean(0, keepdim=True)
            found -= found.mean(1, keepdim=True)
    return found
