"""A factory of small in-memory traces with lenses, made to the contract of the group `lens`: nothing is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from stratoscope.trace.labels import object_array

WORDS = ("<|im_start|>", "user", "\n", "How", " do", " I", " stop", " a", " process", "?", "<|im_end|>", "\n")
_SPANS = {"<|im_start|>": 4, "<|im_end|>": 4, "user": 1, "\n": 1}
VOCABULARY = (
    " Paris", " the", ",", " of", "\n", " a", "\udce4", "中文", " internationalization", " capital", "\u202eabc",
    "שלום", "🦄", " ", "    ", "é", "ing", " London", " France", "1",
)  # fmt: skip
RANKS = 5
PARTS = ("logit", "jacobian", "jacobian, half 1", "jacobian, half 2")


def make_lens_trace(
    *,
    lengths: tuple[int, ...] = (8,),
    layers: int = 6,
    recorded: int | None = 4,
    lenses: Sequence[str] = ("logit",),
    targets: int = 0,
    vocabulary: Sequence[str] = VOCABULARY,
    seed: int = 0,
    changing: float = 0.2,
    fitted_from: int = 0,
    texts: Sequence[str] = (),
    **attrs: Any,
) -> xr.Dataset:
    """A trace whose lenses approach the last depth, read at the last `recorded` tokens of each prompt (None = all)."""
    rng = np.random.default_rng(seed)
    dataset = _tokens(lengths, layers, texts or WORDS, **attrs)
    tokens, depths, kinds, words = sum(lengths), layers + 1, len(lenses), len(vocabulary)
    final = rng.normal(size=(tokens, 1, 1, words)) * 2.5
    share = (np.linspace(0, 1, depths) ** 2)[None, :, None, None]
    early = np.array([0.0, 0.25, *[0.25] * max(0, kinds - 2)])[:kinds][None, None, :, None]
    noise = rng.normal(size=(tokens, depths, 1, words)) * 1.5
    own = rng.normal(size=(tokens, depths, kinds, words)) * changing * 3
    mixed = np.clip(share + early, 0, 1)
    logits = final * mixed + (noise + own) * (1 - mixed)
    logits[:, -1] = final[:, 0]
    logprob = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    order = np.argsort(-logprob, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1) + 1
    answer = order[:, -1, 0, 0]
    at_answer = answer[:, None, None, None]
    held = {
        "lens_token": order[..., :RANKS],
        "lens_logprob": np.take_along_axis(logprob, order, axis=-1)[..., :RANKS],
        "lens_answer_logprob": np.take_along_axis(logprob, at_answer, axis=-1)[..., 0],
        "lens_answer_rank": np.take_along_axis(rank, at_answer, axis=-1)[..., 0],
    }
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(held, ("token", "depth", "lens"))
    dims |= dict.fromkeys(("lens_token", "lens_logprob"), ("token", "depth", "lens", "lens_rank"))
    plan: dict[str, Any] = {"lenses": [*lenses], "lens_file": {"prompts": 40} if kinds > 1 else None}
    if targets:
        held |= {"lens_target_logprob": logprob[..., :targets], "lens_target_rank": rank[..., :targets],
                 "lens_target_logit": logits[..., :targets] - logits.mean(axis=-1, keepdims=True)}  # fmt: skip
        dims |= {name: ("token", "depth", "lens", "target") for name in held if "target" in name}
        plan["targets"] = [{"text": text, "against": ""} for text in vocabulary[:targets]]
    position = dataset["position"].values
    left = np.repeat(lengths, lengths) - position
    gone = left > (recorded or tokens)
    for name, values in held.items():
        whole = name.endswith(("token", "rank"))
        nothing: float = -1 if whole else np.nan
        kept = np.where(gone.reshape(-1, *[1] * (values.ndim - 1)), nothing, values)
        kept[:, :fitted_from, 1:] = nothing
        dataset[name] = (dims[name], kept.astype("int32" if whole else "float32"), {"source": "real"})
    texts = {str(place): text for place, text in enumerate(vocabulary)}
    return dataset.assign_attrs(plan={**(dataset.attrs.get("plan") or {}), **plan}, token_texts=texts)


def _tokens(lengths: Sequence[int], layers: int, texts: Sequence[str], **attrs: Any) -> xr.Dataset:
    """The tokens of a trace without a quantity."""
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    words = [texts[one % len(texts)] for one in position]
    return xr.Dataset(
        coords={
            "prompt": ("token", np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)),
            "position": ("token", position),
            "token_id": ("token", np.full(len(position), -1, np.int32)),
            "span": ("token", np.array([_SPANS.get(word, 2) for word in words], np.int8)),
            "text": xr.Variable(("token",), object_array(words), fastpath=True),
            "layer": np.arange(layers, dtype=np.int32),
            "depth": np.arange(layers + 1, dtype=np.int32),
            "prompt_id": ("prompt", object_array([f"p{one}" for one in range(len(lengths))])),
            "prompt_class": ("prompt", object_array((["critical", "neutral"] * len(lengths))[: len(lengths)])),
        },
        attrs={
            "source": "real",
            "uuid": "0f0e0d0c-0",
            "model": {"name": "org/tiny"},
            "token_spelling": "text",
            **attrs,
        },
    )
