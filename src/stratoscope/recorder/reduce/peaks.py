"""Group `peaks`: the neurons that write most at each token, and how much of the MLP's output they are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from stratoscope.kernels import MOST_PEAKS, peaks_room
from stratoscope.model import sites as s
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.compiled import has_kernel, kernel_for
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.norms import neuron_norms
from stratoscope.recorder.reduce.products import runs
from stratoscope.recorder.reduce.scratch import Layers, cut, norms_into, pieces, quotient
from stratoscope.recorder.reduce.shared import Shared
from stratoscope.recorder.reduce.topk import largest

_FOUND = ("peak_neuron", "peak_value", "peak_write")
WEIGHT_CACHE_BYTES = 2**30  # transposed weights kept between batches; layers beyond it are transposed each time


class PeakReducer:
    """The k neurons of largest |a_i|·‖W_:,i‖₂ with their signed a_i, and what share of the MLP's output they explain.

    `peak_share` = Σ_S (|a_i|‖W_i‖)² / Σ_all; `peak_explained` = ⟨W_S a_S, W a⟩ / ‖W a‖², where W a is the output of the
    MLP's last linear map without its bias: a bias is nobody's activity. Neurons of experts count with the weight that
    the router gives them; a block without MLP has none (−1, NaN).
    """

    kinds = frozenset({s.NEURONS, s.MLP_OUT})

    def __init__(self, shared: Shared, pair: str) -> None:
        model, sites = self._model, self._sites = shared.model, shared.sites
        self._k = shared.top_k
        self._scratch, self._products, self._pair = shared.scratch, shared.products, pair
        self._layers = range(len(sites.layers))
        self._missing = sites.without(s.MLP_OUT)
        self._mixed = [layer.experts is not None for layer in sites.layers]
        self._biases: dict[int, Tensor | None] = {}
        self._column_norms: dict[int, Tensor] = {}
        self._factors: dict[int, Tensor] = {}  # 1 and the column norms: what makes ‖a‖ and the strengths of a
        self._rows_of: dict[int, Tensor | None] = {}
        self._firsts: dict[torch.device, Tensor] = {}  # where each row's peaks begin
        self._no_bias = torch.zeros(sites.d_model)
        left = WEIGHT_CACHE_BYTES
        for layer in (n for n in self._layers if not self._mixed[n] and n not in self._missing):
            weight, bias = sites.mlp_weight(model, layer)  # one at a time: weights may wait on disk
            self._biases[layer] = None if bias is None else bias.float()  # taken off in float32 whatever the output is
            self._rows_of[layer], left = _cached_rows(weight, left)
            norms = self._column_norms[layer] = torch.linalg.vector_norm(weight, dim=0, dtype=torch.float32)
            self._factors[layer] = torch.stack((torch.ones_like(norms), norms))[:, None]
        self._out: dict[str, Layers] = {}

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        layers, rows, get = len(self._layers), batch.rows, self._scratch.by_layer
        self._out = {"neuron_norms": neuron_norms(self._scratch, layers, rows)}
        self._out |= {name: get(name, layers, rows, self._k) for name in ("peak_value", "peak_write")}
        self._out["peak_neuron"] = get("peak_neuron", layers, rows, self._k, dtype=torch.int64)
        if any(self._mixed):
            self._out["peak_expert"] = get("peak_expert", layers, rows, self._k, dtype=torch.int64)

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        if self._mixed[site.layer]:
            return
        reduce = self._strongest if site.kind == s.NEURONS else self._explained
        reduce(site.layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the neurons of a mixture of experts."""
        out = {name: values[layer] for name, values in self._out.items()}
        columns_of = self._k * self._sites.d_model  # numbers of a row's columns of W
        for part in pieces(mixture.routed.flatten(1), copies=1 + columns_of // mixture.weights.routed_width):
            a, factors = mixture.neurons(part), mixture.factors(part)
            strength = (a * factors * mixture.column_norms(part)).abs_()
            norms_into(cut(out["neuron_norms"][1], part), strength)
            neuron, value, write, expert = (cut(out[name], part) for name in (*_FOUND, "peak_expert"))
            places = largest(strength, self._k, out=(write, neuron))[1].clone()
            torch.gather(a, 1, places, out=value)
            for one, found in zip((expert, neuron), mixture.named(part, places), strict=True):
                one.copy_(found)
            columns = mixture.weights.write_of(expert, neuron)
            written = torch.einsum("tk,tkd->td", (a * factors).gather(1, places), columns)
            self._products.add(self._pair, layer, written, mixture.unbiased(part), part)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._out = {}

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [layer, rows] and [layer, rows, k]."""
        out = self._scratch.together(self._out)
        _, dot, output_norm = self._products.result(self._pair)
        found: dict[str, Tensor] = {name: out[name].int() for name in ("peak_neuron", "peak_expert") if name in out}
        if "peak_expert" in found:
            for run in runs(n for n in self._layers if not self._mixed[n]):
                found["peak_expert"][run] = -1
        total = out["neuron_norms"][:, 1].square()
        found |= {
            "peak_value": out["peak_value"],
            "peak_write": out["peak_write"],
            "peak_share": quotient(out["peak_write"].square().sum(-1), total).clamp(max=1),
            "peak_explained": quotient(dot, output_norm.square()),
        }
        for values in found.values():
            for run in runs(self._missing):
                values[run] = torch.nan if values.is_floating_point() else -1
        return found

    def _strongest(self, layer: int, a: Tensor) -> None:
        norms, found = self._out["neuron_norms"][layer], [self._out[name][layer] for name in _FOUND]
        compiled = kernel_for("peaks", a) if self._k <= MOST_PEAKS else None
        if compiled is not None:
            rows, width = a.shape
            room = self._scratch.get("strengths of a row", peaks_room(width)).data_ptr()
            out = [one.data_ptr() for one in (*norms, *found)]
            compiled(a.data_ptr(), rows, width, self._column_norms[layer].data_ptr(), self._k, room, *out)
            return
        for part in pieces(a, copies=2):
            neuron, value, write = (cut(one, part) for one in found)
            some = cut(a, part)
            both = self._scratch.get("a and strength", 2, *some.shape, device=a.device)
            torch.mul(some, self._factors[layer], out=both)
            exact, strength = both.unbind(0)
            strength.abs_()
            torch.linalg.vector_norm(both, dim=-1, out=cut(norms, part, axis=1))
            largest(strength, self._k, out=(write, neuron))
            torch.gather(exact, 1, neuron, out=value)

    def _explained(self, layer: int, y: Tensor) -> None:
        rows_of, bias = self._transposed(layer), self._biases[layer]
        neuron, value = (self._out[name][layer] for name in _FOUND[:2])
        compiled = kernel_for("explained", y, rows_of)
        if compiled is not None:
            _, dot, output_norm = (one.data_ptr() for one in self._products.of(self._pair, layer))
            offset = self._no_bias if bias is None else bias
            room = self._scratch.get("output of a row", y.shape[1]).data_ptr()
            given = (y.data_ptr(), *y.shape, offset.data_ptr(), rows_of.data_ptr(), self._k)
            compiled(*given, neuron.data_ptr(), value.data_ptr(), room, dot, output_norm)
            return
        rows_of = rows_of.float()
        for part in pieces(y):
            output = cut(y, part)
            if bias is not None:
                output = torch.sub(output, bias, out=self._scratch.get("unbiased", *output.shape, device=y.device))
            written = embedding_bag(
                cut(neuron, part).view(-1),
                rows_of,
                self._firsts_of(output),
                per_sample_weights=cut(value, part).view(-1),
                mode="sum",
            )
            self._products.add(self._pair, layer, written, output, part)

    def _firsts_of(self, rows: Tensor) -> Tensor:
        """0, k, 2 k, …, one of each row."""
        count, device = len(rows), rows.device
        known = self._firsts.get(device)
        if known is None or len(known) < count:
            known = self._firsts[device] = torch.arange(0, count * self._k, self._k, device=device)
        return cut(known, slice(0, count))

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
