"""Attributes as JSON: made storable when written, compared when a recording is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import numpy as np

from stratoscope.errors import TraceError
from stratoscope.version import __version__


def to_json(value: Any) -> Any:
    """A value as plain JSON types; NaN and infinity become null.

    Raises
    ------
    TraceError
        When JSON has nothing like it.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case np.generic() | np.ndarray():
            return to_json(value.tolist())
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case PurePath() | date():
            return str(value)
    raise TraceError(f"an attribute of type {type(value).__name__} cannot be stored as JSON")


def objects_in(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; none where a stranger's file has something else in its place."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def object_in(value: Any) -> Mapping[str, Any]:
    """An object; an empty one where a stranger's file has something else in its place."""
    return value if isinstance(value, Mapping) else {}


def count_in(value: Any) -> int:
    """A count; 0 where a stranger's file has something else in its place."""
    return value if type(value) is int and value > 0 else 0


def differences(stored: Any, now: Any, where: str, verbs: tuple[str, str] = ("was", "is now")) -> str:
    """What differs between a stored attribute and the one given now, in words; "" when they are equal.

    `verbs` are said of the stored and of the present value.
    """
    if isinstance(stored, dict) and isinstance(now, dict):
        parts = [differences(stored.get(key), now.get(key), f"{where}.{key}", verbs) for key in sorted(stored | now)]
        return "; ".join(part for part in parts if part)
    return "" if stored == now else f"{where} {verbs[0]} {_short(stored)} and {verbs[1]} {_short(now)}"


def _short(value: Any) -> str:
    text = "not given" if value is None else repr(value)
    return text if len(text) <= 60 else text[:40] + "…" + text[-19:]


def software(*packages: str) -> dict[str, str]:
    """Name → version, of Stratoscope and of these packages."""
    return {"stratoscope": __version__, **{name: version(name) for name in packages}}
