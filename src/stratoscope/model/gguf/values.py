"""Whether the settings of a GGUF file can be what they say: a text where a text is read, a number where a number is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.gguf.file import Counted, GgufFile

MAY_BE_LISTS = ("attention.head_count_kv", "attention.sliding_window_pattern", "rope.dimension_sections")
_EACH_LAYER = (  # as llama.cpp reads them: one number, or one for each layer
    *("attention.head_count", "attention.head_count_kv", "attention.sliding_window_pattern", "feed_forward_length"),
)
_LISTS = (*_EACH_LAYER, "rope.dimension_sections")
_TEXTS = ("tensor_data_layout", "rope.scaling.type")
_LAYERS = ("block_count", "nextn_predict_layers", "leading_dense_block_count")  # each has tensors of its own
_COUNTS = (  # whole numbers by which something is built: at most as many as the file holds anything of
    *(*_LAYERS, "embedding_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("expert_count", "expert_used_count", "rope.dimension_count"),
)
_WHOLE = (
    *_COUNTS,
    *("context_length", "attention.sliding_window", "rope.scaling.original_context_length", "feed_forward_length"),
    *("expert_gating_func", "ssm.inner_size", "ssm.state_size", "ssm.conv_kernel", "ssm.time_step_rank"),
)
_LARGEST = (1 << 32) - 1  # llama.cpp's are 32-bit numbers
_NEEDED = ("block_count", "embedding_length")
_POSITIVE = (
    *(*_NEEDED, "vocab_size", "rope.freq_base", "rope.freq_base_swa"),
    *("attention.key_length", "attention.value_length"),
)
_MAY_BE_NEGATIVE = ("rope.scaling.yarn_ext_factor",)
_OUTER_TEXTS = ("general.architecture", "general.type", "tokenizer.ggml.model", "tokenizer.ggml.pre")
_OUTER_LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type", "tokenizer.ggml.scores")
_OUTER_WHOLE = ("general.file_type", "split.count")


def refuse_impossible(file: GgufFile) -> None:
    """Refuse a setting that cannot be what it says, before anything is computed with it.

    Raises
    ------
    ModelError
        It is of another kind than the setting is, not a finite number, or larger than anything that the file holds.
    """
    for name, what in _impossible(file):
        raise ModelError(f"its setting {name} {what}", where=file.path.name, fix="Fetch it again, or convert it anew.")


def _impossible(file: GgufFile) -> Iterator[tuple[str, str]]:
    """The names of such settings, and what is wrong with each."""
    for name in _OUTER_TEXTS:
        if not isinstance(file.settings.get(name, ""), str):
            yield name, f"{_shown(file.settings[name])}, not a text"
    for name in _OUTER_WHOLE:
        if not _is_whole(file.settings.get(name, 0)):
            yield name, f"{_shown(file.settings[name])}, not a whole number"
    for name in _OUTER_LISTS:
        if not isinstance(file.settings.get(name, []), (list, Counted)):
            yield name, f"{_shown(file.settings[name])}, not a list"
    own = file.own()
    largest = max((len(file.tensors), *(size for tensor in file.tensors.values() for size in tensor.shape)))
    for name, value in own.items():
        most = len(file.tensors) if name in _LAYERS else largest
        values = value if isinstance(value, list) and name in _LISTS else [value]
        wrong = next((found for one in values if (found := _wrong(name, one, most))), None)
        if isinstance(value, list) and name in _EACH_LAYER and len(value) < own.get("block_count", 0):
            wrong = wrong or f"holds {len(value)} numbers for {own['block_count']} layers"
        if wrong and file.tensors:
            yield f"{file.architecture}.{name}", wrong
    if file.architecture and file.tensors:
        yield from ((f"{file.architecture}.{name}", "is missing") for name in _NEEDED if name not in own)


def _wrong(name: str, value: Any, most: int) -> str:
    """What is wrong with one value of a setting; empty where nothing is."""
    if name in _TEXTS:
        return "" if isinstance(value, str) else f"{_shown(value)}, not a text"
    if isinstance(value, Counted) or not isinstance(value, (int, float)):
        return f"{_shown(value)}, not a number"
    if not math.isfinite(value):
        return f"is {value}, not a finite number"
    if name in _WHOLE and not _is_whole(value):
        return f"{_shown(value)}, not a whole number"
    if name in _WHOLE and value > _LARGEST:
        return f"is {value}, more than 32 bits hold"
    if value < 0 and name not in _MAY_BE_NEGATIVE:
        return f"is {value}, which is negative"
    if value == 0 and name in _POSITIVE:
        return "is 0"
    return f"is {value}, more than anything that the file holds" if name in _COUNTS and value > most else ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, (bool, Counted))


def _shown(value: Any) -> str:
    """A value of the wrong kind, as an error shows it."""
    if isinstance(value, (list, Counted)):
        return "is a list"
    return f"is the text {value[:40]!r}" if isinstance(value, str) else f"is {value}"
