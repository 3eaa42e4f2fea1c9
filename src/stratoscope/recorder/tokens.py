"""A prompt becomes token ids, the exact text each token stands for, and its span (user, template, special, …)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from stratoscope.errors import InputError, ModelError
from stratoscope.names import SPANS
from stratoscope.recorder.prompts import Prompt

_SPAN = {name: index for index, name in enumerate(SPANS)}
_SPAN_OF_ROLE = {"system": _SPAN["system"], "user": _SPAN["user"], "assistant": _SPAN["answer"]}
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
    """

    ids: np.ndarray
    texts: list[str]
    spans: np.ndarray


def encode(prompt: Prompt, tokenizer: Any, *, chat: bool) -> TokenisedPrompt:
    """Tokenise a prompt and say what each token is.

    `text` is raw, with the special tokens the tokenizer itself adds; with `chat` it becomes one user message.
    `messages` use the chat template and end with its generation prompt. A beginning-of-text token that stands in the
    text already is not doubled.

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
        There is no chat template, it refuses the messages, or the prompt has no token.
    ModelError
        The tokenizer cannot say which characters a token covers.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "this model has no fast tokenizer, so the text of its tokens is not known exactly",
            where=type(tokenizer).__name__,
            fix="Add a tokenizer.json to the model's folder",
        )
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
    if ids[:2] == [tokenizer.bos_token_id] * 2 and offsets[0] == (0, 0):
        ids, offsets = ids[1:], offsets[1:]
    if not ids:
        raise InputError("has no token", where=f"prompt {prompt.id}", fix="Write a longer prompt")
    return _describe(ids, offsets, parts, tokenizer)


# --- the rendered prompt in parts -----------------------------------------------------------------------------------


def _chat_parts(messages: Iterable[dict[str, str]], tokenizer: Any, prompt_id: str) -> list[Part]:
    """The rendered conversation, cut where a message's content begins and ends."""
    messages = list(messages)
    if not tokenizer.chat_template:
        raise InputError(
            "needs a chat template, which this model's tokenizer does not have",
            where=f"prompt {prompt_id}",
            fix="Use text, without --chat, or a model tuned for chat",
        )

    def render(conversation: list[dict[str, str]]) -> str:
        rendered = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return str(rendered)

    try:
        rendered = render(messages)
    except Exception as error:  # a template may raise anything, from jinja2 or from itself
        raise InputError(
            f"the chat template refuses these messages: {error}", where=f"prompt {prompt_id}", fix="Change the roles"
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
    stands_for = _byte_reader(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}

    texts: list[bytes] = []
    spans: list[int] = []
    cursor = 0
    for index, spelling, (start, end) in zip(ids, tokenizer.convert_ids_to_tokens(ids), offsets, strict=True):
        literal = str(added[index]).encode() if index in added else stands_for(spelling)
        if index in special and start == end:  # the tokenizer added it: it is no part of the prompt
            texts.append(literal)
        else:
            cursor, piece = _taken(source, cursor, literal, byte_of_character[start], byte_of_character[end])
            texts.append(piece)
            cursor += len(piece)
        spans.append(_SPAN["special"] if index in special else _commonest(span_of_byte, cursor, len(texts[-1])))
    return TokenisedPrompt(
        ids=np.asarray(ids, np.int32),
        texts=[text.decode("utf-8", "surrogateescape") for text in texts],
        spans=np.asarray(spans, np.int8),
    )


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
