"""Tiny random models of many architectures and a byte tokenizer: a model costs some 20 ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stratoscope import names

RECORDED = names.RECORD_GROUPS  # what the recorder gives of a model
VOCAB = 300
CONTEXT = 96
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_ONE_KV = {key: value for key, value in _COMMON.items() if key != "num_key_value_heads"}
_NO_FF = {key: value for key, value in _ONE_KV.items() if key != "intermediate_size"}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, "eos_token_id": 1}
_GPT2 |= {"bos_token_id": 1}
_GEMMA = {**_COMMON, "head_dim": 8}
_OPT = {**_NO_FF, "ffn_dim": 72, "word_embed_proj_dim": 32}
_DEEPSEEK = {
    **_COMMON, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """An architecture, its options, and where its sites are: written by hand, so that the finder can be judged.

    `attention`, `mlp`, `last` are the modules in a block that give the attention write, the MLP write and W a; of
    several names, a block has one. `experts` is a mixture's fused module, `last` then the shared expert's last map,
    `gate` what its sigmoid scales it by, and `out` gives the mixture's output before any norm.
    """

    config: str
    options: dict[str, Any]
    blocks: str
    attention: str
    mlp: str
    last: str
    parallel: bool = False
    transposed: bool = False
    experts: str = ""
    gate: str = ""
    out: str = ""
    post_norm: bool = False
    scale: float = 1.0


_LLAMA = {"blocks": "model.layers", "attention": "self_attn", "mlp": "mlp", "last": "mlp.down_proj"}
_POST = {
    **_LLAMA, "attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm", "post_norm": True,
}  # fmt: skip
_MOE = {**_LLAMA, "last": "", "experts": "mlp.experts", "out": "mlp"}
_EXPERTS = {**_COMMON, "num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8}
_NEOX = {"blocks": "gpt_neox.layers", "attention": "attention", "mlp": "mlp", "last": "mlp.dense_4h_to_h"}
_GPT = {"blocks": "transformer.h", "attention": "attn", "mlp": "mlp"}
_FALCON = {"blocks": "transformer.h", "attention": "self_attention", "mlp": "mlp", "last": "mlp.dense_4h_to_h"}

FAMILIES = {
    "Llama": Family("LlamaConfig", _COMMON, **_LLAMA),
    "Mistral": Family("MistralConfig", {**_COMMON, "sliding_window": 8}, **_LLAMA),
    "Qwen2": Family("Qwen2Config", _COMMON, **_LLAMA),
    "Gemma2": Family("Gemma2Config", {**_GEMMA, "sliding_window": 8}, **_POST),
    "GPT2": Family("GPT2Config", _GPT2, **_GPT, last="mlp.c_proj", transposed=True),
    "GPTNeoX": Family("GPTNeoXConfig", _ONE_KV, **_NEOX, parallel=True),
}
MORE_FAMILIES = {
    "GPTNeoX sequential": Family("GPTNeoXConfig", {**_ONE_KV, "use_parallel_residual": False}, **_NEOX),
    "Qwen3": Family("Qwen3Config", {**_COMMON, "head_dim": 8}, **_LLAMA),
    "Phi3": Family("Phi3Config", _COMMON, **_LLAMA),
    "OLMo2": Family("Olmo2Config", _COMMON, **_POST),
    "Gemma": Family("GemmaConfig", _GEMMA, **_LLAMA),
    "Gemma3": Family("Gemma3TextConfig", {**_GEMMA, "sliding_window": 8}, **_POST),
    "Falcon": Family("FalconConfig", _NO_FF, **_FALCON, parallel=True),
    "Falcon sequential": Family("FalconConfig", {**_NO_FF, "parallel_attn": False, "alibi": True}, **_FALCON),
    "GPT-J": Family("GPTJConfig", {**_GPT2, "rotary_dim": 4}, **_GPT, last="mlp.fc_out", parallel=True),
    "Phi": Family("PhiConfig", _ONE_KV, **{**_LLAMA, "last": "mlp.fc2"}, parallel=True),
    "StableLM": Family("StableLmConfig", _COMMON, **_LLAMA),
    "StableLM parallel": Family("StableLmConfig", {**_COMMON, "use_parallel_residual": True}, **_LLAMA, parallel=True),
    "Cohere": Family("CohereConfig", _COMMON, **_LLAMA, parallel=True),
    "OPT": Family("OPTConfig", _OPT, blocks="model.decoder.layers", attention="self_attn", mlp="fc2", last="fc2"),
    "Starcoder2": Family("Starcoder2Config", _COMMON, **{**_LLAMA, "last": "mlp.c_proj"}),
    "GLM4": Family(
        "Glm4Config",
        {**_COMMON, "head_dim": 8},
        **{**_POST, "attention": "post_self_attn_layernorm", "mlp": "post_mlp_layernorm"},
    ),
    "Granite": Family("GraniteConfig", {**_COMMON, "residual_multiplier": 0.22}, **_LLAMA, scale=0.22),
    "LFM2": Family(
        "Lfm2Config",
        {**_COMMON, "layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8},
        **{**_LLAMA, "attention": "conv|self_attn", "mlp": "feed_forward", "last": "feed_forward.w2"},
    ),
    "Mixtral": Family("MixtralConfig", {**_EXPERTS, "num_local_experts": 4}, **_MOE),
    "Qwen3-MoE": Family("Qwen3MoeConfig", {**_EXPERTS, "mlp_only_layers": [1]}, **{**_MOE, "last": "mlp.down_proj"}),
    "Qwen2-MoE": Family(
        "Qwen2MoeConfig",
        {**_EXPERTS, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
        **{**_MOE, "last": "mlp.shared_expert.down_proj|mlp.down_proj", "gate": "mlp.shared_expert_gate"},
    ),
    "GPT-OSS": Family(
        "GptOssConfig", {**_EXPERTS, "num_local_experts": 4, "sliding_window": 8}, **_MOE, transposed=True
    ),
    "DeepSeek-V3": Family(
        "DeepseekV3Config",
        _DEEPSEEK,
        **{**_MOE, "last": "mlp.shared_experts.down_proj|mlp.down_proj"},
    ),
    "Jamba": Family(
        "JambaConfig",
        {**_EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
        **{
            **_MOE,
            "attention": "mamba|self_attn",
            "mlp": "feed_forward",
            "out": "feed_forward",
            "last": "feed_forward.down_proj",
            "experts": "feed_forward.experts",
        },
    ),
    "Mamba": Family(
        "MambaConfig",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
        blocks="backbone.layers",
        attention="mixer",
        mlp="",
        last="",
    ),
    "BLOOM": Family(
        "BloomConfig",
        {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 3, "n_head": 4},
        **{**_FALCON, "attention": "self_attention.dense", "mlp": "mlp.dense_4h_to_h"},
    ),
}
ALL_FAMILIES = {**FAMILIES, **MORE_FAMILIES}


def tiny_model(config: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """A random model in evaluation mode, always the same; norms and biases are random too, not ones and zeros."""
    torch.manual_seed(0)
    settings = getattr(hf, config)(**options)
    auto = hf.AutoModelForSeq2SeqLM if settings.is_encoder_decoder else hf.AutoModelForCausalLM
    return randomised(auto.from_config(settings)).to(dtype).eval()


def randomised(model: Any) -> Any:
    """The model with new weights: norms and biases are random too, not ones and zeros."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.1
            centre = 1.0 if "norm" in name.lower() or ".ln_" in name else 0.0
            bias = name.endswith("bias")
            parameter.normal_(0.0 if bias or parameter.ndim > 1 else centre, spread)
    return model


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The tiny model of a family."""
    family = ALL_FAMILIES[name]
    return tiny_model(family.config, family.options, dtype)


def byte_tokenizer(padding_side: str = "right") -> Any:
    """One token a byte, `<pad>` = 0 and `<s>` = 1, and a small chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>"])
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="<s>", padding_side=padding_side
    )
    fast.chat_template = "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}<s>"
    return fast


TEXTS = ("The river is deep.", "No.", "Tell me how a clock works, please", "é→x", "What did the fox say to the crow?")
