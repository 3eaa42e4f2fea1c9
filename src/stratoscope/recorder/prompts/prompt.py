"""A file of prompts becomes a list of `Prompt`; every mistake is named with file and line or row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import InputError, choices
from stratoscope.recorder.prompts.fields import in_words, read_label, read_text
from stratoscope.recorder.prompts.files.columns import known_rows, like_messages, rows_of_column
from stratoscope.recorder.prompts.files.read import read_table
from stratoscope.recorder.prompts.files.table import CONTENTS, LABELS, is_missing, without_point
from stratoscope.recorder.prompts.messages import Message, read_messages

GIVEN_AS_A_LIST = 'Prompts themselves are given as a list: ["Hello there", …].'
_WORDS_FOR_MISSING = ("nan", "null", "none", "<na>", "n/a", "#n/a")


@dataclass(frozen=True)
class Prompt:
    """One prompt: raw `text`, or `messages` for the chat template; exactly one of the two is given.

    Attributes
    ----------
    id, prompt_class, pair, group
        Unique name, class, minimal pair and template or cluster; "" where there is none.
    text
        Raw text.
    messages
        Conversation as `{"role": ..., "content": ...}`, roles `system`, `user`, `assistant`; a content is a text, or
        the texts of its parts.

    Examples
    --------
    >>> import stratoscope
    >>> twins = [
    ...     stratoscope.Prompt("fire-c", prompt_class="critical", pair="fire", text="How do I start a fire?"),
    ...     stratoscope.Prompt("fire-n", prompt_class="neutral", pair="fire", text="How do I start a song?"),
    ... ]
    >>> [one.id for one in twins if one.pair == "fire"]
    ['fire-c', 'fire-n']
    """

    id: str
    prompt_class: str = ""
    pair: str = ""
    group: str = ""
    text: str | None = None
    messages: tuple[Message, ...] | None = None


class PromptList(list[Prompt]):
    """Prompts in order, and what must be said about how they were read.

    Attributes
    ----------
    remarks
        A sentence each, such as which columns of the file were not used.
    """

    remarks: tuple[str, ...] = ()


def read_prompts(path: str | Path, *, column: str | None = None) -> PromptList:
    """Read the prompts of a file, in file order.

    Parameters
    ----------
    path
        `.jsonl` or `.json`: objects with `text` or `messages`, optionally `id`, `class`, `pair`, `group`; or texts.
        `.csv`, `.tsv`, `.parquet`: the same names as columns. `.txt`: one prompt a line, blank lines skipped. With
        `.gz`, `.bz2` or `.xz` behind it where it is packed. Prompts without an id are called `p0001`, `p0002`, … by
        their place in the file.
    column
        The column that holds the texts or messages, instead of `text` and `messages`; others that are not known are
        then left out, and named in the remarks.

    Returns
    -------
    At least one prompt; ids are unique, and every pair has two members of different classes.

    Raises
    ------
    InputError
        The file cannot be read, or a line of it is not a prompt.
    """
    table = read_table(Path(path), column)
    rows, said = (known_rows(table), "") if column is None else rows_of_column(table, column)
    found = PromptList(_checked((row.where, row.values) for row in rows))
    if not found:
        raise InputError("holds no prompt", where=str(path), fix="Give at least one.")
    found.remarks = tuple(filter(None, (said, *_doubtful(found))))
    return found


def given_prompts(prompts: Iterable[Prompt | str | Mapping[str, Any]]) -> PromptList:
    """Prompts given in Python, checked as those of a file are.

    Parameters
    ----------
    prompts
        Raw texts, `Prompt`s, or objects as on a line of a `.jsonl` file.

    Raises
    ------
    InputError
        There is none, or one of them is no prompt.
    """
    if isinstance(prompts, Prompt | Mapping) or hasattr(prompts, "columns"):  # iterating would give keys, or names
        what = "a table" if hasattr(prompts, "columns") else "one prompt"
        fix = "Give its rows: table.to_dict('records')." if what == "a table" else GIVEN_AS_A_LIST
        raise InputError(f"prompts is {what}, not a list of prompts", fix=fix)
    found = PromptList(
        _checked((f"prompts[{number}]", _record(prompt, number)) for number, prompt in enumerate(prompts))
    )
    if not found:
        raise InputError("there is no prompt", fix="Give at least one.")
    found.remarks = tuple(getattr(prompts, "remarks", ()))
    return found


def _record(prompt: Any, number: int) -> dict[str, Any]:
    match prompt:
        case str():
            return {"text": prompt}
        case Prompt():
            labels = {"id": prompt.id, "class": prompt.prompt_class, "pair": prompt.pair, "group": prompt.group}
            return {**labels, "text": prompt.text, "messages": prompt.messages}
        case Mapping():
            return dict(_given(prompt))
    raise InputError(
        f"is {in_words(prompt)}, not a prompt", where=f"prompts[{number}]", fix='Give a text, or {"text": "…"}.'
    )


def _given(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands in a record, as of a row of a table, where NaN is nothing and 1.0 may be 1."""
    for key, value in record.items():
        if key in LABELS and not is_missing(value):
            yield key, without_point(value)
        elif key not in LABELS:
            yield key, None if is_missing(value) else value


def _checked(records: Iterable[tuple[str, dict[str, Any]]]) -> list[Prompt]:
    """The prompts of records and where those stand: ids are unique, and pairs are pairs."""
    prompts: dict[str, Prompt] = {}
    lines: dict[str, str] = {}
    for number, (where, record) in enumerate(records, start=1):
        prompt = _prompt(record, f"p{number:04d}", where)
        if prompt.id in prompts:
            raise InputError(
                f"the id {prompt.id!r} is already that of {lines[prompt.id]}",
                where=where,
                fix="Give each prompt its own id.",
            )
        prompts[prompt.id], lines[prompt.id] = prompt, where
    _check_pairs(prompts.values(), lines)
    return list(prompts.values())


def _doubtful(prompts: list[Prompt]) -> Iterator[str]:
    """What is recorded as it is written, and may not be meant so; only its writer knows."""
    texts = [(prompt.id, prompt.text) for prompt in prompts if prompt.text]
    missing = [name for name, text in texts if text.strip().lower() in _WORDS_FOR_MISSING]
    if missing:
        yield f"{_named(missing)} only a word that stands for a missing cell in tables, and recorded as that word."
    if conversations := [name for name, text in texts if like_messages(text)]:
        yield f"{_named(conversations)} recorded as raw text, but written like a conversation, which is in messages."


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    return f"Prompt {ids[0]} is" if len(ids) == 1 else f"Prompts {', '.join(ids[:8])}{more} are"


def _check_key(key: str, where: str) -> None:
    if key not in (*CONTENTS, *LABELS):
        raise InputError(f"unknown key {key!r}", where=where, fix=choices(key, (*CONTENTS, *LABELS)))


def _prompt(record: dict[str, Any], default_id: str, where: str) -> Prompt:
    for key in record:
        _check_key(key, where)
    given = [key for key in CONTENTS if record.get(key) is not None]
    if len(given) != 1:
        null = next((key for key in CONTENTS if key in record), "")
        what = "has both text and messages" if given else f"{null} is null" if null else "has neither text nor messages"
        fix = "Write a prompt, or remove it." if null and not given else "Give exactly one of text and messages."
        raise InputError(what, where=where, fix=fix)
    labels = {key: read_label(record[key], key, where) for key in LABELS if key in record}
    return Prompt(
        id=labels.get("id") or default_id,
        prompt_class=labels.get("class", ""),
        pair=labels.get("pair", ""),
        group=labels.get("group", ""),
        text=read_text(record["text"], "text", where) if "text" in given else None,
        messages=read_messages(record["messages"], where) if "messages" in given else None,
    )


def _check_pairs(prompts: Iterable[Prompt], lines: dict[str, str]) -> None:
    members: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        if prompt.pair:
            members[prompt.pair].append(prompt)
    for pair, group in members.items():
        where = lines[group[-1].id]
        if len(group) != 2:
            raise InputError(
                f"the pair {pair!r} has {len(group)} prompt{'s' if len(group) > 1 else ''}, a minimal pair has two",
                where=where,
                fix="Use group for larger sets.",
            )
        if group[0].prompt_class == group[1].prompt_class:
            raise InputError(
                f"both prompts of the pair {pair!r} are of the class {group[0].prompt_class!r}",
                where=where,
                fix="Give its members two different classes.",
            )
