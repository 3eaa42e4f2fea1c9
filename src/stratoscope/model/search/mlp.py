"""What an MLP is: a dense map, or a mixture of experts whose sum is its output."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from stratoscope.model.experts import BY_TOKEN, ROW_ORDERS, Routed, implementation_of, mixed, why_not
from stratoscope.model.search.block_calls import BlockCalls
from stratoscope.model.search.calls import Call
from stratoscope.model.sites import Experts

_CHECKED_TOKENS = 16  # enough to tell one order of rows from another


@dataclass(frozen=True)
class Mlp:
    """How an MLP's output, before any norm of it, comes about.

    Attributes
    ----------
    out
        The call that gives the output.
    last
        The last linear map of a dense MLP or of a mixture's shared expert; None where there is none.
    transposed
        Whether that map stores its weight [in, out].
    experts, gate
        The routed experts, and the call whose sigmoid scales the shared expert; None where there are none.
    """

    out: Call
    last: Call | None
    transposed: bool
    experts: Experts | None = None
    gate: Call | None = None


def find_dense(block: BlockCalls, last: Call) -> Mlp | None:
    """The MLP that ends in this linear map; None where the map is not W a + bias."""
    transposed = block.orientation(last) if block.is_map(last) else None
    return None if transposed is None else Mlp(last, last, transposed)


def find_mixture(block: BlockCalls, output: Call) -> Mlp | None:
    """The mixture whose sum is the output of this call.

    The output is Σ w_e (W_e a + b_e) over the chosen experts e, plus that of a shared expert, which a gate may scale by
    its sigmoid.
    """
    if len(block.routed) != 1:
        return None
    ((path, routed),) = block.routed.items()
    experts = _describe(block, path, routed)
    if experts is None or output.y is None:
        return None
    y = output.y.reshape(routed.output.shape)
    for shared, gate in [(None, None), *itertools.product(block.dense_maps(), [None, *block.gates()])]:
        transposed = None if shared is None else block.orientation(shared)
        if (shared is None or transposed is not None) and _adds_up(y, routed.output, shared, gate):
            return Mlp(output, shared, bool(transposed), experts, gate)
    return None


def _describe(block: BlockCalls, path: str, routed: Routed) -> Experts | None:
    """The experts module, if Σ w_e (W_e a + b_e) of what was seen is what it returned."""
    module = block.model.get_submodule(path)
    if why_not(module) is not None or int(routed.experts.max()) >= len(module.down_proj):  # type: ignore[arg-type]
        return None
    for order in ROW_ORDERS:
        experts = Experts(
            module=path,
            count=len(module.down_proj),  # type: ignore[arg-type]
            width=routed.rows.shape[-1],
            choices=routed.experts.shape[-1],
            transposed=bool(module.is_transposed),
            order=order,
            implementation=implementation_of(module),
        )
        weight, bias = experts.weight(block.model)
        if weight.shape[1:] == (routed.output.shape[-1], experts.width) and _computes(routed, order, weight, bias):
            return experts
    return None


def _computes(routed: Routed, order: str, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the rows, taken in this order, give the output, within what rounding can do."""
    some = slice(_CHECKED_TOKENS)
    in_order = Routed(routed.experts[some], routed.weights[some], routed.neurons(order)[some], routed.output[some])
    again = mixed(in_order, BY_TOKEN, weight, bias)
    sizes = Routed(in_order.experts, in_order.weights.abs(), in_order.rows.abs(), in_order.output)
    limit = mixed(sizes, BY_TOKEN, weight.abs(), None if bias is None else bias.abs())
    return bool(((again - in_order.output.float()).abs() <= 8 * torch.finfo(routed.output.dtype).eps * limit).all())


def _adds_up(y: Tensor, routed: Tensor, shared: Call | None, gate: Call | None) -> bool:
    """Whether y is the sum of the parts, within what rounding the gated part and the sum can do."""
    part = torch.zeros_like(y) if shared is None or shared.y is None else shared.y.reshape(y.shape)
    if gate is not None and gate.y is not None:
        part = torch.sigmoid(gate.y.reshape(-1, 1)) * part
    limit = 2 * torch.finfo(y.dtype).eps * (routed.float().abs() + part.float().abs())
    return bool(((routed.float() + part.float() - y.float()).abs() <= limit).all())
