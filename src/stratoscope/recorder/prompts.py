"""A file of prompts becomes a list of `Prompt`; every mistake is named with file and line or row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import InputError
from stratoscope.recorder.prompt_files.columns import known_rows, like_messages, rows_of_column
from stratoscope.recorder.prompt_files.read import read_table
from stratoscope.recorder.prompt_files.table import CONTENTS, LABELS

_WORDS_FOR_MISSING = ("nan", "null", "none", "<na>", "n/a", "#n/a")
ROLES = ("system", "user", "assistant")


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
        Conversation as `{"role": ..., "content": ...}`, roles `system`, `user`, `assistant`.
    """

    id: str
    prompt_class: str = ""
    pair: str = ""
    group: str = ""
    text: str | None = None
    messages: tuple[dict[str, str], ...] | None = None


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
        raise InputError("holds no prompt", where=str(path), fix="Give at least one")
    found.remarks = tuple(filter(None, (said, *_doubtful(found))))
    return found


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
                fix="Give each prompt its own id",
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


def _prompt(record: dict[str, Any], default_id: str, where: str) -> Prompt:
    given = [key for key in CONTENTS if key in record]
    if len(given) != 1:
        what = "has both text and messages" if given else "has neither text nor messages"
        raise InputError(what, where=where, fix="Give exactly one of them")
    labels = {key: _label(record[key], key, where) for key in LABELS if key in record}
    return Prompt(
        id=labels.get("id") or default_id,
        prompt_class=labels.get("class", ""),
        pair=labels.get("pair", ""),
        group=labels.get("group", ""),
        text=_content(record["text"], "text", where) if "text" in record else None,
        messages=_messages(record["messages"], where) if "messages" in record else None,
    )


def _label(value: Any, key: str, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, key, where)


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key} is {json.dumps(value)[:40]}, not a text", where=where, fix="Put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{key} holds half of a surrogate pair, which is no character", where=where) from None
    return value


def _content(value: Any, key: str, where: str) -> str:
    if not _text(value, key, where):
        raise InputError(f"{key} is empty", where=where, fix="Write a prompt, or remove the line")
    return str(value)


def _messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    fix = 'Write [{"role": "user", "content": "…"}]'
    if not isinstance(value, list) or not value:
        raise InputError("messages is not a list of messages", where=where, fix=fix)
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise InputError(f"message {number} does not have exactly role and content", where=where, fix=fix)
        if message["role"] not in ROLES:
            raise InputError(
                f"message {number} has the role {message['role']!r}", where=where, fix=f"Use {', '.join(ROLES)}"
            )
        content = _content(message["content"], f"the content of message {number}", where)
        messages.append({"role": str(message["role"]), "content": content})
    return tuple(messages)


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
                fix="Use group for larger sets",
            )
        if group[0].prompt_class == group[1].prompt_class:
            raise InputError(
                f"both prompts of the pair {pair!r} are of the class {group[0].prompt_class!r}",
                where=where,
                fix="Give its members two different classes",
            )
