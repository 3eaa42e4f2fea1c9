"""The search in one block: which two module outputs, added to the block's input, give the block's output."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.search.block_calls import BlockCalls
from stratoscope.model.search.calls import Call, same
from stratoscope.model.search.mlp import Mlp, find_dense, find_mixture
from stratoscope.model.sites import LayerSites, Site, replay, unit_roundoff


@dataclass(frozen=True)
class Write:
    """An output that is added to the residual, times a constant of the block."""

    call: Call
    scale: float


class BlockSearch(BlockCalls):
    """The search in one block."""

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
        self, attn: Write | None, mlp: Write | None, inner: Mlp | None, order: str, middle: Call | None, exact: bool
    ) -> LayerSites:
        block = self.block.call
        last = None if inner is None else inner.last
        source = None if attn is None else self.source(attn.call)
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
            attn_transposed=None if source is None or not self.is_map(source) else self.orientation(source),
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
            if not self.is_wide(call):
                continue
            source = self.source(call)
            if source is not None and (self.mixer_of(source) is not None) == of_mixer:
                found = [other for other in found if not same(other.y, call.y)] + [call]
        return found

    def _mixer_class(self, source: Call) -> str:
        return type(self.model.get_submodule(self.mixer_of(source) or source.path)).__name__

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
        limit = unit_roundoff(self.out.dtype) * (middle.double().abs() + self.out.double().abs())
        return bool(((again.double() - self.out.double()).abs() <= limit).all())

    def _inner(self, write: Call) -> Mlp | None:
        """What computes the MLP's write before any norm of it; None where that is not understood."""
        if not self.routed:
            last = self.source(write)
            return find_dense(self, last) if last is not None and self._is_same_or_norm(write, last) else None
        wide = (call for call in self.calls if self.is_wide(call) and self.mixer_of(call) is None)
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
