"""Weights that a checkpoint holds and its model does not use: harmless, named as a limit, or the model is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.files.checkpoint import Unused
from stratoscope.model.files.contents import stored_tensors
from stratoscope.model.files.model_files import ModelFiles
from stratoscope.model.gguf.file import GgufFile
from stratoscope.model.gguf.positions import POSITION_TENSORS

_HARMLESS = re.compile(  # computed anew from the configuration: positions, counters
    r"(^|\.)(rotary_emb|rotary_pos_emb)\.(inv_freq|cos_cached|sin_cached)$"
    r"|(^|\.)(position_ids|token_type_ids|num_batches_tracked|embed_positions\._float_tensor)$"
    r"|(^|\.)attn_rot_embd\.weight$"
    r"|^rope_freqs\.weight$"
)
_MASK = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention|crossattention)\.(bias|masked_bias)$")
_AHEAD = "for predicting several tokens ahead"
_KERNELS = "for 8-bit kernels"
_NAMED = (  # parts of a checkpoint that the forward of its language model does not use
    (re.compile(r"(^|\.)(mtp|mtp_\w+|nextn)(\.|$)|\.(nextn|mtp)[._]"), _AHEAD),
    (re.compile(r"(^|\.)(v_head|value_head)\."), "of a value head"),
    (re.compile(r"(^|\.)(visual|vision_\w+|image_\w+|multi_modal_projector|mm_projector)(\.|$)"), "for pictures"),
    (re.compile(r"(^|\.)(audio_\w+|talker|code2wav|token2wav)(\.|$)"), "for sound"),
    (re.compile(r"\.(k|v|kv|q|input|activation|output)_scale$"), _KERNELS),
)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|blk)\.(\d+)\.")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|output_layer)\.")
_MERGED = "Save what merge_and_unload() returns with save_pretrained, and give that folder."
_WRAPPED = ("module.", "_orig_mod.", "base_model.model.", "model.base_model.model.")


@dataclass
class Keys:
    """Names of weights: those of the files without a place in the model, those of the model without a weight, and what
    is said of those whose shapes differ."""

    unused: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    unlike: list[str] = field(default_factory=list)


@contextmanager
def every_key(keys: Keys) -> Iterator[None]:
    """While open, gathers in `keys` what does not fit while loading, also what transformers does not report."""
    from transformers import PreTrainedModel

    original = PreTrainedModel._adjust_missing_and_unexpected_keys

    def gather(model: Any, info: Any) -> None:
        keys.unused |= info.unexpected_keys
        parameters = {name for name, _ in model.named_parameters()}
        keys.missing |= info.missing_keys & parameters
        keys.unlike += [
            f"{name} is stored as {_shape(stored)}, where {_shape(wanted)} is described"
            for name, stored, wanted in sorted(info.mismatched_keys)
        ]
        original(model, info)

    PreTrainedModel._adjust_missing_and_unexpected_keys = gather
    try:
        yield
    finally:
        PreTrainedModel._adjust_missing_and_unexpected_keys = original


def _config(files: ModelFiles) -> str:
    """What describes the model."""
    return "its list of settings" if files.gguf else "its config.json"


def _other_config(files: ModelFiles) -> str:
    if files.gguf:
        return "Give the model's own folder, from which this file was made."
    return "Use the config.json that belongs to these weights."


def _shape(shape: Any) -> str:
    return " × ".join(map(str, shape)) or "a number"


def refuse_unlike(keys: Keys, files: ModelFiles) -> None:
    """Refuse weights of another shape than the model has.

    Raises
    ------
    ModelError
        Some are.
    """
    if keys.unlike:
        more = f" (and {len(keys.unlike) - 1} more)" if len(keys.unlike) > 1 else ""
        raise ModelError(f"the weight {keys.unlike[0]}{more}", where=files.name, fix=_other_config(files))


def refuse_lost(lost: Collection[str], unused: Collection[str], config: Any, files: ModelFiles) -> None:
    """Refuse a model that would run on random numbers, with the reason why weights of it were not found.

    Raises
    ------
    ModelError
        Some weights are missing.
    """
    if not lost:
        return
    first, other = sorted(lost)[0], sorted(unused)
    what = f"{len(lost)} of its weights are missing, such as {first}"
    fix = "Fetch the model again; without them it would run on random numbers."
    if adapter := _adapter(other):
        what, fix = f"has an adapter that is not merged ({adapter})", _MERGED
    elif prefix := next((one for one in _WRAPPED if other and all(name.startswith(one) for name in other)), None):
        what, fix = f"all of its weights are stored under {prefix!r}", "Save the model that is inside the wrapper."
    elif other and not any("." in name for name in other):
        what = (
            f"its weight file holds {', '.join(other[:4])} instead of named weights, as a checkpoint of training does"
        )
        fix = "Save the state_dict of the model alone, with save_pretrained."
    elif all(_HEAD.search(name) for name in lost):
        what = f"holds only the body of a model, without the part that writes tokens ({first})"
        fix = "Give the whole model, as its ...ForCausalLM class saves it."
    elif held := _fewer_layers(lost, files):
        said = getattr(config.get_text_config(), "num_hidden_layers", "more")
        what, fix = f"{_config(files)} says {said} layers, and its files hold {held}", _other_config(files)
    elif other:
        what += f", and {len(other)} others have no place in it, such as {other[0]}"
        fix = _other_config(files)
    raise ModelError(what, where=files.name, fix=fix)


def _fewer_layers(lost: Collection[str], files: ModelFiles) -> int:
    """How many layers the files hold, where all that is missing is of layers after them; else 0."""
    held = 1 + max((int(found[1]) for name in _stored_shapes(files) if (found := _LAYER.search(name))), default=-1)
    layers = [_LAYER.search(name) for name in lost]
    return held if all(layer and int(layer[1]) >= held for layer in layers) else 0


def _adapter(names: Collection[str]) -> str:
    """The first weight that only an unmerged adapter has."""
    return next((name for name in names if ".lora_" in name or ".base_layer." in name), "")


def named_unused(unused: Collection[str], model: Any, files: ModelFiles) -> tuple[Unused, ...]:
    """The weights that were left out, where the language model does not need them.

    Raises
    ------
    ModelError
        Others are left out too: not the model of that name would be recorded.
    """
    config = model.config.get_text_config()
    lost, named = [], dict[str, list[str]]()
    shapes = _stored_shapes(files)
    for name in sorted(unused):
        if _HARMLESS.search(name) or _is_mask(name, shapes):
            continue
        part = next((words for pattern, words in _NAMED if pattern.search(name)), None)
        if part is None and _is_ahead(name, config):
            part = _AHEAD
        if part is None:
            lost.append(name)
        else:
            named.setdefault(part, []).append(name)
    if adapter := _adapter(lost):
        raise ModelError(f"has an adapter that is not merged ({adapter})", where=files.name, fix=_MERGED)
    if lost:
        raise ModelError(_lost_words(lost, config, files), where=files.name, fix=_other_config(files))
    return tuple(
        Unused(
            f"{len(names)} weights {part} are not used, such as {names[0]}."
            if len(names) > 1
            else f"One weight {part} is not used: {names[0]}.",
            differs=part == _KERNELS,  # they round, which the floats here do not
        )
        for part, names in named.items()
    )


def _stored_shapes(files: ModelFiles) -> dict[str, tuple[int, ...]]:
    """The shapes of all that the files hold."""
    if files.gguf_file:
        return {name: tensor.shape for name, tensor in files.gguf_file.tensors.items()}
    return {name: tensor.shape for path in files.weights for name, tensor in stored_tensors(path, files.name).items()}


def _is_mask(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a weight is a mask of which token sees which, or the number that masks; a bias has their names too."""
    if not _MASK.search(name):
        return False
    stored = [shape for other, shape in shapes.items() if f".{name}".endswith(f".{other}")]
    stored += [shape for other, shape in shapes.items() if f".{other}".endswith(f".{name}")]
    if name.endswith(".masked_bias"):
        return bool(stored) and all(prod(shape) == 1 for shape in stored)
    return bool(stored) and all(len(shape) == 4 and shape[2] == shape[3] for shape in stored)


def _is_ahead(name: str, config: Any) -> bool:
    """Whether a weight is of a layer after the last, of a model that says that it has such."""
    layer = _LAYER.search(name)
    return bool(
        layer
        and int(layer[1]) >= config.num_hidden_layers
        and (getattr(config, "num_nextn_predict_layers", 0) or getattr(config, "mtp_num_hidden_layers", 0))
    )


def _lost_words(lost: list[str], config: Any, files: ModelFiles) -> str:
    beyond = [int(found[1]) for name in lost if (found := _LAYER.search(name))]
    layers = getattr(config, "num_hidden_layers", None)
    if beyond and layers is not None and min(beyond) >= layers:
        return f"holds weights of layer {min(beyond)}, such as {lost[0]}, and {_config(files)} says {layers} layers"
    return f"{len(lost)} of its weights have no place in the model that {_config(files)} describes, such as {lost[0]}"


def refuse_twice(model: Any, files: ModelFiles) -> None:
    """Refuse files that hold a weight under two names, with and without the prefix of the model's body.

    Raises
    ------
    ModelError
        They do: one of the two would be dropped.
    """
    names = {name for path in files.weights for name in stored_tensors(path, files.name)}
    twice = next((name for name in sorted(names) if f"{model.base_model_prefix}.{name}" in names), None)
    if twice is not None:
        what = f"holds a weight twice, as {twice} and as {model.base_model_prefix}.{twice}"
        raise ModelError(what, where=files.name, fix="Save it again with save_pretrained, or fetch it again.")


@contextmanager
def placed_tensors(placed: set[str]) -> Iterator[None]:
    """While open, gathers the names of GGUF tensors for which transformers' older reader finds a place.

    The table of names, which it builds anew for every module of a model, is built once: that takes half of the time.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as older

    places, table = older.get_gguf_hf_weights_map, gguf.get_tensor_name_map

    def gather(*arguments: Any, **options: Any) -> dict[str, str]:
        found: dict[str, str] = places(*arguments, **options)
        placed.update(found)
        return found

    older.get_gguf_hf_weights_map, gguf.get_tensor_name_map = gather, cache(table)
    try:
        yield
    finally:
        older.get_gguf_hf_weights_map, gguf.get_tensor_name_map = places, table


def unused_of_gguf(placed: Collection[str], file: GgufFile) -> set[str]:
    """Tensors that transformers' older reader left out without a word; the newer reports its own."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    if file.architecture in GGUF_CONFIG_ARCHS:
        return set()
    known = {*placed, *(f"{name}.weight" for name in placed), *POSITION_TENSORS}
    if file.architecture == "gpt2":
        known.add("output.weight")  # placed by hand there
    return {*file.tensors} - known
