"""One layer's attention over the forwards of a batch: its sums, what its heads write, and where its cached keys lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stratoscope.errors import ModelError
from stratoscope.recorder.attention.check import AttentionChecks, positions_lost
from stratoscope.recorder.attention.full import PairRows
from stratoscope.recorder.attention.given import WITHOUT, GivenScores, GivenWeights
from stratoscope.recorder.attention.rows import WeightRows
from stratoscope.recorder.attention.sums import AttentionSums
from stratoscope.recorder.reduce.scratch import Scratch

_OTHER_KEYS = "the cache gave back other keys than it was given"


class LayerAttention:
    """What is kept of one layer; `forwards` counts those in which it was seen."""

    def __init__(self, layer: int, valid: Tensor, heads: int) -> None:
        self._layer = layer
        self._valid = valid[:, :0]
        self._sums = AttentionSums(valid, heads)
        self._value_norms: list[Tensor] = []
        self._marks: Tensor | None = None
        self.forwards = 0

    def add(
        self,
        given: GivenScores | GivenWeights,
        valid: Tensor,
        checks: AttentionChecks,
        scratch: Scratch,
        pairs: PairRows | None,
    ) -> None:
        """Add one forward's queries; `valid` is bool [B, T] of all tokens up to its last one.

        With `pairs` that somebody wants, every weight goes there.

        Raises
        ------
        CaptureError
            The forward's keys are not the last ones of the tokens so far.
        """
        self.forwards += 1
        before, self._valid = self._valid.shape[1], valid
        total = valid.shape[1]
        keys = given.value.shape[2]
        if keys > total:  # a cache of fixed size
            checks.never(self._layer, "there are more than tokens", given.reaches(total, valid[:, before:]))
            given, keys = given.cropped(total), total
        first_key = total - keys  # a cache with a window drops the oldest keys
        self._follow(given, before, first_key, checks)
        rows, mask = given.over(valid[:, before:], valid[:, first_key:], before, first_key)
        self._sums.extend(valid)
        found = self._sums.add(rows, mask, scratch)
        if pairs:
            pairs.write(self._layer, rows, mask, scratch)
        if isinstance(rows, WeightRows):
            sums = torch.cat([chunk.total for chunk in found], -1)
            checks.row_sums(self._layer, sums, mask, rows.dtype, rows.learned_sink)
        if checks.sampled:
            checks.output(self._layer, rows, mask, given.value, given.output, scratch)

    def add_flow(self, flow: Tensor, factors: Tensor) -> None:
        """‖W_O z‖₂ per head from what reaches the output projection, [.., heads·D], as ‖R z‖₂ with W_O = QR."""
        batch, heads = self._valid.shape[0], len(factors)
        flow = flow.detach().float().reshape(-1, heads, flow.shape[-1] // heads).transpose(0, 1)
        norms = torch.linalg.vector_norm(flow @ factors, dim=-1)
        self._value_norms.append(norms.T.reshape(batch, -1, heads))

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self._sums.heads

    def result(self) -> dict[str, Tensor]:
        """Name to [B, T, H] over all forwards."""
        found = self._sums.result()
        if self._value_norms:
            norms = torch.cat(self._value_norms, 1)
            found["attn_value_norm"] = norms.masked_fill(~self._valid[..., None], torch.nan)
        return found

    def _follow(self, given: GivenScores | GivenWeights, before: int, first_key: int, checks: AttentionChecks) -> None:
        """Prove that the keys are those of positions `first_key` and on: one number of each, which never changes."""
        if given.key is None:
            if first_key:
                raise positions_lost(self._layer, "weights do not say which keys were dropped")
            return
        marks = given.key[:, 0, :, -1].detach()
        known = marks[:, : before - first_key]
        if self._marks is None:
            if before != first_key:
                raise positions_lost(self._layer, "a cache was filled before it was observed")
            self._marks = marks.clone()
            return
        if first_key > before:
            raise positions_lost(self._layer, _OTHER_KEYS)
        checks.never(self._layer, _OTHER_KEYS, (self._marks[:, first_key:before] != known).any())
        self._marks = torch.cat((self._marks, marks[:, before - first_key :]), 1)


def head_factors(projection: nn.Module, heads: int) -> Tensor:
    """Rᵀ [H, D, min(D, d_model)] with W_O[:, head] = QR: the norm of what a head writes at a fraction of the cost."""
    from transformers.pytorch_utils import Conv1D

    weight = projection.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim != 2:
        raise ModelError("attention's last weight is not a matrix of numbers", where=str(projection), fix=WITHOUT)
    weight = weight.detach().float() if isinstance(projection, Conv1D) else weight.detach().float().T  # [H·D, d_model]
    if len(weight) % heads:
        raise ModelError(f"{len(weight)} inputs for {heads} heads", where=str(projection), fix=WITHOUT)
    by_head = weight.reshape(heads, -1, weight.shape[-1])
    factors: Tensor = torch.linalg.qr(by_head.transpose(1, 2), mode="r").R
    return factors.transpose(1, 2).contiguous()
