"""The models that benchmarks run, and prompts of an exact length for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stratoscope.doors.demo import find_model
from stratoscope.model.from_object import given_model
from stratoscope.model.load import LoadedModel, load_model
from stratoscope.recorder.prompts.prompt import Prompt


def smollm2(path: str | None = None) -> LoadedModel:
    """SmolLM2-135M-Instruct in float32: the installed GGUF file, or a folder."""
    return load_model(path or str(find_model()), dtype="float32", device="cpu")


def wide_llama(tokenizer: Any, dtype: str, *, layers: int = 4, d_model: int = 2048, d_ff: int = 8192) -> LoadedModel:
    """A Llama with random weights, as wide as one of a billion parameters and few layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=d_model // 64,
        num_key_value_heads=max(1, d_model // 256),
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("cpu"):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    return given_model(model, tokenizer)


def tokenizer_of(path: str | None = None) -> Any:
    """SmolLM2's."""
    return AutoTokenizer.from_pretrained(path) if path else smollm2().tokenizer


def some_prompts(tokenizer: Any, count: int, tokens: int) -> list[Prompt]:
    """Pieces of Python source that are exactly that many tokens long."""
    source, found, start = inspect.getsource(inspect), [], 0
    while len(found) < count:
        start = (start + 701) % (len(source) - 12 * tokens)
        text = tokenizer.decode(tokenizer(source[start : start + 12 * tokens])["input_ids"][:tokens])
        if len(tokenizer(text)["input_ids"]) == tokens:
            found.append(Prompt(f"p{len(found)}", text=text))
    return found


def plain_forward(model: Any, ids: torch.Tensor) -> Callable[[], None]:
    """The forwards of these prompts one by one, as a recording runs them, with nobody looking."""

    def run() -> None:
        with torch.no_grad():
            for one in ids:
                rows = one[None]
                model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False, logits_to_keep=1)

    return run
