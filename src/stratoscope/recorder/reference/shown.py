"""What a replay is shown of one block: whole tensors on the CPU, padding left out, and what was recorded to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.sites import LayerSites, ModelSites
from stratoscope.names import QUANTITIES, is_streamed
from stratoscope.recorder.reference.differences import DIFFERENCE, relative_difference
from stratoscope.recorder.reference.experts import MixtureInput, PlainMixture
from stratoscope.recorder.reference.formulas import Values, widened
from stratoscope.trace.format.shards import as_numbers


class ShownBlock:
    """One block of a replay; tensors are [token, …].

    Parameters
    ----------
    model, sites, number
        The model, where its blocks write, and which block it is.
    kept
        What hooks have seen, by what it is.
    recorded
        What was recorded of the prompts.
    own_rows
        Of each prompt, which tokens are its user's beside its first, as masks.

    Attributes
    ----------
    x, attn, mlp
        What entered the block, and what attention and MLP add; None where there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: ModelSites,
        number: int,
        kept: Mapping[str, Tensor],
        recorded: Mapping[str, np.ndarray],
        own_rows: Sequence[Tensor],
    ) -> None:
        self._model, self.sites, self._number, self._kept, self._recorded = model, sites, number, kept, recorded
        self._layer: LayerSites = sites.layers[number]
        self.own_rows = own_rows
        self.x = kept["x"]
        self.attn = None if self._layer.attn_write is None else kept["attn"] * self._layer.attn_write.scale
        self.mlp = None if self._layer.mlp_write is None else kept["mlp"] * self._layer.mlp_write.scale

    @property
    def read_by_mlp(self) -> Tensor:
        """The residual that the MLP's write is added to."""
        return self.x if self._layer.parallel or self.attn is None else self.x + self.attn

    @property
    def a(self) -> Tensor:
        """The neurons of a dense MLP."""
        return self._kept["a"]

    @cached_property
    def weight(self) -> tuple[Tensor, Tensor | None]:
        """W of a dense MLP, [d_model, d_ff], and its bias."""
        weight, bias = self.sites.mlp_weight(self._model, self._number)
        return weight.cpu(), None if bias is None else bias.cpu()

    @cached_property
    def mixture(self) -> PlainMixture | None:
        """The mixture of experts, None in a dense block."""
        experts, kept = self._layer.experts, self._kept
        if experts is None:
            return None
        weights = [*experts.weight(self._model), None, None]
        if self._layer.neurons is not None:
            weights[2:] = self.sites.mlp_weight(self._model, self._number)
        call = MixtureInput(kept["read"], kept["choice"], kept["router"], kept.get("a"), kept.get("gate"))
        module = self._model.get_submodule(experts.module)
        return PlainMixture(module, call, *(None if one is None else one.cpu() for one in weights))  # type: ignore[arg-type]

    @property
    def recorded_peaks(self) -> tuple[Tensor, Tensor]:
        """The peaks that were recorded, and the experts that they are of, −1 for none, [token, peak]."""
        neuron = self._recorded["peak_neuron"][:, self._number]
        expert = self._recorded["peak_expert"][:, self._number] if "peak_expert" in self._recorded else None
        found = (neuron, np.full_like(neuron, -1) if expert is None else expert)
        return torch.from_numpy(found[0]).long(), torch.from_numpy(found[1]).long()

    @cached_property
    def attention(self) -> tuple[Tensor, Tensor] | None:
        """The model's own weights, [head, query, key], and what each query may see; None where it shows none."""
        if "weights" not in self._kept:
            return None
        weights, mask = self._kept["weights"][0].cpu(), self._kept.get("mask")
        seen = torch.ones(weights.shape[1:], dtype=torch.bool).tril()
        if mask is not None:
            mask = mask[0, 0].cpu()
            shown = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            seen &= shown if bool(shown.diagonal().all()) else ~shown  # MPT's says what is hidden
        return weights, seen

    @property
    def has_learned_sink(self) -> bool:
        """Whether what a row of weights lacks of 1 went to a learned sink: then its mass was recorded."""
        null = self._recorded.get("attn_null")
        return null is not None and not np.isnan(null[:, self._number]).all()

    @property
    def flow(self) -> Tensor:
        """What reaches W_O, [token, heads × head width]."""
        return self._kept["flow"]

    @property
    def out_weight(self) -> Tensor | None:
        """W_O, [d_model, heads × head width]; None where it is no plain matrix."""
        assert self._layer.attn_out is not None
        projection = self._model.get_submodule(self._layer.attn_out)
        if not isinstance(projection.weight, Tensor):
            return None
        weight = projection.weight.detach().cpu()
        return weight.T if type(projection).__name__ == "Conv1D" else weight

    def compared(self, name: str, wanted: Tensor) -> Values:
        """How far what was streamed of this block is from [row, width]; nothing where it was not."""
        if name not in self._recorded or not is_streamed(name):
            return {}
        values = as_numbers(np.asarray(self._recorded[name][:, self._number]))
        wanted = widened(wanted.float(), values.shape[1])
        difference = relative_difference(values[:, None], wanted.numpy()[:, None], QUANTITIES[name])
        return {DIFFERENCE + name: torch.from_numpy(difference[:, 0])}
