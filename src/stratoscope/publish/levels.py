"""What each level of publishing promises, in the words that are printed and stored in what is published."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stratoscope import names
from stratoscope.names import Level
from stratoscope.trace.notes import WARNING, Note, promised
from stratoscope.version import __version__
from stratoscope.words import number

WITH_TOKENS: tuple[Level, ...] = (names.PROVENANCE, names.NO_TEXT)  # levels that keep a trace token by token
OF_MEANS: tuple[Level, ...] = (names.AGGREGATE, names.PRIVATE)  # levels that keep means over a class, with a promise

WITHHELD = "The original carries a note on this line of docs/pitfalls.md; its words are not published."
NOISE = "L31"  # line of the notes that say how much noise there is, which hides what is small

PROMISES: Mapping[Level, str] = {
    names.PROVENANCE: "Who and where are gone. The text is there.",
    names.NO_TEXT: "Not readable by eye. Whoever has the model, or similar prompts, can recover it.",
    names.AGGREGATE: "No single prompt is shown. Whoever holds a candidate prompt can test it against this file.",
    names.PRIVATE: "(ε, δ) per prompt.",
}


def private_promise(epsilon: float, delta: float) -> str:
    """The promise of a private publication, with its numbers."""
    return PROMISES[names.PRIVATE].replace("ε, δ", f"ε = {number(epsilon)}, δ = {number(delta)}")


def published_at(level: Level, said: str = "") -> dict[str, str]:
    """What something published says of itself, in its attribute `published`; `said`: its promise with numbers."""
    return {"level": level, "promise": said or PROMISES[level], "software": f"stratoscope {__version__}"}


def is_published(said: object) -> bool:
    """Whether something says of itself what `published_at` writes, with whatever numbers and of whatever version."""
    if not isinstance(said, Mapping) or set(said) != set(published_at(names.PROVENANCE)):
        return False
    level, words = said["level"], str(said["promise"])
    numbers = r"\(ε = [\d.e−-]+, δ = [\d.e−-]+\) per prompt\."
    kept = level in PROMISES and (words == PROMISES[level] or (level == names.PRIVATE and re.fullmatch(numbers, words)))
    return bool(kept) and re.fullmatch(r"stratoscope [\w.+-]{1,40}", str(said["software"]), re.ASCII) is not None


def promise(level: Level, said: str = "") -> Note:
    """The note on every picture and page of what is published."""
    return Note("L16", WARNING, promised(level, said or PROMISES[level]))


def is_promise(text: str, level: Level) -> bool:
    """Whether the words of a note are the promise of a level, with numbers or without."""
    return text.startswith(promised(level, ""))
