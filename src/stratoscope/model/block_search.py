"""The search in one block: which two module outputs, added to the block's input, give the block's output."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model import sites as s
from stratoscope.model.calls import BlockCall, Call, same
from stratoscope.model.devices import weights_at_hand
from stratoscope.model.experts import Routed
from stratoscope.model.mlp_search import Mlp, find_dense, find_mixture
from stratoscope.model.sites import LayerSites, Site, replay

ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24, torch.float64: 2.0**-53}

# what classes of modules that move information between tokens are called, once the model's own name is taken off
MIXER = re.compile("attention|attn|mixer|mamba|shortconv|deltanet|recurrent|rwkv|retention", re.IGNORECASE)
ATTENTION = re.compile("attention|attn", re.IGNORECASE)
_CHECKED_TOKENS = 8  # enough to tell W a from anything else


@dataclass(frozen=True)
class Write:
    """An output that is added to the residual, times a constant of the block."""

    call: Call
    scale: float


class BlockSearch:
    """The search in one block.

    Parameters
    ----------
    model, layer
        The model and the block's number.
    block
        What was called in the block on the probe prompt.
    routed
        Path of each fused experts module of the block to what its call was.
    """

    def __init__(self, model: nn.Module, layer: int, block: BlockCall, routed: Mapping[str, Routed]) -> None:
        assert block.call.x is not None
        assert block.call.y is not None
        self.model, self.layer, self.block, self.routed = model, layer, block, routed
        self.out = block.call.y
        self.x = block.call.x.to(self.out.dtype)  # Mamba keeps the residual in float32 from the first block on
        paths = [call.path for call in block.inner]
        self.calls = [call for call in block.inner if paths.count(call.path) == 1]
        self.mixers = _mixers(model, block.call.path)

    def sites(self) -> LayerSites | None:
        """The block's sites; None where nothing adds up."""
        mixers: list[Call | None] = [*self._writes(of_mixer=True)] or [None]
        mlps: list[Call | None] = [*self._writes(of_mixer=False)] or [None]
        for scale, exact, mixer, mlp in itertools.product(self._scales(), (True, False), mixers, mlps):
            attn_write, mlp_write = (None if call is None else Write(call, scale) for call in (mixer, mlp))
            added = self._order(attn_write, mlp_write, exact=exact)
            if added is None:
                continue
            inner = None if mlp is None else self._inner(mlp)
            if mlp is None or inner is not None:
                return self._describe(attn_write, mlp_write, inner, *added, exact)
        return None

    def _describe(
        self,
        attn: Write | None,
        mlp: Write | None,
        inner: Mlp | None,
        order: str,
        middle: Call | None,
        exact: bool,
    ) -> LayerSites:
        block = self.block.call
        last = None if inner is None else inner.last
        source = None if attn is None else self._source(attn.call)
        return LayerSites(
            block_in=self._input(s.BLOCK_IN, block),
            block_out=self._output(s.BLOCK_OUT, block),
            attn_write=None if attn is None else self._output(s.ATTN_WRITE, attn.call, attn.scale),
            mlp_write=None if mlp is None else self._output(s.MLP_WRITE, mlp.call, mlp.scale),
            neurons=None if last is None else self._input(s.NEURONS, last),
            mlp_out=None if inner is None else self._output(s.MLP_OUT, inner.out),
            middle=None if middle is None else self._input(s.MIDDLE, middle),
            experts=None if inner is None else inner.experts,
            shared_gate=None if inner is None or inner.gate is None else self._output(s.SHARED_GATE, inner.gate),
            mixer="" if source is None else self._mixer_class(source),
            attn_out=None if source is None else source.path,
            order=order,
            post_norm=mlp is not None and inner is not None and not same(inner.out.y, mlp.call.y),
            transposed=inner is not None and inner.transposed,
            replay=s.BIT_EQUAL if exact else s.WITHIN_ROUNDING,
        )

    def _input(self, kind: str, call: Call) -> Site:
        return Site(self.layer, kind, call.path, "input", call.x_key, s.AXES.get(kind, s.RESIDUAL_AXES))

    def _output(self, kind: str, call: Call, scale: float = 1.0) -> Site:
        return Site(self.layer, kind, call.path, "output", call.y_key, s.AXES.get(kind, s.RESIDUAL_AXES), scale)

    # --- candidates ---------------------------------------------------------------------------------------------------

    def _writes(self, *, of_mixer: bool) -> list[Call]:
        """Outputs as wide as the residual whose last linear map is a mixer's (or is not); of equal ones the last."""
        found: list[Call] = []
        for call in self.calls:
            if not self._is_wide(call):
                continue
            source = self._source(call)
            if source is not None and (self._mixer_of(source) is not None) == of_mixer:
                found = [other for other in found if not same(other.y, call.y)] + [call]
        return found

    def _is_wide(self, call: Call) -> bool:
        return call.y is not None and call.y.numel() == self.x.numel() and call.y.shape[-1] == self.x.shape[-1]

    def _source(self, call: Call) -> Call | None:
        """The last linear map (or fused experts) that ended before this call did, or is it."""
        ended = self.calls[: self.calls.index(call) + 1]
        return next((other for other in reversed(ended) if self.is_map(other) or other.path in self.routed), None)

    def is_map(self, call: Call) -> bool:
        """Whether a call is of a linear map with a floating-point weight."""
        weight = getattr(self.model.get_submodule(call.path), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            return False
        return call.x is not None and call.y is not None and {call.x.shape[-1], call.y.shape[-1]} == {*weight.shape}

    def _mixer_of(self, call: Call) -> str | None:
        """Path of the token mixer that a call belongs to."""
        return next((path for path in self.mixers if call.path == path or call.path.startswith(f"{path}.")), None)

    def _mixer_class(self, source: Call) -> str:
        return type(self.model.get_submodule(self._mixer_of(source) or source.path)).__name__

    def _scales(self) -> list[float]:
        """1, and the numbers that the block keeps: one of them may multiply its writes."""
        kept = vars(self.model.get_submodule(self.block.call.path)).values()
        return [1.0, *dict.fromkeys(value for value in kept if isinstance(value, float) and value not in (0.0, 1.0))]

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _order(self, attn: Write | None, mlp: Write | None, *, exact: bool) -> tuple[str, Call | None] | None:
        """The order of additions that gives the block's output, and the call that reads x + attention, if any does."""
        if attn is None or mlp is None:
            only = attn or mlp
            if only is None:
                return None
            again = self.x + self._like(only)
            return (s.ONE_WRITE, None) if self._is_out(again, self.x, exact=exact) else None
        a, m = self._like(attn), self._like(mlp)
        middle = self.x + a
        later = self.calls[self.calls.index(attn.call) + 1 :]
        reader = next((call for call in later if same(call.x, middle)), None)
        for order in s.ORDERS if reader is None else (s.SEQUENTIAL_ORDER,):
            if self._is_out(replay(self.x, a, m, order), middle, exact=exact):
                return order, reader
        return None

    def _like(self, write: Write) -> Tensor:
        assert write.call.y is not None
        y = write.call.y.reshape(self.x.shape)
        return y if write.scale == 1 else y * write.scale

    def _is_out(self, again: Tensor, middle: Tensor, *, exact: bool) -> bool:
        """Equality, or |error| <= u (|x_mid| + |x_out|) elementwise: what two roundings can do."""
        if exact:
            return same(again, self.out)
        limit = ROUNDING[self.out.dtype] * (middle.double().abs() + self.out.double().abs())
        return bool(((again.double() - self.out.double()).abs() <= limit).all())

    def _inner(self, write: Call) -> Mlp | None:
        """What computes the MLP's write before any norm of it; None where that is not understood."""
        if not self.routed:
            last = self._source(write)
            return find_dense(self, last) if last is not None and self._is_same_or_norm(write, last) else None
        wide = (call for call in self.calls if self._is_wide(call) and self._mixer_of(call) is None)
        outputs = (call for call in wide if self._is_same_or_norm(write, call))
        return next((found for call in outputs if (found := find_mixture(self, call))), None)

    def _is_same_or_norm(self, write: Call, inner: Call) -> bool:
        """Whether the write is the inner output, or what one norm (a module with a vector as weight) makes of it."""
        if same(inner.y, write.y):
            return True
        for call in self.calls:
            weight = getattr(self.model.get_submodule(call.path), "weight", None)
            if isinstance(weight, Tensor) and weight.ndim == 1 and same(call.x, inner.y) and same(call.y, write.y):
                return True
        return False

    def dense_maps(self) -> list[Call]:
        """Linear maps outside the mixers that give something as wide as the residual."""
        return [c for c in self.calls if self._is_wide(c) and self.is_map(c) and self._mixer_of(c) is None]

    def gates(self) -> list[Call]:
        """Linear maps outside the mixers that give one number a token."""
        rows = self.x.shape[:-1].numel()
        return [c for c in self.calls if c.y is not None and c.y.shape[-1] == 1 and c.y.numel() == rows]

    def orientation(self, last: Call) -> bool | None:
        """Whether a map's weight is stored [in, out]; None where its output is not W a + bias (an adapter)."""
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


def _mixers(model: nn.Module, block: str) -> list[str]:
    """Paths of the modules in a block that move information between tokens, by their class."""
    inside = model.get_submodule(block)
    own = _shared_beginning(type(model).__name__, type(inside).__name__)
    return [
        f"{block}.{path}"
        for path, part in inside.named_modules()
        if path and MIXER.search(type(part).__name__.removeprefix(own))
    ]


def _shared_beginning(one: str, other: str) -> str:
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(character for character, _ in equal)
