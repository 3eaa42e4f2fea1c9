"""Many byte strings found at once in a large buffer, by eight bytes of each that are looked up in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SHORTEST = 8  # bytes of what can be found so
_BITS = 22  # of the table: four million places
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SLICE = 8 * 2**20  # bytes that are looked at together
_SEEN_OF = 64  # bytes of a string among which its eight are chosen
_TRIED = 256  # places of one gram in a slice: a file of a single byte repeated must not take for ever


class Grams:
    """Byte strings, ready to be found.

    Parameters
    ----------
    strings
        Each of at least `SHORTEST` bytes.
    """

    def __init__(self, strings: Sequence[bytes]) -> None:
        self._strings = list(strings)
        self._longest = max(map(len, strings), default=0)
        starts = [_telling(one) for one in self._strings]
        grams = [one[start : start + SHORTEST] for one, start in zip(self._strings, starts, strict=True)]
        self._keys = np.unique(np.frombuffer(b"".join(grams), "<u8"))
        self._of: dict[int, list[tuple[int, int]]] = {}
        for number, (gram, start) in enumerate(zip(grams, starts, strict=True)):
            self._of.setdefault(int.from_bytes(gram, "little"), []).append((number, start))
        self._table = np.zeros(2**_BITS, bool)
        self._table[_place(self._keys)] = True

    def found(self, data: bytes | memoryview) -> Iterator[tuple[int, int]]:
        """The number of each string that is there, and where: once in every few megabytes at most."""
        if not self._strings:
            return
        for begin in range(0, len(data), _SLICE):
            part = bytes(data[begin : begin + _SLICE + self._longest])
            seen: set[int] = set()
            for number, place in self._found_in(part):
                if number not in seen:
                    seen.add(number)
                    yield number, begin + place

    def _found_in(self, part: bytes) -> Iterator[tuple[int, int]]:
        for shift in range(SHORTEST):
            count = (len(part) - shift) // SHORTEST
            if count < 1:
                return
            words = np.frombuffer(part, "<u8", count, shift)
            likely = np.flatnonzero(self._table[_place(words)])
            nearest = self._keys[np.minimum(np.searchsorted(self._keys, words[likely]), len(self._keys) - 1)]
            here = likely[nearest == words[likely]]
            for gram, places in _grouped(words[here], here) if len(here) else ():
                for number, start in self._of[gram]:
                    for place in places.tolist():
                        begin = place * SHORTEST + shift - start
                        if begin >= 0 and part.startswith(self._strings[number], begin):
                            yield number, begin
                            break


def _place(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words * _MIX) >> np.uint64(64 - _BITS)


def _grouped(grams: NDArray[np.uint64], places: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each gram with the first of its places."""
    order = np.argsort(grams, kind="stable")
    values, firsts = np.unique(grams[order], return_index=True)
    for value, some in zip(values.tolist(), np.split(places[order], firsts[1:]), strict=True):
        yield value, some[:_TRIED]


def _telling(string: bytes) -> int:
    """Where the eight bytes begin that have the most different values: zeros between small numbers tell little."""
    return max(
        range(min(len(string) - SHORTEST, _SEEN_OF) + 1), key=lambda start: len({*string[start : start + SHORTEST]})
    )
