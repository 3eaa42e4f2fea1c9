"""Every edge of attention of a tiny model, as a person would write it down: one prompt, float64, eager weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from reference import inside
from tiny import Family
from torch import Tensor

_LAST = "self_attn.o_proj|self_attn.out_proj|attn.c_proj|attn.out_proj|attention.dense|self_attention.dense"
_VALUES = "self_attn.v_proj|self_attn.qkv_proj|self_attn.kv_b_proj|attn.c_attn|attn.v_proj|attention.query_key_value"
_VALUES += "|self_attention.query_key_value"


@dataclass
class Routes:
    """Of one block: every edge [query, head, key] along x_mid and what else x_mid and x_out are made of, [query] each.

    `heads` are what the heads write, [query, head, key, residual], in front of no norm; None where attention is not
    split.
    """

    edges: Tensor | None
    carry: Tensor
    bias: Tensor
    whole: Tensor  # all that attention writes, its biases too
    mid: Tensor
    mlp: Tensor


@torch.no_grad()
def every_route(model: Any, family: Family, ids: list[int]) -> list[Routes]:
    """Of each block; the model is in float64 and computes attention eagerly."""
    kept: dict[tuple[str, int], Tensor] = {}
    blocks = model.get_submodule(family.blocks)

    def keep(name: str, layer: int) -> Any:
        def hook(_: Any, given: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            kept[name, layer] = output.reshape(len(ids), -1).clone()

        return hook

    def entering(layer: int) -> Any:
        return lambda _, args, kwargs: kept.__setitem__(
            ("x", layer), (args[0] if args else kwargs["hidden_states"]).reshape(len(ids), -1).clone()
        )

    handles = []
    for layer, block in enumerate(blocks):
        handles.append(block.register_forward_pre_hook(entering(layer), with_kwargs=True))
        places = {"attn": family.attention, "mlp": family.mlp, "out": _LAST, "values": _VALUES}
        for name, path in places.items():
            module = inside(block, path)
            if module is not None:
                handles.append(module.register_forward_hook(keep(name, layer)))
    found = model(torch.tensor([ids]), output_attentions=True, use_cache=False)
    for handle in handles:
        handle.remove()
    weights = iter([one[0] for one in found.attentions if one is not None])
    return [_routes(block, layer, kept, weights, family) for layer, block in enumerate(blocks)]


def _routes(block: Any, layer: int, kept: Any, weights: Any, family: Family) -> Routes:
    x = kept["x", layer]
    attention = kept["attn", layer] * family.scale if ("attn", layer) in kept else torch.zeros_like(x)
    mlp = kept["mlp", layer] * family.scale if ("mlp", layer) in kept else torch.zeros_like(x)
    middle = x + attention
    out = middle + mlp

    def share(part: Tensor, whole: Tensor) -> Tensor:
        return (part * whole).sum(-1) / whole.square().sum(-1)

    edges = None
    bias = torch.zeros(len(x), dtype=x.dtype)
    last = inside(block, _LAST)
    if ("values", layer) in kept and last is not None:
        a = next(weights)
        heads = a.shape[0]
        v = _values(block, kept["values", layer], heads)
        transposed = type(last).__name__ == "Conv1D"
        matrix = last.weight if transposed else last.weight.T  # [head × width, residual]
        written = torch.einsum("hqk,khr->qhkr", a, torch.einsum("khd,hdr->khr", v, matrix.view(heads, -1, x.shape[1])))
        behind = torch.ones_like(x) * family.scale
        if family.post_norm:
            norm = inside(block, family.attention)
            one_plus = "Gemma" in type(norm).__name__
            eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
            output = kept["out", layer]
            behind = (norm.weight + one_plus) / (output.square().mean(-1, keepdim=True) + eps).sqrt()
        edges = torch.einsum("qhkr,qr,qr->qhk", written, behind, middle) / middle.square().sum(-1)[:, None, None]
        if getattr(last, "bias", None) is not None:
            bias = share(last.bias * behind, middle)
    return Routes(edges, share(x, middle), bias, share(attention, middle), share(middle, out), share(mlp, out))


def _values(block: Any, given: Tensor, heads: int) -> Tensor:
    """v of every head, [key, head, width], heads of a group sharing theirs."""
    name = next(one for one in _VALUES.split("|") if inside(block, one) is not None)
    if name == "attn.c_attn":
        given = given.chunk(3, -1)[2]
    elif name == "attention.query_key_value":  # NeoX: q, k, v of a head, then those of the next
        given = given.view(len(given), heads, 3, -1)[:, :, 2].flatten(1)
    elif name == "self_attention.query_key_value":  # Falcon: all queries, then one key and one value for all of them
        given = given[:, -given.shape[1] // (heads + 2) :]
    elif name == "self_attn.kv_b_proj":  # keys without positions, then values, of each head
        given = given.view(len(given), heads, -1)[..., 8:].flatten(1)
    width = _width(block, heads)
    v = given.view(len(given), -1, width)
    return v.repeat_interleave(heads // v.shape[1], 1)


def _width(block: Any, heads: int) -> int:
    last = inside(block, _LAST)
    return int(last.weight.shape[0 if type(last).__name__ == "Conv1D" else 1]) // heads
