"""Frozen dataclasses with arrays in them as JSON and buffers, and back: checked against their types when read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from stratoscope.view.spec.buffers import DTYPES, Buffer

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
else:
    Json = Any  # an alias of itself cannot be evaluated
Values: TypeAlias = Annotated[Mapping[str, Json], "any"]  # values by name, of whatever kind JSON has
REFERENCE = "$buffer"  # in JSON, {"$buffer": 3} stands for the fourth buffer


class Unfit(ValueError):
    """What was read is not what its type says; the message says where."""


@dataclass
class Packing:
    """JSON of dataclasses, and the arrays that were in them; an array that occurs twice is kept once."""

    arrays: list[NDArray[Any]] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)

    def pack(self, value: Any) -> Json:
        """A value as JSON.

        Raises
        ------
        TypeError
            No picture may hold such a value.
        """
        match value:
            case None | bool() | int() | str() | float():
                return value
            case np.ndarray():
                return {REFERENCE: self._place(value)}
            case Mapping():
                return {str(key): self.pack(value[key]) for key in sorted(value)}  # equal specs give equal bytes
            case list() | tuple():
                return [self.pack(item) for item in value]
        if is_dataclass(value):
            return {one.name: self.pack(getattr(value, one.name)) for one in fields(value)}
        raise TypeError(f"{type(value).__name__} cannot be part of a ViewSpec")

    def _place(self, array: NDArray[Any]) -> int:
        place = self._places.setdefault(id(array), len(self.arrays))
        if place == len(self.arrays):
            kept = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            if kept.dtype.str not in DTYPES:
                raise TypeError(f"an array of {array.dtype} cannot be part of a ViewSpec")
            self.arrays.append(kept)
        return place


@cache
def fields_of(kind: type) -> dict[str, Any]:
    """Names and types of the fields of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: hints[one.name] for one in fields(kind)}


def tags_of(union: Sequence[Any]) -> dict[str, Any]:
    """`kind` → dataclass, of dataclasses that say what they are."""
    return {get_args(fields_of(one)["kind"])[0]: one for one in union}


def unpack(kind: Any, value: Any, arrays: Sequence[NDArray[Any]], at: str = "") -> Any:
    """What `Packing.pack` was given.

    Parameters
    ----------
    kind
        Its type.
    value
        The JSON.
    arrays
        The arrays it refers to.
    at
        Where it stands, for errors.

    Raises
    ------
    Unfit
        It is not of this type.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _array(args[1], value, arrays, at) if isinstance(args[1], Buffer) else _of(dict, value, at)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, value, arrays, at)
    if origin in (Union, UnionType):
        return _one_of(args, value, arrays, at)
    if origin is Literal:
        if value not in args:
            raise Unfit(f"{at} is none of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        items = _of(list, value, at)
        kinds = [args[0]] * len(items) if args[1:] == (...,) else args
        if len(items) != len(kinds):
            raise Unfit(f"{at} has {len(items)} items instead of {len(kinds)}")
        places = enumerate(zip(kinds, items, strict=True))
        return tuple(unpack(one, item, arrays, f"{at}[{place}]") for place, (one, item) in places)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        named = _of(dict, value, at).items()
        return {unpack(args[0], key, arrays, at): unpack(args[1], item, arrays, f"{at}.{key}") for key, item in named}
    return _of(kind, value, at)


def _of(kind: type, value: Any, at: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise Unfit(f"{at or 'it'} is no {kind.__name__}")
    return value


def _dataclass(kind: Any, value: Any, arrays: Sequence[NDArray[Any]], at: str) -> Any:
    hints = fields_of(kind)
    if different := set(_of(dict, value, at)) ^ set(hints):
        name = min(different)
        raise Unfit(f"{at or 'it'} {'lacks' if name in hints else 'may not have'} '{name}'")
    return kind(
        **{name: unpack(hint, value[name], arrays, f"{at}.{name}" if at else name) for name, hint in hints.items()}
    )


def _one_of(kinds: Sequence[Any], value: Any, arrays: Sequence[NDArray[Any]], at: str) -> Any:
    """A value of one of several types: dataclasses are told apart by their `kind`, if there is more than one."""
    classes = [one for one in kinds if is_dataclass(one)]
    if not isinstance(value, dict) or not classes:
        plain = [one for one in kinds if one not in classes]
        if type(value) not in plain and not (type(value) is int and float in plain):
            names = ", ".join("null" if one is NoneType else one.__name__ for one in kinds)
            raise Unfit(f"{at} is none of {names}")
        return value
    if len(classes) == 1:
        return _dataclass(classes[0], value, arrays, at)
    tags = tags_of(classes)
    tag = value.get("kind")
    if not isinstance(tag, str) or tag not in tags:
        raise Unfit(f"{at}.kind is none of {', '.join(map(repr, tags))}")
    return _dataclass(tags[tag], value, arrays, at)


def _array(buffer: Buffer, value: Any, arrays: Sequence[NDArray[Any]], at: str) -> NDArray[Any]:
    place = value.get(REFERENCE) if isinstance(value, dict) and len(value) == 1 else None
    if type(place) is not int or not 0 <= place < len(arrays):
        raise Unfit(f"{at} is no buffer")
    array = arrays[place]
    if array.dtype.str not in buffer.dtypes or array.ndim != buffer.axes:
        raise Unfit(f"{at} has {array.ndim} axes of {array.dtype.str} instead of {buffer.axes} of {buffer.dtypes[0]}")
    return array
