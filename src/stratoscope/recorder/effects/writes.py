"""What a neuron's column of W writes: which tokens it promotes and demotes, and what it adds to a target's logit.

Both are direct: norms behind the neuron, and a router's weight of its expert, are taken as they were at its token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope import defaults
from stratoscope.model import sites as s
from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import Head
from stratoscope.model.hooks import SiteHooks
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.effects.strongest import Strongest

PER_SIGN = defaults.WRITES_PER_SIGN
_AT_ONCE = 2**24  # logits
_ROWS = 4096  # of the vocabulary, that are summed at once
_KNOWN = 2**17  # neurons whose tokens are remembered

Place = tuple[int, int]  # layer, neuron


class FrozenScales:
    """While open, one forward shows by what norms and gates multiply what is written, [row] each.

    Parameters
    ----------
    model, sites, head
        The model, and what is proved of it.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, head: Head) -> None:
        self._sites, self._head = sites, head
        self.final = torch.ones(1)
        self._post: dict[int, Tensor] = {}
        self._gate: dict[int, Tensor] = {}
        last = sites.layers[-1].block_out
        normed = {n for n, maps in enumerate(sites.maps) if maps.mlp_post_norm is not None}
        wanted = [one for n, layer in enumerate(sites.layers) for one in (layer.mlp_out,) if one and n in normed]
        wanted += [layer.shared_gate for layer in sites.layers if layer.shared_gate is not None]
        self._hooks = SiteHooks(model, [last, *wanted], self._take)

    def __enter__(self) -> FrozenScales:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__(None, None, None)

    def of(self, layer: np.ndarray, neuron: np.ndarray, row: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """The product of all of them for neurons at rows of the batch, float64; 0 where there is none (row −1)."""
        found = np.where(row < 0, 0.0, np.nan_to_num(factor.astype(np.float64)))
        found *= self.final.numpy()[row] if len(self.final) > 1 else float(self.final)
        for number, block in enumerate(self._sites.layers):
            here = layer == number
            if not here.any():
                continue
            if block.mlp_write is not None:
                found[here] *= block.mlp_write.scale
            if number in self._post:
                found[here] *= self._post[number].numpy()[row[here]]
            elif block.post_norm:  # a norm that is not proved: nobody knows what of the column passes it
                found[here] = np.nan
            if number in self._gate and block.experts is not None:
                shared = here & (neuron >= block.expert_neurons)
                found[shared] *= self._gate[number].numpy()[row[shared]]
        return found

    def _take(self, site: Site, tensor: Tensor) -> None:
        tensor = tensor.detach()
        if site.kind == s.BLOCK_OUT:
            norm = self._head.norm
            self.final = torch.ones(len(tensor)) if norm is None else norm.scale(tensor)[:, 0].cpu()
        elif site.kind == s.SHARED_GATE:
            self._gate[site.layer] = torch.sigmoid(tensor.float())[:, 0].cpu()
        else:
            post = self._sites.maps[site.layer].mlp_post_norm
            assert post is not None
            self._post[site.layer] = post.scale(tensor)[:, 0].cpu()


class Writes:
    """What columns of a model write into its logits.

    Parameters
    ----------
    model, sites, head
        The model, and what is proved of it.
    vocabulary
        How many tokens are real.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, head: Head, vocabulary: int) -> None:
        self._model, self._sites, self._head, self._vocabulary = model, sites, head, vocabulary
        self._known: dict[Place, tuple[np.ndarray, np.ndarray]] = {}
        self._mean: Tensor | None = None  # of the rows of the unembedding, float64

    def logits(
        self, strongest: Strongest, scales: np.ndarray, directions: Tensor, answer_rows: np.ndarray
    ) -> np.ndarray:
        """What each adds to its target's logit: float32, [prompt, target, strongest]; exactly 0 at earlier tokens.

        Parameters
        ----------
        strongest
            Neurons at rows of the batch.
        scales
            `FrozenScales.of` them.
        directions
            `Directions.of` the targets, [prompt, target, residual].
        answer_rows
            The row of each prompt's answer position.
        """
        there = strongest.row >= 0
        found = np.where(there, 0.0, np.nan)
        now = there & (strongest.row == answer_rows[:, None, None])
        for place in map(tuple, np.argwhere(now)):
            column = self._column(int(strongest.layer[place]), int(strongest.neuron[place]))
            along = float(directions[place[0], place[1]].cpu().double() @ column.cpu().double())
            found[place] = along * strongest.value[place] * scales[place]
        return found.astype(np.float32)

    def tokens(self, strongest: Strongest, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that each promotes and demotes most at its own position, and by how much.

        Less the mean over the vocabulary; int32 and float32, [prompt, target, strongest, write_rank].
        """
        there = strongest.row >= 0
        wanted = [*dict.fromkeys(zip(strongest.layer[there].tolist(), strongest.neuron[there].tolist(), strict=True))]
        self._learn([place for place in wanted if place not in self._known])
        shape = (*strongest.row.shape, 2 * PER_SIGN)
        token, logit = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        for place in map(tuple, np.argwhere(there)):
            ids, unit = self._known[int(strongest.layer[place]), int(strongest.neuron[place])]
            times = float(strongest.value[place]) * scales[place]
            order = (
                slice(None) if times >= 0 else np.r_[PER_SIGN : 2 * PER_SIGN, 0:PER_SIGN]
            )  # what it demotes it promotes
            token[place], logit[place] = ids[order], unit[order] * times
        return token, logit

    def _learn(self, places: Sequence[Place]) -> None:
        """The tokens of further neurons, per unit of activation and of every scale."""
        if not places:
            return
        if len(self._known) > _KNOWN:
            self._known.clear()
        head = self._head
        columns = torch.stack([self._final(self._column(*place)) for place in places])
        module: Any = self._model.get_submodule(head.unembedding)
        with weights_at_hand(module):
            weight = module.weight.detach()
            weight = (weight.T if head.transposed else weight)[: self._vocabulary]
            if self._mean is None:  # summed in pieces, as a copy of all rows would be large
                self._mean = torch.stack([part.cpu().double().sum(0) for part in weight.split(_ROWS)]).sum(0) / len(
                    weight
                )
            found = _extremes(columns.to(weight.device), weight, self._mean)
        times = head.logit_scale * head.input_scale
        ids, unit = found[0].numpy().astype(np.int32), found[1].numpy() * times
        self._known |= {place: (ids[number], unit[number]) for number, place in enumerate(places)}

    def _column(self, layer: int, neuron: int) -> Tensor:
        """What reaches the residual per unit of activation, but for scales: [residual], float32."""
        post, column = self._sites.maps[layer].mlp_post_norm, self._sites.column(self._model, layer, neuron)
        if post is None:
            return column
        gain, _ = post.vectors(self._model)
        column = post.centre(column)
        return column if gain is None else column * gain.to(column.device)

    def _final(self, column: Tensor) -> Tensor:
        """The column behind the final norm, but for its scale."""
        norm = self._head.norm
        if norm is None:
            return column
        gain, _ = norm.vectors(self._model)
        column = norm.centre(column)
        return column if gain is None else column * gain.to(column.device)


def _extremes(columns: Tensor, weight: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens of largest and of smallest product with each column, and the products less their mean, on the CPU.

    The products of those few are taken in float64 then, so that they do not depend on which columns came together.
    """
    k = min(PER_SIGN, len(weight))
    best: list[list[Tensor]] = [[], []]
    step = max(k, _AT_ONCE // len(columns))
    for start in range(0, len(weight), step):
        product = columns @ weight[start : start + step].float().T
        for sign, kept in zip((1, -1), best, strict=True):
            most = (sign * product).topk(min(k, product.shape[1]), 1)
            parts = [most.values, most.indices + start]
            both = [torch.cat(pair, 1) for pair in zip(kept, parts, strict=True)] if kept else parts
            order = both[0].topk(min(k, both[0].shape[1]), 1).indices
            kept[:] = [part.gather(1, order) for part in both]
    ids = torch.cat([kept[1] for kept in best], 1)
    centred = (weight[ids].cpu().double() - mean.cpu()) @ columns.cpu().double()[:, :, None]
    values = centred[..., 0].float()
    ids, pad = ids.cpu(), (0, PER_SIGN - k)
    sides = []
    for side, falling in ((slice(k), True), (slice(k, None), False)):
        order = torch.argsort(values[:, side], dim=1, descending=falling)
        sides.append([nn.functional.pad(one[:, side].gather(1, order), pad, value=-1) for one in (ids, values)])
    return torch.cat([sides[0][0], sides[1][0]], 1), torch.cat([sides[0][1], sides[1][1]], 1)
