"""A tiny random model of any causal architecture in transformers, from options that most of them share."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers as hf
from tiny import CONTEXT, VOCAB, randomised
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

MOST_PARAMETERS = 10_000_000
_WIDTH, _BLOCKS, _HEADS = 32, 4, 4
_GENERAL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), _WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), _BLOCKS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 72),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), CONTEXT),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_experts_per_tok", "expand", "mamba_expand"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "rotary_dim", "conv_kernel"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("n_shared_experts", "first_k_dense_replace", "n_group", "topk_group", "mamba_n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "v_head_dim", "d_kv", "sliding_window"), 8),
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head"), 8),
    **{"vocab_size": VOCAB, "qk_rope_head_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
_TOWER = {
    **{"hidden_size": _WIDTH, "intermediate_size": 72, "num_hidden_layers": 1, "num_attention_heads": _HEADS},
    **{"image_size": 28, "patch_size": 14},
}
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_text": {"vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8},
    "gemma3n_text": {
        **{"vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
        **{"layer_types": ["sliding_attention", "full_attention"] * 2, "laurel_rank": 4},
        **{"activation_sparsity_pattern": [0.0] * 4},
    },
    "zamba2": {"layer_types": ["mamba", "hybrid"] * 2, "mamba_headdim": 8, "n_mamba_heads": 8},
    "falcon_h1": {"mamba_d_ssm": 64},
}

# what an architecture also is, by the options of its configuration
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_text, dense (without inputs of its own in every layer)": (
        "gemma4_text",
        {"hidden_size_per_layer_input": 0},
    ),
}

ARCHITECTURES: tuple[str, ...] = (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *_VARIANTS)


def tiny_of(architecture: str) -> Any:
    """The model in evaluation mode.

    Raises
    ------
    ValueError
        These options do not make a small model of it.
    """
    torch.manual_seed(0)
    try:
        config = _config(architecture)
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in hf.AutoModelForCausalLM.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            raise ValueError("it stays large")
        model = randomised(hf.AutoModelForCausalLM.from_config(config)).eval()
        with torch.no_grad():
            model(input_ids=torch.arange(5, 13)[None], use_cache=False)
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return model


def _config(architecture: str) -> Any:
    architecture, variant = _VARIANTS.get(architecture, (architecture, {}))
    config_class = getattr(hf, CONFIG_MAPPING_NAMES[architecture])
    options = _options(config_class)
    parts = getattr(config_class, "sub_configs", {})
    if "text_config" in parts:  # a model that also sees or hears: its text model is a part of it
        options["text_config"] = _options(parts["text_config"])
        options |= {name: _TOWER for name in parts if name in ("vision_config", "audio_config")}
    return config_class(**{**options, **_OWN.get(architecture, {}), **variant})


def _options(config_class: Any) -> dict[str, Any]:
    """What of the general options a configuration has."""
    known = {*inspect.signature(config_class.__init__).parameters, *getattr(config_class, "__dataclass_fields__", ())}
    options = {name: value for name, value in _GENERAL.items() if name in known}
    if "kv_lora_rank" in known:  # latent attention has as many keys as queries, and its own head widths
        options["num_key_value_heads"] = _HEADS
        options.pop("head_dim", None)
    return options
