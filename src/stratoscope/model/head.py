"""Behind the last block: the final norm, the unembedding, and what makes logits of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand

PLAIN, ONE_PLUS = "weight", "1 + weight"


@dataclass(frozen=True)
class Unproved:
    """What could not be proved of a model: a clause that says why."""

    why: str


@dataclass(frozen=True)
class Norm:
    """A norm: s_t·γ_d·x, or s_t·γ_d·(x − mean x) + β_d, where s_t is one number a token.

    Attributes
    ----------
    module
        Path of the module.
    gain, gain_is
        Name of the parameter that γ is made of ("": γ is 1), and how: `weight` or `1 + weight`.
    bias
        Name of the parameter that is β; "" where there is none.
    centred
        Whether the mean over the residual is taken off first.
    eps
        What is added to the mean of squares: s_t = 1 / √(mean of squares + eps).
    error
        Largest error of this formula on the probe prompt, relative to the numbers that it adds.
    """

    module: str
    gain: str
    gain_is: str
    bias: str
    centred: bool
    eps: float
    error: float = 0.0

    def vectors(self, model: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        """γ and β, float32, [residual]; None where γ is 1 or there is no β."""
        module: Any = model.get_submodule(self.module)
        with weights_at_hand(module):
            gain, bias = (getattr(module, name).detach().float() if name else None for name in (self.gain, self.bias))
        return None if gain is None else self.gamma(gain), bias

    def gamma(self, gain: Tensor) -> Tensor:
        """γ of the parameter that it is made of."""
        return gain + 1 if self.gain_is == ONE_PLUS else gain

    def centre(self, x: Tensor) -> Tensor:
        """x, float32, less its mean if the norm is centred."""
        return x.float() - x.float().mean(-1, keepdim=True) if self.centred else x.float()

    def scale(self, x: Tensor) -> Tensor:
        """s_t of residuals [..., residual], float32, [..., 1]."""
        return (self.centre(x).square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def __str__(self) -> str:
        one_plus = " with γ = 1 + weight" if self.gain_is == ONE_PLUS else ""
        return f"{'LayerNorm' if self.centred else 'RMSNorm'}{one_plus}"


@dataclass(frozen=True)
class Head:
    """What turns the last block's output x_L into logits: unembed(norm(x_L)).

    Attributes
    ----------
    norm
        The final norm; None where the unembedding reads x_L itself.
    unembedding
        Path of the linear map that gives one number for every token of the vocabulary.
    transposed
        Whether it stores its weight [residual, vocabulary].
    input_scale, logit_scale
        What the norm's output and the map's output are multiplied by.
    soft_cap
        c where logits are c·tanh(·/c); None where they are not capped.
    exact
        Whether this gave the model's own logits bit for bit on the probe prompt, rather than within rounding.
    vocabulary
        How many of its rows are tokens of the tokenizer; None where that is not known. Others are padding.
    """

    norm: Norm | None
    unembedding: str
    transposed: bool
    input_scale: float = 1.0
    logit_scale: float = 1.0
    soft_cap: float | None = None
    exact: bool = False
    vocabulary: int | None = None

    def normed(self, model: nn.Module, x: Tensor) -> Tensor:
        """What the final norm makes of residuals [..., residual], by the model's own module."""
        y: Tensor = x if self.norm is None else model.get_submodule(self.norm.module)(x)
        return y

    def unembed(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits of normed residuals [..., residual], by the model's own map, [..., vocabulary]."""
        module: Any = model.get_submodule(self.unembedding)
        return scaled(module(scaled(x, self.input_scale).to(module.weight.dtype)), self.logit_scale, self.soft_cap)

    def to_json(self) -> dict[str, Any]:
        """For the receipt."""
        return {
            "norm": "none" if self.norm is None else f"{self.norm} {self.norm.module}",
            "unembedding": self.unembedding,
            "input_scale": self.input_scale,
            "logit_scale": self.logit_scale,
            "soft_cap": self.soft_cap,
            "logits": "bit-equal" if self.exact else "within rounding",
        }


def scaled(y: Tensor, factor: float, soft_cap: float | None = None) -> Tensor:
    """A tensor times a factor, and then capped softly."""
    y = y if factor == 1 else y * factor
    return y if soft_cap is None else torch.tanh(y / soft_cap) * soft_cap
