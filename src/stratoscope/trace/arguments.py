"""Arguments as people give them in Python: numpy's numbers, one text for a list of one, anything that can be listed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

from stratoscope.errors import UsageError, choices, refuse_unknown
from stratoscope.names import SPANS


def is_whole(given: Any) -> bool:
    """Whether it is a whole number of any type, and no truth."""
    return hasattr(given, "__index__") and not isinstance(given, bool) and getattr(given, "shape", ()) == ()


def whole(given: Any, where: str, fix: str = "Give a number such as 10.") -> int:
    """A whole number; text, fractions and truths are refused.

    Raises
    ------
    InputError
        It is none.
    """
    if not is_whole(given):
        raise UsageError(f"{given!r} is not a whole number", where=where, fix=fix)
    return operator.index(given)


def at_least(least: int, given: Any, where: str) -> int:
    """A whole number that is not too small.

    Raises
    ------
    InputError
        It is none.
    """
    if (number := whole(given, where)) < least:
        raise UsageError(f"{number} is too small", where=where, fix=f"Give {least} or more.")
    return number


def whole_numbers(text: str, between: str) -> tuple[int, ...]:
    """Whole numbers as they stand on a command line, 2/5 or 20-32; empty where they are something else."""
    parts = text.split(between)
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else ()


def real_number(given: Any, where: str) -> float:
    """A number of any type; text and truths are refused.

    Raises
    ------
    InputError
        It is none.
    """
    if isinstance(given, bool | str) or not hasattr(given, "__float__") or isnan(float(given)):
        raise UsageError(f"{given!r} is not a number", where=where, fix="Give a number such as 0.5.")
    return float(given)


def several(given: Any, where: str, example: str) -> list[Any]:
    """What is listed; of one text or number, a list of it.

    Raises
    ------
    InputError
        It is no list, or a mapping.
    """
    if isinstance(given, str) or is_whole(given):
        return [given]
    if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"{given!r} is neither one nor a list", where=where, fix=f"Give one such as {example}.")
    return list(given)


def span_names(given: str | Sequence[str] | None) -> list[str]:
    """The spans of a prompt that a person names; none = whatever the span.

    Raises
    ------
    InputError
        It is no list, or one of them is no span.
    """
    named = [] if given is None else several(given, "span", "['user']")
    for name in named:
        refuse_unknown(name, SPANS, "span")
    return named


def chosen(given: Any, known: Sequence[str], where: str) -> tuple[str, ...]:
    """Some of the known names, in their order, of a list or a text with commas.

    Raises
    ------
    InputError
        There is none, or one of them is not known.
    """
    parts = given.split(",") if isinstance(given, str) else several(given, where, str(list(known[:2])))
    wanted = [part.strip() if isinstance(part, str) else part for part in parts if part != ""]
    unknown = [part for part in wanted if part not in known]
    if unknown or not wanted:
        what = f"no {where} group called {unknown[0]!r}" if unknown else f"no {where} group"
        raise UsageError(what, where=where, fix=choices(unknown[0] if unknown else "", known))
    return tuple(name for name in known if name in wanted)
