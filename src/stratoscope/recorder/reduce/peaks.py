"""Group `peaks`: the neurons that write most at each token, and how much of the MLP's output they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from stratoscope.kernels import MOST_PEAKS, peaks_room
from stratoscope.model import sites as s
from stratoscope.model.sites import ModelSites, Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.compiled import has_kernel, kernel_for
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.scratch import Scratch, dots_into, norms_into, pieces, quotient
from stratoscope.recorder.reduce.topk import largest

_FOUND = ("write_norm", "peak_neuron", "peak_value", "peak_write")
_EXPLAINED = ("peak_neuron", "peak_value", "peak_dot", "output_norm")
WEIGHT_CACHE_BYTES = 2**30  # transposed weights kept between batches; layers beyond it are transposed each time


class PeakReducer:
    """The k neurons of largest |a_i|·‖W_:,i‖₂ with their signed a_i, and what share of the MLP's output they explain.

    `peak_share` = Σ_S (|a_i|‖W_i‖)² / Σ_all; `peak_explained` = ⟨W_S a_S, W a⟩ / ‖W a‖², where W a is the output of the
    MLP's last linear map without its bias: a bias is nobody's activity. Neurons of experts count with the weight that
    the router gives them; a block without MLP has none (−1, NaN).
    """

    kinds = frozenset({s.NEURONS, s.MLP_OUT})

    def __init__(self, model: nn.Module, sites: ModelSites, top_k: int, scratch: Scratch) -> None:
        self._model, self._sites, self._k, self._scratch = model, sites, top_k, scratch
        self._layers = range(len(sites.layers))
        self._missing = sites.without(s.MLP_OUT)
        self._mixed = [layer.experts is not None for layer in sites.layers]
        self._biases: dict[int, Tensor | None] = {}
        self._column_norms: dict[int, Tensor] = {}
        self._rows_of: dict[int, Tensor | None] = {}
        self._no_bias = torch.zeros(sites.d_model)
        left = WEIGHT_CACHE_BYTES
        for layer in (n for n in self._layers if not self._mixed[n] and n not in self._missing):
            weight, self._biases[layer] = sites.mlp_weight(model, layer)  # one at a time: weights may wait on disk
            self._rows_of[layer], left = _cached_rows(weight, left)
            self._column_norms[layer] = torch.linalg.vector_norm(weight, dim=0, dtype=torch.float32)
        self._out: dict[str, Tensor] = {}

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        layers, rows, get = len(self._layers), batch.rows, self._scratch.by_layer
        self._out = {name: get(name, layers, rows) for name in ("write_norm", "peak_dot", "output_norm")}
        self._out["neuron_norm"] = get("neuron_norm", layers, rows)  # the very one of NormReducer
        self._out |= {name: get(name, layers, rows, self._k) for name in ("peak_value", "peak_write")}
        self._out["peak_neuron"] = get("peak_neuron", layers, rows, self._k, dtype=torch.int64)
        if any(self._mixed):
            self._out["peak_expert"] = get("peak_expert", layers, rows, self._k, dtype=torch.int64)
            for layer in self._layers:
                self._out["peak_expert"][layer] = -1
        for name, values in self._out.items():
            for layer in self._missing:
                values[layer] = -1 if name in ("peak_neuron", "peak_expert") else torch.nan

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        if self._mixed[site.layer]:
            return
        reduce = self._strongest if site.kind == s.NEURONS else self._explained
        reduce(site.layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the neurons of a mixture of experts."""
        out = {name: values[layer] for name, values in self._out.items()}
        for part in pieces(mixture.routed.flatten(1)):
            a, factors = mixture.neurons(part), mixture.factors(part)
            strength = (a * factors * mixture.column_norms(part)).abs_()
            norms_into(out["write_norm"][part], strength)
            out["peak_write"][part], places = largest(strength.contiguous(), self._k)
            out["peak_value"][part] = a.gather(1, places)
            out["peak_expert"][part], out["peak_neuron"][part] = mixture.named(part, places)
            columns = mixture.weights.write_of(out["peak_expert"][part], out["peak_neuron"][part])
            written = torch.einsum("tk,tkd->td", (a * factors).gather(1, places), columns)
            output = mixture.unbiased(part)
            dots_into(out["peak_dot"][part], written, output, self._scratch)
            norms_into(out["output_norm"][part], output)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out = {}

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, rows] and [layer, rows, k]."""
        out = self._scratch.together(self._out)
        experts = {"peak_expert": out["peak_expert"].int()} if "peak_expert" in out else {}
        return {
            "peak_neuron": out["peak_neuron"].int(),
            **experts,
            "peak_value": out["peak_value"],
            "peak_write": out["peak_write"],
            "peak_share": quotient(out["peak_write"].square().sum(-1), out["write_norm"].square()).clamp(max=1),
            "peak_explained": quotient(out["peak_dot"], out["output_norm"].square()),
        }

    def _strongest(self, layer: int, a: Tensor) -> None:
        compiled = kernel_for("peaks", a) if self._k <= MOST_PEAKS else None
        if compiled is not None:
            rows, width = a.shape
            room = self._scratch.get("strengths of a row", peaks_room(width)).data_ptr()
            out = [self._out[name][layer].data_ptr() for name in ("neuron_norm", *_FOUND)]
            compiled(a.data_ptr(), rows, width, self._column_norms[layer].data_ptr(), self._k, room, *out)
            return
        norms_into(self._out["neuron_norm"][layer], a)
        for part in pieces(a):
            strength = self._scratch.get("strength", *a[part].shape, device=a.device)
            torch.mul(a[part], self._column_norms[layer], out=strength).abs_()
            norms_into(self._out["write_norm"][layer, part], strength)
            writes, neurons = largest(strength, self._k)
            self._out["peak_write"][layer, part] = writes
            self._out["peak_neuron"][layer, part] = neurons
            self._out["peak_value"][layer, part] = a[part].gather(1, neurons)

    def _explained(self, layer: int, y: Tensor) -> None:
        rows_of, bias = self._transposed(layer), self._biases[layer]
        compiled = kernel_for("explained", y, rows_of)
        if compiled is not None:
            neuron, value, *out = (self._out[name][layer].data_ptr() for name in _EXPLAINED)
            offset = self._no_bias if bias is None else bias.float()
            room = self._scratch.get("output of a row", y.shape[1]).data_ptr()
            given = (y.data_ptr(), *y.shape, offset.data_ptr(), rows_of.data_ptr(), self._k, neuron, value)
            compiled(*given, room, *out)
            return
        rows_of = rows_of.float()
        for part in pieces(y):
            output = self._scratch.float32("output", y[part])
            if bias is not None:
                output = torch.sub(output, bias, out=self._scratch.get("unbiased", *output.shape, device=y.device))
            written = embedding_bag(
                self._out["peak_neuron"][layer, part],
                rows_of,
                per_sample_weights=self._out["peak_value"][layer, part],
                mode="sum",
            )
            dots_into(self._out["peak_dot"][layer, part], written, output, self._scratch)
            norms_into(self._out["output_norm"][layer, part], output)

    def _transposed(self, layer: int) -> Tensor:
        """Wᵀ, [d_ff, d_model]: a neuron's write is then one contiguous row; in float32 unless a kernel reads it."""
        rows_of = self._rows_of[layer]
        if rows_of is not None:
            return rows_of
        weight, _ = self._sites.mlp_weight(self._model, layer)
        return self._scratch.get("transposed", *weight.T.shape, device=weight.device).copy_(weight.T)


def _cached_rows(weight: Tensor, left: int) -> tuple[Tensor | None, int]:
    """Wᵀ where it fits into what is left of the budget, and what is left then; in float32 unless a kernel reads it."""
    dtype = weight.dtype if has_kernel("explained", weight.dtype, weight.device) else torch.float32
    free = weight.dtype == dtype and weight.T.is_contiguous()
    cost = 0 if free else dtype.itemsize * weight.numel()
    return (weight.T.to(dtype).contiguous(), left - cost) if cost <= left else (None, left)
