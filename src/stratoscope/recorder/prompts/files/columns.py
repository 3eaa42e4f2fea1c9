"""Which column of a table is the prompt: `text` or `messages`, or the one that is named; the others are told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from stratoscope.errors import InputError, choices, nearest
from stratoscope.recorder.prompts.files.commands import converting, literal
from stratoscope.recorder.prompts.files.json_rows import SPEAKERS, are_rows, parse_cell, parse_json, turn_keys
from stratoscope.recorder.prompts.files.label_columns import (
    is_label,
    label_columns,
    label_mistake,
    renamed_labels,
    unusable_labels,
    usable_labels,
)
from stratoscope.recorder.prompts.files.shapes import classes_of_columns, conversations, shape_of, turns, without
from stratoscope.recorder.prompts.files.table import (
    CONTENTS,
    LABELS,
    PROMPT_COLUMNS,
    Row,
    Table,
    is_missing,
    is_text,
    without_point,
)
from stratoscope.trace.csv.pasted import can_be_pasted
from stratoscope.words import listed, quoted

_KNOWN = (*CONTENTS, *LABELS)
_MESSAGES = ("role", "content")
_NAMES = ("name", "title", "key", "topic", "source", "url", "split", "subset", "language", "model", "date")
_MOST_NAMES = 10_000  # unknown ones, among which it is worth to look for what is meant


def known_rows(table: Table) -> list[Row]:
    """The rows of a table whose columns are all known, without what is missing in them.

    Raises
    ------
    InputError
        A column is unknown, or a conversation is in other words: says what to do.
    """
    unknown = [name for name in table.columns if name not in _KNOWN]
    if unknown:
        raise _unknown(table, unknown)
    if shape := conversations(table, "messages"):
        raise InputError(f"holds {shape.name}", where=shape.where, fix=shape.advice(table))
    rows = []
    for row in table.rows:
        values = {key: value for key, value in row.values.items() if not is_missing(value)}
        cell = values.get("messages")
        if isinstance(cell, str) and (table.header or cell.lstrip().startswith("[")):
            values["messages"] = _parsed(cell, row.where)
            values = {key: value for key, value in values.items() if value is not None}  # a cell may say null
        for name, value in values.items():
            _check_types(table, name, value, row.where)
        if all(values.get(key, "") == "" for key in CONTENTS):
            raise _nothing(table, row)
        rows.append(Row(row.where, {key: without_point(value) for key, value in values.items()}))
    return rows


def _nothing(table: Table, row: Row) -> InputError:
    """A row without a prompt; that its column is empty there, or why it has none."""
    column = next((key for key in CONTENTS if key in row.values), None)
    value = row.values.get(column or "")
    null = f": {column} is null" if column and is_missing(value) else ""
    what = f"{column} is empty" if column and not null else f"has neither text nor messages{null}"
    given = [column] if column else [key for key in CONTENTS if key in table.columns]
    return InputError(what, where=row.where, fix=_leave_out(table, given[0]) if given else "Give exactly one of them.")


def rows_of_column(table: Table, column: str) -> tuple[list[Row], str]:
    """The rows with a column as `text` or `messages`, and labels; and what to say about the other columns.

    Raises
    ------
    InputError
        There is no such column, or it does not hold prompts: says what to do.
    """
    if column not in table.columns:
        fix = choices(column, table.columns, most=20)
        raise InputError(f"has no column {column!r}", where=_place(table), fix=fix)
    if column != "text" and (shape := conversations(table, column) or turns(table, column)):
        raise InputError(
            f"{column} holds {shape.name}", where=shape.where or _where(table, column), fix=shape.advice(table)
        )
    for label in LABELS:
        if label != column and label in table.columns and (mistake := label_mistake(table, label)):
            raise InputError(
                mistake[1], where=mistake[0], fix=f"Correct it, or leave {label} out: `{_line(table, column)}`."
            )
    rows = [Row(row.where, _chosen(table, row, column)) for row in table.rows]
    ignored = [name for name in table.columns if name not in (column, *LABELS)]
    said = f"The prompts are the column {column!r} of {table.path.name}"
    return rows, f"{said}; not used: {listed(map(repr, ignored), 30)}." if ignored else ""


def _chosen(table: Table, row: Row, column: str) -> dict[str, Any]:
    value = row.values.get(column)
    if is_missing(value) or value == "":
        raise InputError(f"{column} is empty", where=row.where, fix=_leave_out(table, column))
    labels = {
        name: without_point(row.values[name])
        for name in LABELS
        if name != column and name in row.values and not is_missing(row.values[name])
    }
    if isinstance(value, str):
        if column == "text":
            return {**labels, "text": value}
        if column == "messages" or like_messages(value):
            return {**labels, "messages": _parsed(value, row.where)}
        cell, _ = parse_cell(value)
        return {**labels, "messages": cell} if turn_keys(cell) == _MESSAGES else {**labels, "text": value}
    if isinstance(value, dict) or (isinstance(value, list) and not turn_keys(value)):
        what = f"{column} is {quoted(value)}, not a text or a list of messages"
        raise InputError(what, where=row.where, fix=_other_column(table, column))
    _check_types(table, column, value, row.where)
    return {**labels, "messages": value}


def like_messages(text: str) -> bool:
    """Whether a text begins as a list of messages does, be it whole or cut off."""
    return re.match(r"""\s*\[\s*\{\s*["'](role|content|from|value)["']\s*:""", text) is not None


def _check_types(table: Table, name: str, value: Any, where: str) -> None:
    """Refuse a number for a text, and what Parquet has and JSON has not (bytes, times); say how to write it as text."""
    if isinstance(value, str) or (name in LABELS and is_label(value)):
        return
    if isinstance(value, list | dict):
        if odd := next((one for one in _leaves(value) if not isinstance(one, str | int | float | None)), None):
            raise InputError(f"{name} holds {type(odd).__name__}, not text", where=where, fix="Write it as text.")
        return
    raise InputError(f"{name} is {quoted(value)}, not a text", where=where, fix=_as_text(table, name, value))


def _leaves(value: Any) -> Iterator[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inside is None:
        yield value
    for one in inside or ():
        yield from _leaves(one)


def _as_text(table: Table, name: str, value: Any) -> str:
    """The line that writes the values of a column as text."""
    read = f"r[{literal(name)}]"
    text = f"{read}.decode()" if isinstance(value, bytes) else f"str({read})"
    there = f"r.get({literal(name)}) is not None and {read}=={read}"  # NaN is not itself
    if name not in LABELS:
        item, condition = f'"text":{text}', there
    else:
        contents = ",".join(f"{literal(one)}:r.get({literal(one)})" for one in CONTENTS if one in table.columns)
        item, condition = f"{contents},{literal(name)}:{text} if {there} else None", ""
    line = converting(table, item, condition=condition, keep=usable_labels(table, but=name))
    return f"If it is meant as text: `{line}`."


def _parsed(text: str, where: str) -> Any:
    """Messages that are the text of a cell: JSON, or as Python writes it."""
    value, how = parse_cell(text)
    if not how and text.lstrip().startswith("[{'"):
        raise InputError(
            "messages are neither JSON nor as Python prints a list (as NumPy prints one, it cannot be read back)",
            where=where,
            fix="Write the table as Parquet or JSON, not as CSV.",
        )
    return value if how == "ast.literal_eval" else parse_json(text, where)


# --- what to do about it --------------------------------------------------------------------------------------------


def _unknown(table: Table, unknown: list[str]) -> InputError:
    what = f"unknown key{'s' if len(unknown) > 1 else ''} {listed(map(repr, unknown))}"
    where = _where(table, unknown[0])
    if len(unknown) > _MOST_NAMES:
        fix = f"A prompt has {', '.join(CONTENTS)}, and optionally {', '.join(LABELS)}: keep those alone."
        raise InputError(
            f"there are {len(unknown):,} unknown keys, {unknown[0][:40]!r} among them", where=where, fix=fix
        )
    table = table.part()
    if shape := shape_of(table):
        also = _whole_columns(table, [name for name in CONTENTS if name in table.columns])
        fix = f"Use --column {also[0]} for that column alone. " if also else ""
        return InputError(f"{what}; it looks like {shape.name}", where=where, fix=fix + shape.advice(table))
    pairs = ((name, nearest(name, _KNOWN, 1, 0.8)) for name in unknown)
    fix = "".join(f"Did you mean {near[0]!r} by {name!r}? " for name, near in pairs if near)
    return InputError(what, where=where, fix=fix + _column_advice(table))


def _column_advice(table: Table) -> str:
    """Which column to name."""
    held = _columns_of_prompts(table)
    asked = (*CONTENTS, *PROMPT_COLUMNS)
    sure = [name for name in asked if name in held]
    sure = sure or [column for name in asked for column in held if column.lower() == name]
    if not sure and (inner := _inside(table)):
        return inner
    if not held:
        return f"No column holds texts or messages. Use {', '.join(CONTENTS)}, and optionally {', '.join(LABELS)}."
    if sure or len(held) == 1:
        return _column_fix(table, (sure or held)[0], held)
    named = f"--column NAME, one of {listed(map(repr, held), joined='or')}"
    if classes := classes_of_columns(table, held):
        return f"To use one column alone: {named}. If each column is a class, {classes}"
    return f"Name the column that holds the prompts: {named}."


def _columns_of_prompts(table: Table, but: str = "") -> list[str]:
    """The columns with texts or messages that are no labels, and that name nothing but a thing or who speaks."""
    labels = {*LABELS, *label_columns(table).values(), but}
    held = [name for name in table.columns if name not in labels and _prompts_in(table, name)]
    return [name for name in held if name.lower() not in (*SPEAKERS, *_NAMES)] or [
        name for name in held if name.lower() not in SPEAKERS
    ]


def _column_fix(table: Table, column: str, held: list[str]) -> str:
    """How to use a column: by its name, or, where a row has nothing there, by the line that leaves such rows out."""
    others = [name for name in held if name != column]
    other = f" (there are texts in {listed(map(repr, others))} too)" if others else ""
    labels = {label: label for label in LABELS if label != column and label in table.columns}
    whole = _prompts_in(table, column) == len(table.rows) and usable_labels(table, but=column) == labels
    if whole and can_be_pasted(column):
        return f"Use --column {shlex.quote(column)}: the other columns are left out, and named{other}."
    return f"To use {column!r}{_left_out(table, column)}{other}: `{_line(table, column)}`."


def _left_out(table: Table, column: str) -> str:
    empty = len(table.rows) - _prompts_in(table, column)
    return (
        without(table, empty, "no prompt there")
        + renamed_labels(table, but=column)
        + unusable_labels(table, but=column)
    )


def _inside(table: Table) -> str:
    """The line that takes the rows out of a column of objects or of lists of rows; "" where there is none."""
    for name in table.columns:
        values = table.column(name)
        if values and all(isinstance(value, dict) for value in values):
            line = converting(table, f"**r[{literal(name)}]", keep=usable_labels(table))
            return f"To take the keys of {name!r} for columns: `{line}`."
        if any(map(are_rows, values)):
            path = [name, *_further_inside([row for value in values for row in value or []])]
            loops = zip("rstuvw", "stuvwx", path, strict=False)
            each = " ".join(f"for {item} in {outer}.get({literal(key)}) or []" for outer, item, key in loops)
            last = "rstuvwx"[len(path)]
            item = f'**({last} if isinstance({last},dict) else {{"text":{last}}})'
            line = converting(table, item, each=f"for r in rows {each}")
            where = " of ".join(map(repr, reversed(path)))
            return f"The prompts may be inside {name!r}. To take the items of {where} for rows: `{line}`."
    return ""


def _further_inside(rows: list[Any], most: int = 5) -> list[str]:
    """The keys that lead from rows without a prompt to the rows in them that have one."""
    objects = [row for row in rows if isinstance(row, dict)]
    if not most or any(is_text(row.get(name)) for row in objects for name in (*CONTENTS, *PROMPT_COLUMNS)):
        return []
    keys = {
        key: None for row in objects for key, value in row.items() if are_rows(value) and isinstance(value[0], dict)
    }
    for key in keys:
        inner = [one for row in objects for one in row.get(key) or []]
        if any(is_text(one.get(name)) for one in inner if isinstance(one, dict) for name in PROMPT_COLUMNS):
            return [key]
        if further := _further_inside(inner, most - 1):
            return [key, *further]
    return []


def _leave_out(table: Table, column: str) -> str:
    if not _prompts_in(table, column):
        return _other_column(table, column)
    return f"Write a prompt there, or leave out the rows without one: `{_line(table, column)}`."


def _other_column(table: Table, column: str) -> str:
    table = table.part()
    if held := _columns_of_prompts(table, but=column):
        return (
            f"Name a column that holds texts or messages: --column NAME, one of {listed(map(repr, held), joined='or')}."
        )
    return _inside(table) or "Write the prompt as a text, or as a list of messages."


def _line(table: Table, column: str) -> str:
    """Write the rows that have a prompt in a column, with the labels that can be used."""
    name = literal(column)
    value = next(value for value in table.column(column) if _is_prompt(value))
    cell, how = parse_cell(value) if isinstance(value, str) and column != "text" else (value, "")
    keep = usable_labels(table, but=column)
    if isinstance(value, list):
        return converting(table, f'"messages":r[{name}]', condition=f"isinstance(r.get({name}),list)", keep=keep)
    if turn_keys(cell) == _MESSAGES:
        item, module = f'"messages":{how}(r[{name}])', how.split(".")[0]
        return converting(table, item, condition=f"r.get({name})", imports=[module], keep=keep)
    condition = f"isinstance(r.get({name}),str) and r[{name}]"
    return converting(table, f'"text":r[{name}]', condition=condition, keep=keep)


def _prompts_in(table: Table, column: str) -> int:
    return sum(map(_is_prompt, table.column(column)))


def _is_prompt(value: Any) -> bool:
    return is_text(value) or turn_keys(value) == _MESSAGES


def _whole_columns(table: Table, names: list[str]) -> list[str]:
    return [name for name in names if _prompts_in(table, name) == len(table.rows)]


def _where(table: Table, column: str) -> str:
    """Where a column is named first."""
    return table.header or next((row.where for row in table.rows if column in row.values), str(table.path))


def _place(table: Table) -> str:
    return table.header or str(table.path)
