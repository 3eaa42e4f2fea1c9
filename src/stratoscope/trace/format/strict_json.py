"""JSON that can mean only one thing, and the digest by which a document shows that it is as it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

DIGEST = "digest"  # attribute of a root document

_MOST_DIGITS = 4_000  # of a whole number


def load(content: str | bytes) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError
        It is none, an object names a key twice, or a number is not finite.
    RecursionError
        It is nested too deeply for Python.
    """
    return json.loads(
        content, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it names {twice[:80]!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:  # before Python refuses it in words of its own
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:80]} is too large a number")
    return number


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a root document without its attribute `digest`.

    Of its canonical form: UTF-8, keys sorted, no spaces, everything but ASCII escaped, numbers as Python writes them.
    So a tool may lay the document out anew, and must not change what it says.
    """
    attrs = {key: value for key, value in document["attributes"].items() if key != DIGEST}
    content = {**document, "attributes": attrs}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its digest."""
    return {**document, "attributes": {**document["attributes"], DIGEST: digest(document)}}
