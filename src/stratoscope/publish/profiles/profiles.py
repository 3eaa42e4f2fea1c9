"""The level `aggregate`: what each class of prompts is on average, layer by layer, and nothing of a single prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.classes.units import counted_tokens
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.progress import Progress, silent
from stratoscope.publish.averaged import (
    FIRST_TOKENS,
    KIND,
    LINEAR,
    NEURONS,
    PROMPT_CLASS,
    of_prompts,
    profiled,
    scale_of,
)
from stratoscope.publish.levels import PROMISES, promise, published_at
from stratoscope.publish.model import public_model, source_told
from stratoscope.publish.profiles.classes import ClassPrompts, class_prompts, publishable
from stratoscope.publish.profiles.neurons import neuron_means, stored, told
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.notes import INFO, SIMULATED_DATA, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.view.spec.cautions import ROWS_OF_A_FILE

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.publish.attacks.outcome import Attack


def class_profiles(
    dataset: xr.Dataset,
    *,
    quantities: Sequence[str] | None = None,
    prompt_class: str | Sequence[str] | None = None,
    neurons: bool = False,
    progress: Progress | None = None,
) -> xr.DataTree:
    """What may be published of a trace at the level `aggregate`: the mean of each class in each layer.

    A prompt is one observation: the mean over the user's tokens, its first token left out; of quantities on a
    logarithmic scale the mean of their logarithms to base 2. Near-duplicates of a prompt count once, with their mean.
    A mean of fewer than 20 prompts is not given, nor any extreme, position, text or exact count.

    Parameters
    ----------
    dataset
        A trace, as `opened` gives it.
    quantities
        Some of `PROFILED`; without them those of `USUAL` that the trace holds.
    prompt_class
        Only these classes; without it all that there are.
    neurons
        Whether the mean of each neuron is given too, which tells far more of the prompts behind it.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "profiles" (docs/results.md lists its tables).

    Raises
    ------
    InputError
        A class has fewer than 20 prompts that differ, or nothing of what is asked for is there.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.profiles.profiles import class_profiles
    >>> result = class_profiles(stratoscope.simulate(prompts=80, layers=3))
    >>> classes = result["classes"].to_dataset()
    >>> dict(zip(classes["prompt_class"].values.tolist(), classes["prompts"].values.tolist()))
    {'critical': 30, 'neutral': 30}
    >>> result["profiles/mlp_write_ratio/mean"].dims
    ('prompt_class', 'layer')
    """
    report = progress or silent
    asked = profiled(dataset, quantities)
    counted = counted_tokens(dataset, defaults.SPAN)
    report("looking for near-duplicates", 0, None)
    classes = publishable(class_prompts(dataset, counted, prompt_class))
    called = {PROMPT_CLASS: (PROMPT_CLASS, np.array([one.name for one in classes], object))}
    tables: dict[str, Mapping[str, Any]] = {
        "classes": {
            **called,
            **table_of(
                PROMPT_CLASS,
                {
                    "prompts": np.array([one.about for one in classes], np.int64),
                    "tokens": np.array([one.tokens_each for one in classes], np.int64),
                },
            ),
        }
    }
    for number, quantity in enumerate(asked):
        report("averaging", number, len(asked))
        kind = names.QUANTITIES[quantity].row_kind
        rows = {kind: np.asarray(dataset[kind].values, np.int64)}
        means = np.stack([one.mean(of_prompts(dataset, quantity, one.prompts, counted)) for one in classes])
        mean = ((PROMPT_CLASS, kind), means.astype(np.float32), {"scale": scale_of(quantity)})
        tables[f"{KIND}/{quantity}"] = {**called, **rows, "mean": mean}
    attacks: dict[str, Attack] = {}
    if neurons:
        report("averaging neurons, and attacking the means", 0, None)
        means, attacks = neuron_means(dataset, classes)
        rows = {names.LAYER: np.asarray(dataset[names.LAYER].values, np.int64)}
        of_neurons = ((PROMPT_CLASS, names.LAYER, names.NEURON), means.astype(np.float32), {"scale": LINEAR})
        tables[f"neurons/{NEURONS}"] = {**called, **rows, "mean": of_neurons}
    result = make_result(
        KIND,
        tables,
        sources=[],
        parameters={
            "level": names.AGGREGATE,
            "quantity": list(asked),
            PROMPT_CLASS: prompt_class,
            "neurons": neurons,
            "span": defaults.SPAN,
            "fewest_prompts": defaults.FEWEST_PROMPTS,
            "rounded_to": defaults.ROUNDED_PROMPTS,
        },
        notes=[*_notes(dataset), *_left_out(dataset, classes, tables), *([told(attacks)] if attacks else [])],
        summary={
            "level": names.AGGREGATE,
            "promise": PROMISES[names.AGGREGATE],
            "classes": [one.name for one in classes],
            "model": public_model(dataset),
            **({"membership": stored(attacks)} if attacks else {}),
        },
    )
    result.attrs |= {"sources": [_source(dataset, classes)], PUBLISHED: published_at(names.AGGREGATE)}
    return result


def _source(dataset: xr.Dataset, classes: Sequence[ClassPrompts]) -> dict[str, Any]:
    """The trace as a source of the Result: no exact count."""
    return source_told(
        dataset,
        prompts=sum(one.about for one in classes),
        tokens=sum(one.tokens_each * one.about for one in classes),
    )


def _left_out(
    dataset: xr.Dataset, classes: Sequence[ClassPrompts], tables: Mapping[str, Mapping[str, Any]]
) -> list[Note]:
    """What a reader may miss: prompts without a class, and means of too few prompts."""
    notes = []
    if any(one.name for one in classes) and not all(Prompts(dataset).classes):
        notes.append(Note("L12", INFO, "Prompts without a class are left out."))
    means = [table["mean"][1] for table in tables.values() if "mean" in table]
    if not all(np.isfinite(one).all() for one in means):
        few = f"Where fewer than {defaults.FEWEST_PROMPTS} prompts that differ have a value, no mean is given."
        notes.append(Note("L08", INFO, few))
    return notes


def _notes(dataset: xr.Dataset) -> list[Note]:
    notes = [promise(names.AGGREGATE)]
    if dataset.attrs.get("source") == names.SIMULATED:
        notes.append(SIMULATED_DATA)
    if (Prompts(dataset).spans < 0).all():
        notes.append(Note("L17", INFO, "It is not known which tokens are the user's: all but the first count."))
    if "imported_norm" in dataset:
        notes.append(ROWS_OF_A_FILE)
        if (dataset["imported_norm"].values <= 0).any():
            notes.append(Note("L05", INFO, "What is zero or less has no logarithm: left out."))
    notes.append(FIRST_TOKENS)
    text = "Each prompt counts once, near-duplicates together once. A description, not a test: `contrast` tests."
    notes.append(Note("L12", INFO, text))
    return notes
