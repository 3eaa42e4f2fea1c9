"""How strong the writes and the attention of a class of simulated prompts typically are, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.recorder.simulated.cast import Cast
from stratoscope.trace.arrays import Floats

_SPREAD, _COS_SPREAD = 0.35, 0.12
_MLP_COS, _ATTENTION_COS = 0.05, 0.02
_START = 0.05  # of a coordinate of the residual stream before block 0
HEAD_SPREAD = 0.7  # of the logarithms of attention weights


@dataclass(frozen=True)
class Writes:
    """What attention, or the MLPs, add to the residual stream; every array of shape (layer,).

    Attributes
    ----------
    size
        Typical write / residual; where writes are `steady`, the typical write itself.
    spread
        Standard deviation of its logarithm over tokens.
    cos, cos_spread
        Inverse hyperbolic tangent of the cosine with the residual: mean and standard deviation.
    together
        Correlation of both over tokens.
    """

    size: Floats
    spread: Floats
    cos: Floats
    cos_spread: Floats
    together: Floats


@dataclass(frozen=True)
class Strengths:
    """What is typical of the prompts of one class.

    Attributes
    ----------
    start
        ‖x‖₂ before block 0.
    attn, mlp
        Their writes.
    steady
        Whether writes are as large however long the residual stream has become, as they are behind a norm; otherwise
        they grow with it.
    turn
        How far the MLP turns the stream on to where attention turned it, −1 … 1, (layer,): 0 = at a right angle.
    output
        MLP output / MLP write, (layer,): what a norm between both takes away.
    coherence
        (‖W a‖ / what it were if neurons wrote at right angles)², (layer,): above 1 where they point the same way.
    between
        How far prompts differ from each other: standard deviation over prompts / that over tokens.
    head_sink, head_contrast, head_reach, head_spread
        Of attention, (layer,): log odds of the first token beyond those of the heads, which are so many times as far
        apart; preference for near tokens beyond those of the heads; standard deviation of the logarithms of weights.
    moved
        What the heads move, as a multiple of what they would if they wrote at right angles, (layer,).
    """

    start: float
    attn: Writes
    mlp: Writes
    steady: bool
    turn: Floats
    output: Floats
    coherence: Floats
    between: float
    head_sink: Floats
    head_contrast: Floats
    head_reach: Floats
    head_spread: Floats
    moved: Floats

    def typical_output(self) -> Floats:
        """‖W a + b‖₂ in each layer where every random number is typical."""
        if self.steady:
            return np.asarray(self.mlp.size * self.output)
        to_middle, to_end = np.sqrt(1 + self.attn.size**2), np.sqrt(1 + self.mlp.size**2)
        stream = self.start * np.cumprod(np.concatenate([[1], (to_middle * to_end)[:-1]]))
        return np.asarray(self.mlp.size * stream * to_middle)


@dataclass(frozen=True)
class Likeness:
    """What a simulation resembles.

    Attributes
    ----------
    cast
        Its prompts.
    lengths
        Of each class the fewest and the most tokens of a prompt.
    strengths
        Of each class.
    column_level
        Typical ‖W_:,i‖₂, (layer,).
    head_sink, head_reach
        Log odds of the first token, and preference for near tokens, of each head, (layer, head).
    """

    cast: Cast
    lengths: tuple[tuple[int, int], ...]
    strengths: tuple[Strengths, ...]
    column_level: Floats
    head_sink: Floats
    head_reach: Floats


def usual(layers: int, d_model: int) -> Strengths:
    """Those of a simulation that is like no recording: strong at both ends of the model, weak between."""
    depth = np.arange(layers)
    ends = 0.5 * np.exp(-depth / 1.5) + 0.25 * np.exp((depth - depth[-1]) / 1.5)
    none, one = np.zeros(layers), np.ones(layers)
    spread, cos_spread = np.full(layers, _SPREAD), np.full(layers, _COS_SPREAD)
    return Strengths(
        start=_START * float(np.sqrt(d_model)),
        attn=Writes(0.15 + 0.7 * ends, spread, np.full(layers, _ATTENTION_COS), cos_spread, none),
        mlp=Writes(0.22 + ends, spread, np.full(layers, _MLP_COS), cos_spread, none),
        steady=False,
        turn=none,
        output=one,
        coherence=one,
        between=0,
        head_sink=none,
        head_contrast=one,
        head_reach=none,
        head_spread=np.full(layers, HEAD_SPREAD),
        moved=one,
    )
