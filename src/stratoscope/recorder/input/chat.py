"""A conversation becomes the prompt that its chat template writes, in parts of known origin, with remarks on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

from stratoscope.errors import InputError
from stratoscope.names import SPANS
from stratoscope.recorder.input import contents
from stratoscope.recorder.input.remarks import INFO, WARNING, Remark, quoted
from stratoscope.recorder.input.template import Template
from stratoscope.recorder.messages import Message, texts_of

SPAN = {name: index for index, name in enumerate(SPANS)}
UNKNOWN = -1

_SPAN_OF_ROLE = {"system": SPAN["system"], "user": SPAN["user"], "assistant": SPAN["answer"]}
_JOINED = "\n"  # between the parts of a content, where the template takes only one text
_THINKING = re.compile(r"<[^<>]*think[^<>]*>|\[/?THINK\]", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = 4  # words in a row that are more than a header


class Part(NamedTuple):
    """A stretch of the prompt: its text, its span, and the message whose text it is, or no message's."""

    text: str
    span: int
    message: int | None = None


@dataclass(frozen=True)
class Rendered:
    """A conversation as its template writes it.

    Attributes
    ----------
    parts
        They join to the prompt.
    remarks
        How it differs from the messages.
    missing
        The messages of which nothing is written.
    dated
        Whether the template asked for the date.
    """

    parts: list[Part]
    remarks: list[Remark]
    missing: set[int]
    dated: bool


def render_chat(messages: Sequence[Message], tokenizer: Any, prompt_id: str, day: date) -> Rendered:
    """The prompt that a tokenizer's chat template makes of messages.

    After an assistant's message there is no answer to wait for: a generation prompt would open another one.

    Raises
    ------
    InputError
        There is no chat template, or it refuses the messages.
    """
    where = f"prompt {prompt_id}"
    if not tokenizer.chat_template:
        raise InputError(
            "needs a chat template, which this model's tokenizer does not have",
            where=where,
            fix="Use text, without --chat, or a model tuned for chat",
        )
    template = Template(tokenizer, day, waiting=messages[-1]["role"] != "assistant")
    taken = [_as_taken(number, messages, template) for number in range(len(messages))]
    try:
        written = template.render(taken)
    except Exception as error:  # a template may raise anything, from jinja2 or from itself
        raise InputError(
            f"the chat template refuses these messages: {error}",
            where=where,
            fix="Change the roles, or mend the template",
        ) from None
    told = template.told(written, taken)
    slots = [(number, text) for number, message in enumerate(taken) for text in texts_of(message)]
    found = contents.find(written, [text for _, text in slots], lambda texts: template.render(_with(taken, texts)))
    parts = _parts(written, found, slots, messages)
    if found.all_known:
        parts = _default_system(parts, taken, template)
    missing = _missing(found.fates, slots)
    remarks = [
        *_about_fates(written, found, slots, messages, missing),
        *_about_order(found, slots, messages),
        *_about_parts(written, found, slots, messages, taken),
        *(_about_additions(parts, tokenizer, template.waiting) if found.all_known else ()),
    ]
    if told is not None:
        words = f"the chat template writes the date; it was told that today is {day.isoformat()} (--date tells another)"
        remarks.append(Remark(INFO, words, tuple(map(quoted, told))))
    return Rendered(parts, list(dict.fromkeys(remarks)), missing, told is not None)


# --- contents in parts ----------------------------------------------------------------------------------------------


def _as_taken(number: int, messages: Sequence[Message], template: Template) -> Message:
    """A message with its content in parts where the template reads those, else with one text.

    A template that takes only texts writes the list itself into the prompt, or a part of it, or refuses it.
    """
    message = messages[number]
    texts = message["content"]
    if isinstance(texts, str):
        return message
    said = "".join(text for one in messages for text in texts_of(one))
    marks = tuple(contents.mark(said, place) for place in range(len(texts)))
    trial = [one if isinstance(one["content"], str) else _as_one_text(one) for one in messages]
    trial[number] = {"role": message["role"], "content": marks}
    try:
        written = template.render(trial, part_key=(key := contents.mark(said, len(texts))))
    except Exception:  # a template may raise anything
        return _as_one_text(message)
    places = [written.find(mark) for mark in marks]
    in_order = min(places) >= 0 and places == sorted(places)
    return message if in_order and key not in written else _as_one_text(message)


def _as_one_text(message: Message) -> Message:
    return {"role": message["role"], "content": _JOINED.join(texts_of(message))}


def _with(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    """The messages with other texts in place of theirs."""
    left = iter(texts)
    return [
        {"role": message["role"], "content": next(left)}
        if isinstance(message["content"], str)
        else {"role": message["role"], "content": tuple(next(left) for _ in message["content"])}
        for message in messages
    ]


# --- the rendered prompt in parts -----------------------------------------------------------------------------------


def _parts(
    written: str, found: contents.Contents, slots: Sequence[tuple[int, str]], messages: Sequence[Message]
) -> list[Part]:
    """The prompt, cut where a text begins and ends; what is between is the template's, where all places are known."""
    between = SPAN["template"] if found.all_known else UNKNOWN
    parts, position = [], 0
    for place in found.places:
        message = slots[place.number][0]
        parts.append(Part(written[position : place.start], between))
        parts.append(Part(written[place.start : place.end], _SPAN_OF_ROLE[messages[message]["role"]], message))
        position = place.end
    return [*parts, Part(written[position:], between)]


def _default_system(parts: list[Part], messages: Sequence[Message], template: Template) -> list[Part]:
    """Give a default system text, which the template adds when there is no system message, its own part."""
    if messages[0]["role"] == "system":
        return parts
    mark = contents.mark("".join(part.text for part in parts), len(messages))
    try:
        before, found, after = template.render([{"role": "system", "content": mark}, *messages]).partition(mark)
    except Exception:  # a template without system messages
        return parts
    opening, span, _ = parts[0]
    # `after` runs through the whole conversation; only what stands before the first content matters here
    after = after[: len(after) - len("".join(part.text for part in parts[1:]))]
    fits = len(before) + len(after) < len(opening) and opening.startswith(before) and opening.endswith(after)
    if not found or not after or not fits:
        return parts
    middle = opening[len(before) : len(opening) - len(after)]
    return [Part(before, span), Part(middle, SPAN["system"]), Part(after, span), *parts[1:]]


# --- remarks --------------------------------------------------------------------------------------------------------


def _missing(fates: Sequence[str], slots: Sequence[tuple[int, str]]) -> set[int]:
    """The messages of which no text is written."""
    there = {number for (number, _), fate in zip(slots, fates, strict=True) if fate != contents.MISSING}
    return {number for number, _ in slots} - there


def _about_fates(
    written: str,
    found: contents.Contents,
    slots: Sequence[tuple[int, str]],
    messages: Sequence[Message],
    missing: set[int],
) -> Iterator[Remark]:
    """Messages that are missing, cut, or changed."""
    for place, ((number, text), fate) in enumerate(zip(slots, found.fates, strict=True)):
        name = _name(number, messages)
        if number in missing:
            yield Remark(WARNING, f"{name} is in no token: the chat template writes nothing of it")
        elif fate == contents.MISSING:
            yield Remark(WARNING, f"a part of {name} is in no token: the chat template writes nothing of it")
        elif fate == contents.CUT:
            thought = ", as it does with what was thought before an answer" if "</think>" in text else ""
            yield Remark(WARNING, f"a part of {name} is in no token: the chat template cuts it off{thought}")
        elif fate == contents.CHANGED:
            became = [written[one.start : one.end] for one in found.places if one.number == place]
            how = contents.how_changed(text, became[0] if became else written)
            yield Remark(WARNING, f"the chat template writes {name} otherwise than given" + (f", {how}" if how else ""))
        elif fate == contents.TRIMMED:
            yield Remark(INFO, f"the chat template leaves out blanks at the ends of {name}")


def _name(number: int, messages: Sequence[Message]) -> str:
    role = messages[number]["role"]
    if [message["role"] for message in messages].count(role) == 1:
        return f"the {role} message"
    return f"{'an' if role == 'assistant' else 'a'} {role} message"


def _about_order(
    found: contents.Contents, slots: Sequence[tuple[int, str]], messages: Sequence[Message]
) -> Iterator[Remark]:
    """Messages at another place than in the file, or more than once."""
    order = [slots[place.number][0] for place in found.places]
    first = list(dict.fromkeys(order))
    if first != sorted(first):
        roles = ", ".join(messages[number]["role"] for number in first)
        yield Remark(INFO, f"the chat template writes the messages in another order than given, as {roles}")
    numbers = [place.number for place in found.places]
    for number in dict.fromkeys(slots[one][0] for one in numbers if numbers.count(one) > 1):
        yield Remark(INFO, f"the chat template writes the {messages[number]['role']} message more than once")


def _about_parts(
    written: str,
    found: contents.Contents,
    slots: Sequence[tuple[int, str]],
    messages: Sequence[Message],
    taken: Sequence[Message],
) -> Iterator[Remark]:
    """Parts that became one text, and messages that became one turn."""
    roles = [message["role"] for message in messages]
    for number, message in enumerate(messages):
        if len(texts_of(message)) > len(texts_of(taken[number])):
            words = f"the parts of the {roles[number]} message are joined by a line end"
            yield Remark(INFO, f"{words}, as the chat template takes only one text")
    for before, after in pairwise(found.places):
        one, other = slots[before.number][0], slots[after.number][0]
        glue = written[before.end : after.start]
        if one == other and before.number != after.number:
            between = f"with {quoted(glue)} between" if glue else "with nothing between"
            yield Remark(INFO, f"the chat template joins the parts of the {roles[one]} message {between}")
        elif one != other and not glue.strip():
            both = f"the {roles[one]} and the {roles[other]} message"
            yield Remark(INFO, f"the chat template writes {both} as one turn, with {quoted(glue)} between")


def _about_additions(parts: Sequence[Part], tokenizer: Any, waiting: bool) -> Iterator[Remark]:
    """Words that are in no message: a default system text, other sentences, a thought that is opened or closed."""
    own = [part for part in parts if part.message is None]
    for part in own:
        if part.span == SPAN["system"]:
            yield Remark(INFO, "the chat template adds a system text that is in no message", (quoted(part.text),))
        elif sentences := _sentences(part.text, tokenizer):
            yield Remark(INFO, "the chat template adds a text that is in no message", tuple(map(quoted, sentences)))
    if waiting and (thought := _THINKING.search(parts[-1].text)):
        opening = parts[-1].text[thought.start() :]
        yield Remark(INFO, "the chat template opens the answer", (quoted(opening),))


def _sentences(text: str, tokenizer: Any) -> list[str]:
    """The lines of a template's text that are more than a header."""
    added = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    for token in filter(str.strip, added):
        text = text.replace(token, "\n")
    return [line.strip() for line in text.splitlines() if len(_WORD.findall(line)) >= _SENTENCE]
