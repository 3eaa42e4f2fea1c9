"""What a trace holds of one target in some prompts, prompt by prompt, in double precision; what it lacks is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.values.effect_sums import sums_of_prompts
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import GONE, Prompts

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Direct:
    """Direct contributions at the answer position, the final norm frozen; each [prompt] or [prompt, layer(, head)].

    Attributes
    ----------
    embed, attn, mlp
        Of the embedding, and of each layer's attention and MLP, their biases within.
    heads
        Of each head.
    attn_bias, mlp_bias
        The biases within attention and MLP; 0 where a model has none.
    norm_bias, head_bias
        Of the final norm's bias and of the head's; neither is multiplied by the final scale.
    model
        The target's logit as the model has it.
    scale
        What the final norm multiplied at that token; NaN where it was not recorded.
    """

    embed: Floats
    attn: Floats
    mlp: Floats
    heads: Floats
    attn_bias: Floats
    mlp_bias: Floats
    norm_bias: Floats
    head_bias: Floats
    model: Floats
    scale: Floats

    @property
    def biases(self) -> Floats:
        """All biases within attention and MLPs."""
        biases: Floats = np.nansum(self.attn_bias, axis=1) + np.nansum(self.mlp_bias, axis=1)
        return biases

    @property
    def terms(self) -> dict[str, Floats]:
        """The terms whose sum is the target's logit, [prompt] each."""
        return {
            "embedding": self.embed,
            "attention": np.nansum(self.attn - self.attn_bias, axis=1),
            "mlp": np.nansum(self.mlp - self.mlp_bias, axis=1),
            "biases": self.biases,
            "norm_bias": self.norm_bias,
            "head_bias": self.head_bias,
        }

    @property
    def sizes(self) -> Floats:
        """Σ of the sizes of all rows, in which the error of the sum is told; [prompt]."""
        blocks = np.nansum(np.abs(self.attn), axis=1) + np.nansum(np.abs(self.mlp), axis=1)
        sizes: Floats = np.abs(self.embed) + np.abs(self.norm_bias) + np.abs(self.head_bias) + blocks
        return sizes


@dataclass(frozen=True)
class Total:
    """Total effects, first order, summed over the tokens of each prompt but its first; [prompt, layer(, head)].

    Attributes
    ----------
    attn, mlp, heads
        Of each layer's attention, MLP and heads.
    """

    attn: Floats
    mlp: Floats
    heads: Floats


def answered(dataset: xr.Dataset, prompts: Ints) -> Ints:
    """The answer position of each prompt on the token axis.

    Raises
    ------
    InputError
        It was cut off in one of them.
    """
    of = Prompts(dataset)
    tokens = of.answer[prompts]
    if (tokens == GONE).any():
        name = of.labels[int(prompts[np.flatnonzero(tokens == GONE)[0]])]
        raise InputError("the token from which it is answered is not in this Dataset", where=name, fix="Do not cut it.")
    return tokens


def direct(dataset: xr.Dataset, target: int, prompts: Ints) -> Direct | None:
    """The direct contributions of a target; None where the trace has none."""
    if "attn_logit" not in dataset:
        return None
    tokens, shape = answered(dataset, prompts), (len(prompts), dataset.sizes[names.LAYER])

    def of(name: str, dim: str, places: Ints, size: tuple[int, ...], missing: float) -> Floats:
        if name not in dataset:
            return np.full(size, missing)
        array = dataset[name].isel({dim: places})
        chosen = array.isel(target=target) if names.TARGET in array.dims else array
        return np.asarray(chosen.values, np.float64)

    def at_answer(name: str, *size: int, missing: float = np.nan) -> Floats:
        return of(name, names.TOKEN, tokens, (len(prompts), *size), missing)

    def of_prompt(name: str, missing: float = np.nan) -> Floats:
        return of(name, names.PROMPT, prompts, (len(prompts),), missing)

    heads = dataset.sizes.get(names.HEAD, 0)
    return Direct(
        embed=at_answer("embed_logit"),
        attn=at_answer("attn_logit", shape[1]),
        mlp=at_answer("mlp_logit", shape[1]),
        heads=at_answer("head_logit", shape[1], heads),
        attn_bias=np.nan_to_num(at_answer("attn_bias_logit", shape[1], missing=0.0)),
        mlp_bias=np.nan_to_num(at_answer("mlp_bias_logit", shape[1], missing=0.0)),
        norm_bias=np.nan_to_num(of_prompt("norm_bias_logit", 0.0)),
        head_bias=np.nan_to_num(of_prompt("head_bias_logit", 0.0)),
        model=of_prompt("answer_logit"),
        scale=of_prompt("final_scale"),
    )


def total(dataset: xr.Dataset, target: int, prompts: Ints) -> Total | None:
    """The total effects on a target; None where the trace has none."""
    if not {"attn_effect", "mlp_effect"} & {*dataset.data_vars}:  # a model may lack one of the two
        return None
    layers, heads = dataset.sizes[names.LAYER], dataset.sizes.get(names.HEAD, 0)
    sizes = {"attn_effect": (layers,), "mlp_effect": (layers,), "head_effect": (layers, heads)}
    attn, mlp, of_heads = (_summed(dataset, name, target, prompts, size) for name, size in sizes.items())
    return Total(attn, mlp, of_heads)


def _summed(dataset: xr.Dataset, name: str, target: int, prompts: Ints, size: tuple[int, ...]) -> Floats:
    """A quantity of tokens summed over those of each prompt but the first; NaN where the trace lacks it."""
    if name not in dataset:
        return np.full((len(prompts), *size), np.nan)
    return sums_of_prompts(dataset, dataset[name].isel({names.TARGET: target}), prompts)
