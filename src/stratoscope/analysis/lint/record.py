"""Checks of what was and what was not recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.analysis.lint.check import COMPARISONS, EVERYTHING, check
from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.notes import INFO, WARNING, Note, notes_of

if TYPE_CHECKING:
    import xarray as xr

_ACTIVATIONS = ("neurons", "active_neurons", "prompt_mean", "imported_norm")


@check("L09", INFO, "A neuron that is active is taken for one that does something.", set(_ACTIVATIONS))
def activations_without_writes(dataset: xr.Dataset) -> str | None:
    """Activations are there, and nothing that says what they write."""
    present = [name for name in _ACTIVATIONS if name in dataset]
    if not present or "peak_write" in dataset:
        return None
    return f"The norms of what neurons write are missing: {present[0]} says how active a neuron is, not what it does."


@check("L10", INFO, "Neurons have signs, and a list of sizes has lost them.", {"imported_norm"})
def signs_are_lost(dataset: xr.Dataset) -> str | None:
    """An import without a single negative value."""
    if "imported_norm" not in dataset or not dataset.sizes.get(names.ROW):
        return None
    values = dataset["imported_norm"].values
    return None if (values < 0).any() else "No imported value is negative: sizes only, so opposite signs look alike."


def stored_note(dataset: xr.Dataset, identity: str) -> Note | None:
    """The gravest that a recording says of itself under a line of the list, in one note."""
    notes = [note for note in notes_of(dataset) if note.id == identity]
    if not notes:
        return None
    severity = WARNING if any(note.severity == WARNING for note in notes) else INFO
    text = " ".join(note.text for note in notes if note.severity == severity)
    more = sum(note.severity != severity for note in notes)
    return Note(identity, severity, text + (f" ({more} less serious: see `stratoscope info`.)" if more else ""))


# a picture has the notes of its trace anyway, so these checks concern no picture


@check("L25", WARNING, "The model that was recorded is not all that its files hold.", ())
def weights_not_used(dataset: xr.Dataset) -> Note | None:
    """The recording left out something that the checkpoint holds."""
    return stored_note(dataset, "L25")


@check("L26", WARNING, "What the model saw is not word for word what was written, or not all that was given.", ())
def prompt_not_as_written(dataset: xr.Dataset) -> Note | None:
    """A template or a tokenizer dropped, changed or added something."""
    return stored_note(dataset, "L26")


@check("L27", INFO, "Values may depend on what else was in the batch.", ())
def batches_matter(dataset: xr.Dataset) -> Note | None:
    """The model's values depend on padding or on other prompts, so it was batched accordingly."""
    return stored_note(dataset, "L27")


@check("L14", INFO, "A difference between two runs is taken for more than noise.", COMPARISONS)
def no_floor(dataset: xr.Dataset) -> str | None:
    """A recording without a measured noise floor."""
    recorded = any(
        names.has_floor(names.QUANTITIES[str(name)]) for name in dataset.data_vars if name in names.QUANTITIES
    )
    if dataset.attrs.get("source") != names.REAL or not recorded:
        return None
    if any(names.is_floor(str(name)) for name in dataset.data_vars):
        return None
    return (
        "No noise floor was measured (capture --floor): a difference to another run cannot be called more than noise."
    )


@check("L16", WARNING, "What was imported or simulated is taken for a recording.", EVERYTHING)
def not_recorded(dataset: xr.Dataset) -> str | None:
    """Arrays that no recording made, in a trace that says it is one."""
    if dataset.attrs.get("source") != names.REAL:
        return None
    others = [
        str(name)
        for name, array in dataset.data_vars.items()
        if array.attrs.get("source", names.REAL) != names.REAL and name in names.QUANTITIES
    ]
    return f"Not recorded, although the trace is: {', '.join(others)}." if others else None


@check("L18", WARNING, "Experts bypass what is observed.", {"neuron_norm", "peak_value", "peak_write", "prompt_mean"})
def experts_without_router(dataset: xr.Dataset) -> str | None:
    """A model with experts of which no router was recorded."""
    mlps = objects_in((dataset.attrs.get("model") or {}).get("mlps"))
    experts = any(one.get("experts") for one in mlps)
    neurons = any(name in dataset for name in ("neuron_norm", "peak_neuron", "prompt_mean"))
    if not (experts and neurons) or "router_expert" in dataset:
        return None
    return "The model has experts, but it is not recorded to which of them each token was sent: missing is not zero."
