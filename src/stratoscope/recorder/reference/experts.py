"""What is recorded of a mixture of experts, once more as its formulas say; as `plain`, with none of the reducers' code.

The neurons are computed anew from the stacked weights, expert by expert. All tensors are on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stratoscope.model.devices import weights_at_hand
from stratoscope.recorder.reference.formulas import Values, widened


@dataclass(frozen=True)
class MixtureInput:
    """What the mixture of one block was given.

    Attributes
    ----------
    x
        What the experts read, [token, d_model].
    experts, router
        Ids and weights of the chosen experts, [token, choice].
    shared, gate
        Neurons of the shared expert, [token, width], and what its sigmoid scales it by, [token, 1]; None where there is
        none.
    """

    x: Tensor
    experts: Tensor
    router: Tensor
    shared: Tensor | None
    gate: Tensor | None


class PlainMixture:
    """The mixture of one block, with every neuron of every token in one row: chosen experts, then the shared one.

    Parameters
    ----------
    module
        The experts module.
    call
        What it was given.
    weight, bias
        W of every expert, [expert, d_model, width], and the biases [expert, d_model] or None.
    shared, shared_bias
        W of the shared expert, [d_model, width], and its bias; None where there is none.
    """

    def __init__(
        self,
        module: Any,
        call: MixtureInput,
        weight: Tensor,
        bias: Tensor | None,
        shared: Tensor | None,
        shared_bias: Any,
    ) -> None:
        self._call, self._weight, self._bias = call, weight, bias
        self._shared, self._shared_bias = shared, shared_bias
        self._routed = _neurons(module, call.x, call.experts).double()
        self._width = self._routed.shape[-1]
        gate = torch.ones(len(call.x), 1) if call.gate is None else torch.sigmoid(call.gate.float())
        a, factor = [self._routed.flatten(1)], [call.router.double().repeat_interleave(self._width, 1)]
        column = [weight.double().norm(dim=1)[call.experts].flatten(1)]
        if call.shared is not None and shared is not None:
            a.append(call.shared.double())
            factor.append(gate.double().expand(-1, shared.shape[1]))
            column.append(shared.double().norm(dim=0).expand(len(call.x), -1))
        self._a, self._factor, self._column = (torch.cat(parts, 1) for parts in (a, factor, column))

    @property
    def active(self) -> Tensor:
        """The neurons, [token, choice × width + shared width]."""
        return self._a

    def norms(self, choices: int) -> Values:
        """`neuron_norm` and `mlp_out_norm`, [token], and `router_weight`, [token, choice] with as many as `choices`."""
        whole = self._whole()
        if self._bias is not None:
            whole = whole + (self._call.router[..., None].double() * self._bias.double()[self._call.experts]).sum(1)
        if self._shared_bias is not None:
            whole = whole + self._factor[:, -1:] * self._shared_bias.double()
        weights = widened(self._call.router.double(), choices)
        return {"neuron_norm": self._a.norm(dim=-1), "mlp_out_norm": whole.norm(dim=-1), "router_weight": weights}

    def peaks(self, expert: Tensor, neuron: Tensor) -> tuple[Values, Tensor]:
        """As `plain.peaks`, for neurons named by expert (−1: the shared one) and number, [token, k]."""
        chosen = self._call.experts[:, None, :] == expert[..., None]
        place = torch.where(expert < 0, self._routed.shape[1], chosen.int().argmax(-1)) * self._width + neuron
        here = (expert < 0) | chosen.any(-1)  # another router's choice, where rounding has tipped it, wrote nothing
        write = self._a * self._factor
        size = write.abs() * self._column
        strongest = size.topk(expert.shape[1], dim=-1).values
        columns = self._weight[expert.clamp(min=0), :, neuron.where(expert >= 0, 0)].double()
        if self._shared is not None:
            columns[expert < 0] = self._shared.T[neuron[expert < 0]].double()
        written = ((write.gather(1, place) * here)[..., None] * columns).sum(1)
        whole = self._whole()
        values = {
            "peak_value": self._a.gather(1, place) * here,
            "peak_write": size.gather(1, place) * here,
            "peak_share": strongest.square().sum(-1) / size.square().sum(-1),
            "peak_explained": (written * whole).sum(-1) / whole.square().sum(-1),
        }
        return values, strongest

    @property
    def output(self) -> Tensor:
        """What the mixture gives, [token, d_model]."""
        found = self._whole()
        rows = torch.ones(len(found), dtype=torch.bool)
        bias = self._biases(rows)
        return found if bias is None else found + bias

    def columns_times(self, rows: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        """What gives ⟨direction, write⟩ of every neuron of the axis `neuron` at some rows, and their biases."""
        count, width = self._weight.shape[0], self._width
        write, experts = (self._a * self._factor)[rows], self._call.experts[rows]
        shared = 0 if self._shared is None else self._shared.shape[1]

        def products(direction: Tensor) -> Tensor:
            found = torch.zeros(*direction.shape[:2], count * width + shared, dtype=torch.float64)
            for row, chosen in enumerate(experts.tolist()):
                for place, expert in enumerate(chosen):
                    own = write[row, place * width : (place + 1) * width]
                    found[row, :, expert * width : (expert + 1) * width] = (
                        direction[row] @ self._weight[expert].double() * own
                    )
                if self._shared is not None:
                    found[row, :, count * width :] = direction[row] @ self._shared.double() * write[row, -shared:]
            return found

        return products, self._biases(rows)

    def _biases(self, rows: Tensor) -> Tensor | None:
        """The biases as they reach the output at some rows, [row, d_model]; None without any."""
        found = None
        if self._bias is not None:
            weights, own = self._call.router[rows, :, None].double(), self._bias.double()[self._call.experts[rows]]
            found = (weights * own).sum(1)
        if self._shared_bias is not None:
            shared = self._factor[rows, -1:] * self._shared_bias.double()
            found = shared if found is None else found + shared
        return found

    def summary(self, own: Tensor, width: int) -> Values:
        """Mean and extremes of each neuron over the tokens `own` that computed it, [width]; NaN where none did."""
        count = self._weight.shape[0] * self._width
        names = ("prompt_mean", "prompt_max", "prompt_min")
        found = {name: torch.full((width,), torch.nan, dtype=torch.float64) for name in names}
        for expert in range(self._weight.shape[0]):
            rows = self._routed[own][self._call.experts[own] == expert]
            _fill(found, rows, expert * self._width)
        if self._call.shared is not None:
            _fill(found, self._call.shared[own].double(), count)
        return found

    def _whole(self) -> Tensor:
        """W a of the mixture, without biases, [token, d_model]."""
        total = torch.zeros(len(self._call.x), self._weight.shape[1], dtype=torch.float64)
        for expert in torch.unique(self._call.experts).tolist():
            token, choice = (self._call.experts == expert).nonzero(as_tuple=True)
            written = self._routed[token, choice].float() @ self._weight[expert].float().T
            total.index_add_(0, token, written.double() * self._call.router[token, choice, None].double())
        if self._call.shared is not None and self._shared is not None:
            written = self._call.shared.float() @ self._shared.float().T
            total += written.double() * self._factor[:, -1:]
        return total


def _neurons(module: Any, x: Tensor, experts: Tensor) -> Tensor:
    """a of the chosen experts, [token, choice, width], from the stacked weights and the module's own gate."""
    stacked, bias_name = ("gate_up_proj", "gate_up_proj_bias") if module.has_gate else ("up_proj", "up_proj_bias")
    with weights_at_hand(module):
        weight, bias = getattr(module, stacked).detach().cpu(), getattr(module, bias_name, None)
    activate = module._apply_gate if module.has_gate else module.act_fn
    found: Tensor | None = None
    for expert in torch.unique(experts).tolist():
        token, choice = (experts == expert).nonzero(as_tuple=True)
        z = x[token] @ (weight[expert] if module.is_transposed else weight[expert].T)
        z = z if bias is None else z + bias[expert].detach().cpu()
        with torch.no_grad():
            a = activate(z)
        if found is None:
            found = a.new_empty(*experts.shape, a.shape[-1])
        found[token, choice] = a
    assert found is not None
    return found


def _fill(found: Values, rows: Tensor, start: int) -> None:
    if len(rows):
        place = slice(start, start + rows.shape[1])
        found["prompt_mean"][place] = rows.mean(0)
        found["prompt_max"][place], found["prompt_min"][place] = rows.amax(0), rows.amin(0)
