"""Mixtures of experts: what a fused experts module is, and its rows put back into token order.

transformers stacks the weights of all experts in one module and computes them in one function, so no module inside is
called that a hook could see. What every such function calls is the module's own gate (`_apply_gate`, or `act_fn` where
there is none): its output are the neurons, one row per token and chosen expert, in an order that depends on the
function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError

BY_TOKEN = "by token"  # batched_mm
BY_EXPERT = "by expert"  # grouped_mm
EXPERT_BY_EXPERT = "expert after expert"  # eager: within an expert by choice, then by token
ROW_ORDERS = (BY_EXPERT, BY_TOKEN, EXPERT_BY_EXPERT)
_ORDER_OF = {"grouped_mm": BY_EXPERT, "batched_mm": BY_TOKEN, "eager": EXPERT_BY_EXPERT}


@dataclass(frozen=True)
class Routed:
    """One call of an experts module.

    Attributes
    ----------
    experts, weights
        Ids and weights of the chosen experts, [token, choice].
    rows
        The neurons, [token × choice, width], in the order in which the module computed them.
    output
        What the module returned, [token, residual].
    implementation
        Which of transformers' functions computed it, "" where that is not known.
    parts
        The very tensors that the model computed `rows` as, one after the other.
    """

    experts: Tensor
    weights: Tensor
    rows: Tensor
    output: Tensor
    implementation: str = ""
    parts: tuple[Tensor, ...] = ()

    def neurons(self, order: str) -> Tensor:
        """a of every chosen expert, [token, choice, width]."""
        if order == BY_TOKEN:
            return self.rows.view(*self.experts.shape, -1)
        found = torch.empty_like(self.rows)
        found[row_of(self.experts, order)] = self.rows
        return found.view(*self.experts.shape, -1)


def row_of(experts: Tensor, order: str) -> Tensor:
    """The flat (token, choice) that each computed row belongs to."""
    flat = experts.reshape(-1)
    if order == BY_TOKEN:
        return torch.arange(len(flat), device=flat.device)
    if order == BY_EXPERT:
        return torch.sort(flat).indices  # the very call that transformers makes: equal ids may come in any order
    tokens, choices = experts.shape
    place = torch.arange(choices, device=flat.device) * tokens + torch.arange(tokens, device=flat.device)[:, None]
    return torch.argsort(flat * flat.numel() + place.reshape(-1))


def is_fused(module: nn.Module) -> bool:
    """Whether a module holds stacked experts behind transformers' interface for them."""
    down = getattr(module, "down_proj", None)
    known = all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias", "_apply_gate"))
    return known and isinstance(down, Tensor) and down.ndim == 3 and down.is_floating_point()


def implementation_of(module: nn.Module) -> str:
    """Which of transformers' functions computes an experts module at present, "" where that is not known."""
    return getattr(getattr(module, "config", None), "_experts_implementation", None) or ""


def order_under(implementation: str, found: str, order: str) -> str | None:
    """The order of rows under an implementation, where `order` was found under `found`; None where it is not known.

    On devices other than a CPU transformers itself goes from `grouped_mm` to `batched_mm` when it has read the prompt.
    """
    return order if implementation == found else _ORDER_OF.get(implementation)


def computed_otherwise(layer: int) -> CaptureError:
    """What is raised where an experts module is computed in another order than when its sites were found."""
    return CaptureError(
        "the model did not compute its experts as it did when its sites were found",
        where=f"experts of layer {layer}",
        fix="Nothing of this batch was kept; remove what changes the model between two runs.",
    )


def why_not(module: nn.Module) -> str | None:
    """Why the neurons of a fused experts module cannot be recorded; None where they can."""
    if getattr(module, "has_post_expert_norm", False):
        return "norms what each expert writes"
    if getattr(module, "_is_expert_parallel", False):
        return "is spread over several processes"
    return None


def chosen(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Ids and weights of the chosen experts, [token, choice], among the arguments of an experts module."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    ids = next((value for value in tensors if not value.is_floating_point() and value.ndim == 2), None)
    weights = next((v for v in tensors if v.is_floating_point() and ids is not None and v.shape == ids.shape), None)
    return None if ids is None or weights is None else (ids, weights)


def mixed(routed: Routed, order: str, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Σ over the chosen experts of weight·(W_e a + b_e), [token, residual], float32."""
    a = routed.neurons(order).float()
    total = torch.zeros(a.shape[0], weight.shape[1], device=a.device)
    for choice in range(a.shape[1]):
        ids = routed.experts[:, choice]
        written = torch.einsum("tf,tdf->td", a[:, choice], weight[ids].float())
        if bias is not None:
            written += bias[ids].float()
        total += routed.weights[:, choice, None].float() * written
    return total
