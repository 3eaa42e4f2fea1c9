"""Along which directions of the residual stream the logits of targets are read, once the final norm's scale is given.

The logit of a token less that of another (or less the mean over the vocabulary) is linear in what the last block gives,
but for one number a token, s_t of the final norm: y = s_t·⟨direction, x⟩ + constants. What a part of x adds to y is
then s_t·⟨direction, part⟩.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import Head
from stratoscope.recorder.targets.tokens import MEAN

_ROWS = 4096  # of the vocabulary, that are summed at once


class Directions:
    """The directions of a model with a proved head.

    Parameters
    ----------
    model, head
        The model, and what makes logits of its residual stream.
    vocabulary
        How many tokens are real: rows beyond are padding, and count for no mean.
    """

    def __init__(self, model: nn.Module, head: Head, vocabulary: int) -> None:
        self._model, self._head = model, head
        weight, bias = self._unembedding()
        self.vocabulary = min(vocabulary, len(weight))
        self._mean = _mean_of_rows(weight[: self.vocabulary])
        self._mean_bias = None if bias is None else bias[: self.vocabulary].float().mean()
        gain, shift = (None, None) if head.norm is None else head.norm.vectors(model)
        self._gain = None if gain is None else gain.to(weight.device)
        self._shift = None if shift is None else shift.to(weight.device)

    @property
    def has_norm_bias(self) -> bool:
        """Whether the final norm adds a β."""
        return self._shift is not None

    @property
    def has_head_bias(self) -> bool:
        """Whether the unembedding adds a bias."""
        return self._mean_bias is not None

    def of(self, token: Tensor, against: Tensor) -> Tensor:
        """Directions of targets, ids [prompt, target], −1 = the mean: [prompt, target, residual], float32."""
        head = self._head
        found = (head.logit_scale * head.input_scale) * self._difference(token, against)
        if self._gain is not None:
            found = found * self._gain
        centred = head.norm is not None and head.norm.centred
        return found - found.mean(-1, keepdim=True) if centred else found

    def constants(self, token: Tensor, against: Tensor) -> tuple[Tensor, Tensor]:
        """What the final norm's β and the unembedding's bias add, [prompt, target] each, float32."""
        head, none = self._head, torch.zeros(token.shape, device=self._mean.device)
        shift = bias = none
        if self._shift is not None:
            along = self._difference(token, against) @ self._shift
            shift = (head.logit_scale * head.input_scale) * along
        own = self._unembedding()[1]
        if own is not None and self._mean_bias is not None:
            own = own.float()
            token, against = token.to(own.device), against.to(own.device)
            taken = torch.where(against == MEAN, self._mean_bias, own[against.clamp(min=0)])
            bias = head.logit_scale * (own[token] - taken)
        return shift, bias

    def scale(self, x_last: Tensor) -> Tensor:
        """s_t of the final norm, of what the last block gives [..., residual]: [..., 1], float32."""
        norm = self._head.norm
        return x_last.new_ones(*x_last.shape[:-1], 1, dtype=torch.float32) if norm is None else norm.scale(x_last)

    def values(self, logits: Tensor, token: Tensor, against: Tensor) -> Tensor:
        """The target values of logits [prompt, vocabulary]: [prompt, target], float64, before a soft-cap.

        They can be differentiated. A capped logit that was rounded to the cap itself counts as the number below it.
        """
        logits = (logits.cpu() if logits.device.type == "mps" else logits).double()  # Apple's devices have no float64
        token, against = token.to(logits.device), against.to(logits.device)
        cap = self._head.soft_cap

        def uncapped(some: Tensor) -> Tensor:
            most = 1 - torch.finfo(torch.float32).eps
            return some if cap is None else torch.atanh((some / cap).clamp(-most, most)) * cap

        own = uncapped(logits.gather(-1, token))
        taken = uncapped(logits.gather(-1, against.clamp(min=0)))
        if bool((against == MEAN).any()):
            mean = uncapped(logits[..., : self.vocabulary]).mean(-1, keepdim=True)
            taken = torch.where(against == MEAN, mean, taken)
        return own - taken

    def _unembedding(self) -> tuple[Tensor, Tensor | None]:
        """The weight, [vocabulary, residual], and the bias."""
        module: Any = self._model.get_submodule(self._head.unembedding)
        with weights_at_hand(module):
            weight, bias = module.weight.detach(), getattr(module, "bias", None)
        return (weight.T if self._head.transposed else weight), None if bias is None else bias.detach()

    def _difference(self, token: Tensor, against: Tensor) -> Tensor:
        """û: the target's row less the other's, or less the mean, [prompt, target, residual], float32."""
        weight, _ = self._unembedding()
        token, against = token.to(weight.device), against.to(weight.device)
        taken = weight[against.clamp(min=0)].float()
        return weight[token].float() - torch.where((against == MEAN)[..., None], self._mean, taken)


def _mean_of_rows(weight: Tensor) -> Tensor:
    """Mean over the vocabulary, float32; summed in pieces, as a float32 copy of all rows would be large."""
    total = torch.stack([rows.sum(0, dtype=torch.float32) for rows in torch.split(weight, _ROWS)])
    return total.double().sum(0).float() / len(weight) if total.device.type == "cpu" else total.sum(0) / len(weight)
