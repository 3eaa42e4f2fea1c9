"""Answers recorded while the model writes them: equal to a plain forward over the same tokens, seeded, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import expected
from tiny import ALL_FAMILIES, CONTEXT, TEXTS, byte_tokenizer, tiny

from stratoscope import capture, names
from stratoscope.errors import CaptureError, InputError, ModelError, StratoscopeError, TraceError
from stratoscope.names import NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder import generate, recording

GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TOP_K = 5
NEW = 12
GENERATED = names.SPANS.index("generated")
FAMILIES = ["Llama", "GPT2", "Gemma2", "Mistral", "GPTNeoX", "BLOOM", "OPT", "Falcon sequential", "Gemma3"]
SAMPLED = {"do_sample": True, "temperature": 1.5}


def run(out: Path, family: str = "Llama", **options: Any) -> Any:
    settings: dict[str, Any] = {"record": GROUPS, "top_k": TOP_K, "batch_size": 3, "generate": NEW}
    model = options.pop("model", None) or tiny(family)
    tokenizer = options.pop("tokenizer", None) or byte_tokenizer()
    return capture(model, options.pop("prompts", TEXTS), out, tokenizer=tokenizer, **{**settings, **options})


def answers(trace: Any) -> list[list[int]]:
    """Generated ids of each prompt."""
    return [
        trace.token_id.values[(trace.prompt.values == number) & (trace.span.values == GENERATED)].tolist()
        for number in range(trace.sizes["prompt"])
    ]


def plain_answers(model: Any, texts: Any, eos: Any, new: int = NEW) -> list[list[int]]:
    """The likeliest tokens, one forward over the whole text for each of them."""
    found = []
    for text in texts:
        ids = byte_tokenizer()(text)["input_ids"]
        start = len(ids)
        while len(ids) < start + new and (len(ids) == start or ids[-1] not in eos):
            with torch.no_grad():
                ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
        found.append(ids[start:])
    return found


def worst_difference(trace: Any, model: Any, family: str) -> dict[str, float]:
    """Per quantity, the largest difference from a plain forward over prompt and answer; relative above 1."""
    worst: dict[str, float] = {}
    for number in range(trace.sizes["prompt"]):
        tokens = np.flatnonzero(trace.prompt == number)
        ids = trace.token_id.values[tokens].tolist()
        user = np.flatnonzero(trace.span.values[tokens] == names.SPANS.index("user")).tolist()
        wanted = expected(model, ALL_FAMILIES[family], ids, user, TOP_K)
        for quantity in names.quantities_of(GROUPS):
            values = trace[quantity.name].values
            values = values[number] if quantity.dims[0] == names.PROMPT else values[tokens]
            again = wanted[quantity.name]
            assert values.shape == again.shape, quantity.name
            assert np.array_equal(np.isnan(values), np.isnan(again)), quantity.name
            if np.isfinite(again).any():
                size = 1.0 if quantity.dtype == "int32" else np.maximum(1, np.abs(again))
                difference = float(np.nanmax(np.abs(values - again) / size))
                worst[quantity.name] = max(worst.get(quantity.name, 0.0), difference)
    return worst


def stopping_at_different_times(model: Any, texts: Any) -> list[int]:
    """End-of-text tokens so that greedy answers end early, late and not at all."""
    free = plain_answers(model, texts, [])
    return [free[0][3], free[1][0]]


# --- the same as a plain forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_quantity_of_prompt_and_answer_equals_a_plain_forward(
    tmp_path: Path, family: str, batch_size: int
) -> None:
    model = tiny(family)
    eos = stopping_at_different_times(model, TEXTS)
    trace = run(tmp_path / "t", model=model, batch_size=batch_size, generation={"eos_token_id": eos})
    assert answers(trace) == plain_answers(model, TEXTS, eos)
    assert len({len(answer) for answer in answers(trace)}) > 1, "all answers are of one length"
    worst = worst_difference(trace, model, family)
    assert max(worst.values()) <= 1e-3, worst
