"""What a reader of a contrast must know, found in its data: lengths, templates, balance, chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.classes.design import PAIRED_T, RANK_SUM, Design, alike_in_length
from stratoscope.analysis.classes.units import Units
from stratoscope.analysis.contrast.power import size_in_words, would_be_found
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.words import counted, number

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.contrast.aligned import Aligned
    from stratoscope.analysis.contrast.neurons import Listed, NeuronTests

CHANCE = "L23"
UNITS_COUNT = Note(
    "L12", INFO, "The tokens of a prompt are no independent samples: prompts, pairs or groups are counted."
)
_AS_BEFORE = 1e-3  # relative: how far twins may differ before their first edit, padding and batches allowed for


def about_lengths(units: Units, counts: NDArray[np.int64]) -> list[Note]:
    """Warn where the classes differ in how many tokens their prompts have."""
    a, b = counts[units.in_a], counts[~units.in_a]
    if alike_in_length(a, b):
        return []
    words = f"{number(a.mean())} tokens in {units.a}, {number(b.mean())} in {units.b}"
    return [Note("L13", WARNING, f"The classes differ in length ({words}): a difference may be one of length.")]


def about_templates(dataset: xr.Dataset, units: Units) -> list[Note]:
    """Warn where template and special tokens are not the same in both classes."""
    prompts, ids = Prompts(dataset), np.asarray(dataset["token_id"].values)
    fixed = prompts.in_spans((*names.TEMPLATE_SPANS, "system"))
    seen: list[set[bytes]] = [set(), set()]
    for prompt, in_a in zip(units.prompts.tolist(), units.in_a.tolist(), strict=True):
        tokens = prompts.tokens(prompt)
        seen[int(in_a)].add(ids[tokens][fixed[tokens]].tobytes())
    if seen[0] == seen[1]:
        return []
    return [Note("L21", WARNING, "Template, system or special tokens differ by class: a difference may be theirs.")]


def about_design(design: Design, asked: Units, held_out: float, unequal: names.Unequal) -> list[Note]:
    """What counts as one observation, what was left out, and what was done about unequal classes."""
    units = design.units
    notes = [Note("L12", INFO, f"Units: {units.in_words()}."), UNITS_COUNT]
    notes += [Note("L12", WARNING, text) for text in units.left_out]
    if design.test == RANK_SUM:
        count_a, count_b = units.sizes
        text = f"Classes of {count_a} and {count_b}: compared by ranks, which also answer to a difference in spread."
        notes.append(Note("L22", INFO, text))
    elif asked.sizes != units.sizes:
        text = (
            f"Classes of {asked.sizes[0]} and {asked.sizes[1]}: of the larger one a random {units.sizes[0]} are "
            "compared, because Welch's test finds differences that are not there when sizes are so unequal."
        )
        notes.append(Note("L22", WARNING, text))
    if unequal == "rank-sum" and design.test != RANK_SUM:
        why = "pairs are compared by" if design.test == PAIRED_T else "classes of no more than 2 : 1 are compared by"
        notes.append(Note("L22", INFO, f"`--unequal rank-sum` was not used: {why} {design.test}."))
    if design.held_out is not None:
        text = f"Neurons tested in {design.tested.in_words()}; effects measured in {design.held_out.in_words()}."
        notes.append(Note("L23", INFO, text))
    elif held_out:
        text = (
            f"Nothing is held out: a part of {units.in_words()} could not be tested, or not measured. All are tested."
        )
        notes.append(Note("L23", INFO, text))
    return notes


def about_tokens(units: Units, of_tokens: Units, *, compared: bool) -> list[Note]:
    """Units that have neurons but no token of the span: profiles are of the others."""
    if units is of_tokens:
        return []
    notes = [Note("L12", WARNING, f"Profiles: {text}") for text in of_tokens.left_out[len(units.left_out) :]]
    if not compared:
        notes.append(Note("L12", WARNING, "Profiles are not compared: too few units have a token of the span."))
    return notes


def about_neurons(neurons: NeuronTests, listed: Listed, design: Design, untested: int) -> list[Note]:
    """The family, what its estimates are, and what pure chance would look like."""
    what = "sign flips" if design.paired else "exchanges of labels"
    count = f"all {neurons.arrangements:,} {what}" if neurons.exact else f"{neurons.arrangements:,} random {what}"
    largest = "largest difference in means" if design.test == RANK_SUM else "largest t"
    family = (
        f"Family: {neurons.tested:,} neurons, {design.test}; q by Benjamini and Hochberg; family-wise p by the "
        f"{largest} of {count}."
    )
    whole = int(np.isfinite(neurons.values["p_family"]).sum())
    if whole < neurons.tested:
        family += f" Family-wise p is of the {whole:,} neurons with a value in every unit."
    notes = [Note("L13", INFO, family)]
    if untested:
        notes.append(
            Note("L08", INFO, f"{counted(untested, 'neuron')} had too few values for a test: left out, not zero.")
        )
    if neurons.chance:
        notes.append(Note(CHANCE, INFO, neurons.chance.sentence()))
    if len(listed.g):
        notes.append(Note(CHANCE, INFO, f"Effects (g) are {listed.estimates}."))
    notes.append(Note("L09", INFO, "A neuron that differs need not matter: activation is not effect."))
    return notes


def about_nothing(would: Mapping[str, Any]) -> list[Note]:
    """That nothing was found is not that nothing is there: what would have been found."""
    size = size_in_words(would, "neuron")
    said = would_be_found(f"one neuron with {size}") if size else "one alone could not have been found, however large"
    return [Note("L31", INFO, f"Nothing found is not nothing there: {said}.")]


def about_twins(dataset: xr.Dataset, aligned: Aligned | None, alone: int) -> list[Note]:
    """Whether twins were treated alike before they differ, and how many prompts are no one's twin."""
    if aligned is None:
        return []
    notes = []
    if alone:
        text = (
            f"Not aligned: {counted(alone, 'prompt')}. In a unit without pairs only the first of each class is aligned."
        )
        notes.append(Note("L11", INFO, text))
    if not np.isfinite(aligned.before):
        return notes
    if aligned.unequal:
        text = (
            f"In {counted(aligned.unequal, 'pair')} lengths differ: equal tokens are aligned, others are not compared."
        )
        notes.append(Note("L11", INFO, text))
    if dataset.attrs.get("source") != names.REAL:
        return notes
    size = f"{number(aligned.before)} of the value"
    if aligned.before > _tolerance(dataset):
        text = (
            f"Before their first edit the twins of pair {aligned.where} differ by {size}, although they have seen the "
            "same tokens: more than batches and padding should make."
        )
        return [*notes, Note("L11", WARNING, text)]
    how = f"equal within {size}" if aligned.before > 0 else "exactly equal"
    return [*notes, Note("L11", INFO, f"Before the first edit twins are {how}, as they must be.")]


def _tolerance(dataset: xr.Dataset) -> float:
    """How far equal tokens may differ by rounding, padding and batches, relative to the value."""
    dtype = str((dataset.attrs.get("model") or {}).get("dtype", ""))
    return {"bfloat16": 0.25, "float16": 0.05}.get(dtype, _AS_BEFORE)
