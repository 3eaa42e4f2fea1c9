"""Attacks on the class means that a file holds: who was in them, and what the text was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.classes.units import counted_tokens
from stratoscope.analysis.results.result import table_in
from stratoscope.publish.attacks.look_up import look_up_profiles
from stratoscope.publish.attacks.membership import HOLDS, UNIT, Side, membership_of_classes, nearness
from stratoscope.publish.attacks.outcome import Attack, not_run
from stratoscope.publish.averaged import KIND, NEURONS, PROFILED, PROMPT_CLASS, banded, of_prompts, profiled
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

PROFILES, OF_NEURONS = KIND, "neurons"
_OTHER_ROWS = "the file, the original and the other prompts are not of the same layers and neurons"


@dataclass(frozen=True)
class ClassMeans:
    """What a published file says of its classes.

    Attributes
    ----------
    quantities
        Of which there are means.
    widths
        How many values each of them has.
    means
        Class to its means, those of all quantities one after the other; [value].
    counts
        Class to the number of its prompts, as the file has it.
    noise
        Class to the standard deviation of the noise in each value, as the file has it; no class where there is none.
    bands
        Into how many runs of layers the file says that the layers are put; None = into none.
    """

    quantities: tuple[str, ...]
    widths: tuple[int, ...]
    means: Mapping[str, Floats]
    counts: Mapping[str, int]
    noise: Mapping[str, Floats] = field(default_factory=dict)
    bands: int | None = None

    def only(self, quantities: Sequence[str]) -> ClassMeans:
        """The means of some of the quantities, in that order."""
        ends = np.cumsum([0, *self.widths])
        place = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(self.quantities)}
        widths = tuple(self.widths[self.quantities.index(name)] for name in quantities)
        means = {of: np.concatenate([mean[place[name]] for name in quantities]) for of, mean in self.means.items()}
        return ClassMeans(tuple(quantities), widths, means, self.counts, bands=self.bands)


def class_means(published: xr.Dataset | xr.DataTree, part: str = PROFILES) -> ClassMeans | None:
    """The class means that a file holds, or that follow from the rows it holds; None where it has none.

    Parameters
    ----------
    published
        A Result of kind "profiles", or a trace: published, or a look-alike.
    part
        "profiles": of layers. "neurons": of each neuron.
    """
    import xarray as xr

    if isinstance(published, xr.Dataset):
        return _means_of_rows(published, part)
    if part not in published.children:
        return None
    quantities = tuple(published[part].children)
    tables = [table_in(published, f"{part}/{quantity}") for quantity in quantities]
    classes = [str(name) for name in tables[0][PROMPT_CLASS].values]
    parts = [np.asarray(one["mean"].values, np.float64).reshape(len(classes), -1) for one in tables]
    widths, rows = tuple(part.shape[1] for part in parts), np.concatenate(parts, axis=1)
    about = table_in(published, "classes")
    counts = dict(
        zip((str(name) for name in about[PROMPT_CLASS].values), about["prompts"].values.tolist(), strict=True)
    )
    means, noise = dict(zip(classes, rows, strict=True)), {}
    if all("noise" in one for one in tables):
        of_class = [
            np.repeat(one["noise"].values[:, None], width, 1) for one, width in zip(tables, widths, strict=True)
        ]
        noise = dict(zip(classes, np.concatenate(of_class, axis=1), strict=True))
    said = published.attrs.get("parameters")
    bands = said.get("bands") if isinstance(said, Mapping) else None
    return ClassMeans(quantities, widths, means, counts, noise, bands if type(bands) is int and bands > 0 else None)


def prompt_rows(dataset: xr.Dataset, quantities: Sequence[str], bands: int | None = None) -> Floats:
    """What single prompts would add to such means, of so many bands of layers; [prompt, value]."""
    parts = _parts(dataset, quantities)
    if bands is not None:
        parts = [banded(one, min(bands, one.shape[1])) for one in parts]
    return np.concatenate(parts, axis=1)


def membership_attacks(
    published: xr.Dataset | xr.DataTree, original: xr.Dataset, reference: xr.Dataset
) -> list[Attack]:
    """Tell the prompts of the original from others of the same kind, by all that a file says.

    Parameters
    ----------
    published
        What was published.
    original
        The trace that it was made of: its prompts are the members.
    reference
        Other prompts recorded with the same model; every second one is tested as a non-member, the rest is what the
        attacker knows of such prompts.

    Returns
    -------
    list of Attack
        By the means of layers, by the means of neurons, and by the rows of single prompts.
    """
    return [
        _by_means("membership from class profiles", PROFILES, published, original, reference),
        _by_means("membership from neuron means", OF_NEURONS, published, original, reference),
        _by_rows("membership from rows of prompts", published, original, reference),
    ]


def look_up_attack(published: xr.DataTree, original: xr.Dataset, reference: xr.Dataset) -> Attack:
    """Guess the original's tokens by its published class profiles."""
    found, name = class_means(published), "look-up of class profiles"
    if found is None or any(one not in reference for one in found.quantities):
        return not_run(name, HOLDS, "tokens", "no class profile is published")
    rows = prompt_rows(reference, found.quantities, found.bands)
    if any(len(mean) != rows.shape[1] for mean in found.means.values()):
        return not_run(name, HOLDS, "tokens", _OTHER_ROWS)
    return look_up_profiles(dict(found.means), rows, original, reference)


def rows_of_classes(dataset: xr.Dataset, rows: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    """The rows of each class; where a dataset has none of these classes, all rows for each."""
    of = np.array(Prompts(dataset).classes, object)
    known = set(of) & set(classes)
    return {name: rows[of == name] if known else rows for name in classes}


def _by_means(
    name: str, part: str, published: xr.Dataset | xr.DataTree, original: xr.Dataset, reference: xr.Dataset
) -> Attack:
    found = class_means(published, part)
    if found is None:
        return not_run(name, HOLDS, UNIT, "the file holds no such means")
    if lacking := [one for one in found.quantities if one not in original or one not in reference]:
        return not_run(name, HOLDS, UNIT, f"the original or the other prompts lack {lacking[0]}")
    classes = list(found.means)
    members = rows_of_classes(original, prompt_rows(original, found.quantities, found.bands), classes)
    others = rows_of_classes(reference, prompt_rows(reference, found.quantities, found.bands), classes)
    if any(len(found.means[one]) != rows[one].shape[1] for one in classes for rows in (members, others)):
        return not_run(name, HOLDS, UNIT, _OTHER_ROWS)
    sides = [
        Side(mean, members[one], others[one][::2], others[one][1::2], found.counts.get(one), found.noise.get(one))
        for one, mean in found.means.items()
    ]
    return membership_of_classes(sides, name)


def _by_rows(name: str, published: xr.Dataset | xr.DataTree, original: xr.Dataset, reference: xr.Dataset) -> Attack:
    import xarray as xr

    if not isinstance(published, xr.Dataset):
        return not_run(name, HOLDS, UNIT, "the file holds no row of a single prompt or token")
    own = _profiled(published) or ((NEURONS,) if NEURONS in published else ())
    quantities = [one for one in own if one in original and one in reference]
    if not quantities:
        return not_run(name, HOLDS, UNIT, "the file holds no profile of a prompt")
    given = [prompt_rows(one, quantities) for one in (published, original, reference)]
    if len({one.shape[1] for one in given}) > 1:
        return not_run(name, HOLDS, UNIT, _OTHER_ROWS)
    return nearness(*given, name=name)


def _profiled(published: xr.Dataset) -> tuple[str, ...]:
    """The quantities of which a trace would give profiles; none where it holds none of them."""
    return profiled(published) if any(one in published for one in PROFILED) else ()


def _parts(dataset: xr.Dataset, quantities: Sequence[str]) -> list[Floats]:
    """The values of each prompt, quantity by quantity; [prompt, value] each."""
    prompts, counted = np.arange(len(Prompts(dataset))), counted_tokens(dataset, defaults.SPAN)
    return [
        np.asarray(dataset[one].values, np.float64).reshape(len(prompts), -1)
        if names.QUANTITIES[one].dims[0] == names.PROMPT
        else of_prompts(dataset, one, prompts, counted)
        for one in quantities
    ]


def _means_of_rows(published: xr.Dataset, part: str) -> ClassMeans | None:
    """Class means of a trace's own prompts."""
    if part == OF_NEURONS:
        quantities: tuple[str, ...] = (NEURONS,) if NEURONS in published else ()
    else:
        quantities = _profiled(published)
    if not quantities:
        return None
    parts, classes = _parts(published, quantities), Prompts(published).classes
    rows, of = np.concatenate(parts, axis=1), np.array(classes, object)
    found: dict[str, Ints] = {name: np.flatnonzero(of == name) for name in dict.fromkeys(classes)}
    with np.errstate(invalid="ignore"):
        means = {name: np.nanmean(rows[some], axis=0) for name, some in found.items()}
    counts = {name: len(some) for name, some in found.items()}
    return ClassMeans(quantities, tuple(part.shape[1] for part in parts), means, counts)
