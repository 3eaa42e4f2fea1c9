"""What a picture of lenses says about itself: its title, what it was made of, what must not be concluded from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.analysis.lens.finding import Found, lens_in_words
from stratoscope.analysis.lens.lenses import Lenses
from stratoscope.analysis.lens.reading import NONE, Reading
from stratoscope.analysis.lint.lint import applicable
from stratoscope.trace.lenses import LOGIT_LENS
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.spec.viewspec import notes_of, provenance_of
from stratoscope.words import capital, counted, isolate

if TYPE_CHECKING:
    import xarray as xr

QUANTITIES = ("lens_token", "lens_logprob", "lens_answer_logprob", "lens_answer_rank")
NO_CONTRIBUTIONS = Note(
    "L29",
    INFO,
    "Steps from depth to depth are no contributions: a lens rescales at each depth, contributions use the final scale, "
    "and the two do not add up to each other.",
)


def title_of(name: str) -> str:
    """The title of a picture."""
    return f"{capital(lens_in_words(name))}: the likeliest next token, by depth"


def subtitle(dataset: xr.Dataset, found: Found) -> str:
    """Model, source where it is not a recording, and what the lens was fitted on."""
    provenance = provenance_of(dataset)
    parts = ["Simulated data" if provenance.source == names.SIMULATED else "", provenance.model]
    if found.lens != LOGIT_LENS:
        parts.append(fitted_on(dataset))
    return " · ".join(isolate(part) for part in parts if part)


def fitted_on(dataset: xr.Dataset) -> str:
    """What a fitted lens was fitted on: 40 prompts; 40 prompts of 2 corpora."""
    plan = dataset.attrs.get("plan")
    facts: Any = plan.get("lens_file") if isinstance(plan, Mapping) else None
    if not isinstance(facts, Mapping):
        return ""
    prompts, corpora = facts.get("prompts"), facts.get("corpora")
    if not isinstance(prompts, int):
        return ""
    words = f"fitted on {counted(prompts, 'prompt')}"
    many = len(corpora) if isinstance(corpora, list | tuple | Mapping) else 0
    return f"{words} of {many} corpora" if many > 1 else words


def notes(dataset: xr.Dataset, lenses: Lenses, found: Found, shown: Reading) -> Iterator[Note]:
    """The notes of a picture, those of the data first."""
    yield from notes_of(dataset)
    yield Note("L05", INFO, "Colours: probabilities from 0 to 1, fixed.")
    yield NO_CONTRIBUTIONS
    yield Note("L24", INFO, f"D{found.last_depth} is the model's own output, the same in every lens.")
    if found.stable_share is not None:
        yield Note("L35", INFO, f"{found.stability()}: elsewhere hatched.")
    elif found.lens != LOGIT_LENS:
        yield Note("L35", INFO, "How far the lens depends on its corpus is not known: it has no parts.")
    if (shown.likeliest == NONE).any():
        yield Note("L08", INFO, "Grey hatching: the lens was not fitted for this depth, or not read there.")
    yield from applicable(dataset, QUANTITIES)
