"""What two models' direct contributions to the same logit differ by, row by row, the final norm in its own (L29).

Every write of a model changes the factor of its final norm, which multiplies all other contributions: subtracted as
they stand they would blame layers that did not change. At the mean of both factors an unchanged layer's row is 0, and
what the factors did to all of them together is the row "final norm"; the rows sum to what the logit changed by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.prompts import Pair
from stratoscope.analysis.statistics.rescaled import rescaled_difference
from stratoscope.analysis.values.effect_sums import sums_of_prompts
from stratoscope.analysis.values.final_norm import SCALE, final_scales
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import GONE, Prompts
from stratoscope.trace.targets import Targets, same_targets
from stratoscope.words import number_ranges

if TYPE_CHECKING:
    import xarray as xr

EMBEDDING, ATTENTION, MLP, NORM_BIAS, HEAD_BIAS, FINAL_NORM = (
    "embedding", "attention", "MLP", "bias of the final norm", "bias of the unembedding", "final norm"
)  # fmt: skip
_NEEDED = ("target_logit", "embed_logit", "attn_logit", "mlp_logit")
_EFFECTS = {"attention": "attn_effect", "MLP": "mlp_effect"}
_ROUNDING = 8 * 2.0**-24  # relative: what a few operations in float32 make of the same number


@dataclass(frozen=True, eq=False)
class Contributions:
    """Direct contributions of both models at the answer position of each prompt.

    Attributes
    ----------
    targets
        Each in words.
    part, layer
        What each row is of, and its layer, −1 where it has none; the last is the final norm.
    a, b
        What the parts contribute in either model, [prompt, target, part]; of the final norm NaN.
    difference
        B − A at the mean of both factors, of the last part what the factors did; 0 where nothing changed but the last
        bits; [prompt, target, part].
    total
        What the target's logit changed by, [prompt, target].
    scales
        The factor of either final norm, [side, prompt].
    """

    targets: list[str]
    part: list[str]
    layer: Ints
    a: Floats
    b: Floats
    difference: Floats
    total: Floats
    scales: Floats

    @property
    def unexplained(self) -> Floats:
        """What the logit changed by without the sum of the rows; [prompt, target]."""
        left: Floats = self.total - self.difference.sum(axis=2)
        return left


@dataclass(frozen=True, eq=False)
class Effects:
    """Total effects of both models, summed over each prompt but its first token; by block [prompt, target, layer]."""

    targets: list[str]
    numbers: Ints
    a: dict[str, Floats]
    b: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Explained:
    """What explains the logits of targets in both traces.

    Attributes
    ----------
    refused
        Why all or some of it cannot be compared; "" = nothing stands against it.
    contributions, effects
        None where they are not held by both, or cannot be compared.
    """

    refused: str
    contributions: Contributions | None
    effects: Effects | None


def compare_explained(a: xr.Dataset, b: xr.Dataset, pairs: Sequence[Pair]) -> Explained | None:
    """What explains logits in both traces, compared; None where at least one of them holds nothing of it."""
    logits, effects = hold_logits(a, b), hold_effects(a, b)
    if not logits and not effects:
        return None
    if why := refusal(a, b, pairs):
        return Explained(why, None, None)
    why = refusal_of_contributions(a, b) if logits else ""
    found = compare_contributions(a, b, pairs) if logits and not why else None
    return Explained(why, found, compare_effects(a, b, pairs) if effects else None)


def hold_logits(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether both traces hold direct contributions."""
    return all(name in one for one in (a, b) for name in _NEEDED)


def hold_effects(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether both traces hold total effects."""
    return all(name in one for one in (a, b) for name in _EFFECTS.values())


def refusal(a: xr.Dataset, b: xr.Dataset, pairs: Sequence[Pair]) -> str:
    """Why the explained logits of two traces cannot be compared; "" where they can."""
    if why := same_targets(a, b, [(pair.a, pair.b) for pair in pairs]):
        return why
    layers = [np.asarray(one[names.LAYER].values) for one in (a, b)]
    if not np.array_equal(layers[0], layers[1]):
        return f"A has layers {number_ranges(layers[0].tolist())}, B {number_ranges(layers[1].tolist())}"
    return ""


def refusal_of_contributions(a: xr.Dataset, b: xr.Dataset) -> str:
    """Why direct contributions cannot be compared, though targets and layers are the same; "" where they can."""
    absent = [called for one, called in ((a, "A"), (b, "B")) if SCALE not in one]
    return f"{' and '.join(absent)} without {SCALE}: two final norms cannot be told apart" if absent else ""


def compare_contributions(a: xr.Dataset, b: xr.Dataset, pairs: Sequence[Pair]) -> Contributions:
    """Compare the direct contributions of both; `refusal` has nothing against it."""
    sides = [_Side(one, [getattr(pair, side) for pair in pairs]) for one, side in ((a, "a"), (b, "b"))]
    scales = np.stack([side.scales for side in sides])
    numbers = np.asarray(a[names.LAYER].values, np.int64)
    under = [side.under_the_norm(len(numbers)) for side in sides]
    split = rescaled_difference(under[1], under[0], scales[1][:, None, None], scales[0][:, None, None])
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(under[0]), np.abs(under[1]))
        change = np.where(np.abs(split.change) <= _ROUNDING * size, 0.0, split.change)
    biases = [side.biases() for side in sides]
    norm = split.rescaling.sum(axis=2, keepdims=True)
    of_norm = np.full(norm.shape, np.nan)
    blocks = [block for _ in numbers for block in (ATTENTION, MLP)]
    return Contributions(
        [Targets(a).label_of([pair.a for pair in pairs], place) for place in range(a.sizes[names.TARGET])],
        [EMBEDDING, *blocks, NORM_BIAS, HEAD_BIAS, FINAL_NORM],
        np.concatenate([[-1], np.repeat(numbers, 2), [-1, -1, -1]]),
        np.concatenate([under[0], biases[0], of_norm], axis=2),
        np.concatenate([under[1], biases[1], of_norm], axis=2),
        np.concatenate([change, biases[1] - biases[0], norm], axis=2),
        sides[1].at_answer("target_logit") - sides[0].at_answer("target_logit"),
        scales,
    )


def compare_effects(a: xr.Dataset, b: xr.Dataset, pairs: Sequence[Pair]) -> Effects:
    """Sum the total effects of both over the tokens of each prompt but its first; `refusal` has nothing against it."""
    sums = [
        {block: _summed(one, name, [getattr(pair, side) for pair in pairs]) for block, name in _EFFECTS.items()}
        for one, side in ((a, "a"), (b, "b"))
    ]
    targets = [Targets(a).label_of([pair.a for pair in pairs], place) for place in range(a.sizes[names.TARGET])]
    return Effects(targets, np.asarray(a[names.LAYER].values, np.int64), sums[0], sums[1])


def _summed(dataset: xr.Dataset, name: str, prompts: Sequence[int]) -> Floats:
    sums = sums_of_prompts(dataset, dataset[name], np.asarray(prompts, np.int64))
    return sums.transpose(0, 2, 1)


class _Side:
    """One of the two traces at the answer positions of some prompts."""

    def __init__(self, dataset: xr.Dataset, prompts: Sequence[int]) -> None:
        self.dataset, self.prompts = dataset, np.asarray(prompts, np.int64)
        self.tokens = Prompts(dataset).answer[self.prompts]

    @property
    def scales(self) -> Floats:
        """The factor of the final norm, [prompt]."""
        found: Floats = final_scales(self.dataset, "a contribution")[self.prompts]
        return found

    def at_answer(self, name: str) -> Floats:
        """Values of a quantity of tokens, [prompt, …]; NaN where the answer position is not there."""
        there = self.tokens != GONE
        tokens = np.where(there, self.tokens, 0)
        values = np.stack([np.asarray(self.dataset[name][token].values, np.float64) for token in tokens.tolist()])
        found: Floats = np.where(there.reshape(-1, *([1] * (values.ndim - 1))), values, np.nan)
        return found

    def under_the_norm(self, layers: int) -> Floats:
        """The embedding, then attention and MLP of each layer, 0 where there is no block; [prompt, target, part]."""
        embedding = self.at_answer("embed_logit")
        blocks = np.stack([self.at_answer(name) for name in ("attn_logit", "mlp_logit")], axis=2)
        blocks = np.where(np.isnan(blocks).all(axis=(0, 3), keepdims=True), 0.0, blocks)
        of_layers = blocks.reshape(len(embedding), 2 * layers, -1).transpose(0, 2, 1)
        found: Floats = np.concatenate([embedding[:, :, None], of_layers], axis=2)
        return found

    def biases(self) -> Floats:
        """What stands behind the final norm, 0 where a model has none; [prompt, target, part]."""
        nothing = np.zeros((len(self.prompts), self.dataset.sizes[names.TARGET]))
        found = [
            np.asarray(self.dataset[name].values, np.float64)[self.prompts] if name in self.dataset else nothing
            for name in ("norm_bias_logit", "head_bias_logit")
        ]
        return np.stack(found, axis=2)
