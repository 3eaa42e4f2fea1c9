"""Tables of other tools: which one it is by what its columns hold, and the line that makes prompts of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stratoscope.recorder.prompts.files.commands import converting, literal
from stratoscope.recorder.prompts.files.json_rows import parse_cell, turn_keys
from stratoscope.recorder.prompts.files.label_columns import (
    is_label,
    label_columns,
    renamed_labels,
    unusable_labels,
    usable_labels,
)
from stratoscope.recorder.prompts.files.table import CONTENTS, LABELS, PROMPT_COLUMNS, Table, is_text
from stratoscope.words import listed

_SYSTEM = ("system", "system_prompt", "system_message")
_CONTEXT = ("input", "context")
_ANSWERS = (
    "answer", "answers", "response", "output", "completion", "target", "solution", "explanation", "reason", "notes",
    "note", "comment", "comments", "author", "context", "reference", "best_answer",
)  # fmt: skip
_ROLES = {
    "human": "user", "user": "user", "prompter": "user", "instruction": "user", "question": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "claude": "assistant", "bard": "assistant", "bing": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip


@dataclass(frozen=True)
class TableShape:
    """What a table looks like, the words and the line that convert it, the columns they use, and where it begins."""

    name: str
    words: str
    line: str
    used: tuple[str, ...]
    where: str = ""

    def advice(self, table: Table) -> str:
        """What to do, with everything that is then left out."""
        if not self.line:
            return self.words
        used = {*self.used, *LABELS, *label_columns(table).values()}
        unused = [name for name in table.columns if name not in used]
        columns = f", without {listed(map(repr, unused))}" if unused else ""
        return f"{self.words}{renamed_labels(table)}{columns}{unusable_labels(table)}: `{self.line}`."


def shape_of(table: Table) -> TableShape | None:
    """The first kind of table of another tool that this one is."""
    return next(filter(None, (look(table) for look in _LOOKS)), None)


def conversations(table: Table, column: str) -> TableShape | None:
    """A column of conversations in other words than role and content, user, assistant and system."""
    cells = [parse_cell(value) if isinstance(value, str) else (value, "") for value in table.column(column)]
    found = [(row.where, value, how) for row, (value, how) in zip(table.rows, cells, strict=True) if turn_keys(value)]
    other = [(where, value) for where, value, _ in found if not _is_plain(value)]
    if not other:
        return None
    where, first = other[0]
    speaker, words = turn_keys(first) or ("", "")
    named = {str(turn.get(speaker)) for _, value, _ in found for turn in value}
    roles = {name: _ROLES[name.lower()] for name in sorted(named) if name.lower() in _ROLES}
    text, whole = _text_of_turn(words)
    kept = sum(
        all(str(turn.get(speaker)) in roles and _is_whole(turn.get(words), words) for turn in value)
        for _, value, _ in found
    )
    name = f"conversations of {speaker} and {words}"
    if (speaker, words) == ("role", "content"):
        name = f"conversations with the roles {listed(map(repr, sorted(named - {*_ROLES.values()})))}"
    if not kept:
        others = ", ".join(sorted(named - roles.keys()))
        of = f" (of {others})" if others else ", each with a text and nothing else"
        what = f"None of them has only turns of a system, a user and an assistant{of}."
        return TableShape(name, what, "", (column,), where)
    read, how = literal(column), found[0][2]
    system = _system_of(table)
    line = converting(
        table,
        f'"messages":[{_system_turn(system)}*({{"role":R[m["{speaker}"]],"content":{text}}} for m in c)]',
        before=f"R={{{','.join(f'{literal(name)}:{literal(role)}' for name, role in roles.items())}}}; ",
        each=f"for r in rows if r.get({read}) for c in [{f'{how}(r[{read}])' if how else f'r[{read}]'}]",
        condition=f'c and all(m.get("{speaker}") in R and {whole} for m in c)',
        imports=[how.split(".")[0]] if how else [],
        keep=usable_labels(table),
    )
    left = without(table, len(table.rows) - kept, "other or empty turns")
    return TableShape(name, f"Write them as messages{left}", line, (column, *system), where)


def _text_of_turn(words: str) -> tuple[str, str]:
    """How Python reads the text of a turn `m`, and whether it has one and nothing else, as `parts` may have."""
    if words != "parts":
        return f'm["{words}"]', f'm.get("{words}")'
    return '"".join(p["text"] for p in m["parts"])', 'm.get("parts") and all({*p}=={"text"} for p in m["parts"])'


def _is_whole(value: Any, words: str) -> bool:
    """Whether a turn has a text, and nothing but texts where it has parts."""
    if words != "parts":
        return bool(value)
    return bool(value) and isinstance(value, list) and all(isinstance(p, dict) and {*p} == {"text"} for p in value)


def _system_of(table: Table) -> tuple[str, ...]:
    """The column of system messages, if there is one."""
    return tuple(name for name in _SYSTEM if any(map(is_text, table.column(name))))[:1]


def _system_turn(system: tuple[str, ...]) -> str:
    """The system message of a row, if it has one, as the beginning of the list of its messages."""
    name = literal(system[0]) if system else ""
    return f'*([{{"role":"system","content":r[{name}]}}] if r.get({name}) else []),' if system else ""


def without(table: Table, dropped: int, why: str) -> str:
    """How many rows a line leaves out, and why."""
    count = f"{dropped:,} of {len(table.rows):,} rows" if table.complete else "rows"
    return f", without {count} that have {why}" if dropped else ""


def _is_plain(conversation: list[dict[str, Any]]) -> bool:
    """Whether a conversation can be taken as it is, or holds a speaker that no line can translate."""
    speakers = [str(turn.get("role")) for turn in conversation]
    return turn_keys(conversation) == ("role", "content") and not any(
        name not in _ROLES.values() and name.lower() in _ROLES for name in speakers
    )


# --- one function for each kind -------------------------------------------------------------------------------------


def _headerless(table: Table) -> TableShape | None:
    """A table whose first row is a prompt, not names."""
    looks = [name for name in table.names if len(name.split()) > 3 or re.search(r"\w[.?!…。？！]$", name)]
    if not table.header or not looks or {*table.names} & {*PROMPT_COLUMNS, *CONTENTS, *LABELS}:
        return None
    longest = literal(max(looks, key=len))
    line = converting(table, '"text":t', each=f"for t in [{longest},*(r[{longest}] for r in rows)]", condition="t")
    words = f"Write each text of the column of {max(looks, key=len)[:40]!r} as a prompt, the first row too"
    return TableShape("a table without names of its columns", words, line, (*table.columns,))


def _other_case(table: Table) -> TableShape | None:
    lower = [name.lower() for name in table.columns]
    if not {*lower} <= {*CONTENTS, *LABELS} or len({*lower}) < len(lower):
        return None
    line = converting(table, "**{k.lower():v for k,v in r.items() if v}")
    return TableShape("a table with the right columns in capitals", "Write their names small", line, (*table.columns,))


def _one_conversation(table: Table) -> TableShape | None:
    keys = turn_keys([row.values for row in table.rows])
    if not keys or {*table.columns} & {*CONTENTS} - {*keys} or len(table.columns) > 3:
        return None
    speaker, words = keys
    named = {str(value) for value in table.column(speaker)}
    if not all(name.lower() in _ROLES for name in named):
        return None
    known = ",".join(f"{literal(name)}:{literal(_ROLES[name.lower()])}" for name in sorted(named))
    text, whole = _text_of_turn(words)
    if not all(_is_whole(value, words) for value in table.column(words) if value):
        return None
    turns = f'[{{"role":R[m["{speaker}"]],"content":{text}}} for m in rows if {whole}]'
    line = converting(table, f'"messages":{turns}', before=f"R={{{known}}}; ", each="for r in [0]")
    return TableShape("the messages of one conversation", "Write them as one prompt", line, keys)


def _openai_batch(table: Table) -> TableShape | None:
    return _batch(table, "body", "a batch of requests to OpenAI")


def _anthropic_batch(table: Table) -> TableShape | None:
    return _batch(table, "params", "a batch of requests to Anthropic")


def _batch(table: Table, key: str, name: str) -> TableShape | None:
    bodies = [body for row in table.rows if isinstance(body := row.values.get(key), dict)]
    if not bodies or len(bodies) < len(table.rows):
        return None
    given = next((one for one in ("messages", "prompt", "input") if all(body.get(one) for body in bodies)), None)
    if given is None:
        return None
    content = f'r["{key}"]["{given}"]'
    system = f'r["{key}"].get("system") or r["{key}"].get("instructions")'
    item = f'("text" if isinstance({content},str) else "messages"):{content}'
    if any(body.get("system") or body.get("instructions") for body in bodies):
        user = f'({content} if isinstance({content},list) else [{{"role":"user","content":{content}}}])'
        item = f'"messages":[*([{{"role":"system","content":{system}}}] if {system} else []),*{user}]'
    names = [row.values.get("custom_id") for row in table.rows]
    if all(map(is_text, names)) and len({*names}) == len(names):
        item += ',"id":r.get("custom_id")'
    used = ("custom_id", "method", "url", key)
    return TableShape(name, f"Write the {given} of each as a prompt", converting(table, item), used)


def _conversations(table: Table) -> TableShape | None:
    columns = [name for name in table.columns if name not in LABELS]
    return next(filter(None, (conversations(table, name) for name in columns)), None)


def _preferences(table: Table) -> TableShape | None:
    if not {"chosen", "rejected"} <= {*table.columns} or {*PROMPT_COLUMNS[:4], *CONTENTS} & {*table.columns}:
        return None
    line = converting(
        table,
        '("text" if isinstance(r[c],str) else "messages"):r[c],"class":c,"pair":str(i)',
        each='for i,r in enumerate(rows,1) for c in ("chosen","rejected")',
        condition='r.get("chosen") and r.get("rejected")',
    )
    return TableShape(
        "pairs of a chosen and a rejected text", "Write each as a pair of two classes", line, ("chosen", "rejected")
    )


def classes_of_columns(table: Table, columns: list[str]) -> str:
    """How to write texts of several classes, one in each of some columns; "" where they are none.

    The rows become pairs, or groups where there are more than two classes.
    """
    classes = [name for name in columns if name.lower() not in _ANSWERS]
    spaced = [name for name in classes if any(" " in value for value in table.column(name) if is_text(value))]
    classes = spaced if len(spaced) > 1 else classes
    together = [row for row in table.rows if all(is_text(row.values.get(name)) for name in classes)]
    if len(classes) < 2 or not together:
        return ""
    kind = "pair" if len(classes) == 2 else "group"
    labels = label_columns(table)
    sure = [labels[label] for label in (kind, "pair", "id") if label in labels]
    taken = {*classes, *labels.values()}
    others = [name for name in table.columns if name not in taken]
    names = [name for name in sure if _are_names(table.column(name))]
    names = (names or [name for name in others if _are_names(table.column(name), only=str)])[:1]
    number = f"str(r[{literal(names[0])}])" if names else "str(i)"
    given = ",".join(map(literal, classes))
    line = converting(
        table,
        f'"text":r[c],"class":c,"{kind}":{number}',
        each=f"for i,r in enumerate(rows,1) for c in ({given})",
        condition=f"all(isinstance(r.get(k),str) and r[k] for k in ({given}))",
    )
    named = f" with its name from {names[0]!r}" if names else ""
    left = without(table, len(table.rows) - len(together), "nothing in one of them")
    taken = {*classes, *names}
    unused = [name for name in table.columns if name not in taken]
    columns_left = f", without {listed(map(repr, unused))}" if unused else ""
    named_classes = listed(map(repr, classes))
    return f"write {named_classes} as classes, and each row as a {kind}{named}{left}{columns_left}: `{line}`."


def _are_names(values: list[object], only: type = object) -> bool:
    """Whether every row has its own short text or whole number here."""
    usable = [value for value in values if is_label(value) and value != "" and isinstance(value, only)]
    short = all(not isinstance(value, float) and len(str(value)) <= 80 for value in usable)
    return short and len(usable) == len(values) == len({*map(str, usable)})


def _joined(table: Table) -> TableShape | None:
    """Alpaca: an instruction, and in some rows what it is about."""
    context = next((name for name in _CONTEXT if any(map(is_text, table.column(name)))), None)
    if context is None or "instruction" not in table.columns:
        return None
    system = _system_of(table)
    text = f'r["instruction"]+("\\n\\n"+r["{context}"] if r.get("{context}") else "")'
    messages = f'"messages":[{_system_turn(system)}{{"role":"user","content":{text}}}]'
    item = messages if system else f'"text":{text}'
    line = converting(table, item, condition='r.get("instruction")', keep=usable_labels(table))
    words = f"Write the instruction, a blank line and the {context} as one {'message' if system else 'text'}"
    return TableShape("instructions as of Alpaca", words, line, ("instruction", context, *system))


def _with_system(table: Table) -> TableShape | None:
    system = _system_of(table)
    content = next((name for name in PROMPT_COLUMNS if any(map(is_text, table.column(name)))), None)
    if not system or content is None or {*CONTENTS} & {*table.columns}:
        return None
    item = f'"messages":[{_system_turn(system)}{{"role":"user","content":r["{content}"]}}]'
    line = converting(table, item, condition=f'r.get("{content}")', keep=usable_labels(table))
    return TableShape(
        "a system message with each prompt", f"Write {system[0]} and {content} as messages", line, (content, *system)
    )


def turns(table: Table, column: str) -> TableShape | None:
    """A column of lists of texts, which a user says one after the other."""
    cells = [parse_cell(value) if isinstance(value, str) else (value, "") for value in table.column(column)]
    lists = [(value, how) for value, how in cells if isinstance(value, list) and value and all(map(is_text, value))]
    if not lists or len(lists) < len(cells):
        return None
    how = lists[0][1]
    cell = f"{how}(r[{literal(column)}])" if how else f"r[{literal(column)}]"
    line = converting(table, f'"text":{cell}[0]', imports=[how.split(".")[0]] if how else [], keep=usable_labels(table))
    return TableShape(
        f"lists of texts in {column!r}",
        "Write the first of each as a prompt (the others follow answers not known)",
        line,
        (column,),
    )


def _turns(table: Table) -> TableShape | None:
    unknown = [name for name in table.columns if name not in (*CONTENTS, *LABELS)]
    others = {*table.columns, *CONTENTS} - {*label_columns(table).values()}
    if any(is_text(value) and not parse_cell(value)[1] for name in others for value in table.column(name)):
        return None
    return next(filter(None, (turns(table, name) for name in unknown)), None)


_LOOKS: tuple[Callable[[Table], TableShape | None], ...] = (
    _headerless, _other_case, _one_conversation, _openai_batch, _anthropic_batch, _conversations, _preferences, _joined,
    _with_system, _turns,
)  # fmt: skip
