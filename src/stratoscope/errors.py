"""One family of errors: what went wrong, where, and what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

_ESCAPES = re.compile(  # colours and titles of a terminal
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))"  # one without its end would take our words too
)
CONTROL = re.compile(  # and what is not seen, or reorders what is around it; joiners shape the letters beside them
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_UNSHOWN = re.compile(f"{CONTROL.pattern}|[\ud800-\udfff]")  # a byte that is no text, as a file may be called


class StratoscopeError(Exception):
    """Something a person can act on; shown as one line, without a traceback.

    Parameters
    ----------
    what
        What is wrong, in one clause.
    where
        The file, line, prompt, layer or option concerned.
    fix
        What to do next.

    Examples
    --------
    >>> import stratoscope
    >>> try:
    ...     stratoscope.prompt(stratoscope.simulate(prompts=2, layers=2), "critical-7")
    ... except stratoscope.StratoscopeError as error:
    ...     print(error.what)
    ...     print(error.fix)
    no prompt called 'critical-7'
    Did you mean critical-1? There are: critical-1, neutral-1.
    """

    status = 1  # of a command that ends with it

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        where = printable_line(where)  # a file may be called so, and what is wrong is one line
        self.what, self.where, self.fix = what, where, fix = printable(what), where, printable(fix)
        super().__init__(": ".join(part for part in (where, what) if part) + (f". {fix}" if fix else ""))


class InputError(StratoscopeError):
    """A file or an argument that a person gave cannot be used."""


def nearest(given: object, known: Iterable[str], most: int = 1, likeness: float = 0.6) -> list[str]:
    """Which of the known names a mistyped one is most like, whatever its capitals; none of a number."""
    from difflib import get_close_matches

    text = str(given)[:_LONGEST_NAME].lower()
    if not re.search(r"[^\W\d_]", text):
        return []
    names = {name.lower(): name for name in reversed([*islice(known, _MOST_NAMES)])}
    return [names[one] for one in get_close_matches(text, names, most, likeness)]


def did_you_mean(given: object, known: Iterable[str], most: int = 1) -> str:
    """The question that comes before all there is, with a blank behind it; "" where nothing is like what was given."""
    near = nearest(given, known, most)
    return f"Did you mean {' or '.join(map(_shown, near))}? " if near else ""


def choices(given: object, known: Collection[str], *, there: str = "There are", most: int = 14) -> str:
    """What to do about a name that there is not: the nearest that there is, and all there are, of many the first."""
    more = f", … ({len(known):,} in all)" if len(known) > most else ""
    return f"{did_you_mean(given, known)}{there}: {', '.join(map(_shown, islice(known, most))) or 'none'}{more}."


def _shown(name: str) -> str:
    """A name in quotes where its ends are not seen without."""
    return name if re.fullmatch(r"[\w.:/-]+", name) else repr(name)


_LONGEST_NAME, _MOST_NAMES = 100, 20_000  # that are compared: a thesis, or a million prompts, would take too long


def refuse_unknown(given: object, known: Collection[str], kind: str, where: str = "") -> None:
    """Raise where something that a person names is none of its kind, with the nearest that there is.

    Raises
    ------
    InputError
        It is none of the known names.
    """
    if given not in [*known]:
        parts = [part.strip() for part in str(given).split(",")]
        each = f"Give each by itself: {', '.join(parts)}." if parts[1:] and {*parts} <= {*known} else ""
        raise UsageError(f"no {kind} called {given!r}", where=where or kind, fix=each or choices(given, known))


class UsageError(InputError):
    """An argument that cannot be right, whatever it is asked of."""

    status = 2


class TraceError(StratoscopeError):
    """A trace on disk cannot be opened, is damaged, or is being written by somebody else."""


class ModelError(StratoscopeError):
    """A model cannot be loaded, or its inner places could not be found and proved."""


class CaptureError(StratoscopeError):
    """What was recorded would not be what happened."""


class OutOfMemory(CaptureError):
    """A batch does not fit into memory; a smaller one might."""


def printable(text: str) -> str:
    """A text of unknown origin without a terminal's escape sequences; other control characters are made visible."""
    return _UNSHOWN.sub(lambda match: repr(match[0])[1:-1], _ESCAPES.sub("", str(text)))


def printable_line(text: str) -> str:
    """The same with its line feeds and tabs made visible: a name, which is to stay on its line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def ascii_json(value: Any, **layout: Any) -> str:
    """JSON in which every character that is not plain ASCII is escaped; `layout` as of `json.dumps`."""
    return json.dumps(value, ensure_ascii=True, **layout).replace("\x7f", "\\u007f")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, to be put into a sentence."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0]).rstrip(".")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch on any device, or this package says that memory has run out."""
    words = str(error)
    return isinstance(error, (MemoryError, OutOfMemory)) or "can't allocate memory" in words or "out of memory" in words
