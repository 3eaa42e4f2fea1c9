"""The footer of a picture: what was done, what to know, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Iterable

from stratoscope import names
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Item, Text
from stratoscope.view.sheet.measures import Measures
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.maps import PROMPT_ROWS, Maps
from stratoscope.view.spec.page import Page
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.viewspec import Content, Provenance, ViewSpec
from stratoscope.words import isolate, noted, visible

_SCALE = "L05"  # the notes that say how values became colours
_TAGS = {names.SIMULATED: "SIMULATED", names.IMPORTED: "IMPORTED", names.REAL: "RECORDED"}


def source_tag(provenance: Provenance) -> str:
    """Where the numbers come from, in capitals; data that do not say so are never called recorded."""
    return _TAGS.get(provenance.source, "SOURCE UNKNOWN")


def footer(
    spec: ViewSpec, x: float, y: float, width: float, theme: Theme, measures: Measures, page: Page
) -> tuple[list[Item], float]:
    """The items of a footer whose top left corner is (x, y), and its height.

    Where the caption stands elsewhere or nowhere, there is still what a reader must not miss: that numbers are no
    recording, and warnings.
    """
    size, small, here = measures.note, measures.source, page.caption == "below"
    real = spec.provenance.source == names.REAL
    warnings = _warnings(spec)
    if not (here or warnings or not real):
        return [], 0.0
    explaining = ("" if page.titled else about(spec), explained(spec))
    paragraphs = [
        (scaled(spec), theme.ink, False),
        *((text, theme.muted, False) for text in explaining),
    ]
    items: list[Item] = [Box(x, y, width, 0.006, fill=theme.line)]
    cursor = y + 0.08
    for text, colour, bold in (*(paragraphs if here else ()), *((one, theme.ink, True) for one in warnings)):
        for line in fonts.wrap(text, size, width, bold=bold) if text else ():
            items.append(Text(x, cursor, line, size, colour, bold=bold))
            cursor += _leading(size)
    if not (here or not real):
        return items, cursor - y
    cursor += 0.03
    tag = source_tag(spec.provenance)
    items.append(Text(x, cursor, tag, small, theme.faint if real else theme.accent, bold=True))
    left = x + fonts.width(tag, small, bold=True) + 0.08
    for line in fonts.wrap(source(spec.provenance) if here else "", small, x + width - left):
        if line:
            items.append(Text(left, cursor, line, small, theme.faint))
        cursor += _leading(small)
    return items, cursor - y


def caption(spec: ViewSpec) -> str:
    """All that a footer and the title say, as a text: a paragraph to a line."""
    said = [spec.title, about(spec), scaled(spec), explained(spec), *_warnings(spec)]
    said.append(f"{source_tag(spec.provenance)} {source(spec.provenance)}")
    return "".join(f"{visible(part)}\n" for part in said if part)


def about(spec: ViewSpec) -> str:
    """What stands below a title: the data, and how to read the picture."""
    return " ".join(part for part in (f"{spec.subtitle}." if spec.subtitle else "", reading(spec.content)) if part)


def reading(content: Content, *, numbers: bool = False) -> str:
    """How to read maps, with numbers in their cells or without, and routes; charts have axes that say it."""
    if isinstance(content, Lens):
        return f"{reading(content.maps)} {_of_lenses(content)}"
    if isinstance(content, Routes):
        shares = content.weight.unit == "1"
        view = "how much of the whole runs along what is shown" if shares else "how much of all effects is shown"
        rows = "depths, D0 before the first block; what ends at D1 is of layer 0"
        return f"Columns: tokens in reading order. Rows: {rows}. “In view”: {view}, at each depth."
    if not isinstance(content, Maps):
        return ""
    first = content.quantities[0]
    columns, rows = "tokens in reading order", "layers, the first at the bottom"
    if first.quantity.row_kind == names.DEPTH:
        rows = "depths, D0 before the first block"
    elif first.quantity.row_kind == PROMPT_ROWS:
        columns, rows = "positions of tokens in their prompt", "prompts, each over its own tokens"
    said = first.figures.explained() if numbers else ""
    in_rows = "" if first.quantity.row_kind == names.TARGET else f" Rows: {rows}."
    return f"Columns: {columns}.{in_rows}" + (f" Numbers: {said}." if said else "")


def _of_lenses(content: Lens) -> str:
    """What stands in the cells of a picture of lenses, and what marks them."""
    said = "In each cell: the token that the lens finds likeliest to come next, with spaces as ·."
    if (content.stays >= 0).any():
        said += " Red line: from here up the model's own answer stays the likeliest, depth by depth."
    if content.marks_first and ((content.first >= 0) & (content.first != content.stays)).any():
        said += " Red triangle: where it is the likeliest for the first time."
    return said + (" Hatched: parts of the corpus behind the lens do not agree." if len(content.changing) else "")


def _warnings(spec: ViewSpec) -> list[str]:
    return [noted(note.id, note.text) for note in spec.notes_now() if note.severity != INFO]


def scaled(spec: ViewSpec) -> str:
    """How much is shown, and how it was scaled: what a reader needs before all else."""
    return " ".join(part for part in (shown(spec), *_grouped(spec, scales=True)) if part)


def explained(spec: ViewSpec) -> str:
    """The other notes that explain the picture, as one paragraph; warnings stand apart."""
    return " ".join(_grouped(spec, scales=False))


def _grouped(spec: ViewSpec, *, scales: bool) -> list[str]:
    """The notes on its scale, or all others: those of one line of docs/pitfalls.md together."""
    return by_line(note for note in spec.notes_now() if note.severity == INFO and (note.id == _SCALE) == scales)


def by_line(notes: Iterable[Note]) -> list[str]:
    """Notes in words: those of one line of docs/pitfalls.md together."""
    grouped: dict[str, list[str]] = {}
    for note in notes:
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
