"""What stands in the fields of a prompt: texts and labels; anything else is refused by what it is."""

from __future__ import annotations

import json
import math
from numbers import Integral
from typing import Any

from stratoscope.errors import InputError

_SHOWN = 40  # characters of a value in an error
_NAMES = {"id": "poison-1", "class": "critical", "pair": "poison", "group": "advice"}  # examples of labels
_CONVERSATION = 'Give a conversation as {"messages": [{"role": "user", "content": "…"}]}.'


def read_text(value: Any, name: str, where: str) -> str:
    """A text that is not empty.

    Raises
    ------
    InputError
        It is none: a number or a list in its place is never turned into the words of a prompt.
    """
    if isinstance(value, list | tuple | dict) and name == "text":
        raise InputError(f"text is {in_words(value)}, not a text", where=where, fix=_CONVERSATION)
    if value is None:
        raise InputError(f"{name} is null: there is nothing in it", where=where, fix="Write a prompt, or remove it.")
    if not isinstance(value, str):
        raise InputError(f"{name} is {in_words(value)}, not a text", where=where, fix="Write the words of the prompt.")
    if not value:
        raise InputError(f"{name} is empty", where=where, fix="Write a prompt, or remove it.")
    _refuse_half_characters(value, name, where)
    return value


def read_label(value: Any, name: str, where: str) -> str:
    """A label; a whole number is its digits, and null is "", as there is none.

    Raises
    ------
    InputError
        It is something else.
    """
    if value is None:
        return ""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        none = "Leave it out where there is none." if math.isnan(value) else "Write a name or a whole number."
        raise InputError(f"{name} is {value}, which is no name", where=where, fix=none)
    if not isinstance(value, str):
        example = f'Write a name, such as "{_NAMES.get(name, "a")}", or leave it out.'
        raise InputError(f"{name} is {in_words(value)}, which is no name", where=where, fix=example)
    _refuse_half_characters(value, name, where)
    return value


def in_words(value: Any) -> str:
    """A value as it stands in JSON, shortened; what JSON does not know by its kind."""
    try:
        text: str = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return f"of the kind {type(value).__name__}"
    kind = "the list " if isinstance(value, list | tuple) else "the object " if isinstance(value, dict) else ""
    return kind + (text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def _refuse_half_characters(text: str, name: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} holds half of a surrogate pair, which is no character", where=where) from None
