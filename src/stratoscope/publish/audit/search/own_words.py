"""Words that stand in files of Stratoscope whatever was recorded: a prompt that has them is not told by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from stratoscope.publish.audit.search.grams import SHORTEST, Grams
from stratoscope.publish.audit.search.texts import WORD, Bytes, letters

_ENDINGS = (".py", ".html", ".js", ".css")
_SIMULATED = ("recorder/simulate", "doors/demo")  # sentences of prompts: none of them is ours alone
_DRAWING = ("backend_agg.py", "backend_pdf.py", "backend_svg.py")  # of matplotlib: what its files hold besides


class OwnWords:
    """The text of the source of Stratoscope, and of what writes the files of its pictures."""

    @cached_property
    def _texts(self) -> dict[str, bytes]:
        root = Path(__file__).parents[3]
        own = [one for one in sorted(root.rglob("*")) if one.suffix in _ENDINGS]
        return {one.relative_to(root).as_posix(): one.read_bytes() for one in own} | dict(_drawing())

    @cached_property
    def _all(self) -> bytes:
        return b"\n".join(self._texts.values()).lower()

    @cached_property
    def _words(self) -> set[bytes]:
        return set(WORD.findall(self._all))

    @cached_property
    def _letters(self) -> bytes:
        return letters(b"\n".join(text for name, text in self._texts.items() if not name.startswith(_SIMULATED)))

    def __contains__(self, text: bytes) -> bool:
        """Whether a text stands there, in small or capital letters."""
        words = WORD.findall(text.lower())
        return all(word in self._words for word in words) and (words == [text.lower()] or text.lower() in self._all)

    def without(self, runs: Mapping[bytes, str]) -> dict[bytes, str]:
        """Those runs of letters that do not stand there, but for the sentences of simulated prompts."""
        long = [run for run in runs if len(run) >= SHORTEST]
        there = {long[number] for number, _ in Grams(long).found(self._letters)}
        return {run: runs[run] for run in long if run not in there}


@cache
def own_words() -> OwnWords:
    """The same for every audit: they are read once."""
    return OwnWords()


def _drawing() -> Iterator[tuple[str, bytes]]:
    found = find_spec("matplotlib")
    for folder in found.submodule_search_locations or () if found else ():
        for name in _DRAWING:
            path = Path(folder, "backends", name)
            if path.is_file():
                yield f"matplotlib/{name}", path.read_bytes()


def without_libraries(page: Bytes) -> Bytes:
    """A page with blanks in place of the library that it brings along: what stands in that says nothing of anyone."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        return page
    code = str(get_plotlyjs()).encode()
    return bytes(page).replace(code, b" " * len(code))
