"""A prompts file (`.jsonl`, `.csv` or `.txt`) becomes a list of `Prompt`; every mistake is named with file and line."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import InputError
from stratoscope.recorder.fields import in_words, read_label, read_text
from stratoscope.recorder.messages import Message, read_messages

LABELS = ("id", "class", "pair", "group")
CONTENTS = ("text", "messages")


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
    """

    id: str
    prompt_class: str = ""
    pair: str = ""
    group: str = ""
    text: str | None = None
    messages: tuple[Message, ...] | None = None


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read the prompts of a file, in file order.

    Parameters
    ----------
    path
        `.jsonl`: one object a line with `text` or `messages`, optionally `id`, `class`, `pair`, `group`.
        `.csv`: the same names as columns, `messages` as JSON text. `.txt`: one prompt a line, blank lines skipped.
        UTF-8. Prompts without an id are called `p0001`, `p0002`, … by their place in the file.

    Returns
    -------
    At least one prompt; ids are unique, and every pair has two members of different classes.

    Raises
    ------
    InputError
        The file cannot be read, or a line of it is not a prompt.
    """
    path = Path(path)
    readers = {".jsonl": _jsonl_records, ".csv": _csv_records, ".txt": _txt_records}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"a prompts file ends in {', '.join(readers)}, not {path.suffix!r}",
            where=str(path),
            fix="Rename it after what it holds",
        )
    prompts = _checked(readers[path.suffix.lower()](_read_text(path), path))
    if not prompts:
        raise InputError("holds no prompt", where=str(path), fix="Write one prompt a line")
    return prompts


def given_prompts(prompts: Iterable[Prompt | str | Mapping[str, Any]]) -> list[Prompt]:
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
        fix = "Give its rows: table.to_dict('records')" if what == "a table" else "Put it into a list"
        raise InputError(f"prompts is {what}, not a list of prompts", fix=fix)
    found = _checked((f"prompts[{number}]", _record(prompt, number)) for number, prompt in enumerate(prompts))
    if not found:
        raise InputError("there is no prompt", fix="Give at least one")
    return found


def _record(prompt: Any, number: int) -> dict[str, Any]:
    match prompt:
        case str():
            return {"text": prompt}
        case Prompt():
            labels = {"id": prompt.id, "class": prompt.prompt_class, "pair": prompt.pair, "group": prompt.group}
            return {**labels, "text": prompt.text, "messages": prompt.messages}
        case Mapping():
            return dict(prompt)
    raise InputError(
        f"is {in_words(prompt)}, not a prompt", where=f"prompts[{number}]", fix='Give a text, or {"text": "…"}'
    )


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


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such prompts file", where=str(path), fix="Check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError("is not UTF-8 text", where=f"{path}:{line}", fix="Save the file as UTF-8") from None


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, and where they stand; only LF and CRLF end a line, as U+2028 may be part of a text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _txt_records(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in _lines(text, path):
        yield where, {"text": line}


def _jsonl_records(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in _lines(text, path):
        record = _parse_json(line, where)
        if not isinstance(record, dict):
            raise InputError("is not a JSON object", where=where, fix='Write {"text": "…"} on each line')
        yield where, record


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique_keys(pairs, where))
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not valid JSON: {error.msg} at character {error.pos + 1}",
            where=where,
            fix="Write one JSON object a line",
        ) from None
    except RecursionError:
        raise InputError("is not a prompt: its JSON is nested too deep", where=where) from None


def _unique_keys(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the key {twice!r} stands twice", where=where, fix="Keep one of them")
    return record


def _csv_records(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(_keep_line_ends(text), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(cells):
                continue
            if header is None:
                header = _csv_header(cells, where)
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"has {len(cells)} cells, the header has {len(header)}",
                    where=where,
                    fix="Quote texts that hold commas or line ends",
                )
            record: dict[str, Any] = {key: cell for key, cell in zip(header, cells, strict=True) if cell}
            if "messages" in record:
                record["messages"] = _parse_json(record["messages"], where)
            yield where, record
    except csv.Error as error:
        raise InputError(
            f"is not valid CSV: {error}", where=f"{path}:{line}", fix='Double every quote inside a quoted text ("")'
        ) from None


def _keep_line_ends(text: str) -> Iterator[str]:
    """Lines with their ends, as `csv` wants them, so that line ends inside quoted texts stay what they are."""
    for line in text.split("\n"):
        yield line + "\n"


def _csv_header(cells: list[str], where: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    for name in header:
        _check_key(name, where)
        if header.count(name) > 1:
            raise InputError(f"the column {name!r} stands twice", where=where, fix="Keep one of them")
    return header


def _check_key(key: str, where: str) -> None:
    if key not in (*CONTENTS, *LABELS):
        raise InputError(
            f"unknown key {key!r}", where=where, fix=f"Use text or messages, and optionally {', '.join(LABELS)}"
        )


def _prompt(record: dict[str, Any], default_id: str, where: str) -> Prompt:
    for key in record:
        _check_key(key, where)
    given = [key for key in CONTENTS if record.get(key) is not None]
    if len(given) != 1:
        null = next((key for key in CONTENTS if key in record), "")
        what = "has both text and messages" if given else f"{null} is null" if null else "has neither text nor messages"
        fix = "Write a prompt, or remove it" if null and not given else "Give exactly one of text and messages"
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
                fix="Use group for larger sets",
            )
        if group[0].prompt_class == group[1].prompt_class:
            raise InputError(
                f"both prompts of the pair {pair!r} are of the class {group[0].prompt_class!r}",
                where=where,
                fix="Give its members two different classes",
            )
