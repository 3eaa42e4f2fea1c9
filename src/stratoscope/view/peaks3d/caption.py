"""What a picture of peaks says in its caption: what the height is, how the peaks were chosen, where they come from."""

from __future__ import annotations

from stratoscope.trace.notes import INFO
from stratoscope.view.sheet.footer import shown, source, source_tag
from stratoscope.view.spec.peaks import Peaks
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import counted, noted, number


def peaks_in(spec: ViewSpec) -> Peaks:
    """What a picture of peaks draws."""
    assert isinstance(spec.content, Peaks)
    return spec.content


def caption(spec: ViewSpec) -> list[str]:
    """The caption of the look that the picture starts with: a line for each warning, and one for the source."""
    peaks, notes = peaks_in(spec), spec.notes_now()
    info = [noted(note.id, note.text) for note in notes if note.severity == INFO]
    warnings = [noted(note.id, note.text) for note in notes if note.severity != INFO]
    words = " ".join(
        filter(None, [count(spec), beyond(spec), chosen(spec), peaks.scales[spec.look.scale].words, *info])
    )
    return [words, *warnings, f"{source_tag(spec.provenance)} {source(spec.provenance)}"]


def count(spec: ViewSpec) -> str:
    """How many peaks are drawn."""
    peaks = peaks_in(spec)
    return f"{len(peaks.token):,} of {counted(peaks.total, 'peak')}."


def beyond(spec: ViewSpec) -> str:
    """How many peaks are beyond the scale; nothing where none is."""
    there = len(peaks_in(spec).heights(spec.look).beyond)
    return f"{there:,} beyond the scale (◇)." if there else ""


def chosen(spec: ViewSpec) -> str:
    """What the height is, and how the drawn peaks were chosen."""
    peaks = peaks_in(spec)
    words = [f"Height: {peaks.quantity.label}, {peaks.quantity.formula}."]
    if peaks.tokens_per_cell > 1:
        words.append(
            f"Drawn: the highest of every {peaks.tokens_per_cell:,} tokens and layer, and the next highest of all."
        )
    elif len(peaks.token) < peaks.total:
        words.append("Drawn: the highest of every token and layer, and the next highest of all.")
    if peaks.threshold > 0:
        words.append(f"Peaks below {number(peaks.threshold)} are left out.")
    return " ".join(part for part in (*words, shown(spec, "On this page")) if part)
