"""What would go out and what would stay, name by name with the reason: before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import xarray as xr

from stratoscope.names import QUANTITIES, Level
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.fields import OF_WEIGHTS, listed
from stratoscope.publish.levels import OF_MEANS, PROMISES
from stratoscope.publish.pictures.keys import KEYS
from stratoscope.publish.tokens.traces import told
from stratoscope.words import listed as listed_names

What = Literal["published", "averaged", "left out"]
PUBLISHED: What = "published"
AVERAGED: What = "averaged"
LEFT_OUT: What = "left out"
_UNKNOWN = "is not listed, and what is not listed is never published"
_ON_REQUEST = "its class means are published only with --quantity"
_NOT_SO = "it was to be left out, or is not of the form that it must have"


@dataclass(frozen=True)
class Row:
    """A name of what is to be published, what becomes of it, and why."""

    name: str
    what: What
    why: str


@dataclass(frozen=True)
class Explanation:
    """What publishing would do.

    Attributes
    ----------
    level, promise
        The level and what it promises.
    rows
        Every name that the original holds.
    of_weights
        Names that would go out and from which, with others, columns of the model's weights follow, and how.
    classes
        Names of classes, which go out as they are.
    prompts
        Ids of prompts, which go out as they are.
    refused
        Why nothing would be published; "" = it would.
    """

    level: Level
    promise: str
    rows: tuple[Row, ...]
    of_weights: dict[str, str]
    classes: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    refused: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """Which names that somebody gave go out, in sentences."""
        found = [classes_named(self.classes)] if self.classes else []
        if self.prompts:
            found.append(f"The ids of prompts are published as they are: {listed_names(self.prompts, 3)}.")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def names(self, what: What) -> dict[str, list[str]]:
        """The names of which this becomes, by the reason."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.what == what:
                found.setdefault(row.why, []).append(row.name)
        return found


def classes_named(classes: Iterable[str]) -> str:
    """That names of classes go out, in a sentence."""
    return f"The names of classes are published as they are: {', '.join(classes)}."


def explained(
    original: xr.Dataset, public: xr.Dataset | None, level: Level, *, averaged: Sequence[str] | None = None
) -> Explanation:
    """What becomes of each name of a trace.

    Parameters
    ----------
    original
        The trace.
    public
        What is published of it; None where class means are.
    level
        The level.
    averaged
        The quantities of which class means are published; None = it is not known.
    """
    there = set() if public is None else set(told(public))
    rows = tuple(Row(name, *_becomes(name, level, there, averaged)) for name in told(original))
    out = {row.name for row in rows if row.what == PUBLISHED}
    classes = (public if public is not None else original).get("prompt_class")
    ids = None if public is None else public.get("prompt_id")
    return Explanation(
        level,
        PROMISES[level],
        rows,
        {name: how for name, how in OF_WEIGHTS.items() if name in out},
        _names(classes),
        tuple(name for name in _names(ids) if not name.isdigit()),  # a number says nothing
    )


def _names(column: xr.DataArray | None) -> tuple[str, ...]:
    """The different names in a column."""
    return () if column is None else tuple(name for name in dict.fromkeys(map(str, column.values)) if name)


def explained_result(original: xr.DataTree, public: xr.DataTree, level: Level) -> Explanation:
    """What becomes of each column of a Result."""
    there, rows = _columns(public), []
    for name, column in _columns(original).items():
        if name not in there:
            rows.append(Row(name, LEFT_OUT, "is text or an id, or is not listed"))
        elif column.equals(there[name]):  # type: ignore[no-untyped-call]
            rows.append(Row(name, PUBLISHED, "a column of numbers, or of words of ours"))
        else:
            rows.append(Row(name, PUBLISHED, "rewritten: without text, and without names of prompts and files"))
    facts = Row("parameters, summary, notes", PUBLISHED, "those that are listed, without files and addresses")
    return Explanation(level, PROMISES[level], (*rows, facts), {}, ())


def explained_picture(keys: Iterable[str], level: Level, *, drawn_anew: bool) -> Explanation:
    """What becomes of a picture and of each thing that it says of itself; `keys`: those that the level keeps."""
    there = set(keys)
    drawn = "is drawn anew of the trace" if drawn_anew else "stays as it is, with all that stands on it"
    rows = [Row("what is drawn", PUBLISHED, drawn)]
    rows += [
        Row(name, PUBLISHED, "said beside the picture") if name in there else Row(name, LEFT_OUT, "names or links")
        for name in KEYS
    ]
    rows.append(Row("everything else in the file", LEFT_OUT, _UNKNOWN))
    return Explanation(level, PROMISES[level], tuple(rows), {}, ())


def _columns(result: xr.DataTree) -> dict[str, xr.Variable]:
    return {
        f"{node.path.strip('/')}.{name}": variable
        for node in result.descendants
        for name, variable in node.dataset.variables.items()
    }


def _becomes(name: str, level: Level, there: Iterable[str], averaged: Sequence[str] | None) -> tuple[What, str]:
    field = listed(name)
    if field is None:
        return LEFT_OUT, _UNKNOWN
    if level not in field.levels:
        return LEFT_OUT, field.why
    if level in OF_MEANS:
        if name in QUANTITIES and averaged is not None and name not in averaged:
            return LEFT_OUT, _ON_REQUEST if name in PROFILED else field.why
        return AVERAGED if name in QUANTITIES else PUBLISHED, field.why
    return (PUBLISHED, field.why) if name in there else (LEFT_OUT, f"{field.why}; {_NOT_SO}")
