"""The footer of a picture: what was done, what to know, and where the numbers come from."""

from __future__ import annotations

from stratoscope import names
from stratoscope.trace.notes import INFO
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.viewspec import Provenance, ViewSpec
from stratoscope.words import isolate, noted

_SCALE = "L05"  # the notes that say how values became colours
_TAGS = {names.SIMULATED: "SIMULATED", names.IMPORTED: "IMPORTED", names.REAL: "RECORDED"}


def source_tag(provenance: Provenance) -> str:
    """Where the numbers come from, in capitals; data that do not say so are never called recorded."""
    return _TAGS.get(provenance.source, "SOURCE UNKNOWN")


def footer(
    spec: ViewSpec, x: float, y: float, width: float, theme: Theme, measures: Measures
) -> tuple[list[Item], float]:
    """The items of a footer whose top left corner is (x, y), and its height."""
    size, small = measures.note, measures.source
    items: list[Item] = [Box(x, y, width, 0.006, fill=theme.line)]
    cursor = y + 0.08
    warnings = [noted(note.id, note.text) for note in spec.notes_now() if note.severity != INFO]
    for text, colour, bold in (
        (scaled(spec), theme.ink, False),
        (explained(spec), theme.muted, False),
        *((warning, theme.ink, True) for warning in warnings),
    ):
        for line in fonts.wrap(text, size, width, bold=bold) if text else ():
            items.append(Text(x, cursor, line, size, colour, bold=bold))
            cursor += _leading(size)
    cursor += 0.03
    tag = source_tag(spec.provenance)
    colour = theme.faint if spec.provenance.source == names.REAL else theme.accent
    items.append(Text(x, cursor, tag, small, colour, bold=True))
    left = x + fonts.width(tag, small, bold=True) + 0.08
    for line in fonts.wrap(source(spec.provenance), small, x + width - left):
        items.append(Text(left, cursor, line, small, theme.faint))
        cursor += _leading(small)
    return items, cursor - y


def scaled(spec: ViewSpec) -> str:
    """How much is shown, and how it was scaled: what a reader needs before all else."""
    return " ".join(part for part in (shown(spec), *_grouped(spec, scales=True)) if part)


def explained(spec: ViewSpec) -> str:
    """The other notes that explain the picture, as one paragraph; warnings stand apart."""
    return " ".join(_grouped(spec, scales=False))


def _grouped(spec: ViewSpec, *, scales: bool) -> list[str]:
    """The notes on its scale, or all others: those of one line of docs/pitfalls.md together."""
    grouped: dict[str, list[str]] = {}
    for note in spec.notes_now():
        if note.severity == INFO and (note.id == _SCALE) == scales:
            grouped.setdefault(note.id, []).append(note.text)
    return [noted(identity, " ".join(texts)) for identity, texts in grouped.items()]


def _leading(size: float) -> float:
    return fonts.height(size) * 1.16


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
