"""The level `private`: class profiles of which no prompt changes much, whatever else anybody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.results.result import make_result, table_in, table_of
from stratoscope.errors import InputError, UsageError
from stratoscope.progress import Progress, silent
from stratoscope.publish.averaged import FIRST_TOKENS, KIND, PROMPT_CLASS, of_prompts, scale_of
from stratoscope.publish.levels import NOISE, private_promise, promise, published_at
from stratoscope.publish.model import public_model, source_told
from stratoscope.publish.private.plan import Plan, planned
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.notes import INFO, SIMULATED_DATA, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.words import number, number_ranges

if TYPE_CHECKING:
    import xarray as xr


def private_profiles(
    dataset: xr.Dataset,
    *,
    epsilon: float = defaults.EPSILON,
    delta: float = defaults.DELTA,
    quantities: Sequence[str] | None = None,
    prompt_class: str | Sequence[str] | None = None,
    centre: xr.DataTree | None = None,
    clip: float = defaults.CLIP,
    bands: int | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """What may be published of a trace at the level `private`: noisy means of each class in each layer.

    Of each prompt the mean over the user's tokens is taken, its first token left out; of quantities on a logarithmic
    scale the mean of their logarithms to base 2. Its distance from a public centre is clipped, the clipped ones are
    averaged over the class, and Gaussian noise is added. If one prompt is replaced by any other, no output becomes more
    than e^ε times as likely, but for δ. How many prompts a class has is told, and that does not change.

    Parameters
    ----------
    dataset
        A trace, as `opened` gives it.
    epsilon, delta
        The promise, for the whole publication.
    quantities
        Some of `centre.KNOWN`; without them MLP write ratios.
    prompt_class
        Only these classes; without it all that there are.
    centre
        Class profiles that were published of other prompts. Without them a constant for each quantity, and ten times
        as much noise.
    clip
        How far from the centre a prompt may lie, as a multiple of how far prompts lie usually. It must not be chosen
        by what comes out.
    bands
        Into how many runs of neighbouring layers the layers are put, each of which is averaged; without it each layer
        is one.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "profiles" (docs/results.md lists its tables). Every call draws other noise.

    Raises
    ------
    InputError
        A class has fewer than 20 prompts, or too few for so many numbers; it says what would work. Or the centre was
        made of the prompts themselves.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.private.private import private_profiles
    >>> result = private_profiles(stratoscope.simulate(prompts=100, layers=4))
    >>> result["classes"].to_dataset()["signal_to_noise"].round(1).values.tolist()
    [3.1, 3.1]
    """
    report = progress or silent
    plan = planned(
        dataset,
        epsilon=epsilon,
        delta=delta,
        quantities=quantities,
        prompt_class=prompt_class,
        centre=centre,
        clip=clip,
        bands=bands,
    )
    if centre is not None:
        _refuse_own(dataset, plan, centre)
    said = private_promise(epsilon, delta)
    report("averaging", 0, None)
    counted = _counted(dataset)
    means = np.stack([one.mechanism.means(_rows(dataset, plan, one.prompts, counted)) for one in plan.classes])
    result = make_result(
        KIND,
        {"classes": _classes(plan), **_profiles(plan, means)},
        sources=[],
        parameters={
            "level": names.PRIVATE,
            "quantity": [one.quantity for one in plan.columns],
            PROMPT_CLASS: prompt_class,
            "span": defaults.SPAN,
            "fewest_prompts": defaults.FEWEST_PROMPTS,
            "epsilon": epsilon,
            "delta": delta,
            "clip": clip,
            "bands": bands,
            "centre": "constant" if centre is None else KIND,
        },
        notes=[promise(names.PRIVATE, said), *_notes(dataset, plan, clip)],
        summary={
            "level": names.PRIVATE,
            "promise": said,
            "classes": [one.name for one in plan.classes],
            "model": public_model(dataset),
            "bands": {one.quantity: [number_ranges(band.tolist()) for band in one.bands] for one in plan.columns},
            "centre": {one.quantity: one.centre.of_row.tolist() for one in plan.columns},
            "unit": {one.quantity: one.centre.unit for one in plan.columns},
        },
    )
    counted_prompts = sum(len(one.prompts) for one in plan.classes)
    source = source_told(dataset, prompts=counted_prompts, tokens=0)  # how many tokens is not told: it has no noise
    result.attrs |= {"sources": [source], PUBLISHED: published_at(names.PRIVATE, said)}
    return result


def _refuse_own(dataset: xr.Dataset, plan: Plan, centre: xr.DataTree) -> None:
    """Raise where the centre was made of these very prompts: it stands in what is published, without noise."""
    quantities = [one.quantity for one in plan.columns]
    for one in plan.classes:
        try:
            own = class_profiles(dataset, quantities=quantities, prompt_class=[one.name] if one.name else None)
        except InputError:
            continue  # of too few prompts that differ no centre was published
        if all(_has_row(centre, own, quantity) for quantity in quantities):
            what = "it was made of the prompts that are published, whose means it would show without noise"
            raise UsageError(what, where="centre", fix="Give one that was published of other prompts, or none.")


def _has_row(centre: xr.DataTree, own: xr.DataTree, quantity: str) -> bool:
    """Whether the means of one class are in a Result, to a few digits."""
    rows = np.asarray(table_in(centre, f"{KIND}/{quantity}")["mean"].values, np.float64)
    row = np.asarray(table_in(own, f"{KIND}/{quantity}")["mean"].values, np.float64)[0]
    return rows.shape[1:] == row.shape and bool(np.isclose(rows, row, 1e-4, 1e-6).all(axis=1).any())


def _counted(dataset: xr.Dataset) -> NDArray[np.bool_]:
    """Tokens of the user, or of which nothing is known, without first ones: it depends on the own prompt only."""
    prompts = Prompts(dataset)
    counted: NDArray[np.bool_] = (prompts.in_spans([defaults.SPAN]) | (prompts.spans < 0)) & ~prompts.first
    return counted


def _rows(dataset: xr.Dataset, plan: Plan, prompts: Ints, counted: NDArray[np.bool_]) -> Floats:
    """All numbers of each prompt, side by side, as distances from the centre; NaN where there is none."""
    parts = [one.apart(of_prompts(dataset, one.quantity, prompts, counted)) for one in plan.columns]
    return np.concatenate(parts, axis=1)


def _classes(plan: Plan) -> dict[str, Any]:
    mechanisms = [one.mechanism for one in plan.classes]
    return _called(plan) | table_of(
        PROMPT_CLASS,
        {
            "prompts": np.array([one.prompts for one in mechanisms], np.int64),
            "signal_to_noise": np.array([one.signal_to_noise(plan.numbers) for one in mechanisms]),
        },
    )


def _profiles(plan: Plan, means: Floats) -> dict[str, Mapping[str, Any]]:
    """The table of each quantity: its noisy means, and the standard deviation of their noise."""
    tables: dict[str, Mapping[str, Any]] = {}
    start = 0
    for one in plan.columns:
        stop = start + len(one.bands)
        kind, scale = names.QUANTITIES[one.quantity].row_kind, {"scale": scale_of(one.quantity)}
        noise = np.array([of.mechanism.sigma * one.centre.unit for of in plan.classes])
        tables[f"{KIND}/{one.quantity}"] = _called(plan) | {
            kind: one.rows,
            "mean": ((PROMPT_CLASS, kind), one.told(means[:, start:stop]).astype(np.float32), scale),
            "noise": (PROMPT_CLASS, noise, scale),
        }
        start = stop
    return tables


def _called(plan: Plan) -> dict[str, Any]:
    return {PROMPT_CLASS: (PROMPT_CLASS, np.array([one.name for one in plan.classes], object))}


def _notes(dataset: xr.Dataset, plan: Plan, clip: float) -> list[Note]:
    notes = [Note(NOISE, INFO, sentence) for sentence in plan.in_words()]
    if dataset.attrs.get("source") == names.SIMULATED:
        notes.append(SIMULATED_DATA)
    notes.append(FIRST_TOKENS)
    text = f"Prompts further from a public centre than {number(clip)} × the usual distance were moved towards it."
    notes.append(
        Note(
            "L12",
            INFO,
            f"{text} Near-duplicates count each: of k prompts by one person ε is k times as large, and δ more.",
        )
    )
    return notes
