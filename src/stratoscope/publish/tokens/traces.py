"""A trace as it is published with its tokens: rebuilt from the fields that its level lists, nothing else copied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import defaults, names
from stratoscope.names import NO_TEXT, PROMPT, TOKEN, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish.fields import OF_PRIVATE_MODEL, OF_WEIGHTS, attribute_names, conforms, listed
from stratoscope.publish.levels import WITHHELD, published_at
from stratoscope.publish.model import model_told
from stratoscope.trace.calibration import CALIBRATION
from stratoscope.trace.format.attributes import objects_in, to_json
from stratoscope.trace.format.schema import PUBLISHED, TOKEN_COORDS, known_layout
from stratoscope.trace.format.shards import DTYPES, LOGICAL_DTYPE
from stratoscope.trace.labels import note, object_array, unique
from stratoscope.trace.notes import INFO, KNOWN, WARNING
from stratoscope.trace.write.from_dataset import copied, writer_for
from stratoscope.words import counted

_GONE = object()  # in place of an attribute that does not go out
_ADDRESS = re.compile(r"[/\\@]")  # in the name of a prompt or class: it may be a path or an address
_TEMPLATE = "tokenizer.chat_template"


def published_trace(
    dataset: xr.Dataset, level: Level, *, chat_template: bool = defaults.CHAT_TEMPLATE, private_model: bool = False
) -> xr.Dataset:
    """A trace with what one of the first two levels keeps of it; arrays stay where they are until they are read.

    Parameters
    ----------
    dataset
        As `open_trace` gives it.
    level
        "provenance" or "no-text".
    chat_template
        Keep the chat template, where the level keeps text.
    private_model
        The model's weights are private: leave out what names it, and all from which columns of its weights follow.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.tokens.traces import published_trace
    >>> public = published_trace(stratoscope.simulate(prompts=2, layers=2), "no-text")
    >>> sorted(set(public["text"].values)), public["prompt_id"].values.tolist(), "uuid" in public.attrs
    ([''], ['0', '1'], False)
    """
    left_out = {*OF_WEIGHTS, *OF_PRIVATE_MODEL} if private_model else set()
    left_out |= set() if chat_template else {_TEMPLATE}
    held = [str(name) for name in dataset.variables]
    public = dataset.drop_vars([name for name in held if not _goes(name, level, left_out)])
    public = public.assign_coords(_labels(dataset, level)).copy(deep=False)
    for name, variable in public.variables.items():
        variable.attrs, variable.encoding = _array_attributes(str(name), dataset), {}
    public.attrs = {**_attributes(dataset, level, left_out), PUBLISHED: published_at(level)}
    public.encoding = {}
    return public


def write_published(
    dataset: xr.Dataset, out: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Write what `published_trace` gave as a new trace, piece by piece; it appears when it is complete."""
    say, total = progress or silent, dataset.sizes[PROMPT]
    with writer_for(dataset, out, dataset.attrs, overwrite=overwrite) as writer:
        for prompts in copied(dataset, writer):
            say("publishing", prompts, total)
        writer.finish()


def told(dataset: xr.Dataset) -> list[str]:
    """Every name that a trace holds, arrays first, then attributes, nested ones with dots between their keys."""
    return [*map(str, dataset.variables), *dict.fromkeys(attribute_names(dict(dataset.attrs)))]


# --- arrays -----------------------------------------------------------------------------------------------------------


def _goes(name: str, level: Level, left_out: set[str]) -> bool:
    """Whether a name that a trace holds goes out; one that nobody has listed does not."""
    field = listed(name)
    return field is not None and level in field.levels and name not in left_out


def _array_attributes(name: str, dataset: xr.Dataset) -> dict[str, Any]:
    """Those of the format and no others."""
    layout = known_layout(name)
    attrs = dict(layout.attrs) if layout is not None else {}
    if name in names.QUANTITIES:
        attrs["source"] = str(dataset.attrs.get("source"))
    stored = dataset.variables[name].attrs.get(LOGICAL_DTYPE)
    return {**attrs, LOGICAL_DTYPE: stored} if stored in DTYPES else attrs


def _labels(dataset: xr.Dataset, level: Level) -> dict[str, xr.Variable]:
    """The labels of tokens and prompts as they go out: a level without text numbers prompts and leaves texts empty."""
    ids, classes = _ids(dataset, level), _texts(dataset, "prompt_class")
    again = dict(zip(_texts(dataset, "prompt_id"), ids, strict=True))
    renamed = {name: again.get(name, f"class {number}") for number, name in enumerate(dict.fromkeys(classes))}
    is_file = dataset.attrs.get("source") == names.IMPORTED  # whose class is the name of its file, if nobody gave one
    texts = {
        "prompt_id": ids,
        "prompt_class": [
            renamed[name] if _ADDRESS.search(name) or (is_file and name in again) else name for name in classes
        ],
        "pair": _paired(dataset, "pair", level),
        "group": _paired(dataset, "group", level),
    }
    found = {name: xr.Variable((PROMPT,), object_array(column), fastpath=True) for name, column in texts.items()}
    if level != NO_TEXT:
        return found
    tokens = dataset.sizes[TOKEN]
    found["text"] = xr.Variable((TOKEN,), object_array([""] * tokens), fastpath=True)
    for name in ("token_id", "span"):
        found[name] = xr.Variable((TOKEN,), np.full(tokens, -1, TOKEN_COORDS[name][0]))
    return found


def _texts(dataset: xr.Dataset, name: str) -> list[str]:
    if name not in dataset.variables:
        return [""] * dataset.sizes[PROMPT]
    return [str(one) for one in dataset[name].values]


def _ids(dataset: xr.Dataset, level: Level) -> list[str]:
    """Those that were given; their numbers without text, of an import (they are names of files), and of addresses."""
    given = _texts(dataset, "prompt_id")
    numbered = level == NO_TEXT or dataset.attrs.get("source") == names.IMPORTED
    return unique(str(place) if numbered or _ADDRESS.search(one) else one for place, one in enumerate(given))


def _paired(dataset: xr.Dataset, name: str, level: Level) -> list[str]:
    """Which prompts belong together, an address as its number."""
    given = _texts(dataset, name)
    if level == NO_TEXT:
        return [""] * len(given)
    numbers = {one: str(number) for number, one in enumerate(dict.fromkeys(given))}
    return [numbers[one] if _ADDRESS.search(one) else one for one in given]


# --- attributes -------------------------------------------------------------------------------------------------------


def _attributes(dataset: xr.Dataset, level: Level, left_out: set[str]) -> dict[str, Any]:
    """The root attributes that go out, rebuilt key by key; words that people or programs write freely are rewritten."""
    attrs = to_json(dict(dataset.attrs))
    attrs["model"] = model_told(attrs.get("model"))
    public = {str(key): _rewritten(value, str(key), level, left_out) for key, value in attrs.items()}
    public = {key: value for key, value in public.items() if value is not _GONE}
    public["notes"] = _notes(attrs)
    receipt = attrs.get("receipt")
    if isinstance(receipt, Mapping) and receipt:
        public.setdefault("receipt", {})["limits"] = _limits(receipt)
        _count_prompts(receipt, public["receipt"])
    return public


def _rewritten(value: Any, path: str, level: Level, left_out: set[str]) -> Any:
    """A value by what is stated of its name, objects and lists of objects key by key; `_GONE` where it does not go."""
    field = listed(path)
    if field is not None and field.form and conforms(value, field.form):
        return value if _goes(path, level, left_out) else _GONE
    if isinstance(value, Mapping):
        return _object(value, path, level, left_out)
    if isinstance(value, list) and objects_in(value):
        found = [_object(item, path, level, left_out) for item in objects_in(value)]
        return [one for one in found if one is not _GONE] or _GONE
    return _GONE


def _object(value: Mapping[str, Any], path: str, level: Level, left_out: set[str]) -> Any:
    found = {key: _rewritten(one, f"{path}.{key}", level, left_out) for key, one in value.items()}
    return {key: one for key, one in found.items() if one is not _GONE} or _GONE


def _notes(attrs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Of which lines of the list the notes of a trace are; not their words, which may name prompts and files."""
    found = dict.fromkeys(
        (str(one["id"]), WARNING if one.get("severity") == WARNING else INFO)
        for one in objects_in(attrs.get("notes"))
        if one.get("id") in KNOWN
    )
    simulated = attrs.get("source") == names.SIMULATED  # which says so by itself
    return [note(identity, severity, WITHHELD) for identity, severity in found if not (simulated and identity == "L16")]


def _limits(receipt: Mapping[str, Any]) -> list[str]:
    """How many limits the receipt of the original names."""
    limits = receipt.get("limits")
    count = len(limits) if isinstance(limits, Sequence) and not isinstance(limits, str) else 0
    return [f"The original names {counted(count, 'limit')}; the words are not published."] if count else []


def _count_prompts(receipt: Mapping[str, Any], public: dict[str, Any]) -> None:
    """On how many prompts effects were calibrated: which ones they were is not told."""
    stored = receipt.get(CALIBRATION)
    if CALIBRATION in public and isinstance(stored, Mapping) and isinstance(stored.get("prompts"), list):
        public[CALIBRATION]["prompts"] = [str(number) for number in range(len(stored["prompts"]))]
