"""Whether a Result on disk holds the tables, columns and facts of its level, and enough prompts of each class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.analysis.results.store import StoredResult
from stratoscope.names import AGGREGATE, PRIVATE, PROVENANCE, Level
from stratoscope.publish.audit.allowed.stored import beside_the_chunks
from stratoscope.publish.audit.search.needles import strings
from stratoscope.publish.audit.search.own_words import own_words
from stratoscope.publish.averaged import KIND
from stratoscope.publish.levels import OF_MEANS, is_published
from stratoscope.publish.tokens.results import unlisted
from stratoscope.trace.format.schema import PUBLISHED, ROOT_DOCUMENT
from stratoscope.words import quoted

if TYPE_CHECKING:
    import xarray as xr

_TABLES = {
    AGGREGATE: re.compile(r"classes|profiles|neurons|(?:profiles|neurons)/(\w+)"),
    PRIVATE: re.compile(r"classes|profiles|profiles/(\w+)"),
}
_OF_CLASSES = {
    AGGREGATE: {"prompt_class", "prompts", "tokens"},
    PRIVATE: {"prompt_class", "prompts", "signal_to_noise"},  # a count of tokens would have no noise
}
_OF_PROFILES = {
    AGGREGATE: {"prompt_class", "layer", "depth", "neuron", "mean"},
    PRIVATE: {"prompt_class", "layer", "depth", "mean", "noise"},
}
_ATTRIBUTES = {"format", "format_version", "kind", "sources", "parameters", "notes", "summary", "software", PUBLISHED}
_OF_SOURCES = {"uuid", "source", "model", "receipt", "prompts", "tokens"}
_WORD = re.compile(r"[^\W\d_]{3,}")

Wrong = Iterator[tuple[str, Path]]


def unlisted_in_result(store: Path, level: Level) -> Wrong:
    """What the store of a Result holds that a level does not list, and where.

    Raises
    ------
    InputError
        It cannot be read.
    """
    from stratoscope.analysis.results.result import open_result

    result = open_result(store)
    if result.attrs["kind"] == KIND:
        yield from _in_profiles(result, store, PRIVATE if level == PRIVATE else AGGREGATE)
    else:
        if level in OF_MEANS:
            yield f"a result of kind {result.attrs['kind']!r} shows single prompts", store
        for name in unlisted(result):
            if name != "published":
                yield f"{name!r} is not listed", store
    for what in _said(result, level):
        yield what, store
    document = StoredResult.read(store).document()
    yield from beside_the_chunks(document)
    arrays = {store / name for name in document.arrays}
    groups = {store / name for name in ("", *document.groups)}
    for path in sorted(store.rglob("*")):
        known = path in arrays | groups if path.is_dir() else path.parent in arrays or path.name == ROOT_DOCUMENT
        if not known and not path.is_symlink():
            yield "it is no part of the result", path


def _said(result: xr.DataTree, level: Level) -> Iterator[str]:
    """What a Result says of itself beyond what is written of a published one."""
    attrs = result.attrs
    yield from (f"{name!r} is not listed" for name in sorted(set(map(str, attrs)) - _ATTRIBUTES))
    if not is_published(attrs.get(PUBLISHED)):
        yield f"{PUBLISHED!r} holds something else than what is written of a level"
    for source in attrs["sources"]:
        if set(source) != _OF_SOURCES or source["uuid"]:
            yield "it says more of the trace that it was made of than is published"
    if level != PROVENANCE or attrs["kind"] == KIND:
        for words in _foreign(result):
            yield f"it says {quoted(words)}, which is neither Stratoscope's nor the name of a class or a model"


def _foreign(result: xr.DataTree) -> Iterator[str]:
    """Texts among the attributes with a word that stands nowhere in Stratoscope."""
    attrs, own = result.attrs, own_words()
    named = [*attrs["summary"].get("classes", ()), *(attrs["parameters"].get(one) for one in ("a", "b"))]
    models = [source["model"] for source in attrs["sources"]]
    known = " ".join(map(str, [*named, *models, *strings(attrs["summary"].get("model"))]))
    for text in strings([attrs[name] for name in _ATTRIBUTES & set(attrs)]):
        left = " ".join(word for word in _WORD.findall(text) if word not in known)
        if any(word.encode() not in own for word in _WORD.findall(left)):
            yield text


def _in_profiles(result: xr.DataTree, store: Path, level: Level) -> Wrong:
    for node in result.descendants:
        path = node.path.strip("/")
        table = node.to_dataset(inherit=False)
        match = _TABLES[level].fullmatch(path)
        known = match is not None and (match[1] is None or match[1] in names.QUANTITIES)
        columns = _OF_CLASSES[level] if path == "classes" else _OF_PROFILES[level]
        if not known:
            yield f"the table {path!r} is not listed", store
        for name in map(str, table.variables):
            if known and name not in columns:
                yield f"the column '{path}/{name}' is not listed", store
    yield from _of_classes(result, store, rounded=level != PRIVATE)


def _of_classes(result: xr.DataTree, store: Path, *, rounded: bool) -> Wrong:
    """Rows per class: enough prompts, and their number rounded where it is to be."""
    table = result["classes"].to_dataset() if "classes" in result.children else None
    if table is None:
        yield "it does not say of how many prompts its means are", store
        return
    for name, count in zip(table["prompt_class"].values.tolist(), table["prompts"].values.tolist(), strict=True):
        if count < defaults.FEWEST_PROMPTS:
            yield f"class {name!r} has {count} prompts, fewer than {defaults.FEWEST_PROMPTS}", store
        elif rounded and count % defaults.ROUNDED_PROMPTS:
            yield f"the number of prompts of class {name!r} is not rounded", store
