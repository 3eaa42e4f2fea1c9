"""The pretended model and prompts behind a simulated trace: sizes, words, typical strengths, and what is planted where.

Everything here is fixed for a whole simulation and follows from its `SimulationSize` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stratoscope import defaults
from stratoscope.recorder.simulated.cast import CLASSES, Cast
from stratoscope.recorder.simulated.strengths import Likeness, usual
from stratoscope.recorder.simulated.vocabulary import CRITICAL_THINGS, UNUSUAL, WORDS, code, twins, unlike_any_other
from stratoscope.trace.lenses import JACOBIAN_LENS, LOGIT_LENS, name_of_half, name_of_part

EFFECTS = (3.0, -2.0, 1.5, 1.0)  # Cohen's d of the class-selective neurons
PEAK_SHARE = 0.5  # of the critical prompts' user tokens, where the planted neuron is the strongest peak
COLUMN_SPREAD = 0.25  # of the logarithms of ‖W_:,i‖₂
SINK_RATIO = 25.0  # MLP write / residual of the first token in the sink's layer
SINK_MASS = 0.7  # median attention on the first token
ANOMALY_MASS = 0.8  # least attention on the unusual token
SUPPRESSION = (-6.0, -3.0)  # total effects of the suppressing neurons, at the answer position and at the trigger
TRIGGER_READ = 4.0  # of the gate and the up of a suppressing neuron, from the trigger
LENS_NAMES = (LOGIT_LENS, JACOBIAN_LENS, *(name_of_part(JACOBIAN_LENS, name_of_half(half)) for half in range(2)))
PREVIOUS_WEIGHT = 0.5  # share of x_mid that a head brings from the token before, at every token but the first …
ROUTE_WEIGHT = 0.6  # … and another head, later, from the middle of the prompt to its last token

_STREAMS = ("model", "lengths", "words", "norms", "peaks", "prompts", "pairs", "attention", "heads", "neurons",
            "suppressors", "contributions", "sources", "final norm", "at answer", "neuron effects", "head effects",
            "written", "read", "lens", "routes", "route effects", "likeness")  # fmt: skip
# a new one goes to the end: the numbers of the others stay


@dataclass(frozen=True)
class SimulationSize:
    """Sizes of a simulation; `tokens` are the fewest and the most tokens of a prompt.

    `anomaly` says whether a head is routed oddly in one prompt; `targets` and `against` are the tokens whose logits are
    explained, `every_position` whether lenses read every token rather than the last ones. `like` is what it resembles:
    its classes, lengths and strengths; nothing is planted then but the sink.
    """

    prompts: int
    tokens: tuple[int, int]
    layers: int
    d_model: int
    d_ff: int
    heads: int
    top_k: int
    seed: int
    anomaly: bool = defaults.ANOMALY
    targets: tuple[str, ...] = ()
    against: str | None = None
    every_position: bool = False
    like: Likeness | None = None

    def random(self, stream: str, index: int = 0) -> np.random.Generator:
        """A generator of its own for each purpose and prompt, so that no choice of groups changes another's values."""
        return np.random.default_rng([self.seed, _STREAMS.index(stream), index])


@dataclass(frozen=True)
class SimulatedTokens:
    """The tokens of one prompt.

    Attributes
    ----------
    index, prompt_class
        Number of the prompt, and of its class.
    words
        Token ids.
    template
        The template it begins with.
    critical
        Whether it is a critical twin.
    """

    index: int
    prompt_class: int
    words: np.ndarray
    template: int
    critical: bool


@dataclass(frozen=True)
class Anomaly:
    """One head that sends its attention to one unusual token."""

    prompt: int
    layer: int
    head: int
    token: int


@dataclass(frozen=True)
class Suppressor:
    """A neuron that suppresses the first target in critical prompts, set off by the word that they are about.

    Attributes
    ----------
    layer, neuron
        Which.
    effect
        Its total effect.
    at_answer
        Whether it acts at the answer position, or at the trigger itself.
    """

    layer: int
    neuron: int
    effect: float
    at_answer: bool


@dataclass(frozen=True)
class PlantedRoute:
    """A head that brings each token the one before it, and a later head that brings the middle token to the last.

    Attributes
    ----------
    layers, heads
        Of the former and of the latter.
    """

    layers: tuple[int, int]
    heads: tuple[int, int]


class SimulatedModel:
    """What does not change from prompt to prompt.

    Attributes
    ----------
    column_norm : ndarray, shape (layer, neuron)
        ‖W_:,i‖₂ of the pretended down projections.
    cast
        Which prompts there are.
    strengths
        What is typical of the prompts of each class.
    neuron_order : ndarray, shape (layer, neuron)
        All neurons; those that are planted stand last, behind `free_neurons` (layer,) others.
    usual_place : ndarray, shape (word, layer, k)
        Where in `neuron_order` the peaks of a word usually are.
    """

    def __init__(self, shape: SimulationSize) -> None:
        self.shape = shape
        random = shape.random("model")
        size = (shape.layers, shape.d_ff)
        like = shape.like
        self.cast = like.cast if like else Cast.of_twins(shape.prompts)
        self.strengths = like.strengths if like else (usual(shape.layers, shape.d_model),) * len(CLASSES)
        self.column_norm = random.lognormal(0, COLUMN_SPREAD, size) * (like.column_level[:, None] if like else 1)
        self.lengths = self._lengths()
        self.selective, self.peak, self.sink = self._plant_neurons(random)
        self.anomaly = self._plant_anomaly(random)
        self.suppressors = self._plant_suppressors()
        self.route = self._plant_route()
        self.neuron_order, self.free_neurons = self._order_neurons(random)
        steps = random.integers(1, 2 + (self.free_neurons[:, None] - shape.top_k) // shape.top_k, self._usual_shape)
        start = random.integers(0, shape.d_ff, self._usual_shape[:2])
        self.usual_place = start[..., None] + np.cumsum(steps, axis=-1)
        self.head_sink: np.ndarray
        self.head_reach: np.ndarray
        heads = (like.head_sink, like.head_reach) if like else heads_at_random(random, (shape.layers, shape.heads))
        self.head_sink, self.head_reach = heads

    @property
    def _usual_shape(self) -> tuple[int, int, int]:
        return len(WORDS), self.shape.layers, self.shape.top_k

    def _lengths(self) -> np.ndarray:
        """Tokens of each prompt; twins are equally long."""
        random = self.shape.random("lengths")
        if like := self.shape.like:
            of_classes = zip(like.lengths, like.cast.counts, strict=True)
            return np.concatenate([_spaced_evenly(random, *ends, count) for ends, count in of_classes])
        low, high = self.shape.tokens
        pairs = random.integers(low, high + 1, -(-self.shape.prompts // 2))
        return np.repeat(pairs, 2)[: self.shape.prompts]

    def _plant_neurons(
        self, random: np.random.Generator
    ) -> tuple[list[tuple[int, int, float]], tuple[int, int] | None, tuple[int, int]]:
        """Class-selective neurons, the class's peak and the sink's neuron; only the sink where there is no room."""
        shape = self.shape
        neurons = random.permutation(shape.d_ff)[: len(EFFECTS) + 2].tolist()
        sink_layer = min(2, shape.layers - 1)
        if shape.d_ff < shape.top_k + len(EFFECTS) + 2:
            return [], None, (sink_layer, -1)
        if shape.like:
            return [], None, (sink_layer, neurons[-1])
        places = [int(shape.layers * part) for part in (0.4, 0.5, 0.6, 0.8)]
        selective = list(zip(places, neurons[: len(EFFECTS)], EFFECTS, strict=True))
        return selective, (shape.layers // 2, neurons[-2]), (sink_layer, neurons[-1])

    def _plant_anomaly(self, random: np.random.Generator) -> Anomaly | None:
        head = int(random.integers(self.shape.heads))
        length = int(self.lengths[0])
        return Anomaly(0, self.shape.layers * 2 // 3, head, length // 3) if length >= 6 and self.shape.anomaly else None

    def _plant_suppressors(self) -> list[Suppressor]:
        """One that acts at the answer position and one at the trigger; none where no target is explained."""
        shape = self.shape
        if not shape.targets or shape.d_ff < 2 * shape.top_k:
            return []
        neurons = shape.random("suppressors").permutation(shape.d_ff)[:2].tolist()
        layers = (shape.layers * 3 // 4, shape.layers * 2 // 5)
        return [
            Suppressor(layer, neuron, effect, at_answer)
            for layer, neuron, effect, at_answer in zip(layers, neurons, SUPPRESSION, (True, False), strict=True)
        ]

    def _plant_route(self) -> PlantedRoute | None:
        """None in a model of one layer, which has no later head."""
        shape = self.shape
        if shape.layers < 2:
            return None
        one, other = shape.random("routes").integers(shape.heads, size=2).tolist()
        early = shape.layers // 4
        return PlantedRoute((early, max(early + 1, shape.layers * 2 // 3)), (one, other))

    @property
    def answer_depths(self) -> tuple[int, ...]:
        """Of each lens the depth from which it reads the model's answer first, at the last token of every prompt."""
        depths = [max(1, -(-self.shape.layers * part // 10)) for part in (7, 4)]
        return depths[0], *(depths[1] for _ in LENS_NAMES[1:])

    @property
    def target_ids(self) -> tuple[list[int], list[int]]:
        """Token ids of the targets and of what each is compared with: behind those of all words; −1 = the mean."""
        count = len(self.shape.targets)
        against = -1 if self.shape.against is None else len(WORDS) + count
        return list(range(len(WORDS), len(WORDS) + count)), [against] * count

    @property
    def token_texts(self) -> dict[str, str]:
        """Texts of all tokens by their ids."""
        more = () if self.shape.against is None else (self.shape.against,)
        return {str(number): text for number, text in enumerate((*WORDS, *self.shape.targets, *more))}

    def trigger(self, text: SimulatedTokens) -> int:
        """Where the word is that sets suppressing neurons off; −1 = none, as in neutral and in short prompts."""
        found = np.flatnonzero(np.isin(text.words[:-1], CRITICAL_THINGS) & text.critical)
        return int(found[0]) if len(found) else -1

    def _order_neurons(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shape = self.shape
        places = [(layer, neuron) for layer, neuron, _ in self.selective]
        places += [place for place in (self.peak, self.sink) if place and place[1] >= 0]
        planted = [[neuron for layer, neuron in places if layer == here] for here in range(shape.layers)]
        order = np.empty((shape.layers, shape.d_ff), np.int64)
        for layer, kept in enumerate(planted):
            mixed = random.permutation(shape.d_ff)
            order[layer] = np.concatenate([mixed[~np.isin(mixed, kept)], kept])
        return order, np.array([shape.d_ff - len(kept) for kept in planted])

    def drawn_as(self, index: int) -> int:
        """The prompt by whose random numbers one is drawn: in a look-alike a class's second half by those of the first.

        What is above the mean in one is below it in the other, so that together they are like their class (`sign`).
        """
        half = self.cast.counts[self.cast.class_of(index)] // 2
        return index - half if self.shape.like and half <= self.cast.number_of(index) < 2 * half else index

    def sign(self, index: int) -> int:
        """−1 where a prompt is drawn the other way round, else 1."""
        return 1 if self.drawn_as(index) == index else -1

    def differences(self, index: int) -> np.ndarray:
        """How a prompt of a look-alike differs from its class, in units of their spread, (kind of number, layer)."""
        size = (4, self.shape.layers)
        if not self.shape.like:
            return np.zeros(size)
        return self.sign(index) * self.shape.random("likeness", 1 + self.drawn_as(index)).standard_normal(size)

    def text(self, index: int) -> SimulatedTokens:
        """The words of a prompt."""
        random, length = self.shape.random("words", self.cast.pair_of(index)), int(self.lengths[index])
        of_class = self.cast.class_of(index)
        if self.shape.like:
            words, template = unlike_any_other(random, length)
            return SimulatedTokens(index, of_class, words, template, critical=False)
        critical, neutral, template = twins(random, length)
        words = neutral if of_class else critical
        if self.anomaly and index == self.anomaly.prompt:
            words[self.anomaly.token] = code(UNUSUAL)
        return SimulatedTokens(index, of_class, words, template, critical=of_class == 0)

    def planted(self, kinds: Collection[str]) -> list[dict[str, Any]]:
        """What was planted of these kinds, with its size, as JSON."""
        return [entry for entry in self._everything_planted() if entry["kind"] in kinds]

    def _everything_planted(self) -> Iterator[dict[str, Any]]:
        measure = "Cohen's d of prompt_mean between the classes, critical minus neutral"
        for layer, neuron, effect in self.selective:
            yield _entry("selective_neuron", effect, measure, layer=layer, neuron=neuron, prompt_class=CLASSES[0])
        if self.peak:
            measure = "share of the class's user tokens whose strongest peak it is; never a peak in the other class"
            layer, neuron = self.peak
            yield _entry("class_peak", PEAK_SHARE, measure, layer=layer, neuron=neuron, prompt_class=CLASSES[0])
        measure = "mlp_write_ratio of the first token of every prompt; the neuron is its strongest peak"
        layer, neuron = self.sink
        yield _entry("sink", SINK_RATIO, measure, token=0, layer=layer, neuron=neuron)
        if not self.shape.like:
            yield _entry("attention_sink", SINK_MASS, "median of attn_first", token=0)
        for one in self.suppressors:
            place = "at the answer position" if one.at_answer else "at the trigger"
            measure = f"total effect on the first target {place} of prompts that hold a trigger, which sets it off"
            yield _entry("suppressor", one.effect, measure, layer=one.layer, neuron=one.neuron, prompt_class=CLASSES[0])
        for lens, depth in zip(LENS_NAMES[:2], self.answer_depths, strict=False):
            measure = f"depth from which on the {lens} lens reads the model's answer first, at the last token"
            yield _entry("answer_depth", depth, measure)
        if self.route:
            (early, late), (near, far) = self.route.layers, self.route.heads
            measure = "route_weight of the edge from the token before, at every token but the first"
            yield _entry("previous_token_head", PREVIOUS_WEIGHT, measure, layer=early, head=near)
            measure = "route_weight of the edge from the middle token (number of tokens // 2) to the last"
            yield _entry("route", ROUTE_WEIGHT, measure, layer=late, head=far)
        if self.anomaly:
            measure, at = "least share of the attention of every later token that goes to this token", self.anomaly
            where: dict[str, Any] = {
                "prompt": self.cast.identity(at.prompt),
                "token": at.token,
                "layer": at.layer,
                "head": at.head,
            }
            yield _entry("routing_anomaly", ANOMALY_MASS, measure, **where)


def _spaced_evenly(random: np.random.Generator, low: int, high: int, count: int) -> np.ndarray:
    """Lengths of prompts in any order, the same in both halves, their mean midway between the ends."""
    half = np.round(np.linspace(low, high, count // 2)) if count > 3 else np.full(count // 2, (low + high) // 2)
    half = random.permutation(half)
    return np.concatenate([half, half, [(low + high) // 2] * (count % 2)]).astype(int)


def heads_at_random(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Log odds of the first token, and preference for near tokens, of each head."""
    return random.normal(np.log(SINK_MASS / (1 - SINK_MASS)), 0.8, size), random.uniform(0, 3, size)


def _entry(kind: str, effect: float, measure: str, *, prompt_class: str = "", **where: Any) -> dict[str, Any]:
    """One line of the list: `token` is a position in its prompt, a neuron of −1 stands for none in particular."""
    named = {"class": prompt_class} if prompt_class else {}
    return {"kind": kind, **where, **named, "effect": effect, "measure": measure}
