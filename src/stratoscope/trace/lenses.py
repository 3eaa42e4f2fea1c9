"""The lenses of a trace, by name: ways to read its residual stream as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOGIT_LENS = "logit"  # unembed(norm(x)); it stands first in every trace that holds lenses
JACOBIAN_LENS = "jacobian"  # unembed(norm(J x)), fitted to texts
_OF_PART = ", "  # between the name of a fitted lens and that of a part of its texts
_HALF, _CORPUS = "half ", "corpus "  # begin the names of parts: no corpus is ever taken for a half


def lens_names(plan: Any, count: int) -> tuple[str, ...]:
    """Names of the lenses from a trace's plan; numbers for all but the first where it does not name them."""
    listed = plan.get("lenses") if isinstance(plan, Mapping) else None
    sound = isinstance(listed, list | tuple) and len(listed) == count and all(isinstance(one, str) for one in listed)
    if sound and listed and LOGIT_LENS in listed:
        return tuple(listed)
    return (LOGIT_LENS, *(f"lens {number}" for number in range(1, count)))


def name_of_part(lens: str, part: str) -> str:
    """What a lens is called that was fitted to a part of its texts alone: "jacobian, half 1"."""
    return f"{lens}{_OF_PART}{part}"


def name_of_half(number: int) -> str:
    """What a half of the texts is called, from 0: "half 1"."""
    return f"{_HALF}{number + 1}"


def name_of_corpus(name: str) -> str:
    """What one of several corpora is called as a part of the texts: "corpus news"."""
    return f"{_CORPUS}{name}"


def is_half(part: str) -> bool:
    """Whether a part of the texts is a half of them, and no corpus."""
    return part.startswith(_HALF)


def is_of_part(name: str) -> bool:
    """Whether a lens was fitted to a part of its texts alone."""
    return _OF_PART in name


def parts_of(lens: str, lenses: Sequence[str]) -> dict[int, str]:
    """Place among the names of lenses → part of its texts, of each that is `lens` fitted to that part alone."""
    begin = lens + _OF_PART
    return {place: name.removeprefix(begin) for place, name in enumerate(lenses) if name.startswith(begin)}
