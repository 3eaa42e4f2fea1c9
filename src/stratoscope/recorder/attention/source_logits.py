"""Group `logits`: what each head adds to the targets' logits at the answer position, split by source token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.heads import ATTN_OUT
from stratoscope.model.sites import Site
from stratoscope.recorder.attention.reducer import AttentionReducer
from stratoscope.recorder.attention.sources import AttentionSources, HeadSources, in_sentences
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.passages import Fixed, exact, passages_of, split_heads
from stratoscope.recorder.reduce.shared import Shared


class SourceLogits(AttentionReducer):
    """A reducer of one row of attention weights of each prompt and layer.

    Its sums over source tokens are the heads' contributions; where attention cannot be split it is NaN.
    """

    kinds = frozenset({s.BLOCK_OUT, ATTN_OUT})

    def __init__(self, shared: Shared) -> None:
        assert shared.targets is not None
        self._model, self._sites, self._targets = shared.model, shared.sites, shared.targets
        self._device, self._last = shared.scratch.device, len(shared.sites.layers) - 1
        self._passages = passages_of(self._model, self._sites)
        self._heads = split_heads(self._model, self._sites)
        self.watched = self._sources = AttentionSources(self._model, self._sites, self._attended)
        self._fixed = Fixed(always=not shared.targets.need_a_forward)
        self._found: dict[int, Tensor] = {}  # [prompt, head, target, token]
        self._scale: Tensor | None = None
        self._prompts = self._length = 0
        self._wrong: dict[int, Tensor] = {}

    @property
    def limits(self) -> list[str]:
        """Where attention is not split, in sentences: found out at first, or in a batch."""
        return in_sentences(self._sources.limits, {layer for layer, wrong in self._wrong.items() if bool(wrong)})

    def begin(self, batch: Batch) -> None:
        """Expect a batch's forward; only the first is of the answer position."""
        self._fixed.begin()
        self._found, self._scale = {}, None
        self._prompts, self._length = batch.input_ids.shape
        if self._heads and self._targets.answers_begin:
            last = torch.full((self._prompts, 1), self._length - 1, device=batch.input_ids.device)
            self._sources.begin(batch.mask.bool(), last)
        else:
            self._sources.stop()

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Take the scales of norms at the answer position."""
        if not self._targets.answers_begin:
            return
        if site.kind == s.BLOCK_OUT and site.layer == self._last:
            self._scale = self._targets.directions.scale(self._answers(tensor)).to(self._device)
        elif site.kind == ATTN_OUT and site.layer in self._found:
            scale = self._passages["attn", site.layer].scale(self._answers(tensor))
            self._found[site.layer] *= scale.to(self._device)[..., None, None]

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Nothing of experts is attention."""

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._found, self._scale = {}, None
        self._sources.forget()

    def result(self) -> Mapping[str, Tensor]:
        """`source_logit`, [layer, row, head, target]; in forwards of answers NaN."""
        self._sources.stop()
        if not self._heads:
            return {}
        most = max(heads.count for heads in self._heads.values())
        shape = (self._last + 1, self._prompts, self._length, most, len(self._targets))
        found = torch.full(shape, torch.nan, device=self._device)
        for layer, values in self._found.items():
            assert self._scale is not None
            found[layer, :, :, : values.shape[1]] = (values * self._scale[..., None, None]).permute(0, 3, 1, 2)
        return {"source_logit": found.flatten(1, 2)}

    def _answers(self, tensor: Tensor) -> Tensor:
        """A site's rows at the answer position, [prompt, width]."""
        return tensor[self._length - 1 :: self._length]

    def _attended(self, layer: int, heads: HeadSources) -> None:
        if layer not in self._heads or heads.weights.shape[1] != self._heads[layer].count:
            return
        device = heads.values.device

        def vectors() -> Tensor:
            weight, _ = self._sites.attn_weight(self._model, layer)
            direction = self._targets.vectors().to(device)
            return exact(self._passages["attn", layer].before(direction), weight.float())

        along = self._fixed.get((layer, device), vectors).expand(self._prompts, -1, -1)[:, None]
        self._found[layer] = heads.along(along)[:, :, 0].to(self._device)
        if heads.wrong is not None:
            wrong = heads.wrong.any()
            self._wrong[layer] = self._wrong[layer] | wrong if layer in self._wrong else wrong
