"""Attacks that no other file has: words from means, and files in which other tools left less of each number."""

from __future__ import annotations

import numpy as np
import xarray as xr
from measured_members import Level, Pool
from measuring import of_prompts

from stratoscope import defaults
from stratoscope.analysis.classes.units import counted_tokens
from stratoscope.publish.attacks.membership import Population
from stratoscope.publish.attacks.outcome import Attack, guessed
from stratoscope.trace.arrays import Bools, Floats
from stratoscope.trace.prompts import Prompts

GUESSES = 100  # words that an attacker names
DRAWS = 10


def words_from_means(level: Level, pool: Pool, occurs: Floats, prompts: int) -> Attack:
    """Which tokens occur in the prompts behind published means: the 100 that an attacker holds for likeliest.

    Prompts of the attacker's own are weighted so that their mean is the published one, as far as noise allows; without
    the file all weigh the same.

    Parameters
    ----------
    occurs
        Whether a token is in a prompt of the pool; [prompt, token].
    """
    hits, blind, owner = [], [], []
    for turn in pool.draws(prompts, min(DRAWS, level.count)):
        published = level.publish(of_prompts(pool.corpus, np.sort(np.concatenate([draw.members for draw in turn]))))
        for draw in turn:
            own = np.concatenate([draw.others, draw.own])
            people = Population.of(level.rows[own])
            mean = people.deviations(level.told(published, draw.name)[None])[0]
            weights = np.maximum(0, 1 + people.products(people.deviations(level.rows[own]), mean))
            usual = occurs[own].sum(axis=0)
            weighted, without = (_likeliest(often, usual) for often in (weights @ occurs[own], usual))
            for member in draw.members:
                tokens = np.flatnonzero(occurs[member])
                hits.append(weighted[tokens])
                blind.append(without[tokens])
                owner.append(np.full(len(tokens), member))
    others = {"the commonest words of other prompts": np.concatenate(blind)}
    return guessed(
        "words of class means", "other prompts recorded with the same model", "words", np.concatenate(hits), others,
        np.concatenate(owner),
    )  # fmt: skip


def _likeliest(often: Floats, usual: Floats) -> Bools:
    """Which tokens are among the likeliest; of equally likely ones those that are usual."""
    found = np.zeros(len(often), bool)
    found[np.lexsort((-usual, -often))[:GUESSES]] = True
    return found


def occurrences(*traces: xr.Dataset) -> Floats:
    """Whether each token of the vocabulary is in each prompt, first tokens left out; [prompt, token]."""
    found = []
    for trace in traces:
        counted = counted_tokens(trace, defaults.SPAN)
        there = np.zeros((trace.sizes["prompt"], int(trace.attrs["model"]["vocab"])), np.float32)
        there[Prompts(trace).of_token[counted], trace["token_id"].values[counted]] = 1
        found.append(there)
    return np.concatenate(found)


def in_two_bits(trace: xr.Dataset) -> xr.Dataset:
    """Norms, ratios and cosines of layers in two bits each, and nothing else of a token."""
    return _of_layers(trace).map(_quartile, keep_attrs=True)


def rounded(trace: xr.Dataset, digits: int) -> xr.Dataset:
    """The same with so many significant digits."""
    return _of_layers(trace).map(lambda values: _to_digits(values, digits), keep_attrs=True)


def _of_layers(trace: xr.Dataset) -> xr.Dataset:
    return trace[[name for name in trace.data_vars if trace[name].dims in (("token", "layer"), ("token", "depth"))]]


def _quartile(values: xr.DataArray) -> xr.DataArray:
    limits = np.nanquantile(values.values, [0.25, 0.5, 0.75], axis=0)
    return values.copy(data=1 + (values.values > limits[:, None]).sum(axis=0).astype(np.float32))


def _to_digits(values: xr.DataArray, digits: int) -> xr.DataArray:
    step = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(values.values), 1e-30))) - (digits - 1))
    return values.copy(data=(np.round(values.values / step) * step).astype(np.float32))
