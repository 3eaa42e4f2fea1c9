"""Class profiles as they were published: all that a look-alike may know of the recording behind them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.results.result import is_result, open_result, table_in
from stratoscope.errors import InputError, printable_line
from stratoscope.replacing import refuse_absent
from stratoscope.trace.arrays import Floats
from stratoscope.trace.format.place import is_trace

if TYPE_CHECKING:
    import xarray as xr

KIND = "profiles"
TAKEN = (  # quantities whose profiles a look-alike takes over
    "mlp_write_ratio",
    "attn_write_ratio",
    "mlp_write_norm",
    "attn_write_norm",
    "mlp_out_norm",
    "mlp_write_cos",
    "attn_write_cos",
    "resid_norm",
    "resid_cos",
    "neuron_norm",
    "attn_first",
    "attn_entropy",
    "attn_entropy_nosink",
    "attn_distance",
    "attn_distance_nosink",
    "attn_value_norm",
)
_MOST = {"layers": 1000, "d_model": 10**6, "d_ff": 10**6, "heads": 1000}  # no model has more
_MOST_CELLS = 2**26  # layers × neurons
_MOST_CLASSES, _MOST_PROMPTS, _MOST_TOKENS = 100, 10**6, 10**5  # tokens: of a prompt
_MOST_IN_ALL = 10**8  # tokens
_USUAL_TOKENS = sum(defaults.SIMULATED_TOKENS) // 2
_LONGEST_NAME = 200  # characters of a class's name
_FACTS = {
    "layers": "n_layers",
    "d_model": "d_model",
    "d_ff": "d_ff",
    "heads": "n_heads",
}  # size → what the model's facts call it
_LARGEST_LOG = 60.0  # ±: beyond, numbers are no norms of a network
_SCALE = "scale"
_PUBLISH = "Give a folder that `stratoscope publish TRACE --level aggregate -o FOLDER` wrote."


@dataclass(frozen=True)
class PublishedClass:
    """A class: its name, about how many prompts it has, and about how many tokens a prompt has."""

    name: str
    prompts: int
    tokens: int


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes
    ----------
    level, promise
        "aggregate" or "private", and what was promised of it.
    classes
        Those of which profiles were published.
    sizes
        `layers`, and as far as they are known `d_model`, `d_ff` and `heads`.
    profiles
        Quantity → (class, layer or depth); natural logarithms of what has a logarithmic scale, NaN where nothing was
        published.
    """

    level: str
    promise: str
    classes: tuple[PublishedClass, ...]
    sizes: Mapping[str, int]
    profiles: Mapping[str, Floats]

    @property
    def sha256(self) -> str:
        """Of all of it: whoever holds the published file gets the same."""
        classes = [[one.name, one.prompts, one.tokens] for one in self.classes]
        said = json.dumps([self.level, classes, sorted(self.sizes.items()), sorted(self.profiles)])
        digest = sha256(said.encode())
        for name in sorted(self.profiles):
            digest.update(np.ascontiguousarray(self.profiles[name], "<f8").tobytes())
        return digest.hexdigest()

    def of_class(self, number: int) -> dict[str, Floats]:
        """The profiles of one class."""
        return {name: values[number] for name, values in self.profiles.items()}


def read_published(given: str | os.PathLike[str] | xr.DataTree) -> Published:
    """What a Result of kind "profiles", or the folder of one, says.

    Raises
    ------
    InputError
        It is something else, says too little, or holds numbers that no published profiles hold.
    """
    result = _opened(given)
    said = result.attrs.get("summary")
    summary: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    level, promise = str(summary.get("level")), printable_line(str(summary.get("promise", "")))[:_LONGEST_NAME]
    _require(level in (names.AGGREGATE, names.PRIVATE), f"profiles at the level {level[:40]!r}")
    classes = _classes(result)
    model = summary.get("model")
    sizes = _sizes(model if isinstance(model, Mapping) else {}, result)
    profiles = _profiles(result, [one.name for one in classes], sizes["layers"], banded=level == names.PRIVATE)
    return Published(level, promise, classes, sizes, profiles)


def _opened(given: str | os.PathLike[str] | xr.DataTree) -> xr.DataTree:
    import xarray as xr

    if isinstance(given, xr.DataTree) and is_result(given, KIND):
        return given
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        refuse_absent(path, "publication", InputError)
        if not is_trace(path):
            result = open_result(path)
            if is_result(result, KIND):
                return result
            what = f"a Result of {result.attrs['kind']}"
        else:
            what = "a trace"
        raise InputError(
            f"a look-alike is made of published class profiles, not of {what}", where=str(path), fix=_PUBLISH
        )
    raise InputError("a look-alike is made of published class profiles", where="like", fix=_PUBLISH)


def _classes(result: xr.DataTree) -> tuple[PublishedClass, ...]:
    table = _table(result, "classes")
    _require(0 < table.sizes.get("prompt_class", 0) <= _MOST_CLASSES, "no classes, or very many")
    called, prompts = (_column(table, name).ravel().tolist() for name in ("prompt_class", "prompts"))
    tokens = [_USUAL_TOKENS] * len(called)  # a private publication does not tell them
    if "tokens" in table.variables:
        tokens = _column(table, "tokens").ravel().tolist()
    _require(len(set(called)) == len(called), "two classes of one name")
    _require(all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in called), "a class without a name")
    _require(_whole(prompts, _MOST_PROMPTS), "a number of prompts that no trace has")
    _require(_whole(tokens, _MOST_TOKENS), "a number of tokens that no prompt has")
    total = sum(count * length for count, length in zip(prompts, tokens, strict=True))
    _require(total <= _MOST_IN_ALL, "more tokens than any trace has")
    return tuple(PublishedClass(*row) for row in zip(called, prompts, tokens, strict=True))


def _whole(values: list[Any], most: int) -> bool:
    return all(isinstance(value, int) and 1 <= value <= most for value in values)


def _sizes(model: Mapping[str, Any], result: xr.DataTree) -> dict[str, int]:
    """Sizes of the model, as far as they were published; of one whose layers were not, those that there are."""
    found = {size: model[name] for size, name in _FACTS.items() if model.get(name) is not None}
    tables = _tables(result).values()
    found.setdefault("layers", max(one.sizes.get(names.LAYER, one.sizes.get(names.DEPTH, 1) - 1) for one in tables))
    for size, value in found.items():
        sound = type(value) is int and 1 <= value <= _MOST[size]
        _require(sound, f"a model whose {_FACTS[size]} is {str(value)[:20]}")
    _require(found["layers"] * found.get("d_ff", 1) <= _MOST_CELLS, "a model of more neurons than any has")
    return found


def _tables(result: xr.DataTree) -> dict[str, xr.Dataset]:
    """The tables of the profiles that a look-alike takes over."""
    there = result.children[KIND].children if KIND in result.children else ()
    found = {name: _table(result, f"{KIND}/{name}") for name in TAKEN if name in there}
    _require(bool(found), "none of the profiles that a look-alike is made of: " + ", ".join(TAKEN[:4]) + ", …")
    return found


def _profiles(result: xr.DataTree, classes: list[str], layers: int, *, banded: bool) -> dict[str, Floats]:
    """The profiles that a look-alike takes over; of bands of layers what lies between their middles is drawn across."""
    found = {}
    for name, table in _tables(result).items():
        kind = names.QUANTITIES[name].row_kind
        rows = np.arange(layers + 1 if kind == names.DEPTH else layers)
        _require(0 < table.sizes.get(kind, 0) <= len(rows), f"a profile of {name} of another number of {kind}s")
        mean, numbers = _column(table, "mean"), _column(table, kind)
        sound = mean.shape == (len(classes), len(numbers)) and mean.dtype.kind == "f"
        sound = sound and numbers.dtype.kind in "iu" and _column(table, "prompt_class").tolist() == classes
        _require(sound, f"a profile of {name} that is damaged")
        inside = numbers[0] >= 0 and numbers[-1] < len(rows) and (np.diff(numbers) > 0).all()
        _require(inside and (banded or len(numbers) == len(rows)), f"a profile of {name} of some {kind}s only")
        values = _on_scale(name, mean.astype(np.float64), str(table["mean"].attrs.get(_SCALE, "")))
        found[name] = (
            values if len(numbers) == len(rows) else np.stack([np.interp(rows, numbers, one) for one in values])
        )
    return found


def _on_scale(name: str, mean: Floats, scale: str) -> Floats:
    """A profile as `Published` has it."""
    log = names.QUANTITIES[name].log
    _require(scale == ("log2" if log else "linear"), f"a profile of {name} on another scale than its own")
    _require(not np.isnan(mean).all(), f"a profile of {name} without a number")
    values = mean * np.log(2) if log else mean
    known = values[np.isfinite(values)]
    _require(not np.isinf(values).any() and (np.abs(known) <= _LARGEST_LOG).all(), f"a profile of {name} out of range")
    return values


def _table(result: xr.DataTree, path: str) -> xr.Dataset:
    try:
        return table_in(result, path)
    except KeyError:
        raise InputError(f"these profiles lack their table {path!r}", where="like", fix=_PUBLISH) from None


def _column(table: xr.Dataset, name: str) -> np.ndarray:
    _require(name in table.variables, f"a table without {name!r}")
    return np.asarray(table.variables[name].values)


def _require(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise InputError(f"it holds {what}", where="like", fix=_PUBLISH)
