"""Small traces with routes, made to the formulas: signed shares that sum to 1, the strongest kept, the others summed up."""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from stratoscope.trace.labels import object_array

WORDS = ("<s>", "The", " lock", " on", " the", " door", " was", " pick", "ed", " by", " a", " thief", ",", " and", "\n")


def route_trace(
    *lengths: int,
    layers: int = 4,
    heads: int = 3,
    kept: int = 16,
    seed: int = 0,
    bias: float = 0.0,
    generated: int = 0,
    targets: int = 0,
    **attrs: Any,
) -> xr.Dataset:
    """A trace of prompts of these lengths; each head looks back, most at few tokens, and some edges take away.

    Parameters
    ----------
    bias
        Share of attention's biases.
    generated
        Tokens of each prompt that are its answer: of them no routes are known.
    targets
        How many targets the effects of edges are known for; 0 = none.
    """
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    asked = np.concatenate([np.arange(length) < length - generated for length in lengths])
    arrays: dict[str, Any] = {}
    parts = [_prompt(rng, length, layers, heads, kept, bias) for length in lengths]
    for name in parts[0]:
        dims = ("token", "layer", "route") if parts[0][name].ndim == 3 else ("token", "layer")
        arrays[name] = (dims, np.concatenate([part[name] for part in parts]))
    if targets:
        arrays |= _effects(rng, lengths, layers, heads, kept, targets)
    for _, values in arrays.values():
        values[~asked] = -1 if values.dtype.kind == "i" else np.nan
    span = np.where(asked, np.where(position > 0, 2, 4), 5).astype(np.int8)
    return xr.Dataset(
        arrays,
        coords={
            "prompt": ("token", np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)),
            "position": ("token", position),
            "token_id": ("token", np.full(total, -1, np.int32)),
            "span": ("token", span),
            "text": ("token", object_array([WORDS[one % len(WORDS)] for one in position])),
            "layer": np.arange(layers, dtype=np.int32),
            "prompt_id": ("prompt", object_array([f"p{one}" for one in range(len(lengths))])),
            "prompt_class": ("prompt", object_array([""] * len(lengths))),
        },
        attrs={"source": "real", "uuid": "u", "model": {"name": "tiny"}, **attrs},
    )


def _prompt(
    rng: np.random.Generator, length: int, layers: int, heads: int, kept: int, bias: float
) -> Mapping[str, np.ndarray]:
    found: dict[str, np.ndarray] = {
        "route_source": np.full((length, layers, kept), -1, np.int32),
        "route_head": np.full((length, layers, kept), -1, np.int32),
        "route_weight": np.full((length, layers, kept), np.nan, np.float32),
    }
    for name in ("route_other", "route_other_size", "route_bias", "route_carry", "route_mid", "route_mlp"):
        found[name] = np.zeros((length, layers), np.float32)
    for token in range(length):
        for layer in range(layers):
            edges = rng.dirichlet(np.full(heads * (token + 1), 0.15)) * rng.uniform(0.1, 0.5)
            edges *= rng.choice([1, -1], edges.shape, p=[0.85, 0.15])
            order = np.argsort(-np.abs(edges), kind="stable")
            first, others = order[:kept], edges[order[kept:]]
            place = (token, layer, slice(len(first)))
            found["route_source"][place] = first % (token + 1)
            found["route_head"][place] = first // (token + 1)
            found["route_weight"][place] = edges[first]
            found["route_other"][token, layer] = others.sum()
            found["route_other_size"][token, layer] = np.abs(others).sum()
            found["route_bias"][token, layer] = bias
            found["route_carry"][token, layer] = 1 - edges.sum() - bias
            mlp = rng.normal(0.1, 0.1)
            found["route_mid"][token, layer], found["route_mlp"][token, layer] = 1 - mlp, mlp
    return found


def _effects(
    rng: np.random.Generator, lengths: tuple[int, ...], layers: int, heads: int, kept: int, targets: int
) -> Mapping[str, Any]:
    rows = [_prompt(rng, length, layers * targets, heads, kept, 0.0) for length in lengths]
    at = ("token", "layer", "target")
    found: dict[str, Any] = {}
    for name, of in (("_source", "source"), ("_head", "head"), ("", "weight")):
        values = np.concatenate([row[f"route_{of}"] for row in rows])
        found[f"route_effect{name}"] = ((*at, "route"), values.reshape(-1, layers, targets, kept))
    for name in ("other", "other_size"):
        values = np.concatenate([row[f"route_{name}"] for row in rows])
        found[f"route_effect_{name}"] = (at, values.reshape(-1, layers, targets))
    return found


def large_trace(tokens: int, layers: int, *, seed: int = 0) -> xr.Dataset:
    """A long prompt through a deep model: heads look at a few tokens far away, the streams change little."""
    rng = np.random.default_rng(seed)
    shape = (tokens, layers, 16)
    far = (rng.random(shape) ** 2 * (np.arange(tokens)[:, None, None] + 1)).astype(np.int32)
    weight = rng.choice([1, -1], shape, p=[0.8, 0.2]) * 0.06 * rng.random(shape) ** 6
    weight = -np.sort(-np.abs(weight), axis=2) * np.sign(weight)
    other = np.full((tokens, layers), 0.01)
    mlp = rng.normal(0.05, 0.03, (tokens, layers))
    at = ("token", "layer")
    arrays = {
        "route_source": ((*at, "route"), far),
        "route_head": ((*at, "route"), rng.integers(0, 12, shape).astype(np.int32)),
        "route_weight": ((*at, "route"), weight.astype(np.float32)),
        "route_other": (at, np.zeros((tokens, layers), np.float32)),
        "route_other_size": (at, other.astype(np.float32)),
        "route_bias": (at, np.zeros((tokens, layers), np.float32)),
        "route_carry": (at, (1 - weight.sum(axis=2)).astype(np.float32)),
        "route_mid": (at, (1 - mlp).astype(np.float32)),
        "route_mlp": (at, mlp.astype(np.float32)),
    }
    small = route_trace(1, layers=1, kept=1).drop_dims(["layer", "token"])
    return small.assign(arrays).assign_coords(
        prompt=("token", np.zeros(tokens, np.int32)),
        position=("token", np.arange(tokens, dtype=np.int32)),
        token_id=("token", np.full(tokens, -1, np.int32)),
        span=("token", np.full(tokens, 2, np.int8)),
        text=("token", object_array([WORDS[one % len(WORDS)] for one in range(tokens)])),
        layer=np.arange(layers, dtype=np.int32),
    )
