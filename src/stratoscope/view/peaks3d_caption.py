"""What a picture of peaks says in its caption: what the height is, how the peaks were chosen, where they come from."""

from __future__ import annotations

from stratoscope.view.sheet.footer import source, source_tag
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import counted, noted, number


def caption(spec: ViewSpec) -> list[str]:
    """The caption, one line for each warning and one for the source."""
    info = " ".join(noted(note.id, note.text) for note in spec.notes if note.severity == "info")
    count = f"{spec.facts['shown']:,} of {counted(spec.facts['total'], 'peak')}."
    warnings = [noted(note.id, note.text) for note in spec.notes if note.severity != "info"]
    tag = source_tag(spec.provenance)
    return [f"{count} {height(spec)} {scale(spec)} {info}", *warnings, f"{tag} {source(spec.provenance)}"]


def height(spec: ViewSpec) -> str:
    """What the height is, and how the drawn peaks were chosen."""
    facts = spec.facts
    quantity, run = facts["quantity"], facts["tokens_per_cell"]
    words = [f"Height: {quantity['label']}, {quantity['formula']}."]
    if run > 1:
        words.append(f"Drawn: the highest of every {run:,} tokens and layer, and the next highest of all.")
    elif facts["shown"] < facts["total"]:
        words.append("Drawn: the highest of every token and layer, and the next highest of all.")
    if facts["threshold"] > 0:
        words.append(f"Peaks below {number(facts['threshold'])} are left out.")
    return " ".join(words)


def scale(spec: ViewSpec) -> str:
    """What the scale does that the picture starts with."""
    words: str = spec.content["levels"][spec.content["state"]["scale"]]["words"]
    return words
