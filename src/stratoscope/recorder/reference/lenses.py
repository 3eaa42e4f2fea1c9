"""What lenses read, as its formula says: residual, final norm, unembedding, log-softmax; from the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.head import Head, Unproved
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.reference.differences import DIFFERENCE
from stratoscope.recorder.reference.explained import Explained, norm_scale
from stratoscope.recorder.reference.formulas import Values

Transport = Callable[[int, int, Tensor], Tensor]  # lens, depth, residuals [row, residual]: what the lens makes of them

_AT_ONCE = 64  # rows of logits
_LOGPROBS = {"lens_logprob", "lens_answer_logprob", "lens_target_logprob"}


class ShownLenses:
    """The lenses of a replay.

    Parameters
    ----------
    model, sites
        The model and its sites, with a proved head.
    recorded
        What was recorded: which tokens were read, and what the model's own answers there and the targets are.
    lengths
        Tokens of each prompt.
    transport
        What lenses make of residuals.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        recorded: Mapping[str, np.ndarray],
        lengths: Sequence[int],
        transport: Transport,
    ) -> None:
        assert not isinstance(sites.head, Unproved)
        self._head: Head = sites.head
        self._recorded, self._transport = recorded, transport
        self._half = next(model.parameters()).dtype.itemsize < 4
        module: Any = model.get_submodule(self._head.unembedding)
        weight = module.weight.detach().cpu()
        weight = weight.T if self._head.transposed else weight
        self._weight = weight[: self._head.vocabulary or len(weight)].float()
        bias = getattr(module, "bias", None)
        self._bias = 0.0 if bias is None else bias.detach().cpu()[: len(self._weight)].double()
        gain, shift = (None, None) if self._head.norm is None else self._head.norm.vectors(model)
        self._gain = 1.0 if gain is None else gain.cpu().double()
        self._shift = 0.0 if shift is None else shift.cpu().double()
        prompts = np.repeat(np.arange(len(lengths)), lengths)
        answer = recorded["lens_token"][:, -1, 0, :1]
        self._with_targets = "lens_target_logit" in recorded
        targets = recorded["target_token"][prompts] if self._with_targets else answer[:, :0]
        self._tokens = torch.from_numpy(np.concatenate((answer, targets), 1)).long().clamp(min=0)
        self._explained = Explained(model, sites, recorded, lengths) if self._with_targets else None

    def at(self, depth: int, x: Tensor) -> Values:
        """What was recorded of a depth, of the residuals [token, residual] there."""
        shape = self._recorded["lens_logprob"][:, depth].shape
        found = {
            "lens_logprob": torch.full(shape, torch.nan, dtype=torch.float64),
            "lens_answer_logprob": torch.full(shape[:2], torch.nan, dtype=torch.float64),
        }
        if self._with_targets:
            of_targets = (*shape[:2], self._tokens.shape[1] - 1)
            found |= {
                name: torch.full(of_targets, torch.nan, dtype=torch.float64)
                for name in ("lens_target_logprob", "lens_target_logit")
            }
        last = depth == self._recorded["lens_logprob"].shape[1] - 1
        largest = torch.full(shape[:1], torch.nan, dtype=torch.float64)
        for lens in range(shape[1]):
            rows = torch.from_numpy(~np.isnan(self._recorded["lens_logprob"][:, depth, lens, 0])).nonzero()[:, 0]
            for some in torch.split(rows, _AT_ONCE):
                largest[some] = self._read(found, depth, lens, some, x)
        if self._explained is not None:
            found["lens_target_logit"][:, 0] = self._explained.read(x)
            if last:
                found["lens_target_logit"][:] = found["lens_target_logit"][:, :1]
        return self._of_rounded(found, depth, largest) if last and self._half else found

    def _of_rounded(self, found: Values, depth: int, largest: Tensor) -> Values:
        """Log-probabilities of logits that the model itself rounded, to a share of the largest: compared by that."""
        compared = {}
        for name in found.keys() & _LOGPROBS:
            given, wanted = torch.from_numpy(self._recorded[name][:, depth]), found.pop(name)
            error = (given - wanted).abs().nan_to_num(torch.inf).where(~(given.isnan() & wanted.isnan()), 0)
            compared[DIFFERENCE + name] = error.flatten(1).amax(1) / largest.nan_to_num(1)
        return {**found, **compared}

    def _read(self, found: Values, depth: int, lens: int, rows: Tensor, x: Tensor) -> Tensor:
        """Put what one lens reads of some rows into `found`; gives the largest logit of each, without its sign."""
        y = self._transport(lens, depth, x[rows])
        logits = self._logits(y)
        log_p = logits.log_softmax(-1)
        found["lens_logprob"][rows, lens] = log_p.topk(found["lens_logprob"].shape[-1], -1).values
        own = log_p.gather(1, self._tokens[rows])
        found["lens_answer_logprob"][rows, lens] = own[:, 0]
        if self._explained is not None:
            found["lens_target_logprob"][rows, lens] = own[:, 1:]
            found["lens_target_logit"][rows, lens] = self._explained.read(y, rows)
        return logits.abs().amax(-1)

    def _logits(self, x: Tensor) -> Tensor:
        """The model's own, float64, [row, vocabulary]."""
        head, x = self._head, x.double()
        y: Tensor = x
        if head.norm is not None:
            centred = x - x.mean(-1, keepdim=True) if head.norm.centred else x
            y = centred * norm_scale(head.norm, x) * self._gain + self._shift
        found: Tensor = ((head.input_scale * y).float() @ self._weight.T).double() + self._bias
        found = head.logit_scale * found
        return found if head.soft_cap is None else head.soft_cap * (found / head.soft_cap).tanh()
