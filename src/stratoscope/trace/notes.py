"""What a reader of a number or a picture must know: notes, and those that a trace brings along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.trace.format.part import part_of, planned_prompts
from stratoscope.trace.format.schema import COMPLETE, PUBLISHED

if TYPE_CHECKING:
    import xarray as xr

INFO, WARNING = "info", "warning"
_PUBLISHED_WITHOUT = "It was published without ids of tokens: take the original."  # what to do where they are needed
KNOWN = frozenset(f"L{line:02d}" for line in range(1, 36))  # the lines of docs/pitfalls.md
MOST_NOTES = 50  # that a picture or a result takes over from one trace
LONGEST_NOTE, _LONGEST_ID = 1_000, 20  # characters of each; a recording has a dozen, of a few hundred characters


@dataclass(frozen=True)
class Note:
    """A line of the list of pitfalls that applies.

    Attributes
    ----------
    id
        L01 to L35, as in docs/pitfalls.md.
    severity
        "info" or "warning".
    text
        The words.
    scales
        Of a picture: the scales on which it holds; none = all.
    first_token
        Of a picture: whether it holds with first tokens in the limits, or without; None = both.
    """

    id: str
    severity: str
    text: str
    scales: tuple[str, ...] = ()
    first_token: bool | None = None

    def holds(self, scale: str, *, first_token: bool) -> bool:
        """Whether it holds for a picture that is looked at so."""
        return scale in (self.scales or (scale,)) and self.first_token in (None, first_token)

    def stored(self) -> dict[str, str]:
        """What `read_notes` reads."""
        return {"id": self.id, "severity": self.severity, "text": self.text}


SIMULATED_DATA = Note("L16", WARNING, "Simulated data: no model made these numbers.")


def read_notes(stored: Iterable[Mapping[str, Any]] | None) -> tuple[Note, ...]:
    """Notes as they are stored in attributes."""
    return tuple(Note(str(one["id"]), str(one["severity"]), str(one["text"])) for one in stored or ())


def notes_of(dataset: xr.Dataset) -> tuple[Note, ...]:
    """The notes that everything made of `dataset` carries; a simulation, a part, an unfinished trace say so (L16).

    Of very many or very long ones it is said how much is left out.
    """
    notes = _bounded(read_notes(dataset.attrs.get("notes")))
    if dataset.attrs.get("source") == names.SIMULATED and not any(note.id == "L16" for note in notes):
        notes.append(SIMULATED_DATA)
    if promise := promise_of(dataset.attrs):
        notes.append(Note("L16", INFO, promise))
    if part := part_of(dataset.attrs.get("plan")):
        notes.append(Note("L16", INFO, f"This is {part} of one recording."))
    if dataset.attrs.get("state", COMPLETE) != COMPLETE:
        planned = planned_prompts(dataset.attrs.get("plan"))
        of = f" of {planned:,} planned" if planned is not None else ""
        text = f"NOT COMPLETE: recorded so far are {dataset.sizes[names.PROMPT]:,}{of} prompts."
        notes.insert(0, Note("L16", WARNING, text))
    return tuple(notes)


def promised(level: str, promise: str) -> str:
    """The sentence on every picture and page of what is published."""
    return f"Published at the level {level}: {promise}"


def promise_of(attrs: Mapping[Any, Any]) -> str:
    """What a published trace promises, in a sentence; "" of one that was not published."""
    published = attrs.get(PUBLISHED)
    level, promise = (published.get("level"), published.get("promise")) if isinstance(published, Mapping) else ("", "")
    if not (isinstance(level, str) and level and isinstance(promise, str)):
        return ""
    return _beginning(promised(level, promise))


def recorded_anew(attrs: Mapping[Any, Any], record: str) -> str:
    """What to do where ids of tokens are needed that a trace lacks: `record` it, unless publishing took them."""
    published = attrs.get(PUBLISHED)
    without = isinstance(published, Mapping) and published.get("level") == names.NO_TEXT
    return _PUBLISHED_WITHOUT if without else record


def _bounded(notes: tuple[Note, ...]) -> list[Note]:
    """The first notes, warnings before all others, each as far as it can be read in a picture."""
    shown = list(notes)
    if len(notes) > MOST_NOTES:
        shown = sorted(notes, key=lambda note: note.severity == INFO)[:MOST_NOTES]
    shown = [replace(note, id=note.id[:_LONGEST_ID], text=_beginning(note.text)) for note in shown]
    if left := len(notes) - len(shown):
        shown.append(
            Note("L16", WARNING, f"{left:,} more notes of this trace are not shown: `stratoscope info --json` does.")
        )
    return shown


def _beginning(text: str) -> str:
    if len(text) <= LONGEST_NOTE:
        return text
    return f"{text[:LONGEST_NOTE]}… ({len(text):,} characters: `stratoscope info --json` has all)"
