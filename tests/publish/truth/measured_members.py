"""Who was in it, and what it is good for: each level at 20, 50 and 100 prompts of a class, attacked, and held against
the originals. Attackers know how a level works, have other prompts of the same kind, and use the strongest of their
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from games import Draw, Scored, Told, draws, strongest
from measuring import classes_of, of_prompts

import stratoscope
from stratoscope.publish.attacks.class_means import OF_NEURONS, PROFILES, ClassMeans, class_means, prompt_rows
from stratoscope.publish.attacks.membership import scores
from stratoscope.publish.averaged import KIND, NEURONS, PROMPT_CLASS, USUAL
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.arrays import Floats, Ints

SIZES = (20, 50, 100)  # prompts of a class
MOST, MANY, SOME, FEW = 60, 20, 10, 5  # draws of each size
ALL_LEVELS = "mlp_write_ratio"  # the quantity that every level publishes
BANDS = {20: 6}  # of layers at the level private, where not each layer has its own number
LEAST_OF_NEURONS = 32  # fewer cannot be attacked before publishing, and so are refused
Published = xr.DataTree | xr.Dataset


@dataclass(frozen=True)
class Pool:
    """The prompts of both recordings, those of the corpus first, and what is averaged of each.

    Attributes
    ----------
    corpus
        The trace from which prompts are published.
    classes
        The prompts of each, by index.
    quantities
        Profiles of each quantity; [prompt, layer].
    neurons
        The mean of every neuron; [prompt, value].
    """

    corpus: xr.Dataset
    classes: Mapping[str, Ints]
    quantities: Mapping[str, Floats]
    neurons: Floats

    @classmethod
    def read(cls, corpus: xr.Dataset, reference: xr.Dataset) -> Pool:
        traces = (corpus, reference)
        classes = [classes_of(trace) for trace in traces]
        count = corpus.sizes["prompt"]
        return cls(
            corpus,
            {name: np.concatenate([classes[0][name], classes[1][name] + count]) for name in classes[0]},
            {name: np.concatenate([prompt_rows(trace, [name]) for trace in traces]) for name in USUAL},
            np.concatenate([prompt_rows(trace, [NEURONS]) for trace in traces]),
        )

    def __len__(self) -> int:
        return len(self.neurons)

    def draws(self, prompts: int, count: int) -> list[list[Draw]]:
        """So many draws of each class; members are of the corpus."""
        return draws(self.classes, self.corpus.sizes["prompt"], prompts, count)

    @property
    def profiles(self) -> Floats:
        """All of them side by side; [prompt, value]."""
        return np.concatenate(list(self.quantities.values()), axis=1)


# --- the levels -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A level that publishes means.

    Attributes
    ----------
    name
        As it stands in tables.
    publish
        What is published of a trace of some prompts.
    told
        The numbers in it of a class.
    rows
        The same numbers of each prompt of the pool; [prompt, value].
    profile
        The profile of `ALL_LEVELS` of a class as a reader sees it; None: that of another level.
    noise
        The standard deviation of the noise in a number of a class.
    count
        How many draws there are of each size.
    """

    name: str
    publish: Callable[[xr.Dataset], Published]
    told: Callable[[Published, str], Floats]
    rows: Floats
    profile: Callable[[Published, str], Floats] | None = None
    noise: Callable[[Published, str], float] = lambda published, name: 0.0
    count: int = MANY


def levels(pool: Pool, other: xr.DataTree, prompts: int) -> list[Level]:
    """All at which so many prompts of a class are published; `other`: profiles published of other prompts."""
    bands = BANDS.get(prompts)
    ratios, layers = pool.quantities[ALL_LEVELS], pool.corpus.sizes["layer"]

    def private(centre: xr.DataTree | None) -> Callable[[xr.Dataset], xr.DataTree]:
        return lambda trace: private_profiles(trace, centre=centre, bands=bands)

    def imitated(publish: Callable[[xr.Dataset], Published]) -> Callable[[xr.Dataset], xr.Dataset]:
        return lambda trace: stratoscope.simulate(like=publish(trace), record="norms,residual")

    def by_layer(published: Published, name: str) -> Floats:
        return _in_layers(_one(published, name), layers)

    banded = _in_bands(ratios, bands or layers)
    centred = private(other)
    found = [
        Level("aggregate", class_profiles, _usual, pool.profiles, by_layer),
        Level("private", private(None), _one, banded, by_layer, _noise, MOST),
        Level("private, public centre", centred, _one, banded, by_layer, _noise, MOST),
        Level("look-alike of aggregate", imitated(class_profiles), _usual, pool.profiles, _one, count=SOME),
    ]
    if not bands:  # a look-alike needs all layers
        found.append(Level("look-alike of private", imitated(centred), _one, ratios, _one, count=SOME))
    if prompts >= LEAST_OF_NEURONS:
        found.insert(1, Level("aggregate --neurons", _with_neurons, _neurons, pool.neurons, count=FEW))
    return found


def _with_neurons(trace: xr.Dataset) -> xr.DataTree:
    return class_profiles(trace, quantities=[ALL_LEVELS], neurons=True)


def _usual(published: Published, name: str) -> Floats:
    return _means(published, PROFILES).only(USUAL).means[name]


def _one(published: Published, name: str) -> Floats:
    return _means(published, PROFILES).only([ALL_LEVELS]).means[name]


def _neurons(published: Published, name: str) -> Floats:
    return _means(published, OF_NEURONS).means[name]


def _means(published: Published, part: str) -> ClassMeans:
    found = class_means(published, part)
    assert found is not None
    return found


def _noise(published: Published, name: str) -> float:
    return float(published[f"{KIND}/{ALL_LEVELS}"].to_dataset()["noise"].sel({PROMPT_CLASS: name}))


def _in_bands(rows: Floats, bands: int) -> Floats:
    return np.stack([part.mean(axis=1) for part in np.array_split(rows, bands, axis=1)], axis=1)


def _in_layers(means: Floats, layers: int) -> Floats:
    """Each band's number at each of its layers."""
    return np.repeat(means, [len(part) for part in np.array_split(np.arange(layers), len(means))])


# --- attacked, and held against the originals -------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What was measured of a level at one number of prompts.

    Attributes
    ----------
    members
        How well an attacker tells who was in it.
    differences
        The correlation over layers of the published difference of two classes with the original one; of each draw.
    profiles
        The lower of the two classes' correlations of the published profile with the original one; of each draw.
    """

    members: Told
    differences: Floats
    profiles: Floats


def outcome(level: Level, pool: Pool, prompts: int) -> Outcome:
    """Publish every draw, attack it, and hold it against its originals."""
    tests: dict[str, list[Scored]] = {}
    differences, profiles = [], []
    for turn in pool.draws(prompts, level.count):
        published = level.publish(of_prompts(pool.corpus, np.sort(np.concatenate([draw.members for draw in turn]))))
        for draw in turn:
            sides = [level.rows[some] for some in (draw.members, draw.others, draw.own)]
            mean, noise = level.told(published, draw.name), level.noise(published, draw.name)
            found = scores(mean, *sides) | (_through_noise(mean, *sides, noise) if noise else {})
            for test, (members, others) in found.items():
                tests.setdefault(test, []).append(Scored(draw, members, others))
        if level.profile:
            true = [pool.quantities[ALL_LEVELS][draw.members].mean(axis=0) for draw in turn]
            seen = [level.profile(published, draw.name) for draw in turn]
            differences.append(alike(seen[0] - seen[1], true[0] - true[1]))
            profiles.append(min(map(alike, seen, true)))
    return Outcome(strongest(tests, len(pool)), np.array(differences), np.array(profiles))


def _through_noise(
    mean: Floats, members: Floats, others: Floats, own: Floats, noise: float
) -> dict[str, tuple[Floats, Floats]]:
    """The likelihood ratio of who knows how much noise was added."""
    count, centre = len(members), own.mean(axis=0)
    spread = np.cov(own, rowvar=False) / count + noise**2 * np.eye(len(centre))
    towards = np.linalg.solve(spread, mean - centre)

    def ratio(rows: Floats) -> Floats:
        away = rows - centre
        lengths = np.einsum("pv,pv->p", away, np.linalg.solve(spread, away.T).T)
        return np.asarray(away @ towards / count - lengths / (2 * count**2))

    return {"through noise": (ratio(members), ratio(others))}


def alike(one: Floats, other: Floats) -> float:
    """A correlation; 0 where one of them says nothing."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def of_others(pool: Pool, prompts: int) -> tuple[Floats, Floats]:
    """What the originals themselves are worth: how alike they are to as many other prompts, as of `Outcome`."""
    differences, profiles = [], []
    for turn in pool.draws(prompts, MANY):
        sides = [[draw.members for draw in turn], [np.concatenate([draw.others, draw.own])[:prompts] for draw in turn]]
        true, seen = ([pool.quantities[ALL_LEVELS][some].mean(axis=0) for some in side] for side in sides)
        differences.append(alike(seen[0] - seen[1], true[0] - true[1]))
        profiles.append(min(map(alike, seen, true)))
    return np.array(differences), np.array(profiles)


def by_rows(pool: Pool) -> Told:
    """Of levels that keep the rows of each token: whether a prompt's own numbers are among those published."""
    scored = []
    for name, prompts in pool.classes.items():
        inside = prompts < pool.corpus.sizes["prompt"]
        rows = pool.profiles[prompts]
        nearest = [np.abs(rows[inside] - row).max(axis=1).min() for row in rows]
        draw = Draw(name, prompts[inside], prompts[~inside], prompts[:0])
        scored.append(Scored(draw, -np.array(nearest)[inside], -np.array(nearest)[~inside]))
    return strongest({"nearest rows": scored}, len(pool))
