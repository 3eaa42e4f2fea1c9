"""Simulated activity of one prompt: norms that obey the law of cosines, peaks that are true order statistics, and
summaries that the peaks are part of.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from stratoscope.recorder.simulated.model import COLUMN_SPREAD, PEAK_SHARE, SINK_RATIO, SimulatedModel, SimulatedTokens
from stratoscope.recorder.simulated.strengths import Writes

START_SPREAD = 0.15  # of the logarithm of the residual stream before block 0
_CARRIED = 0.6  # correlation over tokens of steady writes of neighbouring layers: about that of small Llama models
_TAIL = 0.45  # |a_i|·‖W_:,i‖₂ is Pareto distributed: X = exp(0.45·E), E standard exponential
_AFTER_SINK = 0.04  # a stream that large is hardly changed any more: ratios of the first token, times this
_SINK_PEAK, _CLASS_PEAK = 8.0, 1.5  # planted peaks, times the strongest of the others
_USUAL = 0.6  # share of tokens whose peaks are the usual ones of their word
_POSITIVE = 0.6
_NEURON_SCALE = 0.12  # a neuron's everyday activation, relative to the weakest peak
_NEURON_SPREAD = 0.6  # standard deviation of a prompt mean, in units of the neuron's scale
_PAIR_SHARE = 0.3  # of that variance, common to both twins
_DRAWS = 4096  # of what is typical
_CELLS_AT_ONCE = 2**17  # of peaks: keeps long prompts small in memory

Addition = tuple[np.ndarray, np.ndarray]  # to the residual stream: write / residual, and its cosine


@dataclass(frozen=True)
class Peaks:
    """The peaks of a prompt, and what they say about all other neurons; leading axes (token, layer)."""

    neuron: np.ndarray
    value: np.ndarray
    write: np.ndarray
    share: np.ndarray
    explained: np.ndarray
    neuron_norm: np.ndarray


def norms(model: SimulatedModel, text: SimulatedTokens) -> dict[str, np.ndarray]:
    """Norms, ratios and cosines of the writes and the residual stream; float64, shape (token, layer or depth).

    ‖x + w‖² = ‖x‖² + ‖w‖² + 2·‖x‖·‖w‖·cos holds at every addition.
    """
    shape, length = model.shape, len(text.words)
    strengths = model.strengths[text.prompt_class]
    random = shape.random("norms", model.drawn_as(text.index))
    size = (length, shape.layers)
    mlp, attn = strengths.mlp, strengths.attn
    differs, within = strengths.between * model.differences(text.index), np.sqrt(1 - strengths.between**2)
    sign = model.sign(text.index)
    mlp_noise = random.lognormal(0, mlp.spread * within, size) ** sign * np.exp(mlp.spread * differs[0])
    attn_noise = random.lognormal(0, attn.spread * within, size) ** sign * np.exp(attn.spread * differs[1])
    if strengths.steady:
        mlp_noise, attn_noise = _carried_on(mlp_noise, mlp.spread), _carried_on(attn_noise, attn.spread)
    mlp_alone, attn_alone = (sign * within * random.standard_normal(size) + differs[row] for row in (2, 3))
    mlp_cos, attn_cos = _cosines(mlp, mlp_noise, mlp_alone), _cosines(attn, attn_noise, attn_alone)
    mlp_ratio, attn_ratio = mlp.size * mlp_noise, attn.size * attn_noise
    start = strengths.start * random.lognormal(0, START_SPREAD, (length, 1)) ** sign
    if strengths.steady:
        mlp_ratio, attn_ratio = _to_ratios(start[:, 0], mlp_ratio, attn_ratio, mlp_cos, attn_cos)
    sink = model.sink[0]
    mlp_ratio[0, sink] = SINK_RATIO
    for ratio in (mlp_ratio, attn_ratio):
        ratio[0, sink + 1 :] *= _AFTER_SINK
    to_middle, to_end = growth(attn_ratio, attn_cos), growth(mlp_ratio, mlp_cos)
    resid = start * np.cumprod(np.hstack([np.ones((length, 1)), to_middle * to_end]), axis=1)
    mlp_write = mlp_ratio * resid[:, :-1] * to_middle
    return {
        "mlp_out_norm": mlp_write * strengths.output,
        "mlp_write_norm": mlp_write,
        "attn_write_norm": attn_ratio * resid[:, :-1],
        "mlp_write_ratio": mlp_ratio,
        "attn_write_ratio": attn_ratio,
        "mlp_write_cos": mlp_cos,
        "attn_write_cos": attn_cos,
        "resid_norm": resid,
        "resid_cos": resid_cosine((attn_ratio, attn_cos), (mlp_ratio, mlp_cos), strengths.turn),
    }


def resid_cosine(attn: Addition, mlp: Addition, turn: np.ndarray | float) -> np.ndarray:
    """cos(block input, block output) of two additions; `turn` as of `Strengths`."""
    turned = [(1 + ratio * cos) / growth(ratio, cos) for ratio, cos in (attn, mlp)]
    aside = [np.sqrt(np.maximum(0, 1 - cos**2)) for cos in turned]
    return np.asarray(turned[0] * turned[1] + turn * aside[0] * aside[1])


def growth(ratio: np.ndarray, cos: np.ndarray) -> np.ndarray:
    """‖x + w‖ / ‖x‖ of writes w that are `ratio` times as long as the residual x."""
    return np.asarray(np.sqrt(1 + ratio**2 + 2 * ratio * cos))


def _cosines(writes: Writes, noise: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Cosines of the writes whose sizes are `noise` times the typical ones; `alone` is standard normal."""
    of_cos = writes.cos + writes.cos_spread * np.sqrt(1 - writes.together**2) * alone
    cosines: np.ndarray = np.tanh(of_cos + writes.cos_spread * writes.together * np.log(noise) / writes.spread)
    return cosines


def carried(before: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Standard normal numbers of tokens in a layer, which are like those of the layer before."""
    return np.asarray(_CARRIED * before + np.sqrt(1 - _CARRIED**2) * here)


def _carried_on(noise: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The same noise, from layer to layer more alike."""
    numbers = np.log(noise) / spread
    for layer in range(1, numbers.shape[1]):
        numbers[:, layer] = carried(numbers[:, layer - 1], numbers[:, layer])
    return np.asarray(np.exp(spread * numbers))


def _to_ratios(
    stream: np.ndarray, mlp_write: np.ndarray, attn_write: np.ndarray, mlp_cos: np.ndarray, attn_cos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Writes as multiples of the residual they are added to, which is `stream` before block 0."""
    mlp_ratio, attn_ratio = np.empty_like(mlp_write), np.empty_like(attn_write)
    for layer in range(mlp_write.shape[1]):
        for write, cos, ratio in ((attn_write, attn_cos, attn_ratio), (mlp_write, mlp_cos, mlp_ratio)):
            ratio[:, layer] = write[:, layer] / stream
            stream = stream * growth(ratio[:, layer], cos[:, layer])
    return mlp_ratio, attn_ratio


def peaks(model: SimulatedModel, text: SimulatedTokens, mlp_out_norm: np.ndarray) -> Peaks:
    """The strongest of d_ff independent Pareto variables per token and layer, scaled to the MLP's output.

    The others are never drawn: given the weakest peak, their energy is replaced by its expectation.
    """
    random = model.shape.random("peaks", text.index)
    step = max(1, _CELLS_AT_ONCE // (model.shape.layers * model.shape.top_k))
    parts = [
        _peaks_of_run(model, text, slice(begin, begin + step), mlp_out_norm[begin : begin + step], random)
        for begin in range(0, len(text.words), step)
    ]
    return Peaks(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Peaks)))


def _peaks_of_run(
    model: SimulatedModel, text: SimulatedTokens, run: slice, mlp_out_norm: np.ndarray, random: np.random.Generator
) -> Peaks:
    shape, length = model.shape, len(mlp_out_norm)
    neuron = _peak_neurons(model, text.words[run], random)
    size, rest = (length, shape.layers, shape.top_k), shape.d_ff - shape.top_k
    strength = np.exp(_TAIL * _largest_exponentials(random, size, shape.d_ff))
    sign = np.where(random.random(size) < _POSITIVE, 1.0, -1.0)
    chosen = random.random(length) < PEAK_SHARE
    if run.start == 0:
        chosen[0] = False
        _plant_sink(model, neuron, strength, sign)
    if model.peak and text.critical:
        here = np.s_[chosen, model.peak[0], 0]
        neuron[here], sign[here] = model.peak[1], 1
        strength[here] *= _CLASS_PEAK
    energy = (strength**2).sum(axis=-1)
    rest_energy = rest * _mean_square_below(np.log(strength[..., -1]) / _TAIL)
    coherence = random.lognormal(0, 0.15, energy.shape)  # neurons that point the same way add up to more
    coherence *= model.strengths[text.prompt_class].coherence
    scale = mlp_out_norm / np.sqrt((energy + rest_energy) * coherence)
    share = energy / (energy + rest_energy)
    write = scale[..., None] * strength
    value = sign * write / model.column_norm[np.arange(shape.layers)[:, None], neuron]
    rest_norm = scale**2 * rest_energy * (model.column_norm**-2.0).mean(axis=1)
    return Peaks(
        neuron=neuron.astype(np.int32),
        value=value.astype(np.float32),
        write=write.astype(np.float32),
        share=share,
        explained=share * (1 + (1 - share) * random.normal(0, 0.3, energy.shape)),
        neuron_norm=np.sqrt((value**2).sum(axis=-1) + rest_norm),
    )


def _plant_sink(model: SimulatedModel, neuron: np.ndarray, strength: np.ndarray, sign: np.ndarray) -> None:
    layer, planted = model.sink
    strength[0, layer, 0] *= _SINK_PEAK
    if planted >= 0:
        neuron[0, layer, 0], sign[0, layer, 0] = planted, 1


def _peak_neurons(model: SimulatedModel, words: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mostly the usual neurons of the word, else others; never the same one twice, never a planted one."""
    size = (len(words), model.shape.layers)
    moved = np.where(random.random(size) < _USUAL, 0, random.integers(model.shape.d_ff, size=size))
    place = (model.usual_place[words] + moved[..., None]) % model.free_neurons[:, None]
    return np.asarray(model.neuron_order[np.arange(model.shape.layers)[:, None], place])


def _largest_exponentials(random: np.random.Generator, size: tuple[int, int, int], count: int) -> np.ndarray:
    """The k largest of `count` standard exponentials, descending, along the last axis (Rényi's representation)."""
    k = size[-1]
    gaps: np.ndarray = random.standard_exponential(size) / np.arange(1, k + 1)
    gaps[..., -1] = -np.log(random.beta(k, count - k + 1, size[:-1]))
    gaps = np.cumsum(gaps[..., ::-1], axis=-1)
    return gaps[..., ::-1]


def _mean_square_below(exponential: np.ndarray) -> np.ndarray:
    """E[X² | X < c] of X = exp(_TAIL·E), at c = exp(_TAIL·exponential)."""
    index = 1 / _TAIL
    return np.asarray(index / (index - 2) * np.expm1((2 * _TAIL - 1) * exponential) / np.expm1(-exponential))


def neuron_norm_per_output(d_ff: int, top_k: int) -> float:
    """Typical `neuron_norm` / `mlp_out_norm` where column norms are about 1."""
    random = np.random.default_rng(0)
    strength = np.exp(_TAIL * _largest_exponentials(random, (_DRAWS, 1, top_k), d_ff))[:, 0]
    column = random.lognormal(0, COLUMN_SPREAD, strength.shape)
    rest = (d_ff - top_k) * _mean_square_below(np.log(strength[:, -1]) / _TAIL)
    of_rest = rest * np.exp(2 * COLUMN_SPREAD**2)  # E of the column norms' squares upside down
    norm = ((strength / column) ** 2).sum(axis=-1) + of_rest
    return float(np.exp(0.5 * np.log(norm / ((strength**2).sum(axis=-1) + rest)).mean()))


class Summaries:
    """Makes `prompt_mean`, `prompt_max` and `prompt_min` of prompts.

    A neuron's activations at tokens where it is no peak are drawn as their mean and extremes, none of them stronger
    than every weakest peak of a token; the peaks are then put in.
    """

    def __init__(self, model: SimulatedModel) -> None:
        self.model = model
        shape = model.shape
        size = (shape.layers, shape.d_ff)
        self.column_norm = model.column_norm.astype(np.float32)
        self.scale = (_NEURON_SCALE * self._typical_weakest()[:, None] / model.column_norm).astype(np.float32)
        self._bias = 0.5 * shape.random("model", 1).standard_normal(size, np.float32)
        self._class_shift = np.zeros(size, np.float32)
        for layer, neuron, effect in model.selective:
            self._bias[layer, neuron] = 0
            self._class_shift[layer, neuron] = effect * _NEURON_SPREAD

    def _typical_weakest(self) -> np.ndarray:
        """The weakest peak of a token in each layer, where every random number of `norms` and `peaks` is typical."""
        model, shape = self.model, self.model.shape
        largest = np.log(shape.d_ff / (np.arange(shape.top_k) + 0.5))
        energy = np.exp(2 * _TAIL * largest).sum()
        energy += (shape.d_ff - shape.top_k) * float(_mean_square_below(largest[-1:])[0])
        return np.asarray(model.strengths[0].typical_output() / np.sqrt(energy) * np.exp(_TAIL * largest[-1]))

    def of(self, text: SimulatedTokens, found: Peaks) -> dict[str, np.ndarray]:
        """The three summaries of one prompt, shape (1, layer, neuron); NaN where it has no user token."""
        shape = self.model.shape
        size, count = (shape.layers, shape.d_ff), len(text.words) - 1
        if count == 0:
            return {name: np.full((1, *size), np.nan) for name in ("prompt_mean", "prompt_max", "prompt_min")}
        hits, total, top, bottom = self._peaks_of_neurons(found)
        others = count - hits
        mean, highest, lowest = self._unrecorded(text, found, others)
        mean = (others.astype(np.float32) * mean + total) / np.float32(count)
        np.maximum(np.where(others > 0, highest, -np.inf), top, out=highest)
        np.minimum(np.where(others > 0, lowest, np.inf), bottom, out=lowest)
        mean.clip(lowest, highest, out=mean)  # a mean may leave its range by a rounding error
        return {"prompt_mean": mean[None], "prompt_max": highest[None], "prompt_min": lowest[None]}

    def everyday_mean(self, text: SimulatedTokens, found: Peaks) -> np.ndarray:
        """Mean of each neuron's activations in a prompt where it is no peak, float32, shape (layer, neuron)."""
        hits, _, _, _ = self._peaks_of_neurons(found)
        return self._unrecorded(text, found, len(text.words) - 1 - hits)[0]

    def _unrecorded(
        self, text: SimulatedTokens, found: Peaks, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, maximum and minimum of each neuron over its `others` tokens; float32, as is everything of this size."""
        shape, size = self.model.shape, others.shape
        own, pair = shape.random("prompts", text.index), shape.random("pairs", self.model.cast.pair_of(text.index))
        mean = own.standard_normal(size, np.float32) * np.float32(np.sqrt(1 - _PAIR_SHARE))
        mean += pair.standard_normal(size, np.float32) * np.float32(np.sqrt(_PAIR_SHARE))
        mean *= np.float32(_NEURON_SPREAD)
        mean += self._bias
        if text.critical:
            mean += self._class_shift
        mean *= self.scale
        largest_of = np.sqrt(2 * np.log(np.maximum(np.arange(len(text.words)), 1)))  # of that many normal variables
        width = self.scale * largest_of.astype(np.float32)[others]
        highest = mean + width * np.abs(own.standard_normal(size, np.float32))
        lowest = mean - width * np.abs(own.standard_normal(size, np.float32))
        limit = found.write[1:, :, -1].max(axis=0, initial=0)[:, None] / self.column_norm  # 0: no user token
        for values in (mean, highest, lowest):
            values.clip(-limit, limit, out=values)
        return mean, highest, lowest

    def _peaks_of_neurons(self, found: Peaks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """How often each neuron is a peak of a user token, and the sum, maximum and minimum there."""
        shape = self.model.shape
        cells = shape.layers * shape.d_ff
        cell = (np.arange(shape.layers)[:, None] * shape.d_ff + found.neuron[1:]).ravel()
        value = found.value[1:].ravel()
        top, bottom = np.full(cells, -np.inf, np.float32), np.full(cells, np.inf, np.float32)
        np.maximum.at(top, cell, value)
        np.minimum.at(bottom, cell, value)
        hits, total = np.bincount(cell, minlength=cells), np.bincount(cell, value, cells).astype(np.float32)
        size = (shape.layers, shape.d_ff)
        return hits.reshape(size), total.reshape(size), top.reshape(size), bottom.reshape(size)
