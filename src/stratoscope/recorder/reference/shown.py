"""What a replay is shown of one block: whole tensors on the CPU, padding left out, and what was recorded to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.sites import LayerSites, ModelSites
from stratoscope.names import QUANTITIES, is_streamed
from stratoscope.recorder.reference.differences import DIFFERENCE, relative_difference
from stratoscope.recorder.reference.experts import MixtureInput, PlainMixture
from stratoscope.recorder.reference.explained import Explained
from stratoscope.recorder.reference.formulas import Values, widened
from stratoscope.recorder.reference.lenses import ShownLenses
from stratoscope.trace.format.shards import as_numbers


class ShownEnds(NamedTuple):
    """What entered the first block, what left the last; the targets and lenses, if anything of them was recorded."""

    first: Tensor
    last: Tensor
    explained: Explained | None
    lenses: ShownLenses | None = None


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
    explained
        The targets, if contributions to their logits were recorded.
    lenses
        The lenses, if what they read was recorded.

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
        explained: Explained | None = None,
        lenses: ShownLenses | None = None,
    ) -> None:
        self.model, self.sites, self.number, self._kept, self._recorded = model, sites, number, kept, recorded
        self.explained, self.lenses = explained, lenses
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
        weight, bias = self.sites.mlp_weight(self.model, self.number)
        return weight.cpu(), None if bias is None else bias.cpu()

    @cached_property
    def mixture(self) -> PlainMixture | None:
        """The mixture of experts, None in a dense block."""
        experts, kept = self._layer.experts, self._kept
        if experts is None:
            return None
        weights = [*experts.weight(self.model), None, None]
        if self._layer.neurons is not None:
            weights[2:] = self.sites.mlp_weight(self.model, self.number)
        call = MixtureInput(kept["read"], kept["choice"], kept["router"], kept.get("a"), kept.get("gate"))
        module = self.model.get_submodule(experts.module)
        return PlainMixture(module, call, *(None if one is None else one.cpu() for one in weights))  # type: ignore[arg-type]

    @property
    def recorded_peaks(self) -> tuple[Tensor, Tensor]:
        """The peaks that were recorded, and the experts that they are of, −1 for none, [token, peak]."""
        neuron = self._recorded["peak_neuron"][:, self.number]
        expert = self._recorded["peak_expert"][:, self.number] if "peak_expert" in self._recorded else None
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
    def applied(self) -> tuple[Tensor, Tensor] | None:
        """The weights that multiply values, [head, query, key], and these, [head, key, width]; None where not seen."""
        if "applied" not in self._kept:
            return None
        weights, values = (self._kept[name].double().flatten(0, -3).cpu() for name in ("applied", "values"))
        return weights, values.repeat_interleave(len(weights) // len(values), 0)

    def recorded(self, name: str) -> Tensor:
        """What was recorded of this block."""
        return torch.from_numpy(self._recorded[name][:, self.number])

    @property
    def has_learned_sink(self) -> bool:
        """Whether what a row of weights lacks of 1 went to a learned sink: then its mass was recorded."""
        null = self._recorded.get("attn_null")
        return null is not None and not np.isnan(null[:, self.number]).all()

    @property
    def flow(self) -> Tensor:
        """What reaches W_O, [token, heads × head width]."""
        return self._kept["flow"]

    @property
    def out_weight(self) -> Tensor | None:
        """W_O, [d_model, heads × head width]; None where it is no plain matrix."""
        assert self._layer.attn_out is not None
        projection = self.model.get_submodule(self._layer.attn_out)
        if not isinstance(projection.weight, Tensor):
            return None
        weight = projection.weight.detach().cpu()
        return weight.T if type(projection).__name__ == "Conv1D" else weight

    @property
    def out_bias(self) -> Tensor | None:
        """The bias of W_O."""
        assert self._layer.attn_out is not None
        bias = getattr(self.model.get_submodule(self._layer.attn_out), "bias", None)
        return bias.detach().cpu() if isinstance(bias, Tensor) else None

    @property
    def factors(self) -> tuple[float, float]:
        """What the writes of attention and of the MLP are multiplied by."""
        writes = (self._layer.attn_write, self._layer.mlp_write)
        return tuple(1.0 if write is None else write.scale for write in writes)  # type: ignore[return-value]

    @property
    def output(self) -> Tensor:
        """What the MLP's last map gives, in front of a norm and a factor."""
        if self.mixture is not None:
            return self.mixture.output
        weight, bias = self.weight
        found = self.a.double() @ weight.double().T
        return found if bias is None else found + bias.double()

    def columns_times(self, rows: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        """What gives ⟨direction, a_i W_:,i⟩ of every neuron at some rows, and the biases there."""
        if self.mixture is not None:
            return self.mixture.columns_times(rows)
        weight, bias = self.weight
        a = self.a[rows].double()
        return lambda direction: (direction @ weight.double()) * a[:, None], bias

    def compared(self, name: str, wanted: Tensor) -> Values:
        """How far what was streamed of this block is from [row, width]; nothing where it was not."""
        if name not in self._recorded or not is_streamed(name):
            return {}
        values = as_numbers(np.asarray(self._recorded[name][:, self.number]))
        wanted = widened(wanted.float(), values.shape[1])
        difference = relative_difference(values[:, None], wanted.numpy()[:, None], QUANTITIES[name])
        return {DIFFERENCE + name: torch.from_numpy(difference[:, 0])}
