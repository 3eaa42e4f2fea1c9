"""What the tokens of a prompt do not say of it: characters that are dropped, unknown, rewritten, or read as markup."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from stratoscope.recorder.input.remarks import INFO, WARNING, Remark, quoted

_DROPS = "the tokenizer drops characters, which are in no token"
_NO_BLANKS = "the tokenizer drops blanks, or writes them otherwise"
_SHORT = 3  # characters that a remark may show of what a user wrote


class Covered(NamedTuple):
    """A token and the bytes of the prompt that it covers.

    Attributes
    ----------
    says
        The bytes that the token stands for in the vocabulary.
    start, end
        The bytes of the prompt; −1 where the tokenizer added the token.
    markup
        Whether it is a special token, or one that looks like one.
    unknown
        Whether it stands for whatever the vocabulary lacks.
    """

    says: bytes
    start: int
    end: int
    markup: bool
    unknown: bool


def losses(
    source: bytes, written: Sequence[bool], tokens: Sequence[Covered], *, unplaced: Sequence[bytes], chat: bool
) -> list[Remark]:
    """Remarks on a prompt from what each of its tokens says and covers.

    Parameters
    ----------
    source
        The prompt, UTF-8.
    written
        Which of its bytes a user wrote.
    tokens
        In order.
    unplaced
        What a user wrote and is in the prompt at a place that is not known.
    chat
        Whether the user's text stands in a chat template.
    """
    own = [token for token in tokens if token.start >= 0]
    gaps = dict(uncovered(len(source), own))
    odd = [token for token in own if token.says != source[token.start : token.end]]
    return [
        *_dropped(source, gaps, odd),
        *_unknown(source, written, odd),
        *(_rewritten(source, gaps, own) if odd else ()),
        *_spaces(source, gaps, odd),
        *_markup(written, own, unplaced, chat=chat),
        *_added(tokens),
    ]


def uncovered(size: int, tokens: Sequence[Covered]) -> Iterator[tuple[int, int]]:
    """Stretches of the `size` bytes of a prompt that no token covers, of tokens in its order."""
    position = 0
    for token in tokens:
        if token.start > position:
            yield position, token.start
        position = max(position, token.end)
    if position < size:
        yield position, size


def _dropped(source: bytes, gaps: Mapping[int, int], tokens: Sequence[Covered]) -> Iterator[Remark]:
    """Characters that no token covers, from where each such stretch begins and ends."""
    rewritten = {token.end for token in tokens if _differs(token, source)}  # what follows is part of a rewriting
    gone = "".join(_after(source, first, last, first in rewritten) for first, last in gaps.items())
    letters = dict.fromkeys(char for char in gone if not char.isspace())
    if letters:
        yield Remark(WARNING, _DROPS, tuple(map(quoted, letters)))
    if any(char.isspace() for char in gone):
        yield Remark(INFO, _NO_BLANKS)


def _after(source: bytes, first: int, last: int, rewritten: bool) -> str:
    """What is gone of a stretch: behind a rewritten token, what comes before a blank became part of that token."""
    gone = _text(source[first:last])
    return gone[len(_until_blank(gone)) :] if rewritten else gone


def _until_blank(text: str) -> str:
    return "".join(takewhile(lambda char: not char.isspace(), text))


def _unknown(source: bytes, written: Sequence[bool], tokens: Sequence[Covered]) -> Iterator[Remark]:
    """Characters that the vocabulary lacks: the model reads the same token for all of them."""
    lost = [token for token in tokens if token.unknown]
    for whose, some in (("", True), (" of the chat template", False)):
        mine = [token for token in lost if any(written[token.start : token.end]) == some]
        if mine:
            name = quoted(_text(mine[0].says))
            pieces = dict.fromkeys(_text(source[token.start : token.end]).strip() for token in mine)
            shown = tuple(quoted(piece if len(piece) <= _SHORT else f"{piece[:1]}…") for piece in pieces if piece)
            yield Remark(WARNING, f"characters{whose} that the tokenizer does not know become {name}", shown)


def _rewritten(source: bytes, gaps: Mapping[int, int], tokens: Sequence[Covered]) -> Iterator[Remark]:
    """Characters that the tokenizer writes otherwise before it cuts the text up."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    blanks = False
    for differs, run in groupby(tokens, key=lambda token: _differs(token, source)):
        if not differs:
            continue
        group = list(run)
        end = group[-1].end
        given = _text(source[group[0].start : end]) + _until_blank(_text(source[end : gaps.get(end, end)]))
        became = _text(b"".join(token.says for token in group))
        if became.strip() == given.strip():  # a special token that takes the blanks beside it
            blanks |= became.strip(" ") != given.strip(" ")
            continue
        if gone := _left_out(given, became):
            yield Remark(WARNING, _DROPS, tuple(map(quoted, gone)))
            continue
        how = _how(given, became)
        small = len(given) <= _SHORT and len(became) <= _SHORT
        kinds.setdefault(how, {}).update({f"{given!r} as {became!r}": None} if small else {})
    for (severity, words), shown in kinds.items():
        yield Remark(severity, f"the tokenizer rewrites the text{words}", tuple(shown))
    if blanks:
        yield Remark(INFO, _NO_BLANKS)


def _left_out(given: str, became: str) -> list[str]:
    """The characters without which a text is what it became; none where that is not what happened to it."""
    gone, rest = [], iter(became)
    wanted = next(rest, "")
    for char in given:
        if char == wanted:
            wanted = next(rest, "")
        else:
            gone.append(char)
    return list(dict.fromkeys(gone)) if not wanted else []


def _differs(token: Covered, source: bytes) -> bool:
    given = source[token.start : token.end]
    return not token.unknown and token.says not in (given, b" " + given)


def _how(given: str, became: str) -> tuple[str, str]:
    """How grave a rewriting is, and what it does."""
    if unicodedata.normalize("NFC", given) == unicodedata.normalize("NFC", became):
        return INFO, ", composing characters (Unicode NFC)"
    if became.strip(" ") == given.lower().strip(" "):
        return WARNING, " in lower case"
    if unicodedata.normalize("NFKC", given).strip(" ") == unicodedata.normalize("NFKC", became).strip(" "):
        return WARNING, " in another Unicode form"
    return WARNING, ""


def _spaces(source: bytes, gaps: Mapping[int, int], tokens: Sequence[Covered]) -> Iterator[Remark]:
    """Spaces that stand in front of a token and not in the prompt, as SentencePiece puts them."""
    if any(
        token.says == b" " + source[token.start : token.end] and not token.markup
        and not source[token.start : gaps.get(token.start, 0)].isspace()  # a line end that became a space
        for token in tokens
    ):  # fmt: skip
        yield Remark(INFO, "the tokenizer puts a space in front of a text that begins without one")


def _markup(
    written: Sequence[bool], tokens: Sequence[Covered], unplaced: Sequence[bytes], *, chat: bool
) -> Iterator[Remark]:
    """Texts of a user that become special tokens, as if a template had written them."""
    found = (token for token in tokens if token.markup and not token.unknown and token.says.strip())
    names = dict.fromkeys(_text(token.says) for token in found if _is_written(token, written, unplaced))
    if names:
        where = "a message holds" if chat else "the text holds"
        words = f"{where} what the tokenizer reads as special tokens, not as words"
        yield Remark(WARNING if chat else INFO, words, tuple(map(quoted, names)))


def _is_written(token: Covered, written: Sequence[bool], unplaced: Sequence[bytes]) -> bool:
    of_user = token.end > token.start and all(written[token.start : token.end])
    return of_user or any(token.says in text for text in unplaced)


def _added(tokens: Sequence[Covered]) -> Iterator[Remark]:
    """Special tokens that the tokenizer puts around a text."""
    places = [number for number, token in enumerate(tokens) if token.start >= 0]
    first, last = (places[0], places[-1]) if places else (len(tokens), len(tokens))
    front, back = tokens[:first], tokens[last + 1 :]
    if front:
        yield Remark(INFO, "the tokenizer adds a token in front", (quoted(_text(b"".join(t.says for t in front))),))
    if back:
        words = "the tokenizer adds a token at the end, so that what comes next comes after it"
        yield Remark(WARNING, words, (quoted(_text(b"".join(t.says for t in back))),))


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")
