"""Contributions to logits once more, as their formulas say: what one block adds, in float64 and from whole tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.model.head import Norm
from stratoscope.recorder.reference.explained import RAW, Explained, norm_scale
from stratoscope.recorder.reference.formulas import Values
from stratoscope.recorder.reference.shown import ShownBlock


def of_block(block: ShownBlock, explained: Explained, norms: tuple[Norm | None, Norm | None]) -> Values:
    """What one block adds, without the final norm's scale; `norms`: of what attention and the MLP write."""
    found: Values = {}
    for name, write in (("attn", block.attn), ("mlp", block.mlp)):
        if write is not None:
            found[f"{RAW}{name}_logit"] = torch.einsum("td,tkd->tk", write.double(), explained.direction)
    if block.attn is not None and "head_logit" in explained:
        found |= _heads(block, explained, norms[0])
    if block.mlp is not None and "neuron_logit" in explained:
        found |= _neurons(block, explained, norms[1])
    return found


def _heads(block: ShownBlock, explained: Explained, norm: Norm | None) -> Values:
    wanted = explained.recorded("head_logit", block.number)
    heads = int((~wanted.isnan()).any(0).any(-1).sum())
    weight, bias = block.out_weight, block.out_bias
    if not heads or weight is None:
        return {}
    rows = ~wanted.isnan().all(-1).all(-1)
    z, weight = block.flow[rows].double(), weight.double()
    behind = Behind(block, explained.direction[rows], norm, block.factors[0], z @ weight.T, bias)
    each = torch.stack(
        [(z_h @ w_h.T) for z_h, w_h in zip(z.chunk(heads, 1), weight.chunk(heads, 1), strict=True)], dim=1
    )
    found = torch.full(wanted.shape, torch.nan, dtype=torch.float64)
    found[rows, :heads] = torch.einsum("rhd,rkd->rhk", each, behind.before) * behind.scale[..., None]
    return {f"{RAW}head_logit": found} | behind.of_biases("attn", explained, rows, bias)


def _neurons(block: ShownBlock, explained: Explained, norm: Norm | None) -> Values:
    others = explained.recorded("other_neurons_logit", block.number)
    rows = ~others.isnan().all(-1)
    if not bool(rows.any()):
        return {}
    each, bias = block.columns_times(rows)  # what every neuron gives: a function of a direction [row, target, residual]
    behind = Behind(block, explained.direction[rows], norm, block.factors[1], block.output[rows].double(), None)
    products = each(behind.before) * behind.scale[..., None]  # [row, target, neuron]
    which = explained.recorded("logit_neuron", block.number)[rows].long()
    kept = products.gather(-1, which.clamp(min=0)).where(which >= 0, torch.nan)
    values = torch.full((*others.shape, which.shape[-1]), torch.nan, dtype=torch.float64)
    values[rows] = kept
    rest = torch.full(others.shape, torch.nan, dtype=torch.float64)
    rest[rows] = products.sum(-1) - kept.nansum(-1)
    found = {f"{RAW}neuron_logit": values, f"{RAW}other_neurons_logit": rest}
    return found | behind.of_biases("mlp", explained, rows, bias)


class Behind:
    """What stands behind a linear map, for some rows: directions in front of it, and the scale of its norm."""

    def __init__(
        self,
        block: ShownBlock,
        direction: Tensor,
        norm: Norm | None,
        factor: float,
        output: Tensor,
        bias: Tensor | None,
    ) -> None:
        gain, shift = (None, None) if norm is None else norm.vectors(block.model)
        self._shift = None if shift is None else factor * (direction @ shift.cpu().double())
        before = factor * direction * (1 if gain is None else gain.cpu().double())
        self.before = before - before.mean(-1, keepdim=True) if norm is not None and norm.centred else before
        self.scale = norm_scale(norm, output if bias is None else output + bias.double())

    def of_biases(self, part: str, explained: Explained, rows: Tensor, bias: Tensor | None) -> Values:
        """What the map's bias, [residual] or of each row, and β add."""
        name = f"{part}_bias_logit"
        if name not in explained:
            return {}
        own = self.biases(bias)
        found = torch.full((len(rows), own.shape[1]), torch.nan, dtype=torch.float64)
        found[rows] = own
        return {RAW + name: found}

    def biases(self, bias: Tensor | None) -> Tensor:
        """What they add along each direction, [row, target]."""
        own = torch.zeros(self.before.shape[:2], dtype=torch.float64)
        if bias is not None:
            own = torch.einsum("rkd,rd->rk", self.before, bias.double().expand(len(own), -1)) * self.scale
        return own if self._shift is None else own + self._shift
