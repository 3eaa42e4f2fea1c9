"""Where the texts of a conversation stand in the rendered prompt, and what the chat template made of each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import pairwise, takewhile

WHOLE, TRIMMED, CUT, CHANGED, MISSING = "whole", "trimmed", "cut", "changed", "missing"
_BEST_FIRST = (WHOLE, TRIMMED, CUT, CHANGED, MISSING)

Render = Callable[[Sequence[str]], str]  # the prompt with these texts in place of the conversation's


@dataclass(frozen=True)
class TextRange:
    """The characters of the rendered prompt that one text of the conversation became, the end excluded."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class MessageTexts:
    """What became of the texts of a conversation.

    Attributes
    ----------
    places
        In the order of the rendered prompt; none for a text that is missing, or whose place is not known.
    fates
        Of each text: one of `WHOLE`, `TRIMMED` (only blanks at its ends are gone), `CUT` (a part of it is gone),
        `CHANGED` and `MISSING`.
    all_known
        Whether each text that is not missing has its places.
    """

    places: list[TextRange]
    fates: list[str]
    all_known: bool


def find(written: str, texts: Sequence[str], render: Render) -> MessageTexts:
    """Find the texts of a conversation in the rendered prompt.

    Searching for a text itself would find it in a role header when somebody writes just "user": marks are rendered in
    its place instead, and what stands where the mark stood is what the template made of the text.
    """
    places = _all_at_once(written, texts, render)
    if places is not None:
        found = (_fate(text, [p for p in places if p.number == n], written) for n, text in enumerate(texts))
        return MessageTexts(places, list(found), all_known=True)
    places, fates, known = [], [], True
    for number in range(len(texts)):
        own, fate = _alone(written, texts, number, render)
        places, known = [*places, *own], known and bool(own or fate == MISSING)
        fates.append(fate)
    places.sort(key=lambda place: (place.start, place.end))
    apart = all(one.end <= other.start for one, other in pairwise(places))
    return MessageTexts(places if apart else [], fates, known and apart)


def how_changed(text: str, written: str) -> str:
    """In which way a text was changed that stands somewhere in `written`; "" where that has no name."""
    for fold, how in (
        (str.casefold, "in other case"),
        (_compatible, "in another Unicode form"),
        (_without_blanks, "with other blanks"),
        (unescape, "with characters escaped"),
    ):
        if fold(text.strip()) in fold(written):
            return how
    return ""


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def mark(written: str, number: int) -> str:
    """A word that stands nowhere in the prompt and that no template trims."""
    word = f"qzx{number}xzq"
    while word in written:
        word = f"q{word}q"
    return word


def _all_at_once(written: str, texts: Sequence[str], render: Render) -> list[TextRange] | None:
    """With a mark in place of every text; None where the template rewrites what it is given."""
    marks = [mark(written, number) for number in range(len(texts))]
    try:
        pieces = re.split(f"({'|'.join(marks)})", render(marks))
    except Exception:  # the template looks into the texts
        return None
    places: list[TextRange] = []
    position = 0
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        number = marks.index(piece) if piece in marks else -1
        choices = [piece] if number < 0 else list(_variants(texts[number]))
        after = "" if following in marks else following
        found = next((text for text in choices if written.startswith(text + after, position)), None)
        if found is None:
            return None
        if number >= 0:
            places.append(TextRange(number, position, position + len(found)))
        position += len(found)
    return places if position == len(written) else None


def _alone(written: str, texts: Sequence[str], number: int, render: Render) -> tuple[list[TextRange], str]:
    """With a mark in place of one text: its places, none where they are not known, and its fate."""
    text, word = texts[number], mark(written, number)
    try:
        marked = render([word if place == number else other for place, other in enumerate(texts)])
    except Exception:  # the template looks into the text
        return [], WHOLE if text.strip() in written else CHANGED
    if marked == written:
        return [], MISSING
    for variant in _variants(text):
        if word in marked and marked.replace(word, variant) == written:
            places = _replaced(marked, word, number, len(variant))
            return places, _fate(text, places, written)
    pieces = marked.split(word)
    if len(pieces) == 2 and written.startswith(pieces[0]) and written[len(pieces[0]) :].endswith(pieces[1]):
        place = TextRange(number, len(pieces[0]), len(written) - len(pieces[1]))
        fate = _fate(text, [place], written)
        return ([] if fate == MISSING else [place]), fate
    return [], _fate_of_difference(text, written, marked)


def _variants(text: str) -> Iterator[str]:
    """A text as templates write it: as it is, or without blanks at its ends."""
    yield from (text, text.strip(), text.rstrip(), text.lstrip())


def _replaced(marked: str, word: str, number: int, size: int) -> list[TextRange]:
    starts = [match.start() - count * (len(word) - size) for count, match in enumerate(re.finditer(word, marked))]
    return [TextRange(number, start, start + size) for start in starts]


def _fate(text: str, places: Sequence[TextRange], written: str) -> str:
    """The best that became of a text at its places."""
    fates = [_became(text, written[place.start : place.end]) for place in places]
    return min(fates, key=_BEST_FIRST.index, default=MISSING)


def _became(text: str, became: str) -> str:
    if became == text:
        return WHOLE
    if not became.strip():
        return MISSING
    if became.strip() == text.strip():
        return TRIMMED
    if text.strip() and text.strip() in became:  # and beside it something that the template writes only there
        return WHOLE
    return CUT if became.strip() in text else CHANGED


def _fate_of_difference(text: str, written: str, marked: str) -> str:
    """The fate of a text from where the prompts with it and with a mark in its place differ."""
    start = _alike(written, marked)
    after = _alike(written[start:][::-1], marked[start:][::-1])
    end = len(written) - after
    kept = text.strip()
    at = written.find(kept, max(0, start - len(kept)))
    if kept and 0 <= at <= start and at + len(kept) >= end:
        return WHOLE
    return CHANGED if written[start:end].strip() else MISSING


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(takewhile(bool, (here == there for here, there in zip(one, other, strict=False))))
