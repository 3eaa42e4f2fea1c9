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
from stratoscope.recorder.input import message_texts
from stratoscope.recorder.input.bounded import TooCostly
from stratoscope.recorder.input.remarks import INFO, WARNING, Remark, quoted
from stratoscope.recorder.input.template import Template
from stratoscope.recorder.prompts.messages import Message, texts_of

SPAN = {name: index for index, name in enumerate(SPANS)}
UNKNOWN = -1

_SPAN_OF_ROLE = {"system": SPAN["system"], "user": SPAN["user"], "assistant": SPAN["answer"]}
_JOINED = "\n"  # between the parts of a content, where the template takes only one text
_THINKING = re.compile(r"<(?=[^<>]*think)[^<>]*>|\[/?THINK\]", re.IGNORECASE)
_MARKUP = re.compile(r"<[^<>\s]*>")  # as special tokens look, also those that the tokenizer lacks
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = 4  # words in a row that are more than a header


class Segment(NamedTuple):
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

    parts: list[Segment]
    remarks: list[Remark]
    missing: set[int]
    dated: bool


def render_chat(messages: Sequence[Message], tokenizer: Any, prompt_id: str, day: date) -> Rendered:
    """The prompt that a tokenizer's chat template makes of messages.

    After an assistant's message there is no answer to wait for: a generation prompt would open another one.

    Raises
    ------
    InputError
        There is no chat template, or it refuses the messages, or wants more than a template may have.
    """
    where = f"prompt {prompt_id}"
    if not tokenizer.chat_template:
        raise InputError(
            "needs a chat template, which this model's tokenizer does not have",
            where=where,
            fix="Use text, without --chat, or a model tuned for chat.",
        )
    template = Template(tokenizer, day, waiting=messages[-1]["role"] != "assistant")
    try:
        return _rendered(messages, template, where)
    except TooCostly as error:
        raise InputError(
            f"the chat template is stopped, as it may come from a stranger: {error}",
            where=where,
            fix="Shorten the prompt; or, if you trust the template, give as text what the tokenizer's "
            "apply_chat_template(…, tokenize=False) writes, and record that without --chat.",
        ) from None


def _rendered(messages: Sequence[Message], template: Template, where: str) -> Rendered:
    taken = [_as_taken(number, messages, template) for number in range(len(messages))]
    found, refused = _looked_for(taken, template)
    if found is None or found.missing:
        lists = _in_lists(taken, template)
        if lists is not None and (found is None or len(lists.missing) < len(found.missing)):
            found = lists
    if found is None:
        raise InputError(
            f"the chat template refuses these messages: {refused}",
            where=where,
            fix="Change the roles, or mend the template.",
        )
    parts = _parts(found, messages)
    if found.contents.all_known:
        parts = _default_system(parts, found.taken, template)
    remarks = [
        *_about_fates(found, messages),
        *_about_order(found, messages),
        *_about_parts(found, messages),
        *(_about_additions(parts, template.tokenizer, template.waiting) if found.contents.all_known else ()),
    ]
    date_lines = template.date_lines(found.written, found.taken)
    if date_lines is not None:
        day = template.day.isoformat()
        words = f"the chat template writes the date; it was told that today is {day} (--date tells another)"
        remarks.append(Remark(INFO, words, tuple(map(quoted, date_lines))))
    return Rendered(parts, list(dict.fromkeys(remarks)), found.missing, date_lines is not None)


@dataclass(frozen=True)
class _Found:
    """Messages as the template takes them, what it writes, and where in it their texts are.

    `slots`: of each text the number of its message, and the text.
    """

    taken: list[Message]
    written: str
    slots: list[tuple[int, str]]
    contents: message_texts.MessageTexts

    @property
    def missing(self) -> set[int]:
        """The messages of which no text is written."""
        numbered = zip(self.slots, self.contents.fates, strict=True)
        return {number for number, _ in self.slots} - {
            slot[0] for slot, fate in numbered if fate != message_texts.MISSING
        }


def _looked_for(taken: list[Message], template: Template) -> tuple[_Found | None, str]:
    """The texts of messages, found in what the template writes; None, and why, where it refuses them."""
    try:
        written = template.render(taken)
    except TooCostly:
        raise
    except Exception as error:  # a template may raise anything, from jinja2 or from itself
        return None, str(error)
    slots = [(number, text) for number, message in enumerate(taken) for text in texts_of(message)]
    found = message_texts.find(written, [text for _, text in slots], lambda texts: template.render(_with(taken, texts)))
    return _Found(taken, written, slots, found), ""


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
    marks = tuple(message_texts.mark(said, place) for place in range(len(texts)))
    trial = [one if isinstance(one["content"], str) else _as_one_text(one) for one in messages]
    trial[number] = {"role": message["role"], "content": marks}
    try:
        written = template.render(trial, part_key=(key := message_texts.mark(said, len(texts))))
    except Exception:  # a template may raise anything
        return _as_one_text(message)
    places = [written.find(mark) for mark in marks]
    in_order = min(places) >= 0 and places == sorted(places)
    return message if in_order and key not in written else _as_one_text(message)


def _in_lists(messages: Sequence[Message], template: Template) -> _Found | None:
    """The messages with every content as a list, as templates of models that see want it; None where it reads none."""
    lists: list[Message] = [{"role": message["role"], "content": texts_of(message)} for message in messages]
    key = message_texts.mark("".join(text for message in messages for text in texts_of(message)), len(messages))
    try:
        return None if key in template.render(lists, part_key=key) else _looked_for(lists, template)[0]
    except Exception:  # a template may raise anything
        return None


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


def _parts(found: _Found, messages: Sequence[Message]) -> list[Segment]:
    """The prompt, cut where a text begins and ends; what is between is the template's, where all places are known."""
    between = SPAN["template"] if found.contents.all_known else UNKNOWN
    parts, position = [], 0
    for place in found.contents.places:
        message = found.slots[place.number][0]
        parts.append(Segment(found.written[position : place.start], between))
        parts.append(Segment(found.written[place.start : place.end], _SPAN_OF_ROLE[messages[message]["role"]], message))
        position = place.end
    return [*parts, Segment(found.written[position:], between)]


def _default_system(parts: list[Segment], messages: Sequence[Message], template: Template) -> list[Segment]:
    """Give a default system text, which the template adds when there is no system message, its own part."""
    if messages[0]["role"] == "system":
        return parts
    mark = message_texts.mark("".join(part.text for part in parts), len(messages))
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
    return [Segment(before, span), Segment(middle, SPAN["system"]), Segment(after, span), *parts[1:]]


# --- remarks --------------------------------------------------------------------------------------------------------


def _about_fates(found: _Found, messages: Sequence[Message]) -> Iterator[Remark]:
    """Messages that are missing, cut, or changed."""
    for place, ((number, text), fate) in enumerate(zip(found.slots, found.contents.fates, strict=True)):
        name = _name(number, messages)
        if number in found.missing:
            yield Remark(WARNING, f"{name} is in no token: the chat template writes nothing of it")
        elif fate == message_texts.MISSING:
            yield Remark(WARNING, f"a part of {name} is in no token: the chat template writes nothing of it")
        elif fate == message_texts.CUT:
            thought = ", as it does with what was thought before an answer" if "</think>" in text else ""
            yield Remark(WARNING, f"a part of {name} is in no token: the chat template cuts it off{thought}")
        elif fate == message_texts.CHANGED:
            became = [found.written[one.start : one.end] for one in found.contents.places if one.number == place]
            how = message_texts.how_changed(text, became[0] if became else found.written)
            yield Remark(WARNING, f"the chat template writes {name} otherwise than given" + (f", {how}" if how else ""))
        elif fate == message_texts.TRIMMED:
            yield Remark(INFO, f"the chat template leaves out blanks at the ends of {name}")


def _name(number: int, messages: Sequence[Message]) -> str:
    role = messages[number]["role"]
    if [message["role"] for message in messages].count(role) == 1:
        return f"the {role} message"
    return f"{'an' if role == 'assistant' else 'a'} {role} message"


def _about_order(found: _Found, messages: Sequence[Message]) -> Iterator[Remark]:
    """Messages at another place than in the file, or more than once."""
    numbers = [place.number for place in found.contents.places]
    first = list(dict.fromkeys(found.slots[number][0] for number in numbers))
    if first != sorted(first):
        roles = ", ".join(messages[number]["role"] for number in first)
        yield Remark(INFO, f"the chat template writes the messages in another order than given, as {roles}")
    for number in dict.fromkeys(found.slots[one][0] for one in numbers if numbers.count(one) > 1):
        yield Remark(INFO, f"the chat template writes {_name(number, messages)} more than once")


def _about_parts(found: _Found, messages: Sequence[Message]) -> Iterator[Remark]:
    """Parts that became one text, and messages that became one turn."""
    roles = [message["role"] for message in messages]
    for number, message in enumerate(messages):
        if len(texts_of(message)) > len(texts_of(found.taken[number])):
            words = f"the parts of {_name(number, messages)} are joined by a line end"
            yield Remark(INFO, f"{words}, as the chat template takes only one text")
    for before, after in pairwise(found.contents.places):
        one, other = found.slots[before.number][0], found.slots[after.number][0]
        glue = found.written[before.end : after.start]
        if one == other and before.number != after.number:
            between = f"with {quoted(glue)} between" if glue else "with nothing between"
            yield Remark(INFO, f"the chat template joins the parts of {_name(one, messages)} {between}")
        elif one != other and not glue.strip():
            both = f"the {roles[one]} and the {roles[other]} message"
            yield Remark(INFO, f"the chat template writes {both} as one turn, with {quoted(glue)} between")


def _about_additions(parts: Sequence[Segment], tokenizer: Any, waiting: bool) -> Iterator[Remark]:
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
    text = _MARKUP.sub("\n", text)
    return [line.strip() for line in text.splitlines() if len(_WORD.findall(line)) >= _SENTENCE]
