"""Which columns of a table are labels, also under another name; and which of them can be used."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from stratoscope.recorder.prompts.files.table import LABELS, Table, is_missing
from stratoscope.words import quoted

_OTHER_NAMES = {  # letters of a name, the surest first
    "id": ("id", "promptid", "questionid", "itemid", "exampleid", "uid", "uuid"),
    "class": ("class", "label", "category", "condition", "classname", "promptclass", "labels", "type"),
    "pair": ("pair", "pairid", "pairname", "pairnumber", "minimalpair"),
    "group": ("group", "groupid", "groupname", "cluster", "template"),
}


def label_columns(table: Table, *, but: str | None = None) -> dict[str, str]:
    """The column of each label: the one of its name, else one whose name says the same."""
    found: dict[str, str] = {}
    for label, names in _OTHER_NAMES.items():
        letters = {_letters(column): column for column in reversed(table.columns) if column not in (but, *LABELS)}
        given = [label] if label in table.columns and label != but else []
        given += [letters[name] for name in names if name in letters]
        if given:
            found[label] = given[0]
    return found


def names_label(column: str) -> bool:
    """Whether a column is a label by its name."""
    return any(_letters(column) in names for names in _OTHER_NAMES.values())


def usable_labels(table: Table, *, but: str | None = None) -> dict[str, str]:
    """The columns of the labels that can be used as they are."""
    columns = label_columns(table, but=but)
    return {label: name for label, name in columns.items() if not label_mistake(table, label, but=but)}


def renamed_labels(table: Table, *, but: str | None = None) -> str:
    """Which columns a line makes labels of."""
    other = [(name, label) for label, name in usable_labels(table, but=but).items() if name != label]
    return f", with {' and '.join(f'{name!r} as {label}' for name, label in other)}" if other else ""


def unusable_labels(table: Table, *, but: str | None = None) -> str:
    """Which labels a line leaves out, and why."""
    mistakes = ((name, label_mistake(table, label, but=but)) for label, name in label_columns(table, but=but).items())
    return "".join(f", without {name} ({mistake[1]})" for name, mistake in mistakes if mistake)


def label_mistake(table: Table, label: str, *, but: str | None = None) -> tuple[str, str] | None:
    """Where the column of a label cannot be used, and why."""
    column = label_columns(table, but=but).get(label, label)
    rows = [(row.where, row.values[column], row.values) for row in table.rows if not _is_empty(row.values.get(column))]
    count = Counter(str(value) for _, value, _ in rows)
    for where, value, _ in rows:
        if not is_label(value):
            return where, f"its {column} is {quoted(value)}, not a text or a whole number"
        times = count[str(value)]
        if label == "id" and times > 1:
            return where, f"the {column} {str(value)!r} stands {times} times"
        if label == "pair" and times != 2:
            return where, f"the {column} {str(value)!r} has {times} prompts, a minimal pair has two"
    if label != "pair":
        return None
    name = label_columns(table, but=but).get("class", "")
    usable = name and not label_mistake(table, "class", but=but)
    first: dict[str, str] = {}  # the class of the first prompt of each pair
    for where, value, values in rows:
        given = str(values[name]) if usable and not _is_empty(values.get(name)) else ""
        if first.get(str(value)) == given:
            return where, f"both prompts of the {column} {str(value)!r} are of the class {given!r}"
        first[str(value)] = given
    return None


def _is_empty(value: Any) -> bool:
    return is_missing(value) or value == ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def is_label(value: Any) -> bool:
    """Whether this is a text or a whole number, also as tables write one where another is missing: 1.0."""
    whole = isinstance(value, float) and value.is_integer()
    return (isinstance(value, str | int) and not isinstance(value, bool)) or whole
