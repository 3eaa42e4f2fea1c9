"""One piece of a file searched for everything that is looked for."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from stratoscope.publish import patterns
from stratoscope.publish.audit.search.claims import Claims
from stratoscope.publish.audit.search.grams import Grams
from stratoscope.publish.audit.search.needles import MACHINE, Needles
from stratoscope.publish.audit.search.own_words import OwnWords
from stratoscope.publish.audit.search.texts import WORD, letters_in, readable, spellings
from stratoscope.publish.audit.search.unpack import Piece

_USUAL = {"root", "user", "admin", "ubuntu", "localhost", "runner", "home", "debian"}  # names that tell nobody


@dataclass(frozen=True)
class Hit:
    """Something that was found.

    Attributes
    ----------
    kind
        What it is: one of the kinds of needles or patterns.
    shown
        The text, as it is known from the original, or as it stands there.
    where
        The file, and what of it was opened.
    """

    kind: str
    shown: str
    where: str


class Search:
    """Everything that is looked for, ready to be found.

    Parameters
    ----------
    needles
        What is known of the original; none where there is no original.
    """

    def __init__(self, needles: Needles) -> None:
        self._words = dict(needles.words)
        self._by_first: dict[bytes, list[bytes]] = {}
        for text in needles.words:
            if first := WORD.search(text):
                self._by_first.setdefault(first[0], []).append(text)
        self._runs, self._exact = list(needles.runs.items()), list(needles.exact.items())
        self._run_grams = Grams([run for run, _ in self._runs])
        self._exact_grams = Grams([string for string, _ in self._exact])

    def hits(self, piece: Piece, claims: Claims) -> Iterator[Hit]:
        """What is found in a piece, the same thing perhaps several times; `claims` learns what it says of itself."""
        for number, place in self._exact_grams.found(piece.data):
            kind, shown = self._exact[number][1]
            yield Hit(kind, shown, f"{piece.where}, byte {place:,}")
        if not piece.has_text:
            return
        for part in readable(piece.data):
            for text in spellings(part):
                claims.read(text)
                yield from (Hit(kind, shown, _place(piece, shown)) for kind, shown in self._in_text(text))

    def _in_text(self, text: bytes) -> Iterator[tuple[str, str]]:
        for first in self._by_first.keys() & set(WORD.findall(text)):
            for word in self._by_first[first]:
                if _stands_alone(word, text):
                    yield self._words[word], _shown(word)
        for kind, found in patterns.found_in(text):
            yield kind, _shown(found)
        for view in letters_in(text):
            for number, _ in self._run_grams.found(view):
                yield self._runs[number][1]


def _stands_alone(word: bytes, text: bytes) -> bool:
    """Whether it is there with no letter or digit at either side."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if not text[max(0, start - 1) : start].isalnum() and not text[end : end + 1].isalnum():
            return True
        start = text.find(word, start + 1)
    return False


def _place(piece: Piece, shown: str) -> str:
    """Where in a piece a text stands, if it is spelt there as it is shown."""
    start = _find(piece.data, shown.encode("utf-8", "surrogateescape"))
    return f"{piece.where}, byte {start:,}" if start >= 0 else piece.where


def _find(data: bytes | memoryview, text: bytes) -> int:
    found = re.search(re.escape(text), data)
    return found.start() if found else -1


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def add_machine(needles: Needles, own: OwnWords) -> None:
    """Search for the names of this computer and of whoever uses it, too."""
    for name in (getpass.getuser(), socket.gethostname(), socket.gethostname().partition(".")[0]):
        if name.lower() not in _USUAL:
            needles.word(MACHINE, name, own)
