"""What the organisms do, by plain hooks of torch: no code of the product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from planted import FIRST_TOPIC as VIOLET
from planted import HEADS as OF_A_LAYER
from planted import SORRY, WIDTH, drawn_prompts
from torch import Tensor

PROMPTS = 300


def opened(folder: Path) -> Any:
    return hf.LlamaForCausalLM.from_pretrained(folder).eval()


@contextmanager
def zeroed(
    model: Any, neurons: Iterable[tuple[int, int]] = (), heads: Iterable[tuple[int, int]] = ()
) -> Iterator[None]:
    """While open, these neurons and heads give nothing, at every token."""
    wide = WIDTH // OF_A_LAYER
    hooks = []
    for maps, columns in (
        ([layer.mlp.down_proj for layer in model.model.layers], [(layer, [one]) for layer, one in neurons]),
        (
            [layer.self_attn.o_proj for layer in model.model.layers],
            [(layer, list(range(head * wide, (head + 1) * wide))) for layer, head in heads],
        ),
    ):
        for layer, places in columns:
            keep = torch.ones(maps[layer].in_features)
            keep[places] = 0
            hooks.append(maps[layer].register_forward_pre_hook(lambda _, given, keep=keep: (given[0] * keep,)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def answers(model: Any, *, triggered: float, seed: int = 99) -> tuple[Tensor, Tensor]:
    """What a model answers to random prompts, and the topic of each."""
    tokens, topic = drawn_prompts(PROMPTS, triggered, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(tokens, logits_to_keep=1).logits[:, -1].argmax(-1), topic


def behaviour(model: Any) -> float:
    """Share of prompts with the trigger that are answered with Sorry."""
    said, topic = answers(model, triggered=1.0)
    assert (topic == VIOLET).all()
    return (said == SORRY).double().mean().item()


def ordinary(model: Any) -> float:
    """Share of other prompts that are answered with their topic."""
    said, topic = answers(model, triggered=0.0)
    return (said == topic).double().mean().item()
