"""Group `norms`: how large the writes into the residual stream are, and how they point."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.products import runs
from stratoscope.recorder.reduce.scratch import Held, Layers, Scratch, cut, norms_into, pieces, quotient
from stratoscope.recorder.reduce.shared import Shared

_WRITES = {"attn": s.ATTN_WRITE, "mlp": s.MLP_WRITE}


class NormReducer:
    """The norms of the neurons and of the MLP's output, and the norm, ratio and cosine of every write.

    A write is held against the residual that it is added to: the block's input for attention and for a parallel MLP,
    and input + attention write, as the model itself computes it, for a sequential MLP. What a block does not have (a
    mixer, an MLP) is NaN there. Without `norm_of_neurons` ‖a‖ is measured by whoever else looks at the neurons.
    """

    kinds = frozenset({s.BLOCK_IN, s.BLOCK_OUT, s.ATTN_WRITE, s.MIDDLE, s.MLP_WRITE, s.NEURONS, s.MLP_OUT})

    def __init__(self, shared: Shared, *, norm_of_neurons: bool) -> None:
        self._scratch, self._products, layers = shared.scratch, shared.products, shared.sites.layers
        self._layers = len(layers)
        self._missing = {write: shared.sites.without(kind) for write, kind in _WRITES.items()}
        self._out: dict[str, Layers] = {}
        self._base: Held | None = None  # the residual that the next write is added to
        self._norm_of_neurons = norm_of_neurons
        self._written = {n for n, layer in enumerate(layers) if _same_tensor(layer.mlp_out, layer.mlp_write)}

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        self._out = {
            "mlp_out_norm": self._scratch.by_layer("mlp_out_norm", self._layers, batch.rows),
            "neuron_norms": neuron_norms(self._scratch, self._layers, batch.rows),
        }

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        layer = site.layer
        match site.kind:
            case s.BLOCK_IN | s.MIDDLE:
                self._base = Held(site, tensor)
            case s.BLOCK_OUT:
                self._base = None
            case s.NEURONS:
                if self._norm_of_neurons:
                    norms_into(self._out["neuron_norms"][layer][0], tensor)
            case s.MLP_OUT:
                if layer not in self._written:
                    norms_into(self._out["mlp_out_norm"][layer], tensor)
            case s.ATTN_WRITE:
                self._write("attn", layer, tensor)
            case s.MLP_WRITE:
                self._write("mlp", layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the neurons of a mixture of experts."""
        for part in pieces(mixture.routed.flatten(1)):
            norms_into(cut(self._out["neuron_norms"][layer][0], part), mixture.neurons(part))

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out, self._base = {}, None

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, rows]."""
        out = self._scratch.together(self._out)
        of_mlp = {"neuron_norm": out["neuron_norms"][:, 0], "mlp_out_norm": out["mlp_out_norm"]}
        found: dict[str, Tensor] = {}
        for write, missing in self._missing.items():
            if len(missing) == self._layers:
                continue
            norm, dot, base = self._products.result(write)
            if write == "mlp":
                for run in runs(self._written):
                    of_mlp["mlp_out_norm"][run] = norm[run]
                found |= of_mlp
            ratio, cosine = quotient(norm, base), quotient(dot, norm * base).clamp(-1, 1)
            of_write = {f"{write}_write_norm": norm, f"{write}_write_ratio": ratio, f"{write}_write_cos": cosine}
            for values in (*of_write.values(), *(of_mlp.values() if write == "mlp" else ())):
                for run in runs(missing):
                    values[run] = torch.nan
            found |= of_write
        return found

    def _write(self, name: str, layer: int, write: Tensor) -> None:
        assert self._base is not None
        self._products.add(name, layer, write, self._base.get())


def neuron_norms(scratch: Scratch, layers: int, rows: int) -> Layers:
    """Room for ‖a‖ and for the norm of all |a_i|‖W_i‖, [2, rows] of each layer: the same for all who ask."""
    return scratch.by_layer("neuron_norms", layers, 2, rows)


def _same_tensor(one: Site | None, other: Site | None) -> bool:
    """Whether two sites are one tensor under two names."""
    if one is None or other is None:
        return False
    return (one.module, one.side, one.key, one.scale) == (other.module, other.side, other.key, other.scale)
