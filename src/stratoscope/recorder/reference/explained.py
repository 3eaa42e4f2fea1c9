"""The targets of a replay: directions of the residual stream and what is constant, in float64 from the weights.

As the scale of the final norm is known last, what a block adds is first kept without it, under other names (`RAW`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.head import Head, Norm, Unproved
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.reference.formulas import ByLayer

RAW = "without the final norm's scale: "
_AT_ONCE = 1024  # rows of the vocabulary


class Explained:
    """The targets of a replay.

    Parameters
    ----------
    model, sites
        The model and its sites, with a proved head.
    recorded
        What was recorded: which tokens the targets are, and where what is large was explained.
    lengths
        Tokens of each prompt.
    answers
        The place in each prompt of the token from which the model answers; needed for `whole` alone.

    Attributes
    ----------
    direction
        Of each token's prompt, [token, target, residual].
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        recorded: Mapping[str, np.ndarray],
        lengths: Sequence[int],
        answers: Sequence[int] = (),
    ) -> None:
        assert not isinstance(sites.head, Unproved)
        self._head: Head = sites.head
        self._recorded = recorded
        module: Any = model.get_submodule(self._head.unembedding)
        weight = module.weight.detach().cpu()
        weight = weight.T if self._head.transposed else weight
        real = self._head.vocabulary or len(weight)
        token, against = (torch.from_numpy(recorded[name]).long() for name in ("target_token", "against_token"))
        mean = sum(weight[i : min(i + _AT_ONCE, real)].double().sum(0) for i in range(0, real, _AT_ONCE)) / real
        row = weight[token].double() - torch.where(
            (against < 0)[..., None], mean, weight[against.clamp(min=0)].double()
        )
        factor = self._head.logit_scale * self._head.input_scale
        norm = self._head.norm
        gain, shift = (None, None) if norm is None else norm.vectors(model)
        direction = factor * row * (1 if gain is None else gain.cpu().double())
        if norm is not None and norm.centred:
            direction = direction - direction.mean(-1, keepdim=True)
        self._norm_bias = torch.zeros(token.shape, dtype=torch.float64)
        if shift is not None:
            self._norm_bias = factor * (row * shift.cpu().double()).sum(-1)
        bias = getattr(module, "bias", None)
        self._head_bias = torch.zeros_like(self._norm_bias)
        if bias is not None:
            bias = bias.detach().cpu().double()
            taken = torch.where(against < 0, bias[:real].mean(), bias[against.clamp(min=0)])
            self._head_bias = self._head.logit_scale * (bias[token] - taken)
        ends = torch.tensor(lengths).cumsum(0)
        self._answers = [
            end - length + answer for end, length, answer in zip(ends.tolist(), lengths, answers, strict=False)
        ]
        self._prompt_of = torch.repeat_interleave(torch.tensor(lengths))
        self.direction = direction[self._prompt_of]

    def recorded(self, name: str, layer: int) -> Tensor:
        """What was recorded of a layer."""
        return torch.from_numpy(self._recorded[name][:, layer])

    def __contains__(self, name: str) -> bool:
        return name in self._recorded

    def read(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """y of residuals [token, residual] at any depth, of all tokens or of some `rows`: [token, target]."""
        constants = (self._norm_bias + self._head_bias)[self._prompt_of[rows]]
        return torch.einsum("td,tkd->tk", x.double(), self.direction[rows]) * norm_scale(self._head.norm, x) + constants

    def whole(self, found: ByLayer, first: Tensor, last: Tensor) -> ByLayer:
        """All of the group, from what the blocks gave, and what entered the first and left the last of them."""
        scale = norm_scale(self._head.norm, last)  # [token, 1]
        done: ByLayer = {}
        for key, layers in found.items():
            if key.startswith(RAW):
                done[key.removeprefix(RAW)] = {
                    layer: value * scale.view(-1, *[1] * (value.ndim - 1)) for layer, value in layers.items()
                }
        embed = torch.einsum("td,tkd->tk", first.double(), self.direction) * scale
        end = self.read(last)
        by_target = {"embed_logit": embed, "target_logit": end}
        by_target |= {"norm_bias_logit": self._norm_bias, "head_bias_logit": self._head_bias}
        done["final_scale"] = {0: scale[self._answers, 0]}
        return done | {name: dict(enumerate(values.T)) for name, values in by_target.items()}


def norm_scale(norm: Norm | None, x: Tensor) -> Tensor:
    """1 / the size by which a norm divides, [row, 1]; 1 without one."""
    x = x.double()
    if norm is None:
        return torch.ones(len(x), 1, dtype=torch.float64)
    x = x - x.mean(-1, keepdim=True) if norm.centred else x
    return (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
