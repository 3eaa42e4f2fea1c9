"""Frozen dataclasses with arrays in them as JSON and buffers, and back: checked against their types when read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from stratoscope.view.spec.buffers import DTYPES, MOST_AXES, Buffer

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
else:
    Json = Any  # an alias of itself cannot be evaluated
Hint: TypeAlias = Any  # a type, as `get_type_hints` gives it
Values: TypeAlias = Annotated[Mapping[str, Json], "any"]  # values by name, of whatever kind JSON has
REFERENCE = "$buffer"  # in JSON, {"$buffer": 3} stands for the fourth buffer
_LONGEST_NAME, _LARGEST = 40, 2**1023
_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    NoneType: "null",
}


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
            if kept.dtype.str not in DTYPES or kept.ndim > MOST_AXES or 0 in kept.shape[1:]:
                raise TypeError(f"an array of {array.dtype} and shape {array.shape} cannot be part of a ViewSpec")
            self.arrays.append(kept)
        return place


@cache
def fields_of(kind: type) -> Mapping[str, Hint]:
    """Names and types of the fields of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: hints[one.name] for one in fields(kind)}


def tags_of(union: Sequence[Hint]) -> Mapping[str, Hint]:
    """`kind` → dataclass, of dataclasses that say what they are."""
    return {get_args(fields_of(one)["kind"])[0]: one for one in union}


@dataclass
class Unpacking:
    """The dataclasses that `Packing.pack` was given, of their JSON and its arrays, checked against their types.

    Raises
    ------
    Unfit
        Something is not of its type; by every method.
    """

    arrays: Sequence[NDArray[Any]]
    _used: set[int] = field(default_factory=set)

    def unpack(self, kind: Hint, value: Json, at: str = "") -> Any:
        """What the JSON `value`, which stands at the place `at`, is as a `kind`."""
        origin: Hint = get_origin(kind)
        args = get_args(kind)
        if origin is Annotated:
            return self._array(args[1], value, at) if isinstance(args[1], Buffer) else _values(value, at)
        if isinstance(kind, type) and is_dataclass(kind):
            return self._dataclass(kind, value, at)
        if origin in (Union, UnionType):
            return self._one_of(args, value, at)
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
            return tuple(self.unpack(one, item, f"{at}[{place}]") for place, (one, item) in places)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            named = ((key, item, f"{at}[{shortened(key)}]") for key, item in _of(dict, value, at).items())
            return {self.unpack(args[0], key, f"the name {place}"): self.unpack(args[1], item, place)
                    for key, item, place in named}  # fmt: skip
        return _of(kind, value, at)

    def finish(self) -> None:
        """See to it that nothing was left over."""
        if unused := set(range(len(self.arrays))) - self._used:
            raise Unfit(f"buffer {min(unused)} is used nowhere")

    def _dataclass(self, kind: Hint, value: Json, at: str) -> Any:
        hints, given = fields_of(kind), _of(dict, value, at)
        if different := set(given) ^ set(hints):
            name = min(different)
            raise Unfit(f"{at or 'it'} {'lacks' if name in hints else 'may not have'} {shortened(name)}")
        parts = {name: self.unpack(hint, given[name], f"{at}.{name}" if at else name) for name, hint in hints.items()}
        return kind(**parts)

    def _one_of(self, kinds: Sequence[Hint], value: Json, at: str) -> Any:
        """A value of one of several types: dataclasses are told apart by their `kind`, if there is more than one."""
        classes = [one for one in kinds if is_dataclass(one)]
        if isinstance(value, dict) and classes:
            return self._dataclass(classes[0] if len(classes) == 1 else _tagged(classes, value, at), value, at)
        plain = [one for one in kinds if one not in classes]
        if type(value) in plain:
            return value
        if type(value) is int and float in plain:
            return _of(float, value, at)
        raise Unfit(f"{at} is none of {', '.join(_WORDS[dict if one in classes else one] for one in kinds)}")

    def _array(self, buffer: Buffer, value: Json, at: str) -> NDArray[Any]:
        place = value.get(REFERENCE) if isinstance(value, dict) and len(value) == 1 else None
        if type(place) is not int or not 0 <= place < len(self.arrays):
            raise Unfit(f"{at} is no buffer")
        array = self.arrays[place]
        if array.dtype.str not in buffer.dtypes or array.ndim != buffer.axes:
            allowed = " or ".join(buffer.dtypes)
            raise Unfit(f"{at} is {array.dtype.str} along {array.ndim} axes instead of {allowed} along {buffer.axes}")
        self._used.add(place)
        return array


def shortened(name: str) -> str:
    """A name of unknown origin, for errors."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def _of(kind: type, value: Json, at: str) -> Any:
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if type(value) is not kind:
        raise Unfit(f"{at or 'it'} is not {_WORDS[kind]}")
    return value


def _tagged(classes: Sequence[Hint], value: Mapping[str, Json], at: str) -> Hint:
    tags = tags_of(classes)
    tag = value.get("kind")
    if not isinstance(tag, str) or tag not in tags:
        raise Unfit(f"{at}.kind is none of {', '.join(map(repr, tags))}")
    return tags[tag]


def _values(value: Json, at: str) -> Any:
    """Any JSON, however deep, in which nothing can be taken for a buffer."""
    inside = [_of(dict, value, at)]
    for one in inside:
        if isinstance(one, dict) and REFERENCE in one:
            raise Unfit(f"{at} may not have {REFERENCE!r}")
        inside += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return value
