"""The footer of a picture: what was done, what to know, and where the numbers come from."""

from __future__ import annotations

from stratoscope import names
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.viewspec import Provenance, ViewSpec
from stratoscope.words import isolate, noted

_LEADING = 0.128  # inches, at the size of a slide
_TAGS = {names.SIMULATED: "SIMULATED", names.IMPORTED: "IMPORTED", names.REAL: "RECORDED"}


def source_tag(provenance: Provenance) -> str:
    """Where the numbers come from, in capitals; data that do not say so are never called recorded."""
    return _TAGS.get(provenance.source, "SOURCE UNKNOWN")


def footer(
    spec: ViewSpec, x: float, y: float, width: float, theme: Theme, measures: Measures
) -> tuple[list[Item], float]:
    """The items of a footer whose top left corner is (x, y), and its height."""
    size, leading = measures.note, _LEADING * measures.unit
    items: list[Item] = [Box(x, y, width, 0.006, fill=theme.line)]
    cursor = y + 0.08
    for line in fonts.wrap(said(spec), size, width):
        items.append(Text(x, cursor, line, size, theme.muted))
        cursor += leading
    for note in spec.notes_now():
        if note.severity != "info":
            for line in fonts.wrap(noted(note.id, note.text), size, width, bold=True):
                items.append(Text(x, cursor, line, size, theme.ink, bold=True))
                cursor += leading
    cursor += 0.03
    tag = source_tag(spec.provenance)
    colour = theme.muted if spec.provenance.source == names.REAL else theme.accent
    items.append(Text(x, cursor, tag, size, colour, bold=True))
    left = x + fonts.width(tag, size, bold=True) + 0.08
    for line in fonts.wrap(source(spec.provenance), size, x + width - left):
        items.append(Text(left, cursor, line, size, theme.muted))
        cursor += leading
    return items, cursor - y


def said(spec: ViewSpec) -> str:
    """What is shown, and the notes that explain the picture, as one paragraph; warnings stand apart."""
    grouped: dict[str, list[str]] = {}
    for note in spec.notes_now():
        if note.severity == "info":
            grouped.setdefault(note.id, []).append(note.text)
    notes = [noted(identity, " ".join(texts)) for identity, texts in grouped.items()]
    return " ".join(part for part in (shown(spec), *notes) if part)


def shown(spec: ViewSpec, where: str = "Shown") -> str:
    """How much of the trace is shown, where that is not all."""
    return f"{where}: {spec.selected.of_trace}." if spec.selected.of_trace else ""


def source(provenance: Provenance) -> str:
    """Model, trace, receipt and software in one line."""
    parts = [
        provenance.model,
        f"trace {provenance.uuid[:8]}" if provenance.uuid else "",
        provenance.receipt,
        provenance.software,
    ]
    return " · ".join(isolate(part) for part in parts if part)
