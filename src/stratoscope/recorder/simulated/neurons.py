"""Simulated activations of every neuron at every token, one layer at a time: the peaks, and all others below them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from stratoscope.recorder.simulated.activity import Peaks, Summaries
from stratoscope.recorder.simulated.model import SimulatedModel, SimulatedTokens

_BELOW = np.float32(0.999)  # what is no peak writes at most so much of the weakest peak


@dataclass(frozen=True)
class Totals:
    """What the neurons of a prompt say of themselves.

    Attributes
    ----------
    peaks
        The same peaks, with the share and the norm that all neurons together give.
    summaries
        `prompt_mean`, `prompt_max`, `prompt_min` of shape (1, layer, neuron); NaN where there is no user token.
    """

    peaks: Peaks
    summaries: dict[str, np.ndarray]


class SimulatedNeurons:
    """Draws a = the input of the down projection of one prompt.

    A neuron's activations at tokens where it is no peak stand about the mean that `Summaries` gives it, with the spread
    of a neuron's everyday activation, and write less than the weakest peak of the token.

    Parameters
    ----------
    model, summaries
        The pretended model, and what says how active each neuron is.
    text, found
        The prompt and its peaks.
    """

    def __init__(self, model: SimulatedModel, summaries: Summaries, text: SimulatedTokens, found: Peaks) -> None:
        self._model, self._text, self._found = model, text, found
        self._scale, self._column_norm = summaries.scale, summaries.column_norm
        self._mean = summaries.everyday_mean(text, found)
        size = (len(text.words), model.shape.layers)
        self._norm, self._share = np.empty(size), np.empty(size)
        self._summaries = np.full((3, model.shape.layers, model.shape.d_ff), np.nan, np.float32)

    def layer(self, number: int) -> np.ndarray:
        """Activations in one layer, float32, shape (token, neuron)."""
        shape, found = self._model.shape, self._found
        random = shape.random("neurons", self._text.index * shape.layers + number)
        values = random.standard_normal((len(self._text.words), shape.d_ff), np.float32)
        values[1:] -= values[1:].mean(axis=0) if len(values) > 2 else 0  # so that the mean stays where it is
        values *= self._scale[number]
        values += self._mean[number]
        limit = _BELOW * found.write[:, number, -1:] / self._column_norm[number]
        np.clip(values, -limit, limit, out=values)
        np.put_along_axis(values, found.neuron[:, number], found.value[:, number], axis=1)
        self._look_at(number, values)
        return values

    def _look_at(self, number: int, values: np.ndarray) -> None:
        self._norm[:, number] = np.sqrt(np.einsum("tn,tn->t", values, values, dtype=np.float64))
        if len(values) > 1:
            user = values[1:]
            self._summaries[:, number] = user.mean(axis=0, dtype=np.float64), user.max(axis=0), user.min(axis=0)
        writes = values * self._column_norm[number]
        peaks = np.square(self._found.write[:, number], dtype=np.float64).sum(axis=-1)
        self._share[:, number] = peaks / np.einsum("tn,tn->t", writes, writes, dtype=np.float64)

    @cached_property
    def totals(self) -> Totals:
        """What follows from the activations of all layers, each of which was asked for before."""
        share = np.minimum(self._share, 1)
        rest = 1 - self._found.share
        beside = np.divide(self._found.explained / self._found.share - 1, rest, where=rest > 0, out=np.zeros_like(rest))
        peaks = replace(self._found, neuron_norm=self._norm, share=share, explained=share * (1 + (1 - share) * beside))
        names = ("prompt_mean", "prompt_max", "prompt_min")
        return Totals(peaks, {name: part[None] for name, part in zip(names, self._summaries, strict=True)})
