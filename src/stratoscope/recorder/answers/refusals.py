"""Whether an answer opens as a refusal: a rule about its first words, which anybody can check. No torch."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from stratoscope.errors import InputError

ENGLISH = Path(__file__).with_name("refusals.txt")
NOT = "!"  # begins a pattern that says what is no refusal
_MOST_BYTES = 2**20
_PLAIN = str.maketrans({**dict.fromkeys("’‘ʼ`´＇", "'"), "…": "..."})
_ELLIPSIS = re.compile(r"\.\.+")
_SENTENCE_END = re.compile(r"[.!?]+(?=[\W_]|$)|[。！？]+|\n\s*\n")
_SHORT_SENTENCE = re.compile(r"^([\w']+(?: [\w']+)?) \. ")  # "Sorry!", "Hello there."
_BETWEEN_WORDS = re.compile(r"[^\w'.]+|_|(?<!\w)'|'(?!\w)|\.(?=\w)")
_BEGINS, _ENDS = r"(?<![\w'])", r"(?![\w'])"
_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_LOOKED_AT = 1_000  # characters: what opens an answer stands there, and patterns take no longer
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")
_PIECE = re.compile(r"\s*(\.\.\.|\*|\(|\||\))\s*")
_WRITE = "Write one opening a line; docs/answers.md says what *, ..., (a|b) and ! mean."


def opening(answer: str, patterns: Sequence[str]) -> int:
    """Index of the first pattern that an answer begins with; −1 where none fits, or one says that it is no refusal.

    Parameters
    ----------
    answer
        What the model wrote.
    patterns
        Words with which a refusal begins. Upper and lower case, kinds of apostrophes, punctuation between words and
        what stands before the first word make no difference, nor does a block `<think>…</think>` in front. A pattern
        ends where a word ends. `*` is one word or none, `...` any words of the same sentence, `(a|b)` one of several;
        after `!` stands what is no refusal although another pattern says so. A first sentence of one or two words goes
        on with the next one: "Sorry! I can't".
    """
    begun = answer.lstrip()
    if thought := _REASONING.match(begun):
        begun = begun[thought.end() :]
    words = _words(begun.lstrip()[:_LOOKED_AT]).lstrip(". ")
    words = _SHORT_SENTENCE.sub(r"\1 ", words, count=1)
    found = -1
    for index, pattern in enumerate(patterns):
        if found >= 0 and not pattern.startswith(NOT):
            continue
        if _compiled(pattern).match(words):
            if pattern.startswith(NOT):
                return -1
            found = index
    return found


def checked_patterns(patterns: str | os.PathLike[str] | Iterable[str] = ENGLISH) -> tuple[str, ...]:
    """Patterns of a file, one a line, or as they are given.

    Parameters
    ----------
    patterns
        A UTF-8 text file in which blank lines and lines that begin with `#` say nothing; or the patterns themselves. By
        default those of English that come with Stratoscope.

    Raises
    ------
    InputError
        The file cannot be read, a pattern holds no word or an open bracket, or none says what is a refusal.
    """
    if isinstance(patterns, str | os.PathLike):
        lines = _lines(Path(patterns))
    else:
        lines = [(f"refusal pattern {number}", str(text)) for number, text in enumerate(patterns, start=1)]
    for where, text in lines:
        try:
            _compiled(text)
        except ValueError as error:
            raise InputError(str(error), where=where, fix=_WRITE) from None
    found = tuple(dict.fromkeys(text for _, text in lines))
    if all(text.startswith(NOT) for text in found):
        where = str(patterns) if isinstance(patterns, str | os.PathLike) else "refusal patterns"
        raise InputError("there is no refusal pattern", where=where, fix=_WRITE)
    return found


def _lines(path: Path) -> list[tuple[str, str]]:
    """The patterns of a file, and where they stand."""
    try:
        if path.exists() and not path.is_file():
            fix = "Give a file, or a list of patterns."
            raise InputError("is no file but a folder, a pipe or a device", where=str(path), fix=fix)
        if not path.is_file():
            raise InputError(
                "no such file of refusal patterns", where=str(path), fix="Check the path, or give a list of patterns."
            )
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(content) > _MOST_BYTES:
        raise InputError(f"has more than {_MOST_BYTES:,} bytes", where=str(path), fix=_WRITE)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError("is not UTF-8 text", where=f"{path}:{line}", fix="Save the file as UTF-8.") from None
    numbered = ((f"{path}:{number}", line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(where, line) for where, line in numbered if line and not line.startswith("#")]


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern for texts as `_words` gives them."""
    built, depth = "", 0
    for piece in _PIECE.split(pattern.removeprefix(NOT).strip()):
        match piece:
            case "...":
                built += "[^.]*?"
            case "*":
                built += r"(?:[\w']+ )?"
            case "(":
                built, depth = built + "(?:", depth + 1
            case ")":
                built, depth = built + ")", depth - 1
            case "|":
                built += "|"
            case _:
                built += _literal(piece)
        if depth < 0:
            raise ValueError(f"a bracket is closed that was not opened in {pattern!r}")
    if re.search(r"(?:^|[\s(|])'", pattern.translate(_PLAIN)):
        raise ValueError(f"a word does not begin with an apostrophe, as in (I am|I'm): {pattern!r}")
    if depth:
        raise ValueError(f"a bracket is not closed in {pattern!r}")
    if not any(character.isalnum() for character in pattern):
        raise ValueError(f"holds no word: {pattern!r}")
    return re.compile(built)


def _literal(text: str) -> str:
    """Words as they stand, from where a word begins to where one ends; in scripts without spaces, anywhere."""
    built = ""
    for word in _words(text).replace(".", " ").split():
        begin, end = ("" if _is_unspaced(word[place]) else edge for place, edge in ((0, _BEGINS), (-1, _ENDS)))
        built += f"{begin}{re.escape(word)}{end} ?"
    return built


def _words(text: str) -> str:
    """A text in small letters without punctuation: one space between words, and a full stop where a sentence ends."""
    plain = unicodedata.normalize("NFKC", text.translate(_PLAIN)).casefold()
    sentences = _SENTENCE_END.sub(" . ", _ELLIPSIS.sub(" ", plain))
    return " ".join(_BETWEEN_WORDS.sub(" ", sentences).split())


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)
