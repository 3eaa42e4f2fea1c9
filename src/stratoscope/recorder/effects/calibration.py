"""How far total effects can be believed: a sample of them is really ablated before anything is recorded.

The prompts are drawn from all of a recording, each runs alone, and nothing depends on which part of them is recorded:
so every part of a recording measures the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stratoscope import defaults
from stratoscope.analysis.statistics.agreement import agreement
from stratoscope.errors import InputError
from stratoscope.model.head import Head
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.names import LOGITS
from stratoscope.progress import Progress
from stratoscope.recorder.effects.ablations import TOKENS_AT_ONCE, Ablation, Values, each_ablated
from stratoscope.recorder.effects.all_prompts import AllPrompts
from stratoscope.recorder.effects.asked import EffectSettings
from stratoscope.recorder.effects.baseline import Baseline, mean_baseline, written_at
from stratoscope.recorder.effects.gradients import Gradients, SiteGradient
from stratoscope.recorder.effects.of_everything import OfEverything
from stratoscope.recorder.effects.path import PathIntegral
from stratoscope.recorder.effects.sample import calibration_prompts, draw, portions, tokens_drawn_from
from stratoscope.recorder.effects.strongest import EffectTables, Strongest
from stratoscope.recorder.effects.writes import FrozenScales, Writes
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.memory import unless_out_of_memory
from stratoscope.recorder.observe import Observer, last_logits_only
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.trace.calibration import KINDS, Kind, Samples

_STAGE = "calibrating total effects"
_DIGITS = 7  # of a stored number
_PLACES = ("position", "layer", "index")


@dataclass(frozen=True)
class Item:
    """Something that is ablated: a neuron, an MLP, a head or an attention block at one token of a prompt."""

    kind: Kind
    prompt: int
    position: int
    layer: int
    index: int

    def ablation(self, values: Values) -> Ablation:
        """It alone, set to these values."""
        there = [(self.layer, self.index)]
        return Ablation(
            neurons=there if self.kind == "neuron" else (),
            heads=there if self.kind == "head" else (),
            mlps=[self.layer] if self.kind == "mlp" else (),
            attentions=[self.layer] if self.kind == "attn" else (),
            positions=[self.position],
            values=values,
        )


@dataclass(frozen=True)
class Measured:
    """What was ablated so far, and what came of it: one entry an item, of each baseline and target.

    Attributes
    ----------
    items
        What was ablated.
    first_order, measured
        Its effect as it is recorded, and the change that ablating it makes.
    direct
        Of each target, direct contributions; NaN before the answer position.
    floors
        Of each prompt, how much a target changes where nothing is ablated.
    """

    items: list[Item]
    first_order: dict[tuple[str, int], list[float]]
    measured: dict[tuple[str, int], list[float]]
    direct: list[list[float]]
    floors: list[float]

    @classmethod
    def nothing(cls, baselines: Iterable[str], targets: int) -> Measured:
        """Before the first prompt."""
        keys = [(how, target) for how in baselines for target in range(targets)]
        return cls([], {key: [] for key in keys}, {key: [] for key in keys}, [[] for _ in range(targets)], [])


class Calibrator:
    """Ablates a sample of a recording's effects.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    targets
        The targets of the batch in hand.
    prompts
        Those of the whole recording.
    asked, baseline
        How the recorded effects are counted, from where, and how many of each kind are ablated.

    Attributes
    ----------
    chosen
        Indices of the prompts on which items are ablated.
    limits
        What could not be done, in sentences.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        targets: BatchTargets,
        prompts: AllPrompts,
        asked: EffectSettings,
        baseline: Baseline,
    ) -> None:
        self._model, self._sites, self._targets, self._prompts = model, sites, targets, prompts
        self._asked, self._own = asked, asked.baseline
        self.chosen, self.limits = calibration_prompts(len(prompts.names), asked.calibration), list[str]()
        self._portions = portions(asked.calibration, len(self.chosen))
        self._gradients = Gradients(model, sites)
        assert isinstance(sites.head, Head)  # there are no targets without
        self._head = sites.head
        self._contributions = Observer(model, sites, (LOGITS,), 1, targets)
        self._writes = Writes(model, sites, sites.head, targets.directions.vocabulary)
        self._baselines = {"zero": Baseline(), **self._means(baseline if asked.baseline == "mean" else None)}
        kinds = self._gradients.kinds
        self._written = {how: written_at(model, sites, kinds, one) for how, one in self._baselines.items()}
        path = (model, sites, self._gradients, baseline, self._written[self._own], asked.steps)
        self._path = PathIntegral(*path) if asked.steps > 1 else None

    def _means(self, known: Baseline | None) -> dict[str, Baseline]:
        """Those that the recording counts from, else those of the sample; none where it has no words of its own."""
        if known is not None:
            return {"mean": known}
        batches = (self._prompts.batch([index]) for index in self.chosen)
        try:
            return {"mean": mean_baseline(self._model, self._sites, batches, lambda _: None)}
        except InputError:
            self.limits.append("Calibrated by setting to zero only: no prompt has words of its own to take means of.")
            return {}

    # --- one prompt after the other -------------------------------------------------------------------------------

    def measure(self, progress: Progress) -> dict[str, Any]:
        """Ablate items of every prompt of the sample: what `receipt["calibration"]` holds.

        `progress` is called with (stage, done, total).
        """
        found = Measured.nothing(self._baselines, len(self._targets))
        for place in range(len(self.chosen)):
            progress(_STAGE, place, len(self.chosen))
            self.add(place, found)
        progress(_STAGE, len(self.chosen), len(self.chosen))
        return self._facts(found)

    def seconds(self) -> float:
        """What `measure` takes, from doing it on the prompt of middle length; its work grows with the tokens."""
        lengths = [self._prompts.lengths[index] for index in self.chosen]
        middle = sorted(range(len(lengths)), key=lengths.__getitem__)[len(lengths) // 2]
        start = time.perf_counter()
        self.add(middle, Measured.nothing(self._baselines, len(self._targets)))
        return (time.perf_counter() - start) * sum(lengths) / lengths[middle]

    def add(self, place: int, found: Measured) -> None:
        """Ablate the items of one prompt of the sample."""
        number = self.chosen[place]
        prompt = self._prompts.encoded(number)
        batch = self._prompts.batch([number])
        self._targets.begin(batch)
        numbers = sum(self._sites.widths) * len(self._targets) * len(self._baselines)
        tokens = tokens_drawn_from(len(prompt.ids), numbers, place)
        with FrozenScales(self._model, self._sites, self._head) as scales:
            y, effects = self._effects(batch, tokens, self._prompts.names[number])
        own, items = effects[self._own], list[Item]()
        for kind in KINDS:
            chosen = draw(own.of(kind, 0), self._portions[place], place)
            items += [
                Item(kind, number, int(tokens[token]), layer, own.number(kind, layer, token, column))
                for token, layer, column in chosen
            ]
            for (how, target), values in found.first_order.items():
                of_layers = effects[how].of(kind, target)
                values += [_stored(_at(of_layers[layer], token, column)) for token, layer, column in chosen]
        found.items.extend(items)
        direct = self._direct(batch, items, len(prompt.ids) - 1, own, scales)
        for values, own_direct in zip(found.direct, direct, strict=True):
            values += map(_stored, own_direct.tolist())
        self._ablate(prompt, y, items, found)

    def _ablate(self, prompt: TokenisedPrompt, y: np.ndarray, items: Sequence[Item], found: Measured) -> None:
        """What every item changes under every baseline, and by how much y differs where nothing is set."""
        values = {how: baseline.values for how, baseline in self._baselines.items()}
        rows = [Ablation(), *(item.ablation(values[how]) for how in values for item in items), Ablation()]
        changed, rounding = np.empty((len(rows), len(self._targets))), 0.0
        size = max(1, TOKENS_AT_ONCE // len(prompt.ids))
        for places, logits in each_ablated(
            self._model, self._sites, [prompt], rows, batching=replace(self._prompts.batching, size=size)
        ):
            both = (ids.expand(len(places), -1) for ids in (self._targets.token, self._targets.against))
            changed[[*places]] = self._targets.directions.values(logits[:, -1], *both).cpu().numpy()
            rounding = max(rounding, _rounding(logits[:, -1]))
        alone, last = changed[0], changed[-1]
        found.floors.append(float(max(np.abs(alone - last).max(), np.abs(alone - y).max(), rounding)))
        effects = (alone - changed[1:-1]).reshape(len(values), len(items), len(self._targets))
        for of_baseline, how in zip(effects, values, strict=True):
            for target in range(len(self._targets)):
                found.measured[how, target] += map(_stored, of_baseline[:, target])

    def _direct(
        self, batch: Batch, items: Sequence[Item], last: int, own: OfEverything, scales: FrozenScales
    ) -> np.ndarray:
        """What items at the answer position add to each target themselves, [target, item]; NaN of all others."""
        found = np.full((len(self._targets), len(items)), np.nan)
        places = [n for n, item in enumerate(items) if item.position == last]
        neurons = [n for n in places if items[n].kind == "neuron"]
        if neurons:
            found[:, neurons] = self._direct_of_neurons([items[n] for n in neurons], last, own, scales)
        others = [n for n in places if items[n].kind != "neuron"]
        if others:
            with self._contributions:
                arrays, _ = self._contributions.record(batch, **last_logits_only(self._model))
            for n in others:
                of_layer = arrays[f"{items[n].kind}_logit"][last, items[n].layer]
                found[:, n] = of_layer[items[n].index] if items[n].kind == "head" else of_layer
        return found

    def _direct_of_neurons(
        self, items: Sequence[Item], last: int, own: OfEverything, scales: FrozenScales
    ) -> np.ndarray:
        value, factor = np.array([own.at_answer(item.layer, item.index) for item in items]).T
        layer, neuron = np.array([(item.layer, item.index) for item in items], np.int32).T
        row = np.full(len(items), last, np.int32)
        shape = (1, len(self._targets), len(items))
        strongest = Strongest(*(np.broadcast_to(one, shape) for one in (row, layer, neuron, value, value, factor)))
        factors = scales.of(strongest.layer, strongest.neuron, strongest.row, strongest.factor)
        found: np.ndarray = self._writes.logits(strongest, factors, self._targets.vectors(), row[:1])[0]
        return found

    # --- effects as they are recorded -----------------------------------------------------------------------------

    def _effects(
        self, batch: Batch, tokens: NDArray[np.int64], name: str
    ) -> tuple[np.ndarray, dict[str, OfEverything]]:
        """y, [target], and the effects from every baseline at these tokens of a prompt alone in its batch.

        Where that does not fit into memory its blocks are computed once more, backward, as in recording.
        """
        work = partial(self._differentiated, batch, tokens, name)
        return unless_out_of_memory(partial(work, recompute=False)) or work(recompute=True)

    def _differentiated(
        self, batch: Batch, tokens: NDArray[np.int64], name: str, *, recompute: bool
    ) -> tuple[np.ndarray, dict[str, OfEverything]]:
        kept = {}
        for how, baseline in self._baselines.items():
            tables = EffectTables(
                *(self._sites, self._gradients.heads, baseline, self._written[how], batch),
                targets=len(self._targets),
                top_k=1,
                ids=[name],
            )
            kept[how] = OfEverything(self._sites, self._gradients.heads, tables, tokens)
        receive = partial(self._first_order, kept)
        y, _ = self._gradients.run(batch, self._targets.values, receive, recompute=recompute)
        if self._path is not None:
            self._path.run(batch, self._targets.values, kept[self._own].receive)
        return y.cpu().numpy()[0], kept

    def _first_order(self, kept: Mapping[str, OfEverything], seen: SiteGradient) -> None:
        """Give what a backward shows to all but those that are integrated."""
        for how, one in kept.items():
            integrated = self._path is not None and (seen.layer, seen.kind) in self._path.kinds
            if not (integrated and how == self._own):
                one.receive(seen)

    # --- in the end -------------------------------------------------------------------------------------------------

    def _facts(self, found: Measured) -> dict[str, Any]:
        """What is stored of it; statistics are reckoned from the numbers that are."""
        cluster = np.array([item.prompt for item in found.items], np.int64)
        places = {name: np.array([getattr(item, name) for item in found.items], np.int64) for name in _PLACES}
        samples = Samples(
            kind=tuple(item.kind for item in found.items),
            prompt=tuple(self._prompts.names[item.prompt] for item in found.items),
            **places,
            first_order={key: np.array(values) for key, values in found.first_order.items()},
            measured={key: np.array(values) for key, values in found.measured.items()},
            direct={target: np.array(values) for target, values in enumerate(found.direct)},
        )
        floor = _stored(max(found.floors, default=0.0))
        agreements = []
        for kind in KINDS:
            mine = np.array([item.kind == kind for item in found.items], bool)
            for (how, target), measured in samples.measured.items():
                first = samples.first_order[how, target][mine]
                one = agreement(first, measured[mine], cluster[mine], floor=floor, seed=defaults.SEED)
                agreements.append({"kind": kind, "baseline": how, "target": target, **one.to_json()})
        return {
            "asked": self._asked.calibration,
            "baseline": self._own,
            "steps": self._asked.steps,
            "prompts": [self._prompts.names[index] for index in self.chosen],
            "floor": floor,
            "agreement": [one for one in agreements if one["count"]],
            "samples": samples.to_json(),
            "limits": self.limits,
        }


def _at(effects: NDArray[np.float32] | None, token: int, column: int) -> float:
    assert effects is not None  # it was drawn from
    return float(effects[token, column])


def _stored(value: float) -> float:
    """A number as it is stored."""
    return float(f"{value:.{_DIGITS}g}")


def _rounding(logits: Tensor) -> float:
    """What rounding may do to a difference of logits: an ablated forward rounds anew in every later layer.

    Against float64 the largest seen in float32 is 16 roundings of the largest logit; half precision rounds the logit
    itself.
    """
    unit = unit_roundoff(logits.dtype)
    return (16 if unit < 2**-20 else 1) * unit * float(logits.abs().max())
