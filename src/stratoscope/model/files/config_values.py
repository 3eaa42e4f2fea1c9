"""Whether a config.json can be one: a text where a text is read, an object where one is, and no more than there is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.files.contents import stored_tensors
from stratoscope.model.files.model_files import ModelFiles

_TEXTS = ("model_type", "transformers_weights", "dtype", "torch_dtype", "hidden_act")
_OBJECTS = ("text_config", "quantization_config", "rope_parameters", "rope_scaling", "auto_map")
_LISTS = ("architectures", "layer_types")  # of texts
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_SIZES = (*_LAYERS, "hidden_size", "n_embd", "d_model", "vocab_size")
_MOST_LABELS = 100_000  # transformers writes out a name for each
_MANY = 128  # so few layers or experts are built in no time, whatever the weights are


def refuse_impossible_config(config: Mapping[str, Any], files: ModelFiles) -> None:
    """Refuse a config.json with values that no model has, before anything is built by it.

    Parameters
    ----------
    config
        What it says.
    files
        Those of the model.

    Raises
    ------
    ModelError
        A value is of another kind than its name says, no number, or more than the weights can fill.
    """
    most = _filled(files)
    inner = (config.get(name) for name in ("text_config", "rope_parameters", "rope_scaling"))
    for part in (config, *(one for one in inner if isinstance(one, Mapping))):
        for name, what in _impossible(part, most):
            raise ModelError(
                f"its config.json says {name}: {what}",
                where=files.name,
                fix="Use the config.json that belongs to these weights.",
            )


def _impossible(config: Mapping[str, Any], most: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name in _TEXTS:
        if not isinstance(config.get(name, ""), (str, type(None))):
            yield name, f"{_shown(config[name])} is no text"
    for name in _OBJECTS:
        if not isinstance(config.get(name, {}), (Mapping, type(None))):
            yield name, f"{_shown(config[name])} is no object"
    for name in _LISTS:
        values = config.get(name) or []
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            yield name, f"{_shown(values)} is no list of texts"
    for name, value in config.items():
        if isinstance(value, float) and math.isnan(value):
            yield name, "NaN is no number"
    for name in _SIZES:
        value = config.get(name)
        if isinstance(value, (int, float, str)) and (type(value) is not int or value < 1):
            yield name, f"{_shown(value)} is no size"
    labels = config.get("num_labels")
    if isinstance(labels, int) and labels > _MOST_LABELS:
        yield "num_labels", f"{labels:,} is more than any model has"
    for name, limit in most.items():
        value = config.get(name)
        if isinstance(value, int) and value > limit:
            yield name, f"{value:,} is more than its weights fill"


def _filled(files: ModelFiles) -> dict[str, int]:
    """At least as many layers and experts as these weights can belong to, by the names of settings."""
    tensors = [tensor for path in files.weights for tensor in stored_tensors(path, files.name).values()]
    layers = len(tensors)
    if not tensors:  # a torch file lists its tensors at its end, with some hundred bytes for each
        layers = sum(path.stat().st_size for path in files.weights) // 100
    experts = max((layers, *(size for tensor in tensors for size in tensor.shape)))
    return {**dict.fromkeys(_LAYERS, max(layers, _MANY)), **dict.fromkeys(_EXPERTS, max(experts, _MANY))}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} …"
