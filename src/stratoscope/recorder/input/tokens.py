"""A prompt becomes token ids, what each token stands for, where it stands, and its span (user, special, …)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stratoscope.errors import InputError, ModelError
from stratoscope.recorder.input.chat import SPAN, Rendered, Segment, render_chat
from stratoscope.recorder.input.losses import Covered, losses, uncovered
from stratoscope.recorder.input.remarks import INFO, WARNING, Remark
from stratoscope.recorder.input.spelling import literals
from stratoscope.recorder.prompts.messages import Message, texts_of
from stratoscope.recorder.prompts.prompt import Prompt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Some = TypeVar("Some", bound="DataclassInstance")  # a prompt, whatever is known of its tokens
_LONGER = "Write a longer prompt."
_LIKE_MARKUP = re.compile(r"[<\[｟].*[>\]｠]", re.DOTALL)
_BLANK = "▁".encode()  # how SentencePiece writes a space
_OWN_BOS = "the text brings its own beginning-of-text token: the tokenizer's was not added to it"
_TWO_BOS = "the text begins with two beginning-of-text tokens, because they stand in it"


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
    answers
        Whether the answer comes next: false after a conversation that ends with an assistant's message.
    remarks
        How the tokens differ from what was written.
    dated
        Whether the chat template wrote the date into it.
    """

    ids: np.ndarray
    texts: list[str]
    spans: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    answers: bool = True
    remarks: tuple[Remark, ...] = ()
    dated: bool = False

    @property
    def generated(self) -> np.ndarray:
        """Which tokens the model generated, bool, shape (tokens,)."""
        generated: np.ndarray = self.spans == SPAN["generated"]
        return generated


def encode(
    prompt: Prompt, tokenizer: Any, *, chat: bool, day: date | None = None, answer_prefix: str = ""
) -> TokenisedPrompt:
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
    day
        What a chat template that asks for the date is told; by default today.
    answer_prefix
        Text that is put behind the prompt, as the beginning of its answer.

    Raises
    ------
    InputError
        There is no chat template, it refuses the messages, the prompt or a message of it is empty, or no token is of
        the last user message.
    ModelError
        The tokenizer cannot say which characters a token covers.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "this model has no fast tokenizer, so the text of its tokens is not known exactly",
            where=type(tokenizer).__name__,
            fix="Add a tokenizer.json to the model's folder.",
        )
    _refuse_empty(prompt)
    messages = prompt.messages
    if messages is None and chat:
        messages = ({"role": "user", "content": prompt.text or ""},)
    if messages is None:
        rendered = Rendered([Segment(prompt.text or "", SPAN["user"])], [], set(), dated=False)
    else:
        rendered = render_chat(messages, tokenizer, prompt.id, day or date.today())
    if answer_prefix:
        rendered = replace(rendered, parts=[*rendered.parts, Segment(answer_prefix, SPAN["answer"])])
    encoding = tokenizer(
        "".join(part.text for part in rendered.parts),
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
    leading = (index == bos and end > start for index, (start, end) in zip(ids, offsets, strict=True))
    own_bos = sum(takewhile(bool, leading))
    tokens, covered = _describe(ids, offsets, rendered.parts, tokenizer)
    remarks = [*_about_bos(own_bos, chat=messages is not None), *rendered.remarks]
    if messages is not None:
        gone = rendered.missing | _without_token(rendered, covered)
        _refuse_lost_question(gone, messages, prompt.id)
        words = "the {} message is in no token: the tokenizer drops all of it"
        remarks += [Remark(WARNING, words.format(messages[number]["role"])) for number in gone - rendered.missing]
    remarks += _losses(rendered, messages, covered, 0 if messages else own_bos)
    return replace(
        tokens,
        answers=messages is None or messages[-1]["role"] != "assistant",
        remarks=tuple(dict.fromkeys(remarks)),
        dated=rendered.dated,
    )


def continued(prompt: TokenisedPrompt, ids: Sequence[int], tokenizer: Any) -> TokenisedPrompt:
    """A prompt followed by tokens that the model generated, each with the bytes it stands for."""
    texts = literals(ids, tokenizer)
    nowhere = np.full(len(ids), -1, np.int32)
    return replace(
        prompt,
        ids=np.concatenate([prompt.ids, np.asarray(ids, np.int32)]),
        texts=[*prompt.texts, *(text.decode("utf-8", "surrogateescape") for text in texts)],
        spans=np.concatenate([prompt.spans, np.full(len(ids), SPAN["generated"], np.int8)]),
        starts=np.concatenate([prompt.starts, nowhere]),
        ends=np.concatenate([prompt.ends, nowhere]),
    )


def cut(prompt: Some, tokens: int) -> Some:
    """The first tokens of a prompt, with all that is known of each."""
    columns = {one.name: getattr(prompt, one.name) for one in fields(prompt)}
    return replace(prompt, **{name: of[:tokens] for name, of in columns.items() if isinstance(of, (list, np.ndarray))})


def _refuse_empty(prompt: Prompt) -> None:
    if prompt.messages is None and not prompt.text:
        raise InputError("has no token", where=f"prompt {prompt.id}", fix=_LONGER)
    if prompt.messages is not None:
        empty = [number for number, message in enumerate(prompt.messages, start=1) if not message["content"]]
        if empty or not prompt.messages:
            what = f"message {empty[0]} is empty" if empty else "has no message"
            raise InputError(what, where=f"prompt {prompt.id}", fix=_LONGER)


def _about_bos(own: int, *, chat: bool) -> list[Remark]:
    """Of `own` beginning-of-text tokens that stand in the prompt itself."""
    if own > 1:
        return [Remark(WARNING, _TWO_BOS, id="L17")]
    return [Remark(INFO, _OWN_BOS, id="L17")] if own and not chat else []


def _refuse_lost_question(gone: set[int], messages: Sequence[Message], prompt_id: str) -> None:
    """Refuse a conversation whose last user message the model would not see."""
    asked = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if asked and asked[-1] in gone:
        raise InputError(
            "no token is of the last user message: the chat template or the tokenizer drops all of it",
            where=f"prompt {prompt_id}, message {asked[-1] + 1}",
            fix="Change the message or the template, or give the prompt as text, without --chat.",
        )


# --- tokens of the rendered prompt ----------------------------------------------------------------------------------


def _describe(
    ids: list[int], offsets: list[tuple[int, int]], parts: Sequence[Segment], tokenizer: Any
) -> tuple[TokenisedPrompt, list[Covered]]:
    """Walk through the rendered prompt, token by token; what each says and covers."""
    content = "".join(part.text for part in parts)
    source = content.encode()
    span_of_byte = [part.span for part in parts for _ in part.text.encode()]
    byte_of_character = [0, *accumulate(len(character.encode()) for character in content)]
    special, markup = special_ids(tokenizer), _markup_ids(tokenizer)

    unknown, verbatim = tokenizer.unk_token_id, tokenizer.backend_tokenizer.normalizer is None
    texts: list[bytes] = []
    spans: list[int] = []
    covered: list[Covered] = []
    cursor = 0
    for index, literal, (start, end) in zip(ids, literals(ids, tokenizer), offsets, strict=True):
        if index in special and start == end:  # the tokenizer added it: it is no part of the prompt
            place = (-1, -1)
            texts.append(literal)
        else:
            offsets_of = (byte_of_character[start], byte_of_character[end])
            exact = verbatim and index != unknown
            place = _taken(source, cursor, literal, *offsets_of, verbatim=exact)
            begin, cursor = place
            texts.append(literal if exact and cursor - begin > len(literal) else source[begin:cursor])
        covered.append(Covered(literal, *place, markup=index in markup, unknown=index == unknown))
        spans.append(SPAN["special"] if index in special else _commonest(span_of_byte, cursor, place[1] - place[0]))
    places = np.array([(one.start, one.end) for one in covered], np.int64)
    starts, ends = _characters(places, np.asarray(byte_of_character, np.int64))
    tokens = TokenisedPrompt(
        ids=np.asarray(ids, np.int32),
        texts=[text.decode("utf-8", "surrogateescape") for text in texts],
        spans=np.asarray(spans, np.int8),
        starts=starts,
        ends=ends,
    )
    return tokens, covered


def _losses(
    rendered: Rendered, messages: Sequence[Message] | None, covered: Sequence[Covered], own_bos: int
) -> list[Remark]:
    """What the tokens do not say of the prompt; its own beginning-of-text tokens have a remark already."""
    source = "".join(part.text for part in rendered.parts).encode()
    raw = messages is None
    of_user = [raw or part.message is not None for part in rendered.parts for _ in part.text.encode()]
    placed = {part.message for part in rendered.parts}
    unplaced = [message for number, message in enumerate(messages or ()) if number not in placed | rendered.missing]
    texts = [text.encode() for message in unplaced for text in texts_of(message)]
    known = [*(one._replace(markup=False) for one in covered[:own_bos]), *covered[own_bos:]]
    return losses(source, of_user, known, unplaced=texts, chat=not raw)


def _without_token(rendered: Rendered, covered: Sequence[Covered]) -> set[int]:
    """The messages that the template writes and of which the tokenizer leaves nothing."""
    size = sum(len(part.text.encode()) for part in rendered.parts)
    bare = [*uncovered(size, covered)]
    seen: dict[int, bool] = {}
    start = 0
    for part in rendered.parts:
        end = start + len(part.text.encode())
        if part.message is not None:
            lost = any(first <= start and end <= last for first, last in bare)
            seen[part.message] = seen.get(part.message, False) or not lost
        start = end
    return {message for message, kept in seen.items() if not kept}


def ids_of(text: str, tokenizer: Any, where: str) -> list[int]:
    """The tokens that a tokenizer makes of a text alone.

    Raises
    ------
    InputError
        It has none, or holds a character that is not in the vocabulary; `where` says whose text it is.
    """
    ids = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"] if text else []
    if not ids:
        raise InputError("has no token", where=where, fix="Write at least a letter.")
    if tokenizer.unk_token_id in ids and str(tokenizer.unk_token) not in text:
        what = f"holds a character that the tokenizer does not know: it becomes {tokenizer.unk_token!r}"
        raise InputError(what, where=where, fix="Write it without that character.")
    return list(ids)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that are markup and not text."""
    added = tokenizer.added_tokens_decoder
    return set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}


def _markup_ids(tokenizer: Any) -> set[int]:
    """Ids of the tokens that templates write, also where the tokenizer does not call them special: `<think>`."""
    added = tokenizer.added_tokens_decoder
    return special_ids(tokenizer) | {index for index, token in added.items() if _LIKE_MARKUP.fullmatch(str(token))}


def _characters(places: np.ndarray, byte_of_character: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of bytes as stretches of the characters they touch, int32; −1 stays −1."""
    starts = np.searchsorted(byte_of_character, places[:, 0], side="right") - 1
    ends = np.searchsorted(byte_of_character, places[:, 1], side="left")
    outside = places[:, 0] < 0
    empty = places[:, 0] == places[:, 1]
    ends = np.where(empty, starts, ends)
    return tuple(np.where(outside, -1, found).astype(np.int32) for found in (starts, ends))  # type: ignore[return-value]


def _taken(source: bytes, cursor: int, literal: bytes, start: int, end: int, *, verbatim: bool) -> tuple[int, int]:
    """Where the stretch of the prompt that a token covers begins, not before the cursor, and where it ends.

    They are the token's own bytes, less a space that SentencePiece puts in front of a text, or with a ▁ of the text
    for a space. Where those do not stand there, characters were dropped, or the text was normalised. A text that is
    cut up verbatim holds the token's bytes next, with what was dropped between them, which its offsets do not count;
    of any other, the offsets decide.
    """
    for candidate in (literal, literal.replace(b" ", _BLANK), literal.removeprefix(b" ")):
        if source.startswith(candidate, cursor):
            return cursor, cursor + len(candidate)
    begin = max(cursor, start)
    return (_spread(source, cursor, literal) if verbatim else None) or (begin, max(begin, end))


def _spread(source: bytes, cursor: int, literal: bytes) -> tuple[int, int] | None:
    """The first stretch that holds these bytes in their order; None where there is none."""
    places = []
    for byte in literal:
        cursor = source.find(byte, cursor) + 1
        if not cursor:
            return None
        places.append(cursor)
    return (places[0] - 1, places[-1]) if places else None


def _commonest(span_of_byte: list[int], end: int, size: int) -> int:
    """The span most of a token's bytes belong to; a token without bytes goes with what follows it."""
    piece = span_of_byte[end - size : end] or span_of_byte[end : end + 1] or span_of_byte[-1:]
    return max(piece, key=piece.count, default=-1)
