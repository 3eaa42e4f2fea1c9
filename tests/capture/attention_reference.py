"""The attention summaries written out entry by entry, and tiny models whose attention weights are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from tiny import CONTEXT, VOCAB, tiny, tiny_model

from stratoscope.recorder.attention.observer import AttentionObserver

LENGTH = 23
PADDINGS = {
    "none": [],
    "left": [(1, slice(0, 9)), (2, slice(0, 20))],
    "right": [(1, slice(14, None)), (2, slice(1, None))],
}
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_OWN = {key: value for key, value in _COMMON.items() if key not in ("intermediate_size", "num_key_value_heads")}
_GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}
_MPT = {"vocab_size": VOCAB, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": CONTEXT}
_BERT = {**_OWN, "intermediate_size": 48, "is_decoder": True}
_NEO = {**_OWN, "num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]]}
del _NEO["num_hidden_layers"], _NEO["num_attention_heads"]
_XGLM = {"vocab_size": VOCAB, "d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4}
_MLA = {
    **_COMMON,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 3,
}

# name → configuration, options, attention's last linear map: beside the families of tiny.py
MORE = {
    "GPT-OSS": (
        "GptOssConfig",
        {
            **_COMMON,
            "intermediate_size": 24,
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "sliding_window": 8,
        },
        "model.layers.{}.self_attn.o_proj",
    ),
    "DeepSeek-V3": ("DeepseekV3Config", _MLA, "model.layers.{}.self_attn.o_proj"),
    "Llama4": (
        "Llama4TextConfig",
        {**_COMMON, "head_dim": 8, "intermediate_size_mlp": 48, "attention_chunk_size": 8, "moe_layers": []},
        "model.layers.{}.self_attn.o_proj",
    ),
    "MPT": ("MptConfig", _MPT, "transformer.blocks.{}.attn.out_proj"),
    "CodeGen": ("CodeGenConfig", {**_GPT, "rotary_dim": 4}, "transformer.h.{}.attn.out_proj"),
    "GPT-Neo": ("GPTNeoConfig", {**_NEO, "window_size": 8}, "transformer.h.{}.attn.attention.out_proj"),
    "XGLM": ("XGLMConfig", _XGLM, "model.layers.{}.self_attn.out_proj"),
    "RoFormer": ("RoFormerConfig", _BERT, "roformer.encoder.layer.{}.attention.output.dense"),
    "Falcon eager": (
        "FalconConfig",
        {**_OWN, "new_decoder_architecture": True, "num_kv_heads": 2, "attn_implementation": "eager"},
        "transformer.h.{}.self_attention.dense",
    ),
    "Falcon alibi eager": (
        "FalconConfig",
        {**_OWN, "alibi": True, "attn_implementation": "eager"},
        "transformer.h.{}.self_attention.dense",
    ),
}
OUT = {
    "Llama": "model.layers.{}.self_attn.o_proj",
    "Mistral": "model.layers.{}.self_attn.o_proj",
    "Qwen2": "model.layers.{}.self_attn.o_proj",
    "Gemma2": "model.layers.{}.self_attn.o_proj",
    "GPT2": "transformer.h.{}.attn.c_proj",
    "GPTNeoX": "gpt_neox.layers.{}.attention.dense",
    "OPT": "model.decoder.layers.{}.self_attn.out_proj",
    "Phi3": "model.layers.{}.self_attn.o_proj",
    "Falcon": "transformer.h.{}.self_attention.dense",
    "Falcon sequential": "transformer.h.{}.self_attention.dense",
    "BLOOM": "transformer.h.{}.self_attention.dense",
    "GPT-J": "transformer.h.{}.attn.out_proj",
    **{name: out for name, (_, _, out) in MORE.items()},
}
WINDOWS = {  # of each layer, as written above and in tiny.py
    "Mistral": (8, 8, 8),
    "Gemma2": (8, None, 8),
    "GPT-OSS": (8, None, 8),
    "GPT-Neo": (None, 8, None),
}


def make(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model of tiny.py or of those above."""
    if family in MORE:
        config, options, _ = MORE[family]
        return tiny_model(config, options, dtype)
    return tiny(family, dtype)


def projections(model: Any, family: str) -> list[Any]:
    return [model.get_submodule(OUT[family].format(layer)) for layer in range(3)]


def make_batch(padding: str, length: int = LENGTH) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCAB, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, length, dtype=torch.long)
    for row, where in PADDINGS[padding]:
        mask[row, where] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def observe(model: Any, batch: dict[str, torch.Tensor], outs: Any = ()) -> tuple[torch.Tensor, dict[str, Any]]:
    with AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"])
        logits = model(**batch, use_cache=False).logits
        return logits, observer.take()


@torch.no_grad()
def eager_attentions(model: Any, batch: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The weights [B, H, T, T] of each layer as transformers itself gives them."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return [w.double().numpy() for w in model(**batch, use_cache=False, output_attentions=True).attentions]
    finally:
        model.set_attn_implementation(before)


def expected(weights: np.ndarray, mask: np.ndarray, valid: np.ndarray, sink: bool = False) -> dict[str, np.ndarray]:
    """All summaries of one head of one prompt, [T], from weights [T, T] in float64, entry by entry."""
    length, first = len(valid), int(np.flatnonzero(valid)[0])
    null = 1 - weights.sum(-1)
    names = ["received", "entropy", "distance"]
    found = {f"attn_{n}{s}": np.full(length, np.nan) for n in names for s in ("", "_nosink")}
    found |= {"attn_first": np.full(length, np.nan), "attn_null": np.full(length, np.nan)}
    for suffix in ("", "_nosink"):
        seen = mask & valid[:, None] & valid[None, :]
        if suffix:
            seen[first] = seen[:, first] = False
        rows = np.where(seen, weights, 0.0)
        mass = rows.sum(-1) + (null if sink else 0)
        rows = rows / np.where(mass > 0, mass, 1)[:, None]
        count = seen.sum(-1)
        for q in range(length):
            if count[q] == 0:
                continue
            outcomes = [rows[q, k] for k in range(length) if seen[q, k]] + ([null[q] / mass[q]] if sink else [])
            if len(outcomes) > 1:
                nats = -sum(p * math.log(p) for p in outcomes if p > 0)
                found[f"attn_entropy{suffix}"][q] = nats / math.log(len(outcomes))
            found[f"attn_distance{suffix}"][q] = sum(rows[q, k] * (q - k) for k in range(length) if seen[q, k])
            if not suffix and seen[q, first]:
                found["attn_first"][q] = rows[q, first]
            if not suffix:
                found["attn_null"][q] = null[q]
        for t in range(length):
            others = [q for q in range(length) if q != t and seen[q, t]]
            if others:
                even = sum((rows[q].sum() - rows[q, q]) / (count[q] - 1) for q in others)
                found[f"attn_received{suffix}"][t] = sum(rows[q, t] for q in others) / even
    if not sink:
        del found["attn_null"]
    return found


def real_mask(length: int, window: int | None) -> np.ndarray:
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    return (back >= 0) & (back < (window or length))


def compare(found: np.ndarray, wanted: np.ndarray, what: str, tolerance: float = 1e-4) -> float:
    """Largest difference, relative to 1e-3 + |wanted|; NaN must be where it is wanted."""
    assert found.shape == wanted.shape
    assert np.array_equal(np.isnan(found), np.isnan(wanted)), f"{what}: NaN at {np.argwhere(np.isnan(found) != np.isnan(wanted))[:5]}"  # fmt: skip # noqa: E501
    difference = np.abs(found - wanted) / (1e-3 + np.abs(wanted))
    worst = float(np.nanmax(difference, initial=0))
    assert worst <= tolerance, f"{what}: maximum difference {worst:.1e}"
    return worst
