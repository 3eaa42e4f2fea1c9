"""Measures the residual stream: how long it is, and how what leaves a block lies to what entered it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from stratoscope.model import sites as s
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.scratch import Held
from stratoscope.recorder.reduce.shared import Shared

Quantities = Mapping[str, Tensor]


class Stream(NamedTuple):
    """‖x‖ before each block and behind the last, [depth, rows]; ⟨input, output⟩ of each block, [layer, rows]."""

    norm: Tensor
    product: Tensor


class ResidualReducer:
    """Hands the measured stream of each batch to who makes quantities of it.

    A block's input has to be there when the block ends: it is copied until it is known that the block leaves it as it
    was.
    """

    kinds = frozenset({s.BLOCK_IN, s.BLOCK_OUT})

    def __init__(self, shared: Shared, pair: str, quantities: Callable[[Stream], Quantities]) -> None:
        self._shared, self._pair, self._quantities = shared, pair, quantities
        self._rows = 0
        self._entered: Held | None = None
        self._copy: Tensor | None = None
        self._left_intact: set[int] = set()  # blocks

    def begin(self, batch: Batch) -> None:
        """Nothing is there yet."""
        self._rows = batch.rows

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]."""
        if site.kind == s.BLOCK_IN:
            self._entered = Held(site, tensor)
            self._copy = None if site.layer in self._left_intact else tensor.clone()
            return
        assert self._entered is not None
        if self._copy is not None and self._entered.is_intact:
            self._left_intact.add(site.layer)
        before = self._entered.get() if self._copy is None else self._copy
        self._shared.products.add(self._pair, site.layer, tensor, before)
        self._entered = self._copy = None

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Nothing of it."""

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._entered = self._copy = None

    def result(self) -> Quantities:
        """The quantities of the batch, [layer or depth, rows]."""
        after, product, before = self._shared.products.result(self._pair)
        norm = self._shared.scratch.get("residual norm", len(after) + 1, self._rows)
        norm[0], norm[1:] = before[0], after  # a block's input is the output of the one before: proved
        return self._quantities(Stream(norm, product))
