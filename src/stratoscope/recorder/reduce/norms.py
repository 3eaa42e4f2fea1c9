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
from stratoscope.recorder.reduce.scratch import Held, Scratch, norms_into, pieces, quotient, write_into

_ROWS_OF = {
    s.ATTN_WRITE: ("attn_write_norm", "attn_dot"),
    s.MLP_WRITE: ("neuron_norm", "mlp_out_norm", "mlp_write_norm", "mlp_dot", "middle"),
}


class NormReducer:
    """`resid_norm`, and the norm, ratio and cosine of every write with the residual it is added to.

    That residual is the block's input for attention and for a parallel MLP, and input + attention write, as the model
    itself computes it, for a sequential MLP. What a block does not have (a mixer, an MLP) is NaN there.
    """

    def __init__(self, sites: ModelSites, record: Collection[str], scratch: Scratch) -> None:
        self._sites, self._record, self._scratch = sites, record, scratch
        every = {s.BLOCK_IN, s.BLOCK_OUT, s.ATTN_WRITE, s.MIDDLE, s.MLP_WRITE, s.NEURONS, s.MLP_OUT}
        self.kinds = frozenset(every if NORMS in record else {s.BLOCK_IN, s.BLOCK_OUT})
        self._missing = {name: sites.without(kind) for kind, rows in _ROWS_OF.items() for name in rows}
        self._out: dict[str, Tensor] = {}
        self._base: Held | None = None  # the residual that the next write is added to
        self._norm_of_neurons = PEAKS not in record  # whoever looks for the strongest has them in hand anyway
        # whether the norm of what enters a block (at the end: leaves the last) comes with what is added to it
        self._norm_comes = [NORMS in record and layer.attn_write is not None for layer in sites.layers] + [False]
        self._written = {n for n, layer in enumerate(sites.layers) if _same_tensor(layer.mlp_out, layer.mlp_write)}

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        layers = len(self._sites.layers)
        self._out = {"resid_norm": self._scratch.by_layer("resid_norm", layers + 1, batch.rows)}
        if NORMS in self._record:
            self._out |= {name: self._scratch.by_layer(name, layers, batch.rows) for name in self._missing}
            for name, missing in self._missing.items():
                for layer in missing:
                    self._out[name][layer] = torch.nan

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
                    norms_into(self._out["neuron_norm"][layer], tensor)
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
                norms_into(self._out["neuron_norm"][layer, part], mixture.neurons(part))

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out, self._base = {}, None

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer or depth, rows]; the residual's norms always, to show what is finite."""
        out = self._scratch.together(self._out)
        found = {"resid_norm": out["resid_norm"]}
        if NORMS not in self._record:
            return found
        before = out["resid_norm"][:-1]
        for number, layer in enumerate(self._sites.layers):
            if layer.parallel:
                out["middle"][number] = before[number]
        for number in self._written:
            out["mlp_out_norm"][number] = out["mlp_write_norm"][number]
        if self._has("mlp_out_norm"):
            found |= {name: out[name] for name in ("neuron_norm", "mlp_out_norm")}
        bases = {"attn": before, "mlp": out["middle"]}
        for write, base in bases.items():
            if not self._has(f"{write}_write_norm"):
                continue
            norm = out[f"{write}_write_norm"]
            found[f"{write}_write_norm"] = norm
            found[f"{write}_write_ratio"] = quotient(norm, base)
            found[f"{write}_write_cos"] = quotient(out[f"{write}_dot"], norm * base).clamp(-1, 1)
        return found

    def _has(self, name: str) -> bool:
        """Whether any block has it."""
        return len(self._missing[name]) < len(self._sites.layers)

    def _write(self, name: str, layer: int, write: Tensor) -> None:
        assert self._base is not None
        out, base = self._out, self._base.get()
        under = (out["middle"] if name == "mlp" else out["resid_norm"])[layer]
        near = under if under.device == write.device else torch.empty_like(under, device=write.device)
        write_into(out[f"{name}_write_norm"][layer], out[f"{name}_dot"][layer], near, write, base, self._scratch)
        if near is not under:  # the residual stream has passed from one device to the next
            under.copy_(near)


def _same_tensor(one: Site | None, other: Site | None) -> bool:
    """Whether two sites are one tensor under two names."""
    if one is None or other is None:
        return False
    return (one.module, one.side, one.key, one.scale) == (other.module, other.side, other.key, other.scale)
