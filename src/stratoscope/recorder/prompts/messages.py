"""The messages of a conversation: roles and texts are read, whatever else one may hold is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from stratoscope.errors import InputError
from stratoscope.recorder.prompts.fields import in_words, read_text

ROLES = ("system", "user", "assistant")
WORDS = ("content", "value", "text", "message", "utterance")  # names under which others keep what is said

_MESSAGE = 'Write {"role": "user", "content": "…"}.'
_PART = 'Write {"type": "text", "text": "…"}.'
_AS_TEXT = "give what the model shall read as text: the tokenizer's apply_chat_template(…, tokenize=False) writes it."
_LEAVE_OUT = f"Leave it out, or {_AS_TEXT}"
_OTHER_NAMES = {
    "human": "user", "gpt": "assistant", "bot": "assistant", "ai": "assistant", "model": "assistant",
    "chatbot": "assistant", "developer": "system",
}  # fmt: skip
_THOUGHT = ("reasoning", "reasoning_content", "thinking")  # keys for what was thought before an answer


class Message(TypedDict):
    """Who says what: a text, or the texts of its parts."""

    role: str
    content: str | tuple[str, ...]


def read_messages(value: Any, where: str) -> tuple[Message, ...]:
    """A conversation of texts.

    Parameters
    ----------
    value
        A list of `{"role", "content"}`, roles `system`, `user` and `assistant`; the content is a text or a list of
        `{"type": "text", "text": …}`. A further key that is null or an empty list says nothing and is left out.
    where
        File and line, or the number of the prompt.

    Raises
    ------
    InputError
        It is no conversation, or it holds something that is not text: an image, a tool call, the result of a tool.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InputError("messages is not a list of messages", where=where, fix=f"{_MESSAGE[:-1]}, in a list.")
    return tuple(_message(message, f"message {number}", where) for number, message in enumerate(value, start=1))


def texts_of(message: Message) -> tuple[str, ...]:
    """The texts of a message's content: one, or those of its parts."""
    content = message["content"]
    return (content,) if isinstance(content, str) else tuple(content)


def _message(message: Any, name: str, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise InputError(f"{name} is {in_words(message)}, not role and content", where=where, fix=_MESSAGE)
    role = _role(message, name, where)
    other = next((key for key in WORDS[1:] if isinstance(message.get(key), str)), None)
    if other and message.get("content") is None:
        raise InputError(f"{name} has {other} and no content", where=where, fix=f"Call it content. {_MESSAGE}")
    _refuse_more(message, ("role", "content"), name, where)
    if message.get("content") is None:
        raise InputError(f"{name} has no content", where=where, fix="Write its text, or leave the message out.")
    content = message["content"]
    if isinstance(content, list | tuple):
        return {"role": role, "content": _parts(content, name, where)}
    return {"role": role, "content": read_text(content, f"the content of {name}", where)}


def _role(message: Mapping[str, Any], name: str, where: str) -> str:
    role = message.get("role")
    if role in ROLES:
        return str(role)
    if role is None:
        what = f"{name} has no role" + (", but `from`" if "from" in message else "")
        raise InputError(what, where=where, fix=f"{_MESSAGE} The roles are {', '.join(ROLES)}.")
    word = str(role).lower()
    if other := _OTHER_NAMES.get(word, word if word in ROLES else ""):
        fix = f'Write "{other}", if that is who speaks.'
    else:
        fix = f"Use {', '.join(ROLES)}, or {_AS_TEXT}"
    raise InputError(f"{name} has the role {role!r}", where=where, fix=fix)


def _refuse_more(fields: Mapping[str, Any], known: tuple[str, ...], name: str, where: str) -> None:
    """Refuse a key that says something, and that a template might write or leave out."""
    for key, value in fields.items():
        if key in known or value is None or value == []:
            continue
        fix = f"Write it into content, as the template does, or remove {key}." if key in _THOUGHT else _LEAVE_OUT
        raise InputError(f"{name} has {key}, and only role and content are read", where=where, fix=fix)


def _parts(parts: Any, name: str, where: str) -> tuple[str, ...]:
    """The texts of the parts of a content."""
    if not parts:
        raise InputError(f"the content of {name} is empty", where=where, fix="Write its text, or remove the message.")
    return tuple(_part(part, f"part {number} of {name}", where) for number, part in enumerate(parts, start=1))


def _part(part: Any, name: str, where: str) -> str:
    if isinstance(part, str):  # of a `Prompt`, which holds the texts of the parts
        return read_text(part, f"the text of {name}", where)
    if not isinstance(part, Mapping):
        raise InputError(f"{name} is {in_words(part)}, not a part of a content", where=where, fix=_PART)
    kind = part.get("type")
    if kind != "text":
        what = f"is of the type {kind!r}, and only text is read" if kind else "has no type"
        raise InputError(f"{name} {what}", where=where, fix=_PART if not kind or "text" in part else _LEAVE_OUT)
    _refuse_more(part, ("type", "text"), name, where)
    return read_text(part.get("text"), f"the text of {name}", where)
