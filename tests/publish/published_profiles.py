"""Published class profiles of any shape, made up for tests: plain curves, or with noise as at the level private."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.publish.levels import PROMISES

CLASSES = ("alarming", "plain")
USUAL = ("mlp_write_ratio", "attn_write_ratio", "mlp_out_norm", "resid_norm")


def published_profiles(
    layers: int,
    quantities: tuple[str, ...] = USUAL,
    *,
    noise: float = 0,
    level: str = names.AGGREGATE,
    prompts: int = 20,
    tokens: int = 12,
    **model: Any,
) -> xr.DataTree:
    """A Result of kind "profiles" in which everything fits together but the noise."""
    random = np.random.default_rng(3)
    called = {"prompt_class": ("prompt_class", np.array(CLASSES, object))}
    tables: dict[str, Any] = {
        "classes": {
            **called,
            **table_of("prompt_class", {"prompts": np.full(2, prompts), "tokens": np.full(2, tokens)}),
        }
    }
    for name, values in _curves(layers).items():
        if name in quantities:
            row = names.QUANTITIES[name]
            values = values + noise * random.standard_normal(values.shape)
            scale = {"scale": "log2" if row.log else "linear"}
            tables[f"profiles/{name}"] = {
                **called,
                row.row_kind: np.arange(values.shape[1]),
                "mean": (("prompt_class", row.row_kind), values.astype(np.float32), scale),
            }
    facts = {"d_model": 64, "d_ff": 96, "n_layers": layers, "n_heads": 3, **model}
    summary = {"level": level, "promise": PROMISES[level], "classes": list(CLASSES), "model": facts}
    return make_result("profiles", tables, sources=[], parameters={"level": level}, notes=[], summary=summary)


def _curves(layers: int) -> dict[str, np.ndarray]:
    """Norms and ratios as logarithms to base 2, (class, layer or depth)."""
    depth = np.arange(layers) / max(layers - 1, 1)
    of_class = np.array([[1.0], [-1.0]])
    mlp = np.log2(0.25 + 0.5 * np.exp(-8 * depth)) + 0.1 * of_class * np.sin(5 * depth)
    attn = np.log2(0.15 + 0.2 * np.exp(-5 * depth)) + 0.1 * of_class * np.cos(4 * depth)
    mlp_cos, attn_cos = 0.15 * np.sin(9 * depth) + 0.02 * of_class, 0.2 * depth - 0.03 * of_class
    growth = [0.5 * np.log2(1 + 4.0**ratio + 2 * 2.0**ratio * cos) for ratio, cos in ((attn, attn_cos), (mlp, mlp_cos))]
    resid = 1.5 + np.concatenate([np.zeros((2, 1)), np.cumsum(sum(growth), axis=1)], axis=1)
    mlp_write = mlp + resid[:, :-1] + growth[0]
    return {
        "mlp_write_ratio": mlp,
        "attn_write_ratio": attn,
        "mlp_write_norm": mlp_write,
        "mlp_out_norm": mlp_write,
        "attn_write_norm": attn + resid[:, :-1],
        "mlp_write_cos": mlp_cos,
        "attn_write_cos": attn_cos,
        "resid_norm": resid,
        "neuron_norm": mlp_write + 1 - depth,
        "attn_first": 0.5 + 0.2 * np.sin(4 * depth) + 0.02 * of_class,
        "attn_entropy_nosink": 0.8 + 0.1 * np.cos(3 * depth) + 0.01 * of_class,
        "attn_distance_nosink": 1.4 + 0.3 * np.cos(6 * depth) + 0.02 * of_class,
    }
