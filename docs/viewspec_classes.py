"""A ViewSpec described for other languages: its classes, what their docstrings say of their fields, its JSON schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from stratoscope.view.spec import buffers
from stratoscope.view.spec.buffers import DTYPES, MOST_AXES, Buffer
from stratoscope.view.spec.document import REFERENCE, Hint, Json, fields_of
from stratoscope.view.spec.file import ALIGNED
from stratoscope.view.spec.viewspec import SPEC_VERSION, ViewSpec

ARRAYS: Mapping[str, Buffer] = {
    name: get_args(kind)[1] for name, kind in vars(buffers).items() if get_origin(kind) is Annotated
}
_ATTRIBUTES = re.compile(r"^Attributes\n-+\n(.*?)(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
_ATTRIBUTE = re.compile(r"^(\w[\w, ]*)\n((?:    .*\n?)+)", re.MULTILINE)
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


@dataclass(frozen=True)
class Field:
    """A field of a class: its type, and what it is, in words."""

    name: str
    kind: Hint
    words: str


def classes() -> tuple[type, ...]:
    """All classes that a ViewSpec is made of, those that are named first in front."""
    found: list[type] = [ViewSpec]
    for one in found:
        inside = (kind for hint in fields_of(one).values() for kind in _classes_in(hint))
        found += [kind for kind in dict.fromkeys(inside) if kind not in found]
    return tuple(found)


def summary(kind: type) -> str:
    """What a class is, in words."""
    return _one_line((inspect.getdoc(kind) or "").partition("\n\n")[0])


def described(kind: type) -> tuple[Field, ...]:
    """The fields of a class."""
    section = _ATTRIBUTES.search(inspect.getdoc(kind) or "")
    named = {
        name: _one_line(words)
        for names, words in _ATTRIBUTE.findall(section[1] if section else "")
        for name in names.split(", ")
    }
    hints = fields_of(kind)
    if get_origin(hints.get("kind")) is Literal:
        named.setdefault("kind", "Which class this is.")
    return tuple(Field(name, hint, named.get(name, "").replace("None", "null")) for name, hint in hints.items())


def buffer_name(buffer: Buffer) -> str:
    """What arrays of this type are called."""
    return next(name for name, one in ARRAYS.items() if one == buffer)


def json_schema() -> Json:
    """The JSON schema (draft 2020-12) of the JSON in the bytes of a ViewSpec."""
    entry: Mapping[str, Json] = {
        "dtype": {"enum": [*DTYPES]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": MOST_AXES},
        "offset": {"type": "integer", "minimum": 0, "multipleOf": ALIGNED},
    }
    document: Mapping[str, Json] = {
        "view_version": {"const": SPEC_VERSION},
        "view": _schema(ViewSpec),
        "buffers": {"type": "array", "items": _object(entry)},
    }
    arrays = {name: _array_schema(buffer) for name, buffer in ARRAYS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ViewSpec {SPEC_VERSION}",
        **_object(document),
        "$defs": {kind.__name__: _class_schema(kind) for kind in classes()} | arrays,
    }


def _object(properties: Mapping[str, Json]) -> Mapping[str, Json]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _class_schema(kind: type) -> Json:
    properties = {
        one.name: {**_schema(one.kind), **({"description": one.words} if one.words else {})} for one in described(kind)
    }
    return {"description": summary(kind), **_object(properties)}


def _array_schema(buffer: Buffer) -> Json:
    words = f"A buffer of {' or '.join(buffer.dtypes)} along {'one axis' if buffer.axes == 1 else 'two axes'}."
    return {"description": words, **_object({REFERENCE: {"type": "integer", "minimum": 0}})}


def _schema(kind: Hint) -> Mapping[str, Json]:
    origin: Hint = get_origin(kind)
    args = get_args(kind)
    if origin is Annotated and isinstance(args[1], Buffer):
        return {"$ref": f"#/$defs/{buffer_name(args[1])}"}
    if origin is Annotated:
        return {"type": "object"}
    if isinstance(kind, type) and is_dataclass(kind):
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(one) for one in args]}
    if origin is Literal:
        return {"enum": [*args]}
    if origin is tuple and args[1:] == (...,):
        return {"type": "array", "items": _schema(args[0])}
    if origin is tuple:
        items = [_schema(one) for one in args]
        return {"type": "array", "prefixItems": items, "minItems": len(args), "maxItems": len(args)}
    if origin is not None:
        return {"type": "object", "propertyNames": _schema(args[0]), "additionalProperties": _schema(args[1])}
    return {"type": _PLAIN[kind]}


def _classes_in(hint: Hint) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
        return
    origin: Hint = get_origin(hint)
    if origin is not Annotated:
        for one in get_args(hint):
            yield from _classes_in(one)


def _one_line(text: str) -> str:
    return " ".join(text.split())
