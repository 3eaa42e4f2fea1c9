"""Simulated contributions to the logits of targets, and effects on them: they obey their sums, and some are planted.

All numbers are multiples of 1/1024: sums that hold up to rounding in a real recording hold exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stratoscope import defaults
from stratoscope.recorder.simulated.activity import Peaks
from stratoscope.recorder.simulated.model import TRIGGER_READ, SimulatedModel, SimulatedTokens, Suppressor
from stratoscope.recorder.simulated.vocabulary import WORDS

SIGNED, WRITTEN = defaults.STRONGEST_PER_SIGN, defaults.WRITES_PER_SIGN
PARTS = 2  # what a neuron reads: gate and up

_GRID = 1024.0
_EMBED, _HEAD, _MLP, _NEURON, _EFFECT, _READ = 0.3, 0.1, 0.3, 0.08, 0.06, 0.5  # spreads, in logits
_VALUE = 3.0  # activation of a planted neuron


@dataclass(frozen=True)
class Strongest:
    """The (neuron, token) pairs of largest effect, [target, strongest], those that promote first; −1, NaN = none.

    Attributes
    ----------
    token, layer, neuron
        Where each is.
    value, effect, logit
        Its activation, its total effect, and its direct contribution.
    """

    token: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    effect: np.ndarray
    logit: np.ndarray


class SimulatedContributions:
    """What the writes of one prompt add to the logits of targets, and what taking neurons away would change.

    Parameters
    ----------
    model, text, peaks
        The pretended model, the prompt, and its strongest neurons.
    """

    def __init__(self, model: SimulatedModel, text: SimulatedTokens, peaks: Peaks) -> None:
        self._model, self._text, self._peaks = model, text, peaks
        self._length, self._targets = len(text.words), max(1, len(model.shape.targets))
        layers = model.shape.layers
        self._depth = 0.3 + 0.7 * (1 + np.arange(layers)) / layers  # later layers contribute more
        trigger = model.trigger(text)
        planted = model.suppressors if trigger >= 0 else []
        self._suppressors = [(one, self._length - 1 if one.at_answer else trigger) for one in planted]
        self._trigger = trigger

    def _random(self, stream: str) -> np.random.Generator:
        """A generator of its own for each part, so that no group changes another's values."""
        return self._model.shape.random(stream, self._text.index)

    # --- direct contributions -----------------------------------------------------------------------------------------

    @cached_property
    def logits(self) -> dict[str, np.ndarray]:
        """The quantities of the group `logits`."""
        shape, cells = self._model.shape, (self._length, self._model.shape.layers, self._targets)
        random = self._random("contributions").standard_normal((*cells, shape.heads + 2))
        heads = _grid(_HEAD * self._depth[:, None, None] * random[..., :-2]).swapaxes(2, 3)
        mlp = _grid(_MLP * self._depth[:, None] * random[..., -2])
        embed = _grid(_EMBED * random[:, 0, :, -1])
        neuron, logit = self._neurons_at_answer
        others = mlp[-1].copy()
        mlp[-1] += np.nansum(logit, axis=-1)
        attn = heads.sum(axis=2)
        return {
            "embed_logit": embed,
            "attn_logit": attn,
            "mlp_logit": mlp,
            "head_logit": heads,
            "target_logit": embed + attn.sum(axis=1) + mlp.sum(axis=1),
            "logit_neuron": self._only_answer(neuron, -1),
            "neuron_logit": self._only_answer(logit, np.nan),
            "other_neurons_logit": self._only_answer(others, np.nan),
            "source_logit": _split(heads[-1], self._length, self._random("sources").standard_normal(heads.shape)),
            "final_scale": self._random("final norm").lognormal(-1, 0.1, 1),
            "norm_bias_logit": np.zeros((1, self._targets)),
            "head_bias_logit": np.zeros((1, self._targets)),
        }

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """The quantities of the targets: their tokens, and the pretended model's own logits of them."""
        tokens, against = (np.array([ids]) for ids in self._model.target_ids)
        return {"target_token": tokens, "against_token": against, "answer_logit": self.logits["target_logit"][-1:]}

    @cached_property
    def _neurons_at_answer(self) -> tuple[np.ndarray, np.ndarray]:
        """Neurons [layer, target, 2k] and their contributions: the most promoting first, then the most suppressing."""
        neuron, logit = self._candidates
        k = self._model.shape.top_k
        chosen, values = np.full((*logit.shape[:2], 2 * k), -1), np.full((*logit.shape[:2], 2 * k), np.nan)
        for start, sign in ((0, 1), (k, -1)):
            order = np.argsort(-sign * logit, axis=-1, kind="stable")[..., :k]
            found = np.take_along_axis(logit, order, axis=-1)
            right = sign * found > 0
            here = np.s_[..., start : start + order.shape[-1]]
            chosen[here] = np.where(right, np.take_along_axis(neuron[:, None], order, axis=-1), -1)
            values[here] = np.where(right, found, np.nan)
        return chosen, values

    @cached_property
    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each layer at the answer position its peaks and as many others [layer, neuron]; their contributions."""
        shape, model = self._model.shape, self._model
        count = min(2 * shape.top_k, shape.d_ff)
        drawn = self._random("at answer").standard_normal((shape.layers, self._targets, count))
        drawn = _grid(_NEURON * self._depth[:, None, None] * drawn)
        neuron = np.empty((shape.layers, count), np.int64)
        for layer, known in enumerate(self._peaks.neuron[-1]):
            others = model.neuron_order[layer][~np.isin(model.neuron_order[layer], known)]
            neuron[layer] = np.concatenate([known, others])[:count]
        for one, token in self._suppressors:
            if token == self._length - 1:
                neuron[one.layer] = np.where(neuron[one.layer] == one.neuron, -2, neuron[one.layer])  # it stands once
                neuron[one.layer, -1], drawn[one.layer, 0, -1] = one.neuron, one.effect / 2
        return neuron, drawn

    def _only_answer(self, values: np.ndarray, missing: float) -> np.ndarray:
        """Values at the answer position, none elsewhere; [token, …]."""
        found = np.full((self._length, *values.shape), missing)
        found[-1] = values
        return found

    # --- total effects ------------------------------------------------------------------------------------------------

    @cached_property
    def effects(self) -> dict[str, np.ndarray]:
        """The quantities of the group `effects`."""
        neuron, _, effect = self._neuron_effects
        order = np.argsort(-np.abs(effect), axis=-1, kind="stable")
        shape = self._model.shape
        drawn = self._random("head effects")
        heads = _grid(_EFFECT * drawn.standard_normal((self._length, shape.layers, shape.heads, self._targets)))
        rest = _grid(_EFFECT * drawn.standard_normal(effect.shape[:-1]))
        named, kept = (np.take_along_axis(of, order, axis=-1) for of in (neuron, effect))
        return {
            "effect_neuron": np.where(kept == 0, -1, named),
            "neuron_effect": np.where(kept == 0, np.nan, kept),
            "mlp_effect": effect.sum(axis=-1) + rest,
            "attn_effect": heads.sum(axis=2),
            "head_effect": heads,
            **self._of_strongest(),
        }

    @cached_property
    def _neuron_effects(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Neurons, activations and effects, [token, layer, target, k]: the peaks, and what is planted."""
        shape = self._model.shape
        size = (self._length, shape.layers, self._targets, shape.top_k)
        neuron = np.broadcast_to(self._peaks.neuron[:, :, None], size).astype(np.int64)
        value = np.broadcast_to(self._peaks.value[:, :, None], size).astype(np.float64)
        effect = _grid(_EFFECT * self._random("neuron effects").standard_normal(size) * self._depth[:, None, None])
        for one, token in self._suppressors:
            here = np.s_[token, one.layer, 0]
            place = np.flatnonzero(neuron[here] == one.neuron)
            rank = int(place[0]) if len(place) else shape.top_k - 1
            neuron[here][rank], value[here][rank], effect[here][rank] = one.neuron, _VALUE, one.effect
        return neuron, value, effect

    @cached_property
    def strongest(self) -> Strongest:
        """The strongest neurons of the whole prompt but its first token."""
        neuron, value, effect = (of.transpose(2, 0, 1, 3).reshape(self._targets, -1) for of in self._neuron_effects)
        shape = self._model.shape
        if self._length > 1:
            effect = effect.copy()
            effect[:, : shape.layers * shape.top_k] = 0
        cells = (self._length, shape.layers, shape.top_k)
        where = np.full((self._targets, 2 * SIGNED), -1)
        for start, sign in ((0, 1), (SIGNED, -1)):
            order = np.argsort(-sign * effect, axis=1, kind="stable")[:, :SIGNED]
            right = sign * np.take_along_axis(effect, order, axis=1) > 0
            where[:, start : start + order.shape[1]] = np.where(right, order, -1)
        there = where >= 0
        token, layer, _ = np.unravel_index(np.maximum(where, 0), cells)
        found = [np.take_along_axis(of, np.maximum(where, 0), axis=1) for of in (neuron, value, effect)]
        logit = np.where(there, self._direct_of(token, layer, found[0]), np.nan)
        places = [np.where(there, of, -1) for of in (token, layer, found[0])]
        value, effects = (np.where(there, of, np.nan) for of in found[1:])
        return Strongest(places[0], places[1], places[2], value, effects, logit)

    def _direct_of(self, token: np.ndarray, layer: np.ndarray, neuron: np.ndarray) -> np.ndarray:
        """Direct contributions of neurons, [target, strongest]: those at the answer position, else exactly 0."""
        known, logit = self._candidates
        same = known[layer] == neuron[..., None]  # [target, strongest, candidate]
        own = logit[layer, np.arange(self._targets)[:, None]]
        return np.where(token == self._length - 1, np.where(same, own, 0).sum(axis=-1), 0.0)

    def _of_strongest(self) -> dict[str, np.ndarray]:
        """What the strongest are, write and read; those of a prompt stand behind an axis of length 1."""
        of = self.strongest
        token, logit = self._written()
        read, component, through = self._reads()
        names = ("position", "layer", "neuron", "value", "effect", "logit")
        values = (of.token, of.layer, of.neuron, of.value, of.effect, of.logit)
        found = {f"strongest_{name}": one[None] for name, one in zip(names, values, strict=True)}
        found |= {"write_token": token[None], "write_logit": logit[None]}
        return found | {"neuron_read": read, "read_component": component[None], "read_through": through}

    def _is(self, one: Suppressor, token: int) -> np.ndarray:
        """Which of the strongest of the first target is a planted neuron at a token."""
        of = self.strongest
        return np.asarray((of.neuron[0] == one.neuron) & (of.layer[0] == one.layer) & (of.token[0] == token))

    def _written(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that each promotes and demotes, and how strongly; what is planted demotes its target most."""
        of = self.strongest
        drawn = self._random("written")
        size = (*of.neuron.shape, 2 * WRITTEN)
        tokens = drawn.integers(len(WORDS), size=size)
        strength = _grid(0.2 + np.abs(drawn.standard_normal(size)))
        logit = np.concatenate([-np.sort(-strength[..., :WRITTEN]), np.sort(-strength[..., WRITTEN:])], axis=-1)
        for one, token in self._suppressors:
            mine = self._is(one, token)
            tokens[0, mine, WRITTEN], logit[0, mine, WRITTEN] = len(WORDS), 2 * one.effect
        none = of.neuron[..., None] < 0
        return np.where(none, -1, tokens), np.where(none, np.nan, logit)

    def _reads(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gate and up of each, split by source [token, target, strongest, part] and by component; through which."""
        of, shape = self.strongest, self._model.shape
        drawn = self._random("read")
        size = (self._length, *of.neuron.shape, PARTS)
        read = _grid(_READ * drawn.standard_normal(size))
        layer = np.maximum(of.layer, 0)[..., None]
        through = 1 + 2 * drawn.integers(0, np.broadcast_to(layer, size) + 1)  # through the attention of a layer
        at = np.maximum(of.token, 0)
        own = np.arange(self._length)[:, None, None] == at
        through = np.where(own[..., None], 0, through)  # the token itself is read as it was embedded
        for one, token in self._suppressors:
            mine = self._is(one, token)
            read[:, 0, mine] = _grid(0.02 * read[:, 0, mine])
            read[self._trigger, 0, mine] = TRIGGER_READ
        later = (np.arange(self._length)[:, None, None] > at)[..., None]
        none = np.broadcast_to((of.neuron < 0)[..., None], size)
        read = np.where(later, 0.0, read)
        component = np.zeros((*of.neuron.shape, PARTS, 2 + 2 * shape.layers))
        for source in range(self._length):
            np.put_along_axis(
                component,
                through[source][..., None],
                np.take_along_axis(component, through[source][..., None], axis=-1) + read[source][..., None],
                axis=-1,
            )
        component = np.where(none[0][..., None], np.nan, component)
        return np.where(none, np.nan, read), component, np.where(none | later, -1, through)


def _grid(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _GRID) / _GRID


def _split(whole: np.ndarray, parts: int, drawn: np.ndarray) -> np.ndarray:
    """Numbers split into parts along a first axis; what the others leave is the first one's."""
    found = _grid(drawn / np.sqrt(parts) * np.abs(whole))
    found[0] = 0
    found[0] = whole - found.sum(axis=0)
    return found
