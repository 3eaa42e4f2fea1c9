"""A prompt becomes token ids, what each token stands for, where it stands, and its span (user, special, …)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, takewhile
from typing import Any

import numpy as np

from stratoscope.errors import InputError, ModelError
from stratoscope.names import SPANS
from stratoscope.recorder.prompts import Prompt

_SPAN = {name: index for index, name in enumerate(SPANS)}
_SPAN_OF_ROLE = {"system": _SPAN["system"], "user": _SPAN["user"], "assistant": _SPAN["answer"]}
_LONGER = "Write a longer prompt"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Part = tuple[str, int]  # a stretch of the rendered prompt and the span it belongs to, -1 unknown


@dataclass(frozen=True)
class TokenisedPrompt:
    """The tokens of one prompt.

    Attributes
    ----------
    ids
        int32, shape (tokens,).
    texts
        The bytes each token stands for, decoded as UTF-8 with `surrogateescape`. Without the special tokens that the
        tokenizer added, they join to exactly the rendered prompt.
    spans
        int8, shape (tokens,): index into `names.SPANS`, −1 unknown.
    starts, ends
        int32, shape (tokens,): the characters of the rendered prompt that the token's bytes belong to, end excluded;
        the byte fragments of one character all have that character's. −1 where the token is not part of the rendered
        prompt, because the tokenizer added it or the model generated it.
    leading_bos
        Beginning-of-text tokens at the start that stand in the rendered text itself.
    answers
        Whether the answer comes next: false after a conversation that ends with an assistant's message.
    """

    ids: np.ndarray
    texts: list[str]
    spans: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    leading_bos: int = 0
    answers: bool = True

    @property
    def generated(self) -> np.ndarray:
        """Which tokens the model generated, bool, shape (tokens,)."""
        generated: np.ndarray = self.spans == _SPAN["generated"]
        return generated


def encode(prompt: Prompt, tokenizer: Any, *, chat: bool) -> TokenisedPrompt:
    """Tokenise a prompt and say what each token is.

    `text` is raw, with the special tokens the tokenizer itself adds; with `chat` it becomes one user message.
    `messages` use the chat template; it ends with its generation prompt, unless the last message is an assistant's. A
    beginning-of-text token that stands in the text already is not doubled.

    Parameters
    ----------
    prompt
        A row of a prompts file.
    tokenizer
        A fast Hugging Face tokenizer.
    chat
        Whether raw text is put into the chat template.

    Raises
    ------
    InputError
        There is no chat template, it refuses the messages, or the prompt or a message of it is empty.
    ModelError
        The tokenizer cannot say which characters a token covers.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "this model has no fast tokenizer, so the text of its tokens is not known exactly",
            where=type(tokenizer).__name__,
            fix="Add a tokenizer.json to the model's folder",
        )
    _refuse_empty(prompt)
    messages = prompt.messages
    if messages is None and chat:
        messages = ({"role": "user", "content": prompt.text or ""},)
    parts = [(prompt.text or "", _SPAN["user"])] if messages is None else _chat_parts(messages, tokenizer, prompt.id)
    encoding = tokenizer(
        "".join(text for text, _ in parts),
        add_special_tokens=messages is None,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    bos = tokenizer.bos_token_id
    if ids[:2] == [bos] * 2 and offsets[0] == (0, 0):
        ids, offsets = ids[1:], offsets[1:]
    if not ids:
        raise InputError("has no token", where=f"prompt {prompt.id}", fix=_LONGER)
    written = (index == bos and end > start for index, (start, end) in zip(ids, offsets, strict=True))
    return replace(
        _describe(ids, offsets, parts, tokenizer),
        leading_bos=sum(takewhile(bool, written)),
        answers=messages is None or messages[-1]["role"] != "assistant",
    )


def continued(prompt: TokenisedPrompt, ids: Sequence[int], tokenizer: Any) -> TokenisedPrompt:
    """A prompt followed by tokens that the model generated, each with the bytes it stands for."""
    stands_for = _reader(tokenizer)
    texts = [stands_for(index, spelling) for index, spelling in zip(ids, _spellings(ids, tokenizer), strict=True)]
    nowhere = np.full(len(ids), -1, np.int32)
    return replace(
        prompt,
        ids=np.concatenate([prompt.ids, np.asarray(ids, np.int32)]),
        texts=[*prompt.texts, *(text.decode("utf-8", "surrogateescape") for text in texts)],
        spans=np.concatenate([prompt.spans, np.full(len(ids), _SPAN["generated"], np.int8)]),
        starts=np.concatenate([prompt.starts, nowhere]),
        ends=np.concatenate([prompt.ends, nowhere]),
    )


def bos_notes(prompts: Sequence[TokenisedPrompt], raw: Sequence[bool]) -> list[dict[str, str]]:
    """Notes of the trace about prompts that bring their own beginning-of-text token, or begin with two.

    `raw`: which prompts are raw text, without a chat template.
    """
    own = sum(is_raw and prompt.leading_bos == 1 for prompt, is_raw in zip(prompts, raw, strict=True))
    twice = sum(prompt.leading_bos > 1 for prompt in prompts)
    notes = []
    if own:
        words = "brings its own beginning-of-text token: the tokenizer's was not added to it"
        notes.append({"id": "L17", "severity": "info", "text": f"{_of(own, len(prompts))} {words}."})
    if twice:
        words = "begins with two beginning-of-text tokens, because they stand in its text"
        notes.append({"id": "L17", "severity": "warning", "text": f"{_of(twice, len(prompts))} {words}."})
    return notes


def _of(some: int, all_: int) -> str:
    return f"Each of {some} of {all_} prompts" if some > 1 else f"One of {all_} prompts" if all_ > 1 else "The prompt"


def _refuse_empty(prompt: Prompt) -> None:
    if prompt.messages is None and not prompt.text:
        raise InputError("has no token", where=f"prompt {prompt.id}", fix=_LONGER)
    if prompt.messages is not None:
        empty = [number for number, message in enumerate(prompt.messages, start=1) if not message["content"]]
        if empty or not prompt.messages:
            what = f"message {empty[0]} is empty" if empty else "has no message"
            raise InputError(what, where=f"prompt {prompt.id}", fix=_LONGER)


# --- the rendered prompt in parts -----------------------------------------------------------------------------------


def _chat_parts(messages: Iterable[dict[str, str]], tokenizer: Any, prompt_id: str) -> list[Part]:
    """The rendered conversation, cut where a message's content begins and ends.

    After an assistant's message there is no answer to wait for: a generation prompt would open another one.
    """
    messages = list(messages)
    waiting = messages[-1]["role"] != "assistant"
    if not tokenizer.chat_template:
        raise InputError(
            "needs a chat template, which this model's tokenizer does not have",
            where=f"prompt {prompt_id}",
            fix="Use text, without --chat, or a model tuned for chat",
        )

    def render(conversation: list[dict[str, str]]) -> str:
        rendered = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=waiting)
        return str(rendered)

    try:
        rendered = render(messages)
    except Exception as error:  # a template may raise anything, from jinja2 or from itself
        raise InputError(
            f"the chat template refuses these messages: {error}",
            where=f"prompt {prompt_id}",
            fix="Change the roles, or mend the template",
        ) from None
    parts = _located(rendered, messages, render)
    if parts is None:
        return [(rendered, -1)]
    return _default_system(parts, messages, render)


def _located(
    rendered: str, messages: list[dict[str, str]], render: Callable[[list[dict[str, str]]], str]
) -> list[Part] | None:
    """Find the contents by rendering marks in their place; None where the template rewrites what it is given.

    Searching for the content itself would find it in a role header when somebody writes just "user".
    """
    marks = [_mark(rendered, number) for number in range(len(messages))]
    marked = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    try:
        pieces = re.split(f"({'|'.join(marks)})", render(marked))
    except Exception:  # the template looks into the contents
        return None
    parts: list[Part] = []
    position = 0
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        span = _SPAN["template"]
        choices = [piece]
        if piece in marks:
            message = messages[marks.index(piece)]
            span = _SPAN_OF_ROLE[message["role"]]
            content = message["content"]
            choices = [content, content.strip(), content.rstrip(), content.lstrip()]
        found = next((text for text in choices if rendered.startswith(text + _plain(following, marks), position)), None)
        if found is None:
            return None
        parts.append((found, span))
        position += len(found)
    return parts if position == len(rendered) else None


def _mark(rendered: str, number: int) -> str:
    """A word that stands nowhere in the prompt and that no template trims."""
    mark = f"qzx{number}xzq"
    while mark in rendered:
        mark = f"q{mark}q"
    return mark


def _plain(piece: str, marks: list[str]) -> str:
    return "" if piece in marks else piece


def _default_system(
    parts: list[Part], messages: list[dict[str, str]], render: Callable[[list[dict[str, str]]], str]
) -> list[Part]:
    """Give a default system text, which the template adds when there is no system message, its own part."""
    if messages[0]["role"] == "system":
        return parts
    mark = _mark("".join(text for text, _ in parts), len(messages))
    try:
        before, found, after = render([{"role": "system", "content": mark}, *messages]).partition(mark)
    except Exception:  # a template without system messages
        return parts
    opening, span = parts[0]
    # `after` runs through the whole conversation; only what stands before the first content matters here
    after = after[: len(after) - len("".join(text for text, _ in parts[1:]))]
    fits = len(before) + len(after) < len(opening) and opening.startswith(before) and opening.endswith(after)
    if not found or not after or not fits:
        return parts
    middle = opening[len(before) : len(opening) - len(after)]
    return [(before, span), (middle, _SPAN["system"]), (after, span), *parts[1:]]


# --- tokens of the rendered prompt ----------------------------------------------------------------------------------


def _describe(ids: list[int], offsets: list[tuple[int, int]], parts: list[Part], tokenizer: Any) -> TokenisedPrompt:
    """Walk through the rendered prompt, token by token."""
    content = "".join(text for text, _ in parts)
    source = content.encode()
    span_of_byte = [span for text, span in parts for _ in text.encode()]
    byte_of_character = [0, *accumulate(len(character.encode()) for character in content)]
    stands_for = _reader(tokenizer)
    special = special_ids(tokenizer)

    texts: list[bytes] = []
    spans: list[int] = []
    places: list[tuple[int, int]] = []  # bytes of the rendered prompt
    cursor = 0
    for index, spelling, (start, end) in zip(ids, _spellings(ids, tokenizer), offsets, strict=True):
        literal = stands_for(index, spelling)
        if index in special and start == end:  # the tokenizer added it: it is no part of the prompt
            texts.append(literal)
            places.append((-1, -1))
        else:
            cursor, piece = _taken(source, cursor, literal, byte_of_character[start], byte_of_character[end])
            texts.append(piece)
            places.append((cursor, cursor + len(piece)))
            cursor += len(piece)
        spans.append(_SPAN["special"] if index in special else _commonest(span_of_byte, cursor, len(texts[-1])))
    starts, ends = _characters(np.asarray(places, np.int64), np.asarray(byte_of_character, np.int64))
    return TokenisedPrompt(
        ids=np.asarray(ids, np.int32),
        texts=[text.decode("utf-8", "surrogateescape") for text in texts],
        spans=np.asarray(spans, np.int8),
        starts=starts,
        ends=ends,
    )


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that are markup and not text."""
    added = tokenizer.added_tokens_decoder
    return set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}


def _characters(places: np.ndarray, byte_of_character: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of bytes as stretches of the characters they touch, int32; −1 stays −1."""
    starts = np.searchsorted(byte_of_character, places[:, 0], side="right") - 1
    ends = np.searchsorted(byte_of_character, places[:, 1], side="left")
    outside = places[:, 0] < 0
    empty = places[:, 0] == places[:, 1]
    ends = np.where(empty, starts, ends)
    return tuple(np.where(outside, -1, found).astype(np.int32) for found in (starts, ends))  # type: ignore[return-value]


def _taken(source: bytes, cursor: int, literal: bytes, start: int, end: int) -> tuple[int, bytes]:
    """Where the stretch of the prompt that a token covers begins, not before the cursor, and its bytes.

    They are the token's own bytes, less a space that SentencePiece puts in front of a text. Where those do not stand
    there, because the text was normalised or the tokenizer dropped a character, its offsets decide.
    """
    for candidate in (literal, literal.removeprefix(b" ")):
        if source.startswith(candidate, cursor):
            return cursor, candidate
    begin = max(cursor, start)
    return begin, source[begin:end]


def _commonest(span_of_byte: list[int], end: int, size: int) -> int:
    """The span most of a token's bytes belong to; a token without bytes goes with what follows it."""
    piece = span_of_byte[end - size : end] or span_of_byte[end : end + 1] or span_of_byte[-1:]
    return max(piece, key=piece.count, default=-1)


def _spellings(ids: Sequence[int], tokenizer: Any) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(list(ids)))


def _reader(tokenizer: Any) -> Callable[[int, str | None], bytes]:
    """The bytes that a token stands for, from its id and its spelling; none for an id that has no token."""
    added, spelled = tokenizer.added_tokens_decoder, _byte_reader(tokenizer)
    return lambda index, spelling: str(added[index]).encode() if index in added else spelled(spelling or "")


def _byte_reader(tokenizer: Any) -> Callable[[str], bytes]:
    """How this tokenizer spells bytes: byte-level BPE, SentencePiece or WordPiece."""
    decoder = tokenizer.backend_tokenizer.decoder
    kinds = _kinds(json.loads(decoder.__getstate__())) if decoder is not None else set()
    if "ByteLevel" in kinds:
        return _byte_level
    if "WordPiece" in kinds:
        return lambda token: token.removeprefix("##").encode()
    return _sentencepiece


def _kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder["type"]}.union(*(_kinds(child) for child in decoder.get("decoders", [])))


def _byte_level(token: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes([table[character] for character in token])
    except KeyError:  # not of the byte-level alphabet: it stands for itself
        return token.encode()


def _sentencepiece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (Radford et al. 2019, GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
