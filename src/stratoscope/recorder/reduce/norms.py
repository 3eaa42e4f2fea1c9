"""Groups `norms` and `residual`: how large the residual stream and the writes into it are, and how they point."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.sites import ModelSites, Site
from stratoscope.names import NORMS, PEAKS
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.products import Products, runs
from stratoscope.recorder.reduce.scratch import Held, Layers, Scratch, cut, norms_into, pieces, quotient

_WRITES = {"attn": s.ATTN_WRITE, "mlp": s.MLP_WRITE}
PAIRS = tuple(_WRITES)  # a write, and the residual it is added to


class NormReducer:
    """`resid_norm`, and the norm, ratio and cosine of every write with the residual it is added to.

    That residual is the block's input for attention and for a parallel MLP, and input + attention write, as the model
    itself computes it, for a sequential MLP. What a block does not have (a mixer, an MLP) is NaN there.
    """

    def __init__(self, sites: ModelSites, record: Collection[str], scratch: Scratch, products: Products) -> None:
        self._sites, self._record, self._scratch, self._products = sites, record, scratch, products
        every = {s.BLOCK_IN, s.BLOCK_OUT, s.ATTN_WRITE, s.MIDDLE, s.MLP_WRITE, s.NEURONS, s.MLP_OUT}
        self.kinds = frozenset(every if NORMS in record else {s.BLOCK_IN, s.BLOCK_OUT})
        self._missing = {write: sites.without(kind) for write, kind in _WRITES.items()}
        self._out: dict[str, Layers] = {}
        self._base: Held | None = None  # the residual that the next write is added to
        self._norm_of_neurons = PEAKS not in record  # whoever looks for the strongest has them in hand anyway
        # whether the norm of what enters a block (at the end: leaves the last) comes with what is added to it
        self._norm_comes = [NORMS in record and layer.attn_write is not None for layer in sites.layers] + [False]
        self._written = {n for n, layer in enumerate(sites.layers) if _same_tensor(layer.mlp_out, layer.mlp_write)}

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        layers, rows, get = len(self._sites.layers), batch.rows, self._scratch.by_layer
        self._out = {"resid_norm": get("resid_norm", layers + 1, rows)}
        if NORMS in self._record:
            self._out["mlp_out_norm"] = get("mlp_out_norm", layers, rows)
            self._out["neuron_norms"] = neuron_norms(self._scratch, layers, rows)

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        layer = site.layer
        match site.kind:
            case s.BLOCK_IN:
                self._base = Held(site, tensor)
                if layer == 0 and not self._norm_comes[0]:
                    norms_into(self._out["resid_norm"][0], tensor)
            case s.MIDDLE:
                self._base = Held(site, tensor)
            case s.BLOCK_OUT:
                self._base = None
                if not self._norm_comes[layer + 1]:  # a block's input is the output of the one before: proved
                    norms_into(self._out["resid_norm"][layer + 1], tensor)
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
        if NORMS in self._record:
            for part in pieces(mixture.routed.flatten(1)):
                norms_into(cut(self._out["neuron_norms"][layer][0], part), mixture.neurons(part))

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out, self._base = {}, None

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer or depth, rows]; the residual's norms always, to show what is finite."""
        out = self._scratch.together(self._out)
        found = {"resid_norm": out["resid_norm"]}
        if NORMS not in self._record:
            return found
        of_mlp = {"neuron_norm": out["neuron_norms"][:, 0], "mlp_out_norm": out["mlp_out_norm"]}
        for write, missing in self._missing.items():
            if len(missing) == len(self._sites.layers):
                continue
            norm, dot, base = self._products.result(write)
            if write == "attn":
                for run in runs(n for n, comes in enumerate(self._norm_comes) if comes):
                    found["resid_norm"][run] = base[run]
            else:
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
