"""Find a model's sites by what its blocks compute: which outputs of which modules add up to the block's output.

No architecture is named here. One probe prompt is run, and in each block the attention write A and the MLP write M are
the module outputs for which x + A + M is the block's output in the model's own dtype and order of additions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError, ModelError
from stratoscope.model import sites as s
from stratoscope.model.calls import BlockCall, Call, probe, same
from stratoscope.model.devices import weights_at_hand
from stratoscope.model.sites import LayerSites, ModelSites, Site, replay

ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24, torch.float64: 2.0**-53}

_ATTENTION = re.compile("attention", re.IGNORECASE)
_EXPERTS = re.compile("expert|moe(?!.*attention)", re.IGNORECASE)
_CHECKED_TOKENS = 8  # enough to tell W a from anything else
_UNSUPPORTED = (
    "Record it with a model whose blocks are attention plus a dense MLP, such as Llama, Mistral, Qwen or Gemma"
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
        The blocks do not add one attention write and one MLP write to a residual stream; says which block and why.
    CaptureError
        The model computes numbers that are not finite.
    """
    blocks = _block_list(model)
    finder = _Finder(model, len(model.get_submodule(blocks)), tuple(input_ids.shape))  # type: ignore[arg-type]
    probe(model, blocks, input_ids, finder.block)
    layers = finder.layers
    if len(layers) != finder.n_layers:
        raise ModelError(
            f"only {len(layers)} of its {finder.n_layers} blocks ran", where=_name(model), fix=_UNSUPPORTED
        )
    weights = [ModelSites(blocks, tuple(layers), finder.d_model, 0).mlp_weight(model, i)[0] for i in range(len(layers))]
    widths = {weight.shape[1] for weight in weights}
    if len(widths) > 1:
        raise ModelError(
            f"its MLPs have different widths ({', '.join(map(str, sorted(widths)))})",
            where=_name(model),
            fix=_UNSUPPORTED,
        )
    return ModelSites(blocks, tuple(layers), finder.d_model, widths.pop())


def _name(model: nn.Module) -> str:
    return type(model).__name__


def _block_list(model: nn.Module) -> str:
    """Path of the outermost list of modules that is as long as the text model has layers."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError("is not a Hugging Face model", where=_name(model), fix="Load it with transformers")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError("is an encoder-decoder", where=_name(model), fix="Record a decoder-only model")
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and "vision" not in path
    ]
    if not lists:
        raise ModelError(f"has no list of {count} blocks", where=_name(model), fix=_UNSUPPORTED)
    return str(min(lists, key=lambda path: path.count(".")))


class _Finder:
    """Turns the calls of each block, as they end, into its sites."""

    def __init__(self, model: nn.Module, n_layers: int, ids_shape: tuple[int, ...]) -> None:
        self.model, self.n_layers, self.ids_shape = model, n_layers, ids_shape
        self.layers: list[LayerSites] = []
        self.d_model = 0
        self._stream: Tensor | None = None  # the last block's output

    def block(self, layer: int, block: BlockCall) -> None:
        x, out = block.call.x, block.call.y
        where = f"{_name(self.model)}, block {layer} ({type(self.model.get_submodule(block.call.path)).__name__})"
        if x is None or out is None or x.shape != out.shape or tuple(x.shape[:2]) != self.ids_shape:
            raise ModelError("its input and output are not a residual stream", where=where, fix=_UNSUPPORTED)
        if not bool(torch.isfinite(out).all()):
            raise CaptureError(
                "the block's output is not finite on the probe prompt",
                where=where,
                fix="The weights or the dtype are broken: check the download, or try --dtype float32",
            )
        if layer != len(self.layers) or (layer and not same(self._stream, x)):
            raise ModelError("its input is not the output of the block before", where=where, fix=_UNSUPPORTED)
        self._stream, self.d_model = out, x.shape[-1]
        sites = _BlockSearch(self.model, layer, block).sites()
        if sites is None:
            raise ModelError(_why_not(self.model, block), where=where, fix=_UNSUPPORTED)
        self.layers.append(sites)


def _why_not(model: nn.Module, block: BlockCall) -> str:
    """The likeliest reason why a block's writes were not found."""
    kinds = [type(module).__name__ for module in model.get_submodule(block.call.path).modules()][1:]
    experts = sorted((kind for kind in kinds if _EXPERTS.search(kind)), key=lambda kind: "xpert" not in kind)
    if experts:
        return f"is a mixture of experts ({experts[0]}), which is not supported yet"
    if not any(_ATTENTION.search(kind) for kind in kinds):
        return f"has no attention (it is made of {', '.join(dict.fromkeys(kinds))})"
    if block.inner and same(block.inner[-1].y, block.call.y):
        return (
            f"ends in {block.inner[-1].path.rsplit('.', 1)[-1]}, so what it adds to the residual is rescaled (post-LN)"
        )
    return "its output is not its input plus one attention write and one write of an MLP's last linear map"


class _BlockSearch:
    """The search in one block."""

    def __init__(self, model: nn.Module, layer: int, block: BlockCall) -> None:
        assert block.call.x is not None
        assert block.call.y is not None
        self.model, self.layer, self.block = model, layer, block
        self.x, self.out = block.call.x, block.call.y
        paths = [call.path for call in block.inner]
        self.calls = [call for call in block.inner if paths.count(call.path) == 1]
        inside = model.get_submodule(block.call.path)
        self.attention = [
            f"{block.call.path}.{path}"
            for path, part in inside.named_modules()
            if _ATTENTION.search(type(part).__name__)
        ]

    def sites(self) -> LayerSites | None:
        """The block's sites; None where nothing adds up."""
        attention, mlp = (self._writes(of_attention=of) for of in (True, False))
        pairs = list(product(attention, mlp))
        for exact in (True, False):
            for attn_write, mlp_write in pairs:
                found = self._order(attn_write, mlp_write, exact=exact)
                last = self._source(mlp_write)
                if found is None or last is None:
                    continue
                transposed = self._orientation(last)
                post_norm = not same(last.y, mlp_write.y)
                if transposed is None or (post_norm and not self._is_norm_of(mlp_write, last)):
                    continue
                return self._describe(attn_write, mlp_write, last, *found, post_norm, transposed, exact)
        return None

    def _describe(
        self,
        attn: Call,
        mlp: Call,
        last: Call,
        order: str,
        middle: Call | None,
        post_norm: bool,
        transposed: bool,
        exact: bool,
    ) -> LayerSites:
        attn_out = self._source(attn)
        assert attn_out is not None
        block = self.block.call
        return LayerSites(
            block_in=Site(self.layer, s.BLOCK_IN, block.path, "input", block.x_key, s.RESIDUAL_AXES),
            block_out=Site(self.layer, s.BLOCK_OUT, block.path, "output", block.y_key, s.RESIDUAL_AXES),
            attn_write=Site(self.layer, s.ATTN_WRITE, attn.path, "output", attn.y_key, s.RESIDUAL_AXES),
            mlp_write=Site(self.layer, s.MLP_WRITE, mlp.path, "output", mlp.y_key, s.RESIDUAL_AXES),
            neurons=Site(self.layer, s.NEURONS, last.path, "input", last.x_key, s.NEURON_AXES),
            mlp_out=Site(self.layer, s.MLP_OUT, last.path, "output", last.y_key, s.RESIDUAL_AXES),
            middle=None
            if middle is None
            else Site(self.layer, s.MIDDLE, middle.path, "input", middle.x_key, s.RESIDUAL_AXES),
            attn_out=attn_out.path,
            order=order,
            post_norm=post_norm,
            transposed=transposed,
            replay=s.BIT_EQUAL if exact else s.WITHIN_ROUNDING,
        )

    # --- candidates ---------------------------------------------------------------------------------------------------

    def _writes(self, *, of_attention: bool) -> list[Call]:
        """Outputs as wide as the residual whose last linear map is attention's (or is not); of equal ones the last."""
        found: list[Call] = []
        for call in self.calls:
            if call.y is None or call.y.numel() != self.x.numel() or call.y.shape[-1] != self.x.shape[-1]:
                continue
            source = self._source(call)
            if source is not None and self._in_attention(source) == of_attention:
                found = [other for other in found if not same(other.y, call.y)] + [call]
        return found

    def _source(self, call: Call) -> Call | None:
        """The last linear map that ended before this call did (or is it)."""
        ended = self.calls[: self.calls.index(call) + 1]
        return next((other for other in reversed(ended) if self._is_map(other)), None)

    def _is_map(self, call: Call) -> bool:
        weight = getattr(self.model.get_submodule(call.path), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            return False
        return call.x is not None and call.y is not None and {call.x.shape[-1], call.y.shape[-1]} == {*weight.shape}

    def _in_attention(self, call: Call) -> bool:
        return any(call.path == path or call.path.startswith(f"{path}.") for path in self.attention)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _order(self, attn: Call, mlp: Call, *, exact: bool) -> tuple[str, Call | None] | None:
        """The order of additions that gives the block's output, and the call that reads x + attention, if any does."""
        a, m = _like(self.x, attn), _like(self.x, mlp)
        middle = self.x + a
        later = self.calls[self.calls.index(attn) + 1 :]
        reader = next((call for call in later if same(call.x, middle)), None)
        for order in s.ORDERS if reader is None else (s.SEQUENTIAL_ORDER,):
            again = replay(self.x, a, m, order)
            if same(again, self.out) or (not exact and _within_rounding(again, self.out, middle)):
                return order, reader
        return None

    def _is_norm_of(self, write: Call, last: Call) -> bool:
        """Whether the write is what one norm (a module with a vector as weight) makes of the last map's output."""
        for call in self.calls:
            weight = getattr(self.model.get_submodule(call.path), "weight", None)
            if isinstance(weight, Tensor) and weight.ndim == 1 and same(call.x, last.y) and same(call.y, write.y):
                return True
        return False

    def _orientation(self, last: Call) -> bool | None:
        """Whether the MLP's last weight is stored [in, out]; None where its output is not W a + bias (an adapter)."""
        module: Any = self.model.get_submodule(last.path)
        assert last.x is not None
        assert last.y is not None
        a, y = (tensor.reshape(-1, tensor.shape[-1])[:_CHECKED_TOKENS] for tensor in (last.x, last.y))
        with weights_at_hand(module):
            stored, bias = module.weight.detach(), getattr(module, "bias", None)
        excess = []
        for transposed, weight in ((False, stored), (True, stored.T)):
            if weight.shape == (y.shape[1], a.shape[1]):
                error = (nn.functional.linear(a, weight, bias) - y).float().abs()
                scale = a.float().norm(dim=-1)[:, None] * torch.linalg.vector_norm(weight, dim=-1, dtype=torch.float32)
                excess.append((float((error - 8 * torch.finfo(y.dtype).eps * scale).max()), transposed))
        worst, transposed = min(excess, default=(1.0, False))
        return transposed if worst <= 0 else None


def _like(x: Tensor, call: Call) -> Tensor:
    assert call.y is not None
    return call.y.reshape(x.shape)


def _within_rounding(again: Tensor, out: Tensor, middle: Tensor) -> bool:
    """|error| <= u (|x_mid| + |x_out|), elementwise: what two roundings can do, and never relative to a write."""
    limit = ROUNDING[out.dtype] * (middle.double().abs() + out.double().abs())
    return bool(((again.double() - out.double()).abs() <= limit).all())


def describe_replay(layers: Sequence[LayerSites]) -> str:
    """How many blocks replayed exactly, in words."""
    exact = sum(layer.replay == s.BIT_EQUAL for layer in layers)
    rest = "" if exact == len(layers) else f", within rounding in {len(layers) - exact}"
    return f"bit-equal in {exact}/{len(layers)} layers{rest}"
