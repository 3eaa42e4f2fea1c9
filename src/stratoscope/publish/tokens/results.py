"""A Result as it is published with its tokens: rebuilt from the names that are listed, nothing else copied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.results.result import FORMAT, FORMAT_VERSION, is_result
from stratoscope.errors import InputError
from stratoscope.names import NO_TEXT, Level
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.fields import FIELDS, conforms
from stratoscope.publish.levels import WITHHELD, promise, published_at
from stratoscope.publish.model import hub_name
from stratoscope.publish.patterns import hidden
from stratoscope.publish.tokens.result_fields import (
    ARRAY_ATTRIBUTES,
    COLUMNS,
    COORDINATES,
    FACTS,
    KINDS,
    LABEL,
    OF_WEIGHTS,
    PROMPT,
    SHOWN,
    TARGET,
    TOKEN,
    TOKEN_ID,
    WEIGHTS,
    WORDS,
    Listed,
    general,
)
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.labels import object_array
from stratoscope.trace.notes import SIMULATED_DATA, Note, read_notes
from stratoscope.version import __version__
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

_NUMBERED = ("prompt", "prompt_a")  # columns that say which prompt it is, beside its id
_GONE = object()  # in the place of a fact that does not go out
_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # mail
    r"|(?<![\w/\\])(?:~|[A-Za-z]:)?[/\\][\w.@+-][^\s,;:'\"“”)]*"  # a whole path
    r"|(?<![\w/])[\w.-]+(?:/[\w.-]+){2,}"  # a path from somewhere
    r"|(?<![\w.])[\w-]+\.(?:trace|zarr|csv|jsonl?|parquet|gguf|safetensors|npz|lens)\b"  # a file
)
_HIDDEN = "…"


@dataclass(frozen=True)
class _Publishing:
    """How the values of one Result are published.

    Attributes
    ----------
    kind, level
        Of the Result, and at which level.
    prompts
        The id of each prompt → its number, which stands for it.
    numbered
        Whether numbers stand for all ids.
    private_model
        Whether sizes of columns of the weights stay away.
    """

    kind: str
    level: Level
    prompts: Mapping[str, str]
    numbered: bool
    private_model: bool

    @property
    def textless(self) -> bool:
        return self.level == NO_TEXT

    def prompt(self, name: str) -> str:
        """What a prompt is called."""
        return self.prompts.get(name, "") if self.numbered or _ADDRESS.search(name) else name

    def sentence(self, words: str) -> str:
        """A sentence of ours without files, addresses, keys, times and identifiers."""
        return hidden(_ADDRESS.sub(_HIDDEN, words), _HIDDEN)

    def naming(self, words: str) -> str:
        """A sentence that may name prompts too, which are called by their numbers where those stand for ids."""
        said = self.sentence(words)
        names_of_files = [name for name in self.prompts if self.numbered and len(name) > 1 and not name.isdigit()]
        for name in sorted(names_of_files, key=len, reverse=True):
            said = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"prompt {self.prompts[name]}", said)
        return said


def published_result(result: xr.DataTree, level: Level, *, private_model: bool = False) -> xr.DataTree:
    """A Result with what one of the first two levels keeps of it.

    Parameters
    ----------
    result
        As a verb gave it, or as `open_result` does.
    level
        "provenance" or "no-text".
    private_model
        The model's weights are private: leave out sizes of their columns, and the model's name.

    Returns
    -------
    xarray.DataTree
        A Result of the same kind; `save_result` writes its page, figures and table anew.

    Raises
    ------
    InputError
        It is no Result, or was published before.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.tokens.results import published_result
    >>> result = stratoscope.contrast(stratoscope.simulate(prompts=32, layers=3, d_ff=256))
    >>> public = published_result(result, "no-text")
    >>> public["contexts/prompt_id"].values[0, 0, :2].tolist(), public.attrs["sources"][0]["uuid"]
    (['0', '1'], '')
    """
    import xarray as xr

    check(result)
    kind = str(result.attrs["kind"])
    if private_model and kind in OF_WEIGHTS:
        fix = "Publish its trace with --private-model, which leaves out what gives that."
        raise InputError(f"a private model's weights follow from it: {OF_WEIGHTS[kind]}", where="result", fix=fix)
    imported = any(one.get("source") == names.IMPORTED for one in result.attrs["sources"])
    prompts = _numbers_of_prompts(result)
    how = _Publishing(kind, level, prompts, level == NO_TEXT or imported, private_model)
    tables = {}
    for node in result.descendants:
        path, table = node.path.strip("/"), node.to_dataset(inherit=False)
        found = {str(name): _column(how, path, str(name), table) for name in table.variables}
        kept = {name: variable for name, variable in found.items() if variable is not None}
        if kept:
            tables[path] = xr.Dataset(kept)
    attrs = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "sources": [_source(one, how) for one in result.attrs["sources"]],
        "parameters": _facts(how, "parameters", result.attrs["parameters"]),
        "notes": [note.stored() for note in (promise(level), *_notes(result, how))],
        "summary": _facts(how, "summary", result.attrs["summary"]),
        "software": f"stratoscope {__version__}",
        PUBLISHED: published_at(level),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **tables})


def compared_classes(result: xr.DataTree) -> tuple[list[str], list[str] | None]:
    """The classes of a contrast and the quantities whose profiles it compares: of them class means may go out.

    They are made of its trace. Its own tables stay: from t and g, from p and g, or from a mean and its interval follows
    how many prompts there are, exactly, and near-duplicates count in them one by one.

    Raises
    ------
    InputError
        It is a Result of another kind.
    """
    check(result)
    if result.attrs["kind"] != "contrast":
        what = f"a result of kind '{result.attrs['kind']}' is about single prompts, of which nothing is published"
        fix = "Publish its trace at this level, and leave it out."
        raise InputError(what, where="result", fix=fix)
    facts = result.attrs["summary"]
    compared = facts.get("profiles", {}).get("quantities", [])
    return [facts["a"], facts["b"]], [name for name in compared if name in PROFILED] or None


def check(result: xr.DataTree) -> None:
    """Raise unless it is a Result that can be published."""
    kind = str(result.attrs.get("kind"))
    if PUBLISHED in result.attrs:
        level = result.attrs[PUBLISHED].get("level")
        fix = "Publish the original, or pass this one on as it is."
        raise InputError(f"it was published before, at the level {level}", where="result", fix=fix)
    if not is_result(result) or kind not in KINDS:
        raise InputError(f"a result of kind {kind!r} is not published", where="result",
                         fix=f"Give one of: {', '.join(KINDS)}.")  # fmt: skip


def unlisted(result: xr.DataTree) -> list[str]:
    """What a Result holds that no level lists: it is never published."""
    kind, found = str(result.attrs["kind"]), []
    for node in result.descendants:
        path = node.path.strip("/")
        for name, variable in node.to_dataset(inherit=False).variables.items():
            if _listed_column(kind, path, str(name)) is None:
                found.append(f"{path}/{name}")
            found += [f"{path}/{name}.{key}" for key in variable.attrs if key not in ARRAY_ATTRIBUTES]
    for part in ("parameters", "summary"):
        found += [path for path, _ in _leaves(kind, part, result.attrs[part]) if _listed_fact(kind, path) is None]
    known = {"format", "format_version", "kind", "sources", "parameters", "notes", "summary", "software"}
    return found + sorted({str(name) for name in result.attrs} - known)


# --- columns ----------------------------------------------------------------------------------------------------------


def _listed_column(kind: str, table: str, name: str) -> Listed | None:
    if name in COORDINATES and (kind, general(table, "/"), name) not in COLUMNS:
        return Listed(SHOWN)
    return COLUMNS.get((kind, general(table, "/"), name))


def _column(how: _Publishing, path: str, name: str, table: xr.Dataset) -> xr.Variable | None:
    import xarray as xr

    listed = _listed_column(how.kind, path, name)
    if listed is None or (listed.rule == WEIGHTS and how.private_model):
        return None
    given = table.variables[name]
    attrs = {key: how.sentence(str(given.attrs[key])) for key in ARRAY_ATTRIBUTES if key in given.attrs}
    values = _values(how, path, name, table, listed)
    return xr.Variable(given.dims, values, attrs, fastpath=True)


def _values(how: _Publishing, path: str, name: str, table: xr.Dataset, listed: Listed) -> np.ndarray:
    """The values of a column, by its rule."""
    values, rule = table.variables[name].values, listed.rule
    if rule == PROMPT:
        return _texts(how.prompt, values)
    if rule == WORDS:
        return _made_anew(how, path, table) if how.textless else _texts(how.naming, values)
    if rule in (SHOWN, WEIGHTS) or not how.textless:
        return values
    if rule == TOKEN_ID:
        return np.full_like(values, -1)
    if rule == TOKEN:
        return _texts(lambda place: f"#{place}" if place >= 0 else "", _places(table, name, listed.position))
    if rule == TARGET:
        return _texts(lambda _: "the target", values)
    return _texts(lambda _: "", values)


def _places(table: xr.Dataset, name: str, column: str) -> np.ndarray:
    """The positions of tokens: of a column beside them, else their places in their row; −1 where there is no text."""
    if column:
        return np.asarray(table.variables[column].values)
    values = table.variables[name].values
    return np.where(values != "", np.arange(values.shape[-1]), -1)


def _texts(make: Callable[[Any], str], values: np.ndarray) -> np.ndarray:
    found: np.ndarray = object_array([make(one) for one in values.ravel().tolist()]).reshape(values.shape)
    return found


def _made_anew(how: _Publishing, path: str, table: xr.Dataset) -> np.ndarray:
    """Sentences from the columns beside them; of a row that has none of these, nothing."""
    columns = {str(name): variable.values.tolist() for name, variable in table.variables.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    said = {"findings": _finding, "usual": _usual}.get(path) if how.kind == "anomalies" else None
    return object_array([said(row, how) if said else "" for row in rows])


def _finding(row: Mapping[str, Any], how: _Publishing) -> str:
    places = [f"token {row['position']}"] if row["position"] >= 0 else []
    places += [f"prompt {how.prompts.get(row['prompt_id'], '')}"] if row["prompt_id"] else []
    places += [f"{name} {row[name]}" for name in ("layer", "head", "neuron", "expert") if row[name] >= 0]
    also = f"; {row['also']} more like it" if row["also"] else ""
    quantity = names.QUANTITIES[row["quantity"]].label if row["quantity"] in names.QUANTITIES else "a value"
    return (
        f"{row['found_by'].capitalize()}: {quantity} is {number(row['value'])} at {', '.join(places)}, "
        f"where {number(row['typical'])} is typical{also}."
    )


def _usual(row: Mapping[str, Any], _: _Publishing) -> str:
    return (
        f"{row['tokens']:,} tokens of {row['prompts']:,} prompts are massive, up to {number(row['ratio'])} times the "
        "typical value."
    )


def _numbers_of_prompts(result: xr.DataTree) -> dict[str, str]:
    """A number for each prompt that the Result names: its own where a column says it, else the next that is free."""
    kind, own, met = str(result.attrs["kind"]), dict[str, str](), list[str]()
    for node in result.descendants:
        table, path = node.to_dataset(inherit=False), node.path.strip("/")
        for name, variable in table.variables.items():
            listed = _listed_column(kind, path, str(name))
            if listed is None or listed.rule != PROMPT:
                continue
            ids = [str(one) for one in variable.values.ravel()]
            met += ids
            column = next((one for one in _NUMBERED if one in table.variables), None)
            if column is not None and table[column].dims == variable.dims:
                places = table[column].values.ravel().tolist()
                own |= {one: str(place) for one, place in zip(ids, places, strict=True) if place >= 0}
    for part in ("parameters", "summary"):
        for path, value in _leaves(kind, part, result.attrs[part]):
            listed = _listed_fact(kind, path)
            if listed is not None and listed.rule == PROMPT:
                met += [str(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    free = (str(place) for place in range(len(met) + len(own) + 1) if str(place) not in own.values())
    return own | {one: next(free) for one in dict.fromkeys(met) if one and one not in own}


# --- facts ------------------------------------------------------------------------------------------------------------


def _listed_fact(kind: str, path: str) -> Listed | None:
    return FACTS.get((kind, general(path, ".")))


def _leaves(kind: str, path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Facts by their names: what is listed as a whole, else every value of an object and of objects in lists."""
    if _listed_fact(kind, path) is not None and not (isinstance(value, Mapping) and _has_parts(kind, path)):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(kind, f"{path}.{key}", one)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from _leaves(kind, path, one)
    else:
        yield path, value


def _has_parts(kind: str, path: str) -> bool:
    """Whether facts inside this one are listed by themselves."""
    return any(of == kind and name.startswith(f"{general(path, '.')}.") for of, name in FACTS)


def _facts(how: _Publishing, path: str, value: Any) -> Any:
    """An object key by key, each by what is listed of its name; what is not is left out."""
    found = _fact(how, path, value)
    return {} if found is _GONE else found


def _fact(how: _Publishing, path: str, value: Any) -> Any:
    listed = _listed_fact(how.kind, path)
    if listed is None and not _has_parts(how.kind, path):
        return _GONE
    if isinstance(value, Mapping) and _has_parts(how.kind, path):
        inside = {str(key): _fact(how, f"{path}.{key}", one) for key, one in value.items()}
        return {key: one for key, one in inside.items() if one is not _GONE}
    if listed is None:
        return (
            [_fact(how, path, one) for one in value if isinstance(one, Mapping)] if isinstance(value, list) else _GONE
        )
    return _each(lambda text: _said(how, path, text, listed), value)


def _each(make: Callable[[str], str], value: Any) -> Any:
    """The value with every text in it made anew."""
    if isinstance(value, str):
        return make(value)
    if isinstance(value, Mapping):
        return {str(key): _each(make, one) for key, one in value.items()}
    return [_each(make, one) for one in value] if isinstance(value, list) else value


def _said(how: _Publishing, path: str, text: str, listed: Listed) -> str:
    """A text among the facts, by its rule."""
    if listed.rule == PROMPT:
        return how.prompt(text)
    if listed.rule == SHOWN:
        return hub_name(text) if path.endswith(".models") else how.sentence(text)
    if not how.textless:
        return how.naming(text) if listed.rule == WORDS else text
    if listed.rule == LABEL:
        quantity = path.rpartition(".")[2]
        return names.QUANTITIES[quantity].label if quantity in names.QUANTITIES else ""
    return "the target" if listed.rule == TARGET and text else ""


def _notes(result: xr.DataTree, how: _Publishing) -> list[Note]:
    """The notes: without text only which lines of docs/pitfalls.md they are of, and what simulated data say."""
    notes = read_notes(result.attrs["notes"])
    if not how.textless:
        return [Note(note.id, note.severity, how.naming(note.text)) for note in notes]
    simulated = any(one.get("source") == names.SIMULATED for one in result.attrs["sources"])
    found = [Note(note.id, note.severity, WITHHELD) for note in notes if not (simulated and note.id == "L16")]
    if simulated:
        found.insert(0, SIMULATED_DATA)
    return list(dict.fromkeys(found))


def _source(one: Mapping[str, Any], how: _Publishing) -> dict[str, Any]:
    source, receipt = str(one.get("source", "")), str(one.get("receipt", ""))
    return {
        "uuid": "",
        "source": source if source in names.SOURCES else "",
        "model": "" if how.private_model else hub_name(str(one.get("model", ""))),
        "receipt": receipt if conforms(receipt, FIELDS["receipt.receipt_line"].form) else "",
        "prompts": int(one.get("prompts", 0)),
        "tokens": int(one.get("tokens", 0)),
    }
