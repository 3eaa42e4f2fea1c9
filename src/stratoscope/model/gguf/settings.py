"""The settings of a GGUF file: each is what the model computes with, or changes nothing, or the model is refused.

transformers reads some of them, and leaves all others at what its configuration classes happen to have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.gguf.file import GgufFile
from stratoscope.model.gguf.values import MAY_BE_LISTS

_FIX = "Give the model's own folder, from which this file was made."
_ANY = object()  # whatever the value, nothing is lost where the configuration has no place for it


@dataclass(frozen=True)
class Setting:
    """Where a configuration has a setting.

    Attributes
    ----------
    attributes
        Names under which configurations have it; the first that this one has is used.
    nothing
        Values that change nothing, so that a configuration without a place for them is right.
    """

    attributes: tuple[str, ...] = ()
    nothing: tuple[Any, ...] = ()


def _set(*attributes: str, nothing: Sequence[Any] = ()) -> Setting:
    return Setting(attributes, tuple(nothing))


_SHAPES = {"nothing": (_ANY,)}  # a wrong size shows in the shape of a weight, which is checked
_SETTINGS = {
    "embedding_length": _set("hidden_size"),
    "vocab_size": _set("vocab_size", **_SHAPES),
    "feed_forward_length": _set("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", **_SHAPES),
    "attention.head_count": _set("num_attention_heads", nothing=(0,)),
    "attention.layer_norm_epsilon": _set("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    "attention.layer_norm_rms_epsilon": _set("rms_norm_eps", "norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attn_logit_softcapping": _set("attn_logit_softcapping", nothing=(0,)),
    "final_logit_softcapping": _set("final_logit_softcapping", nothing=(0,)),
    "router_logit_softcapping": _set(nothing=(0,)),
    "logit_scale": _set("logit_scale", nothing=(0, 1)),
    "residual_scale": _set("residual_multiplier", nothing=(0, 1)),
    "embedding_scale": _set("embedding_multiplier", nothing=(0, 1)),
    "attention.output_scale": _set(nothing=(0, 1)),
    "attention.clamp_kqv": _set("clip_qkv", nothing=(0,)),
    "attention.max_alibi_bias": _set(nothing=(0,)),
    "attention.causal": _set(nothing=(True,)),
    "attention.shared_kv_layers": _set("num_kv_shared_layers", nothing=(0,)),
    "use_parallel_residual": _set("use_parallel_residual", "parallel_attn"),
    "expert_count": _set("num_local_experts", "num_experts", "n_routed_experts", nothing=(0,)),
    "expert_used_count": _set("num_experts_per_tok", nothing=(0,)),
    "expert_feed_forward_length": _set("moe_intermediate_size", **_SHAPES),
    "expert_shared_feed_forward_length": _set("shared_expert_intermediate_size", **_SHAPES),
    "expert_shared_count": _set("n_shared_experts", nothing=(0,)),
    "expert_weights_norm": _set("norm_topk_prob"),
    "expert_weights_scale": _set("routed_scaling_factor", nothing=(0, 1)),
    "expert_group_count": _set("n_group", nothing=(0, 1)),
    "expert_group_used_count": _set("topk_group", nothing=(0, 1)),
    "leading_dense_block_count": _set("first_k_dense_replace", nothing=(0,)),
    "moe_every_n_layers": _set("decoder_sparse_step", nothing=(0, 1)),
    "interleave_moe_layer_step": _set("decoder_sparse_step", nothing=(0, 1)),
    "pooling_type": _set(nothing=(0,)),
    "tensor_data_layout": _set(**_SHAPES),
    "ssm.conv_kernel": _set("conv_kernel", "linear_conv_kernel_dim"),
    "ssm.inner_size": _set("intermediate_size"),
    "ssm.state_size": _set("state_size"),
    "ssm.time_step_rank": _set("time_step_rank"),
    "ssm.dt_b_c_rms": _set(nothing=(False,)),
    "shortconv.l_cache": _set("conv_L_cache"),
    "nextn_predict_layers": _set(**_SHAPES),  # their weights are named as unused
}
_WIDE_HEADS = {"gemma2": 46, "gemma3": 62}  # layers of the one size whose attention scale is not that of its head width


def apply_settings(config: Any, file: GgufFile) -> None:
    """Set in the configuration what the file says and transformers does not read, or reads as something else.

    What concerns positions (`rope.…`) is left to `gguf_positions`.

    Raises
    ------
    ModelError
        Something that changes what the model computes has no place in transformers' model.
    """
    read = _read_by_transformers(file)
    own = file.own()
    config = config.get_text_config()
    for name, value in own.items():
        if name in read or name.startswith("rope."):
            continue
        special = _SPECIAL.get(name)
        if special is not None:
            special(config, own, file)
        elif name in _SETTINGS:
            _apply(config, _SETTINGS[name], name, value, file)
        else:
            raise _refused(file, name, value)
    if not read:
        _apply_head_width(config, own, file)


def refuse_uneven_layers(file: GgufFile) -> None:
    """Refuse a file whose layers differ in size, before transformers stumbles over a list where it expects a number.

    Raises
    ------
    ModelError
        A setting has another value in each layer.
    """
    for name, value in file.own().items():
        if isinstance(value, list) and name not in MAY_BE_LISTS and len(set(value)) > 1:
            raise _refused(file, name, "another value in each layer")


def _read_by_transformers(file: GgufFile) -> set[str]:
    """Settings that transformers' newer reader turns into the configuration; it has a function for each architecture.

    The older reader's table is not trusted: some of what it reads, it stores where the model does not look.
    """
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, get_gguf_config

    if file.architecture not in GGUF_CONFIG_ARCHS:
        return set()

    asked: set[str] = set()

    class Noting(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            asked.add(key)
            return super().__getitem__(key)

        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    get_gguf_config(Noting(file.settings), tuple(file.tensors))
    prefix = f"{file.architecture}."
    return {key.removeprefix(prefix) for key in asked if key.startswith(prefix)}


def _apply(config: Any, setting: Setting, name: str, value: Any, file: GgufFile) -> None:
    value = _one(value)
    attribute = next((one for one in setting.attributes if hasattr(config, one)), None)
    if attribute is None:
        if _ANY not in setting.nothing and not any(value == one for one in setting.nothing):
            raise _refused(file, name, value)
    elif value == 0 and (0 in setting.nothing or _ANY in setting.nothing):
        return  # an architecture has none of it
    elif not _same(getattr(config, attribute), value):
        setattr(config, attribute, value)


def _one(value: Any) -> Any:
    """A number that stands in a file once, or for each layer the same."""
    if isinstance(value, list):
        return value[0] if value else 0
    return value


def _same(now: Any, value: Any) -> bool:
    """Whether two settings are one number: a file stores 1e-05 as the nearest 32-bit float."""
    if isinstance(now, float) and isinstance(value, (int, float)):
        return math.isclose(now, value, rel_tol=1e-6)
    return bool(now == value)


def _refused(file: GgufFile, name: str, value: Any) -> ModelError:
    return ModelError(
        f"its setting {file.architecture}.{name} ({value}) has no place in transformers' model, so another "
        "would be recorded",
        where=file.path.name,
        fix=_FIX,
    )


# --- settings that mean more than one attribute ---------------------------------------------------------------------


def _layers(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    config.num_hidden_layers = own["block_count"] - own.get("nextn_predict_layers", 0)


def _context(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    """The longest prompt; where positions are looked up, their table says it."""
    table = file.tensors.get("position_embd.weight")
    length = table.shape[0] if table else own["context_length"]
    if length and hasattr(config, "max_position_embeddings"):
        config.max_position_embeddings = length


def _kv_heads(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    name, value = "attention.head_count_kv", own["attention.head_count_kv"]
    if isinstance(value, list):
        counts = {count for count in value if count}
        if len(counts) > 1 or (0 in value and not _has_conv_layers(config, value)):
            raise _refused(file, name, "another number in each layer")
        value = max(counts, default=0)
    heads = _one(own.get("attention.head_count", 0))
    _apply(config, Setting(("num_key_value_heads", "num_kv_heads"), (0, heads)), name, value, file)


def _has_conv_layers(config: Any, kv_heads: Sequence[int]) -> bool:
    types = getattr(config, "layer_types", None) or ()
    return [kind == "full_attention" for kind in types] == [count > 0 for count in kv_heads]


def _apply_head_width(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    """The width of a head: llama.cpp's is the stated key length, or what the heads divide the model's width into."""
    heads = _one(own.get("attention.head_count", 0))
    if not heads:
        return
    width = own.get("attention.key_length", own["embedding_length"] // heads)
    for name in ("attention.key_length_swa", "attention.value_length_swa", "attention.value_length"):
        if own.get(name, width) != width:
            raise _refused(file, name, own[name])
    has_own = getattr(config, "head_dim", None) is not None
    if has_own or width * heads != own["embedding_length"]:
        if not hasattr(config, "head_dim"):
            raise _refused(file, "attention.key_length", width)
        config.head_dim = width
    if hasattr(config, "query_pre_attn_scalar"):
        wide = own["block_count"] == _WIDE_HEADS.get(file.architecture)
        config.query_pre_attn_scalar = own["embedding_length"] // heads if wide else width


def _attention_scale(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    scale, heads = own["attention.scale"], _one(own.get("attention.head_count", 1))
    width = own.get("attention.key_length", own["embedding_length"] // (heads or 1))
    if scale and not math.isclose(scale, width**-0.5, rel_tol=1e-5):
        raise _refused(file, "attention.scale", scale)


def _window(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    window = own["attention.sliding_window"]
    types = getattr(config, "layer_types", None)
    slides = types is None or "sliding_attention" in types
    if not window or (not slides and window >= own.get("context_length", 0)):
        return
    if not hasattr(config, "sliding_window") or not slides:
        raise _refused(file, "attention.sliding_window", window)
    config.sliding_window = window


def _window_pattern(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    given = own["attention.sliding_window_pattern"]
    types = getattr(config, "layer_types", None)
    if types is None:
        if given not in (0, 1) and own.get("attention.sliding_window"):
            raise _refused(file, "attention.sliding_window_pattern", given)
        return
    slides = given if isinstance(given, list) else [not given or bool((n + 1) % given) for n in range(len(types))]
    config.layer_types = ["sliding_attention" if one else "full_attention" for one in slides]


def _gating(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    known = {1: "softmax", 2: "sigmoid"}
    value = own["expert_gating_func"]
    if hasattr(config, "scoring_func"):
        config.scoring_func = known.get(value, "")
    right = {"gpt-oss": (3,), "minimax-m2": (1, 2)}.get(file.architecture, (0, 1))
    if value not in right:
        raise _refused(file, "expert_gating_func", value)


def _left_to_head_width(config: Any, own: dict[str, Any], file: GgufFile) -> None:
    """Handled once for all by `_apply_head_width`."""


_SPECIAL: dict[str, Callable[[Any, dict[str, Any], GgufFile], None]] = {
    "block_count": _layers,
    "context_length": _context,
    "attention.head_count_kv": _kv_heads,
    "attention.key_length": _left_to_head_width,
    "attention.value_length": _left_to_head_width,
    "attention.key_length_swa": _left_to_head_width,
    "attention.value_length_swa": _left_to_head_width,
    "attention.scale": _attention_scale,
    "attention.sliding_window": _window,
    "attention.sliding_window_pattern": _window_pattern,
    "expert_gating_func": _gating,
}


# --- what is no language model --------------------------------------------------------------------------------------

_NOT_CAUSAL = ("bert", "nomic-bert", "jina-bert-v2", "modern-bert", "t5", "t5encoder", "wavtokenizer-dec")


def refuse_other_gguf(file: GgufFile) -> None:
    """Refuse a file that is not a whole causal language model: an adapter, a vector, a part, an eye or an encoder.

    Raises
    ------
    ModelError
        It is one of these.
    """
    for what, fix in _other_things(file):
        raise ModelError(what, where=file.path.name, fix=fix)


def _other_things(file: GgufFile) -> Iterator[tuple[str, str]]:
    settings = file.settings
    kind, architecture = str(settings.get("general.type", "model")), file.architecture
    if kind == "adapter" or any(key.startswith("adapter.") for key in settings):
        yield "is an adapter, not a whole model", "Merge it into its model with llama-export-lora, and give that file."
    if architecture == "controlvector" or kind == "controlvector":
        yield "is a control vector, not a model", "Give a model."
    if kind == "mmproj" or architecture == "clip" or any(key.startswith("clip.") for key in settings):
        yield "is the part of a model that sees or hears (mmproj)", "Give the GGUF file of its language model."
    if kind == "imatrix" or "imatrix.datasets" in settings:
        yield "is a list of weights' importance (imatrix), not a model", "Give a model."
    if settings.get("split.count", 1) > 1:
        yield "is one part of a split GGUF file", "Join the parts with llama-gguf-split."
    if not architecture:
        yield "names no architecture", "Fetch it again."
    if architecture in _NOT_CAUSAL or architecture.endswith("-embedding"):
        yield f"holds a {architecture} model, not a causal language model", "Give a model that writes text."
    if not file.tensors:
        yield "holds no weights, only a vocabulary", "Give the GGUF file of the model."
