"""Routes once more, as their formulas say: every edge of a block in float64, from eager attention's own weights."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.names import QUANTITIES
from stratoscope.recorder.reference.contributions import Behind
from stratoscope.recorder.reference.differences import DIFFERENCE, relative_difference
from stratoscope.recorder.reference.formulas import Values
from stratoscope.recorder.reference.shown import ShownBlock


def of_block(block: ShownBlock) -> Values:
    """The shares of one block; those of its edges where eager attention shows what they are made of."""
    x = block.x.double()
    nothing = torch.zeros_like(x)
    attention = nothing if block.attn is None else block.attn.double()
    mlp = nothing if block.mlp is None else block.mlp.double()
    middle = x + attention
    out = middle + mlp
    found = {"route_carry": _share(x, middle), "route_mid": _share(middle, out), "route_mlp": _share(mlp, out)}
    written = _share(attention, middle)
    if bool((block.recorded("route_source") < 0).all()):  # nothing of it was split
        found |= {"route_other": written, "route_other_size": written.abs(), "route_bias": torch.zeros_like(written)}
        found["route_weight"] = torch.full_like(block.recorded("route_weight"), torch.nan, dtype=torch.float64)
    else:
        found |= _split(block, middle)
    answer = block.recorded("route_carry").isnan()
    return {
        name: value.masked_fill(answer.view(-1, *[1] * (value.ndim - 1)), torch.nan) for name, value in found.items()
    }


def _split(block: ShownBlock, middle: Tensor) -> Values:
    """The biases' share, and those of edges."""
    weight, bias, z = block.out_weight, block.out_bias, block.flow.double()
    if weight is None:
        return {}
    norm = block.sites.maps[block.number].attn_post_norm
    behind = Behind(block, middle[:, None], norm, block.factors[0], z @ weight.double().T, bias)
    size = middle.square().sum(-1)
    found = {"route_bias": behind.biases(bias)[:, 0] / size}
    if block.applied is None:
        return found
    weights, values = block.applied
    heads, tokens, _ = weights.shape
    given = (weights @ values).transpose(0, 1)  # [query, head, width]
    factor = torch.where(given == 0, 0.0, z.view(given.shape) / given)  # of a gate or a norm
    read = (behind.before[:, 0] @ weight.double()).view(tokens, heads, -1) * factor * behind.scale[..., None]
    edges = torch.einsum("qhd,hkd->qhk", read, values) * weights.transpose(0, 1) / size[:, None, None]
    return found | _kept(block, edges)


def _kept(block: ShownBlock, edges: Tensor) -> Values:
    """What was recorded of edges [query, head, key]: the same ones, the sums of the others, and that none is larger."""
    head, source, given = (block.recorded(f"route_{name}") for name in ("head", "source", "weight"))
    there, keys = source >= 0, edges.shape[2]
    place = (head * keys + source).clamp(min=0).long()
    flat = edges.flatten(1)
    kept = flat.gather(1, place).where(there, torch.nan)
    taken = torch.zeros_like(flat).scatter_reduce(1, place, there.double(), "amax")
    rest = flat * (1 - taken)
    largest = flat.abs().topk(min(kept.shape[1], flat.shape[1])).values
    largest = torch.nn.functional.pad(largest, (0, kept.shape[1] - largest.shape[1])).where(there, torch.nan)
    order = relative_difference(given.abs().numpy()[:, None], largest.numpy()[:, None], QUANTITIES["route_weight"])
    return {
        "route_weight": kept,
        DIFFERENCE + "route_weight": torch.from_numpy(order[:, 0]),
        "route_other": rest.sum(1),
        "route_other_size": rest.abs().sum(1),
    }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return (part * whole).sum(-1) / whole.square().sum(-1)
