"""One call of `ablate`: what is needed is recorded, and every prompt runs under every ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.model.heads import heads_of
from stratoscope.model.load import LoadedModel
from stratoscope.probe.ablation.asked import AblationSettings
from stratoscope.probe.ablation.averages import averages
from stratoscope.probe.ablation.check import refuse_missing
from stratoscope.probe.ablation.controls import Matched, matched, random_direction
from stratoscope.probe.ablation.courses import courses
from stratoscope.probe.ablation.cumulative import Curves, curves
from stratoscope.probe.ablation.first_order import Slopes, slopes, strongest
from stratoscope.probe.ablation.measure import measured
from stratoscope.probe.ablation.members import Member
from stratoscope.probe.ablation.replacing import Replacing, chosen_donors
from stratoscope.probe.ablation.subject import Subject
from stratoscope.progress import Progress
from stratoscope.recorder.effects.ablations import Ablation
from stratoscope.recorder.effects.baseline import means_of
from stratoscope.recorder.prompts.prompt import PromptList
from stratoscope.trace.arrays import Floats

Set = tuple[Member, ...]
CONTROLS = ("matched", "direction")  # random neurons and heads like those of a set, and random directions


@dataclass(frozen=True)
class Found:
    """What all reruns gave.

    Attributes
    ----------
    sets, matches
        What was ablated, and the random sets that each is compared with.
    own
        The model's own targets and openers, [prompt, outcome].
    measured
        What ablating takes away, [set, draw, prompt, outcome].
    control
        The same of random sets and of random directions, [control, set, draw, prompt, outcome]; NaN = there is none.
    first_order, direct
        [set, prompt, target].
    floor
        [outcome].
    donors
        As `Replacing.donors`.
    """

    sets: tuple[Set, ...]
    matches: tuple[Matched, ...]
    own: Floats
    measured: Floats
    control: Floats
    first_order: Floats
    direct: Floats
    floor: Floats
    donors: np.ndarray
    curves: Curves | None


def run(loaded: LoadedModel, prompts: PromptList, asked: AblationSettings, progress: Progress) -> tuple[Subject, Found]:
    """Everything that `ablate` measures."""
    subject = Subject(loaded, prompts, asked, progress)
    refuse_missing(asked.members, subject.model, subject.sites)
    donors = _donors(subject, asked)
    members = asked.members or tuple(_strongest(subject, asked))
    replacing = _replacing(subject, asked, members, donors)
    slope = slopes(subject, members)
    if asked.cumulative:
        effects = [abs(_first_order(replacing, slope, subject, (one,))[:, 0].mean()) for one in members]
        members = tuple(members[place] for place in np.argsort(-np.array(effects), kind="stable")[: asked.cumulative])
    one_set = len(members) == 1 or not asked.members
    sets = (members,) if one_set else (*((one,) for one in members), members)
    rng = np.random.default_rng(asked.seed)
    heads = {layer: count for layer, (count, _) in replacing.widths.items()}
    matches = tuple(matched(one, members, replacing.averages.writes, heads, asked.draws, rng) for one in sets)
    if asked.how == names.RESAMPLE:
        others = sorted({other for match in matches for some in match.sets for other in some})
        replacing = replace(replacing, courses={**replacing.courses, **courses(subject, others)})
    own, taken, control, floor = _measured(subject, replacing, sets, matches, asked, progress)
    return subject, Found(
        sets=sets,
        matches=matches,
        own=own,
        measured=taken,
        control=control,
        first_order=np.stack([_first_order(replacing, slope, subject, one) for one in sets]),
        direct=np.stack([_direct(replacing, subject, one) for one in sets]),
        floor=floor,
        donors=donors,
        curves=None
        if not asked.cumulative
        else curves(subject, replacing, members, orders=asked.draws, seed=asked.seed, progress=progress),
    )


def _donors(subject: Subject, asked: AblationSettings) -> np.ndarray:
    """Whose values prompts are given; themselves, once, where those are no other prompt's."""
    lengths = [len(one.ids) for one in subject.tokens]
    if asked.how != names.RESAMPLE:
        return np.arange(len(lengths))[:, None]
    return chosen_donors(lengths, subject.ids, everywhere=subject.everywhere, draws=asked.draws, seed=asked.seed)


def _strongest(subject: Subject, asked: AblationSettings) -> list[Member]:
    layers = [layer for layer, width in enumerate(subject.sites.widths) if width]
    if not layers:
        raise InputError("has no MLP, so no neurons", where="model", fix="Name heads.")
    if asked.mean_of is not None:
        return strongest(subject, _means_of(subject, asked.mean_of), asked.cumulative)
    means = None if asked.how == names.ZERO else averages(subject, layers, ()).neurons
    return strongest(subject, means, asked.cumulative)


def _means_of(subject: Subject, trace: Path) -> dict[int, Tensor]:
    """The means of neurons that another trace of this model holds."""
    found = means_of(trace, subject.sites, subject.loaded.identity["weights_sha256"])
    return {layer: values[0].double() for layer, values in found.values.neurons.items()}


def _replacing(subject: Subject, asked: AblationSettings, members: Set, donors: np.ndarray) -> Replacing:
    of_neurons, of_heads = ({one.layer for one in members if one.kind == kind} for kind in ("neuron", "head"))
    found = {layer: heads_of(subject.model, subject.sites, layer) for layer in of_heads}
    given = None if asked.mean_of is None else _means_of(subject, asked.mean_of)  # may be refused
    if asked.how == names.MEAN and given is None and all(len(one.ids) == 1 for one in subject.tokens):
        raise InputError(
            "no prompt has a token behind its first, so there is no mean to set",
            where="how",
            fix="Give longer prompts, --how zero, or --mean-of with a trace of others.",
        )
    means = averages(subject, of_neurons, of_heads)
    if given is not None:
        means = replace(means, neurons=given)
    return Replacing(
        how=asked.how,
        everywhere=subject.everywhere,
        lengths=[len(one.ids) for one in subject.tokens],
        starts=[subject.start(len(one.ids)) for one in subject.tokens],
        averages=means,
        courses=courses(subject, members),
        widths={layer: (heads.count, heads.width) for layer, heads in found.items() if heads is not None},
        donors=donors,
    )


def _first_order(replacing: Replacing, slope: Slopes, subject: Subject, members: Set) -> Floats:
    """Σ of what ablating takes away × ∂y/∂ of it, over the tokens at which is ablated: [prompt, target]."""
    found = np.zeros((len(subject.tokens), subject.targets))
    for prompt in range(len(found)):
        for draw in range(replacing.draws):
            start = replacing.tokens(prompt, draw).start
            for one in members:
                terms = replacing.change(prompt, one, draw) * slope[prompt, one][:, start:]
                found[prompt] += terms.double().sum((1, 2)).numpy() / replacing.draws
    return found


def _direct(replacing: Replacing, subject: Subject, members: Set) -> Floats:
    """Σ of what ablating takes away at the answer position × what a unit of it adds directly: [prompt, target]."""
    found = np.zeros((len(subject.tokens), subject.targets))
    for prompt in range(len(found)):
        for draw in range(replacing.draws):
            for one in members:
                terms = replacing.change(prompt, one, draw)[-1] * replacing.courses[prompt, one].direct
                found[prompt] += terms.double().sum(1).numpy() / replacing.draws
    return found


def _measured(
    subject: Subject,
    replacing: Replacing,
    sets: Sequence[Set],
    matches: Sequence[Matched],
    asked: AblationSettings,
    progress: Progress,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Every prompt under every ablation: what `Found` calls own, measured, control and floor."""
    shape = (len(subject.tokens), subject.outcomes)
    own, floor = np.empty(shape), np.zeros(subject.outcomes)
    taken = np.empty((len(sets), replacing.draws, *shape))
    control = np.full((len(CONTROLS), len(sets), asked.draws, *shape), np.nan)
    for prompt in range(len(subject.tokens)):
        progress("ablating", prompt, len(subject.tokens))
        rows: dict[tuple[int, ...], Ablation] = {(): Ablation()}
        for number, (members, match) in enumerate(zip(sets, matches, strict=True)):
            rows |= {(number, draw): replacing.ablation(prompt, members, draw) for draw in range(replacing.draws)}
            rows |= {(0, number, draw): replacing.ablation(prompt, one, draw) for draw, one in enumerate(match.sets)}
            if all(one.kind == "neuron" for one in members):
                for draw in range(asked.draws):
                    seed = np.random.default_rng([asked.seed, number, draw])
                    added = random_direction(replacing, subject.model, subject.sites, prompt, members, draw, seed)
                    rows[1, number, draw] = added
        values = measured(subject, prompt, list(rows.values()))
        alone = measured(subject, prompt, [Ablation()], alone=True)
        own[prompt] = values[0]
        floor = np.maximum(floor, np.abs(alone[0] - values[0]))
        for place, row in zip(rows, values, strict=True):
            if len(place) == 2:
                taken[place][prompt] = own[prompt] - row
            elif place:
                control[place][prompt] = own[prompt] - row
    progress("ablating", len(subject.tokens), len(subject.tokens))
    return own, taken, control, floor
