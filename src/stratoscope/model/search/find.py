"""Find a model's sites by what its blocks compute: which outputs of which modules add up to the block's output.

No architecture is named here. One probe prompt is run, and in each block the attention write A and the MLP write M are
the module outputs for which x + A + M is the block's output in the model's own dtype and order of additions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError, ModelError
from stratoscope.model import sites as s
from stratoscope.model.experts import Routed, implementation_of, is_fused, why_not
from stratoscope.model.gate import BlockMaps
from stratoscope.model.head import Head, Unproved
from stratoscope.model.hooks import ExpertsHooks
from stratoscope.model.search.block import BlockSearch
from stratoscope.model.search.block_calls import ATTENTION, MIXER
from stratoscope.model.search.calls import BlockCall, Tail, probe, same
from stratoscope.model.search.gate import find_maps
from stratoscope.model.search.head import find_head
from stratoscope.model.sites import LayerSites, ModelSites
from stratoscope.words import capital

_EXPERTS = re.compile("expert|moe(?!.*attention)", re.IGNORECASE)
_SUPPORTED = (
    "Record a model whose blocks add the outputs of modules to a residual stream, as Llama, GPT-2 or Mixtral do."
)


def find_sites(model: nn.Module, input_ids: Tensor) -> ModelSites:
    """Find and check the sites of every block by running one prompt.

    Parameters
    ----------
    model
        A Hugging Face decoder in evaluation mode.
    input_ids
        Integer, shape (1, tokens), on the model's device; at least two tokens.

    Raises
    ------
    ModelError
        A block's output is not its input plus the writes of one token mixer and one MLP; says which block and why.
    CaptureError
        The model computes numbers that are not finite.
    """
    blocks = _block_list(model)
    finder = _Finder(model, len(model.get_submodule(blocks)), tuple(input_ids.shape))  # type: ignore[arg-type]
    with ExpertsHooks(_fused_experts(model, blocks), finder.experts):
        tail = probe(model, blocks, input_ids, finder.block)
    if len(finder.layers) != finder.n_layers:
        raise ModelError(
            f"only {len(finder.layers)} of its {finder.n_layers} blocks ran", where=_name(model), fix=_SUPPORTED
        )
    return ModelSites(
        blocks, tuple(finder.layers), finder.d_model, tuple(finder.widths), finder.head(tail), tuple(finder.maps)
    )


def _fused_experts(model: nn.Module, blocks: str) -> dict[str, nn.Module]:
    return {path: part for path, part in model.named_modules() if path.startswith(f"{blocks}.") and is_fused(part)}


def _name(model: nn.Module) -> str:
    return type(model).__name__


def _block_list(model: nn.Module) -> str:
    """Path of the outermost list of modules that is as long as the text model has layers."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError("is not a Hugging Face model", where=_name(model), fix="Load it with transformers.")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError("is an encoder-decoder", where=_name(model), fix="Record a decoder-only model.")
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and "vision" not in path
    ]
    if not lists:
        raise ModelError(f"has no list of {count} blocks", where=_name(model), fix=_SUPPORTED)
    return str(min(lists, key=lambda path: path.count(".")))


class _Finder:
    """Turns the calls of each block, as they end, into its sites."""

    def __init__(self, model: nn.Module, n_layers: int, ids_shape: tuple[int, ...]) -> None:
        self.model, self.n_layers, self.ids_shape = model, n_layers, ids_shape
        self.layers: list[LayerSites] = []
        self.widths: list[int] = []
        self.maps: list[BlockMaps] = []
        self.d_model = 0
        self._stream: Tensor | None = None  # the last block's output
        self._routed: dict[str, Routed] = {}

    def experts(self, path: str, call: Routed) -> None:
        self._routed[path] = Routed(call.experts.clone(), call.weights.clone(), call.rows.clone(), call.output.clone())

    def block(self, layer: int, block: BlockCall) -> None:
        x, out = block.call.x, block.call.y
        where = f"{_name(self.model)}, block {layer} ({type(self.model.get_submodule(block.call.path)).__name__})"
        if x is None or out is None or x.shape != out.shape or tuple(x.shape[:2]) != self.ids_shape:
            raise ModelError("its input and output are not a residual stream", where=where, fix=_SUPPORTED)
        if not bool(torch.isfinite(out).all()):
            raise CaptureError(
                "the block's output is not finite on the probe prompt",
                where=where,
                fix="The weights or the dtype are broken: check the download, or try --dtype float32.",
            )
        if layer != len(self.layers) or (layer and not same(self._stream, x)):
            raise ModelError("its input is not the output of the block before", where=where, fix=_SUPPORTED)
        self._stream, self.d_model = out, x.shape[-1]
        routed, self._routed = self._routed, {}
        sites = BlockSearch(self.model, layer, block, routed).sites()
        if sites is None:
            raise ModelError(_why_not(self.model, block), where=where, fix=_SUPPORTED)
        self.layers.append(sites)
        self.widths.append(_width(self.model, sites))
        try:
            self.maps.append(find_maps(self.model, block, sites, routed))
        except Exception as error:  # what only some analyses need stops no recording
            self.maps.append(BlockMaps(limits=(f"gate not proved: {_failed(error)}",)))

    def head(self, tail: Tail) -> Head | Unproved:
        """What makes logits of the last block's output."""
        assert self._stream is not None
        try:
            with torch.no_grad():
                return find_head(self.model, self._stream, tail)
        except Exception as error:
            return Unproved(_failed(error))


def _failed(error: Exception) -> str:
    return f"the proof failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _width(model: nn.Module, sites: LayerSites) -> int:
    """Neurons of a block: those of its experts one after the other, then those of its dense or shared MLP."""
    dense = 0 if sites.neurons is None else _last_weight(model, sites).shape[0 if sites.transposed else 1]
    return sites.expert_neurons + dense


def _last_weight(model: nn.Module, sites: LayerSites) -> Tensor:
    assert sites.neurons is not None
    weight = model.get_submodule(sites.neurons.module).weight
    assert isinstance(weight, Tensor)
    return weight


def _why_not(model: nn.Module, block: BlockCall) -> str:
    """The likeliest reason why a block's writes were not found."""
    inside = model.get_submodule(block.call.path)
    kinds = [type(module).__name__ for module in inside.modules()][1:]
    experts = next((part for part in inside.modules() if _EXPERTS.search(type(part).__name__)), None)
    if experts is not None:
        fused = [part for part in inside.modules() if is_fused(part)]
        reason = next((why for part in fused if (why := why_not(part))), None)
        if not reason and any(implementation_of(part) == "eager" for part in fused):
            reason = "computes them in a way of its own: call model.set_experts_implementation('grouped_mm')"
        return (
            f"is a mixture of experts ({type(experts).__name__}) that {reason or 'computes them in a way of its own'}"
        )
    if not any(MIXER.search(kind) for kind in kinds):
        return f"has no attention or other token mixer that is known (it is made of {', '.join(dict.fromkeys(kinds))})"
    if block.inner and same(block.inner[-1].y, block.call.y):
        return (
            f"ends in {block.inner[-1].path.rsplit('.', 1)[-1]}, so what it adds to the residual is rescaled (post-LN)"
        )
    return "its output is not its input plus one write of attention and one of an MLP"


def describe_replay(layers: Sequence[LayerSites]) -> str:
    """How many blocks replayed exactly, in words."""
    exact = sum(layer.replay == s.BIT_EQUAL for layer in layers)
    rest = "" if exact == len(layers) else f", within rounding in {len(layers) - exact}"
    return f"bit-equal in {exact}/{len(layers)} layers{rest}"


def describe_maps(sites: ModelSites) -> dict[str, Any]:
    """What is proved of the head, of the norms in the blocks, and of what makes neurons, for the receipt."""
    norms = [norm for block in sites.maps for norm in block.norms]
    return {
        "head": None if isinstance(sites.head, Unproved) else sites.head.to_json(),
        "block_norms": {"proved": len(norms), "largest_error": max((norm.error for norm in norms), default=0.0)},
        "gates": dict(Counter(str(gate) for block in sites.maps for gate in block.gates)),
    }


def limits(sites: ModelSites) -> list[str]:
    """What of the quantities this model does not have, or has in a way of its own, in sentences."""
    found = [f"head not proved: {sites.head.why}"] if isinstance(sites.head, Unproved) else []
    for limit in dict.fromkeys(limit for block in sites.maps for limit in block.limits):
        layers = [number for number, block in enumerate(sites.maps) if limit in block.limits]
        found.append(f"{in_layers(layers)}: {limit}")
    for name in dict.fromkeys(layer.mixer for layer in sites.layers):
        layers = [number for number, layer in enumerate(sites.layers) if layer.mixer == name]
        if name and not ATTENTION.search(name):
            found.append(
                f"{in_layers(layers)}: attn_write_* is what {name} adds, which is no attention; other attn_* is missing"
            )
    for kind, words in ((s.ATTN_WRITE, "no attention, attn_* is missing"), (s.MLP_OUT, "no MLP, so no neurons")):
        if missing := sites.without(kind):
            found.append(f"{in_layers(missing)}: {words}")
    return [f"{capital(limit)}." for limit in found]


def in_layers(numbers: Sequence[int]) -> str:
    """Layers as a sentence names them: layers 0, 2."""
    return f"layer{'s'[: len(numbers) > 1]} {', '.join(map(str, numbers))}"
