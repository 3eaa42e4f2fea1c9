"""Traces of two hand-made models whose MLPs differ in one layer: every contribution is computed from its definition."""

from __future__ import annotations

import numpy as np
import xarray as xr
from diff_traces import simulated

from stratoscope.trace.prompts import Prompts

LAYERS, WIDTH, CHANGED = 6, 24, 3
HEAD_BIAS = 0.25
PLAN = {"targets": [{"text": "Sorry", "token_id": 5, "against": "Sure", "against_id": 6}], "answer_prefix": ""}


def model(*, tuned: bool, prompts: int = 4, plan: dict[str, object] | None = None) -> xr.Dataset:
    """What a residual stream of MLPs and stand-ins of attention adds to one direction under a final RMSNorm."""
    trace = simulated(prompts=prompts, layers=LAYERS, d_ff=24, record="norms,prompts")
    direction = np.random.default_rng(1).normal(size=WIDTH)
    found = [_written(prompt, tuned) for prompt in range(prompts)]
    scales = np.array([1 / np.sqrt((sum(writes) ** 2).mean()) for writes in found])
    parts = np.array(found) @ direction * scales[:, None]
    return with_contributions(trace, parts, scales).assign_attrs(plan=PLAN if plan is None else plan)


def with_contributions(trace: xr.Dataset, parts: np.ndarray, scales: np.ndarray) -> xr.Dataset:
    """The trace with the contributions of embedding, attention and MLPs at its answer positions, [prompt, part]."""
    answers, tokens = Prompts(trace).answer, trace.sizes["token"]

    def at(values: np.ndarray) -> np.ndarray:
        whole = np.full((tokens, *values.shape[1:], 1), np.nan, "float32")
        whole[answers] = values[..., None]
        return whole

    of_layers = ("token", "layer", "target")
    effects = np.ones((tokens, trace.sizes["layer"], 1), "float32")
    return trace.assign(
        embed_logit=(("token", "target"), at(parts[:, 0])),
        attn_logit=(of_layers, at(parts[:, 1::2])),
        mlp_logit=(of_layers, at(parts[:, 2::2])),
        target_logit=(("token", "target"), at(parts.sum(axis=1) + HEAD_BIAS)),
        head_bias_logit=(("prompt", "target"), np.full((len(parts), 1), HEAD_BIAS, "float32")),
        final_scale=("prompt", scales.astype("float32")),
        attn_effect=(of_layers, effects),
        mlp_effect=(of_layers, 2 * effects),
    )


def _written(prompt: int, tuned: bool) -> list[np.ndarray]:
    stream = np.random.default_rng(100 + prompt).normal(size=WIDTH)
    writes = [stream]
    for layer in range(LAYERS):
        for block in (0, 1):
            weights = np.random.default_rng((layer, block)).normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
            write = np.tanh(weights @ stream)
            if tuned and (layer, block) == (CHANGED, 1):
                write = 4 * write + 1
            writes.append(write)
            stream = stream + write
    return writes
