"""Which column of a file is which: as a person says (`Token_Pos=pos`), else by name; else what they may be."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TypeAlias

from stratoscope.errors import InputError, UsageError, choices
from stratoscope.names import CSV_COLUMNS, CSV_LAYER, CSV_NEURON, CSV_POSITION, CSV_TOKEN, CSV_VALUE
from stratoscope.trace.csv.escapes import COLUMN
from stratoscope.trace.csv.pasted import can_be_pasted
from stratoscope.trace.format.schema import MAX_COLUMNS
from stratoscope.words import listed, quoted

Columns: TypeAlias = "str | Mapping[str, str | int] | None"
MOST_COLUMNS = len(CSV_COLUMNS) + MAX_COLUMNS  # of one file, besides the one that says that there are escapes
ID_COLUMNS = (CSV_POSITION, CSV_LAYER, CSV_NEURON)
IN_PYTHON = "(in Python, columns= takes the same text)."
IN_ORDER = (
    "If they stand in the order of the format, add `--columns "
    + ",".join(f"{column}={number}" for number, column in enumerate(CSV_COLUMNS, start=1))
    + f"` {IN_PYTHON}"
)

_WHOLE = re.compile(r"\s*[+-]?\d+([.,]0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+(?:[.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_PIECE = re.compile(r"((?:\\.|[^,\\]|\\$)*)(,|$)", re.DOTALL)  # of a list; a comma that is meant is escaped
_SHOWN = 40  # characters of a value in a message
_OTHER_NAMES = {  # what people call the columns; never taken without asking
    CSV_POSITION: "pos position tokenposition tokenindex tokenidx tokenno tokpos tokidx seqpos index idx step",
    CSV_TOKEN: "tok text tokentext tokenstr tokenstring str string word piece subword tokens",
    CSV_LAYER: "layers layeridx layerindex layerid layerno layernumber layernum block blockidx blockid blk l",
    CSV_NEURON: "neuron neurons neuronidx neuronindex neuronno unit unitid feature featureid featureidx dim dimension "
    "channel n",
    CSV_VALUE: "activation activations act acts actnorm actvalue activationvalue value val norm strength magnitude",
}
_TOKEN_IDS = ("tokenid", "tokid", "id")  # numbers of the vocabulary: neither places nor texts
_TRIED = 6  # of many columns that may be the same thing
_LIKE, _CALLED, _SIMILAR, _A_NUMBER = 1.0, 0.9, 0.75, 0.5  # how much a name speaks for a column


@dataclass(frozen=True)
class Wanted:
    """Which column holds what, as a person says: each of the five → a name, or a place from 1."""

    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def are_places(self) -> bool:
        """Whether all are numbers, which count the columns from 1."""
        return bool(self.sources) and all(source.isascii() and source.isdigit() for source in self.sources.values())

    def places(self, where: str, width: int) -> dict[str, int]:
        """The numbers as indices of columns."""
        places = {target: int(source) - 1 for target, source in self.sources.items()}
        for target, place in places.items():
            if not 0 <= place < width:
                fix = f"It has {width}, counted from 1."
                raise InputError(f"{target}={place + 1}, but there is no such column", where=where, fix=fix)
        return places


def wanted_columns(columns: Columns) -> Wanted:
    """What a person gave, as text (`Token_Pos=pos,Token=token`) or as a mapping, checked.

    Raises
    ------
    InputError
        It is not of that form, or names a column that is none of the five, or one column twice.
    """
    if columns is None:
        return Wanted()
    if isinstance(columns, str):
        pairs = list(_pairs(columns))
    elif isinstance(columns, Mapping):
        pairs = [(str(target), str(source)) for target, source in columns.items()]
    else:
        raise _refuse(f"{type(columns).__name__} is not a mapping", 'Give {"Token_Pos": "pos", …}.')
    sources = dict(pairs)
    unknown = [target for target, _ in pairs if target not in CSV_COLUMNS]
    if unknown and {source for _, source in pairs} <= set(CSV_COLUMNS):
        turned = as_option({source: target for target, source in pairs})
        raise _refuse("the names stand the wrong way round", f"The format's own name comes first: {turned}.")
    if unknown:
        raise _refuse(
            f"{shown(unknown[0])} is none of the five columns", choices(unknown[0], CSV_COLUMNS, there="They are")
        )
    for these in ([target for target, _ in pairs], [source for _, source in pairs]):
        twice = sorted(one for one, count in Counter(these).items() if count > 1)
        if twice:
            raise _refuse(f"{shown(twice[0])} is named twice", "Each column is one of the five, and only one.")
    return Wanted(sources)


def _refuse(what: str, fix: str) -> UsageError:
    return UsageError(what, where="columns", fix=fix)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for piece, end in _PIECE.findall(text):
        target, equals, source = piece.partition("=")
        if equals and source:
            yield target.strip(), re.sub(r"\\(.)", r"\1", source, flags=re.DOTALL)
        elif piece or end or not text:
            raise _refuse(f"cannot read {shown(piece or text)}", "Write Token_Pos=pos,Token=token, and so on.")


def as_option(sources: Mapping[str, str]) -> str:
    """The option of the command line that says so, ready to be pasted."""
    text = ",".join(target + "=" + re.sub(r"([,\\])", r"\\\1", source) for target, source in sources.items())
    return f"--columns {shlex.quote(text)}"


# --- the columns of one file ----------------------------------------------------------------------------------------


def are_pandas_numbers(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, …, which pandas gives; as a row they would stand for an odd chance."""
    return list(names) == [str(number) for number in range(len(names))]


def refuse_wide(names: Sequence[str], where: str) -> None:
    """Raise `InputError` where a file has more further columns than a trace holds."""
    if len(names) - (COLUMN in names) > MOST_COLUMNS:
        what = f"it has {len(names):,} columns; {len(CSV_COLUMNS)} and up to {MAX_COLUMNS:,} further ones are read"
        fix = f"Leave out those that are not needed: {', '.join(CSV_COLUMNS)} are. A row is one value of one neuron."
        raise InputError(what, where=where, fix=fix)


def find_columns(wanted: Wanted, names: Sequence[str], first_row: Sequence[str], where: str) -> dict[str, int]:
    """Where each of the five columns stands under a header.

    A name that differs from the format's own in case, spaces and underscores only is as good as the name itself.

    Raises
    ------
    InputError
        A column is not there (says what may be it), or what was asked for is not there or not clear.
    """
    places = _asked_for(wanted, names, where)
    missing = [column for column in CSV_COLUMNS if column not in places]
    found = _by_name(missing, names, set(places.values()))
    places.update(found)
    missing = [column for column in missing if column not in found]
    if not missing:
        return {column: places[column] for column in CSV_COLUMNS}
    noun = "column" if len(missing) == 1 else "columns"
    fix = _suggestion(wanted, names, first_row if len(first_row) == len(names) else ())
    raise InputError(f"the header lacks the {noun} {', '.join(missing)}", where=where, fix=fix)


def _asked_for(wanted: Wanted, names: Sequence[str], where: str) -> dict[str, int]:
    if wanted.are_places:
        places = wanted.places(where, len(names))
        for target, place in places.items():
            source = wanted.sources[target]
            if source in names and names.index(source) != place and not are_pandas_numbers(names):
                what = f"{source} is the name of column {names.index(source) + 1}, and the place of another"
                raise InputError(what, where=where, fix="Rename that column, so that it is clear which one is meant.")
        return places
    places = {}
    for target, source in wanted.sources.items():
        same = [place for place, name in enumerate(names) if name == source]
        same = same or [place for place, name in enumerate(names) if folded(name) == folded(source) != ""]
        same = same or [place for place, name in enumerate(names) if name == target]  # one of several files may have it
        if len(same) != 1:
            what = "there is no column" if not same else f"{len(same)} columns are called"
            what += f" {shown(source)}"
            fix = f"{choices(source, names, there='It has')} Numbers count the columns from 1: {target}=1."
            raise InputError(what, where=where, fix=fix)
        places[target] = same[0]
    taken = list(places.values())
    for target, place in places.items():
        if taken.count(place) > 1:
            what = f"{shown(names[place])} cannot be two of the five columns"
            raise InputError(what, where=where, fix=f"Say which other column is {target}.")
    return places


def _by_name(missing: Sequence[str], names: Sequence[str], taken: set[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for column in missing:
        free = [place for place in range(len(names)) if place not in taken]
        same = [place for place in free if names[place] == column]
        same = same or [place for place in free if folded(names[place]) == folded(column)]
        if len(same) == 1:
            found[column] = same[0]
    return found


def folded(name: str) -> str:
    """A name without case, spaces, underscores and signs."""
    return re.sub(r"[\W_]+", "", name).casefold()


def is_number(cell: str) -> bool:
    """Whether a cell looks like a number, with a decimal point or comma."""
    return bool(_NUMBER.fullmatch(cell))


def is_row(places: Mapping[str, int], cells: Sequence[str]) -> bool:
    """Whether the cells can be a row: numbers where numbers belong."""
    return all(
        is_number(cells[place]) if column == CSV_VALUE else bool(_WHOLE.fullmatch(cells[place]))
        for column, place in places.items()
        if column != CSV_TOKEN
    )


def known_names(cells: Sequence[str], wanted: Wanted) -> int:
    """How many of the cells are names of the five columns, or those that a person gave."""
    known = {folded(name) for name in (*CSV_COLUMNS, *wanted.sources.values())}
    return sum(folded(cell) in known and not is_number(cell) for cell in cells)


def numbered() -> dict[str, int]:
    """The five columns in the format's own order."""
    return {column: place for place, column in enumerate(CSV_COLUMNS)}


# --- what columns of other names may be -----------------------------------------------------------------------------


def _suggestion(wanted: Wanted, names: Sequence[str], row: Sequence[str]) -> str:
    """What to add to the command: each column is suggested for one thing at most, and only for what it can hold."""
    given = set(_asked_for(wanted, names, "").items())
    chosen = dict(given) | _likeliest(
        [column for column in CSV_COLUMNS if column not in dict(given)], names, row, {place for _, place in given}
    )
    absent = [column for column in CSV_COLUMNS if column not in chosen]
    held = listed(map(shown, names))
    if len(absent) == len(CSV_COLUMNS) <= len(row) and is_row(numbered(), row):
        return f"It has {held}. {IN_ORDER}"
    if len(absent) > 2:
        example = as_option(dict.fromkeys(absent, "COLUMN"))
        return f"It has {held}. Say which column is which, by name or by number from 1: `{example}`."
    if len(names) < len(CSV_COLUMNS):
        return f"It has {held}, but every row needs all of {', '.join(CSV_COLUMNS)}."
    sources = {
        column: names[chosen[column]] if column in chosen else "COLUMN"
        for column in CSV_COLUMNS
        if column in absent or names[chosen[column]] != column
    }
    if not absent and not all(map(can_be_pasted, sources.values())):
        sources = {column: str(chosen[column] + 1) for column in CSV_COLUMNS}
    option = as_option(sources)
    if absent:
        return f"It has {held}. If one of them is {' or '.join(absent)}, put its name for COLUMN: `{option}`."
    return f"If these are they, add `{option}` {IN_PYTHON}"


def _likeliest(columns: Sequence[str], names: Sequence[str], row: Sequence[str], taken: set[int]) -> dict[str, int]:
    """The assignment of most columns, and of the best names among these."""
    free = [(place, name, row[place] if row else None) for place, name in enumerate(names) if place not in taken]
    options = {}
    for column in columns:
        scores = sorted(((_score(column, name, cell), -place) for place, name, cell in free), reverse=True)
        options[column] = [(score, -place) for score, place in scores[:_TRIED] if score > 0]
    best: tuple[float, dict[str, int]] = (0.0, {})

    def extend(rest: Sequence[str], chosen: dict[str, int], total: float) -> None:
        nonlocal best
        if not rest:
            best = max(best, (total, chosen), key=lambda one: (len(one[1]), one[0]))
            return
        extend(rest[1:], chosen, total)
        for score, place in options[rest[0]]:
            if place not in chosen.values():
                extend(rest[1:], {**chosen, rest[0]: place}, total + score)

    extend(columns, {}, 0.0)
    return best[1]


def _score(column: str, name: str, cell: str | None) -> float:
    """How much a column's name and its first value speak for it, from 0 to 1."""
    if cell is not None and column in ID_COLUMNS and not _WHOLE.fullmatch(cell):
        return 0.0
    if cell is not None and column == CSV_VALUE and not is_number(cell):
        return 0.0
    plain = folded(name)
    text_that_counts = _A_NUMBER if column == CSV_TOKEN and cell is not None and is_number(cell) else 1.0
    if not plain or (plain in _TOKEN_IDS and column != CSV_NEURON):
        return 0.0
    if plain == folded(column):
        return _LIKE * text_that_counts
    if plain in _OTHER_NAMES[column].split():
        return _CALLED * text_that_counts
    if column == CSV_POSITION and plain == "token":
        return _A_NUMBER
    ratio = SequenceMatcher(None, folded(column), plain).ratio()
    return ratio * _SIMILAR * text_that_counts if ratio >= _SIMILAR and column != CSV_TOKEN else 0.0


def shown(text: str) -> str:
    """A value in a message."""
    return quoted(text, _SHOWN)
