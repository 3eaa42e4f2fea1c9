"""Lengths of pairs of rows and the product between them, in float32, with few operators or in one pass of a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from stratoscope.recorder.reduce.compiled import kernel_for
from stratoscope.recorder.reduce.scratch import Layers, Scratch, bytes_at_once, cut, pieces

_RESULTS = 3  # ‖a‖, ⟨a, b⟩, ‖b‖
_LAID = 4  # a, a, b, b: each times the next is ⟨a, a⟩, ⟨a, b⟩, ⟨b, b⟩


class Products:
    """‖a‖, ⟨a, b⟩ and ‖b‖ of the rows of two tensors, for several named pairs of every block.

    A compiled kernel gives the three at once. Elsewhere the pairs of a block are laid side by side as float32, and all
    are multiplied and summed when the block ends: on an accelerator a small operator costs its launch, whatever it
    computes. What would take much room that way is multiplied as it comes, piece by piece. Nothing is multiplied as
    matrices are: torch may have been told to do that with the 10 or 7 bits of TF32 or bfloat16.

    Parameters
    ----------
    pairs
        Their names.
    layers, width
        Number of blocks; numbers in a row.
    scratch
        Room for the results and what is laid side by side.
    """

    def __init__(self, pairs: Sequence[str], layers: int, width: int, scratch: Scratch) -> None:
        self._slots = {name: slot for slot, name in enumerate(pairs)}
        self._layers, self._width, self._scratch, self._rows = layers, width, scratch, 0
        self._results: dict[str, Layers] = {}
        self._dots: Layers | None = None  # ⟨a, a⟩, ⟨a, b⟩, ⟨b, b⟩ of each pair
        self._multiplied: dict[str, set[int]] = {}  # the layers whose results are still in there
        self._laid: torch.device | None = None  # where pairs of the present block lie

    def begin(self, rows: int) -> None:
        """Make room for a batch."""
        get, self._rows = self._scratch.by_layer, rows
        self._results = {name: get(f"lengths of {name}", self._layers, _RESULTS, rows) for name in self._slots}
        self._dots = get("dots", self._layers, len(self._slots), rows, _RESULTS)
        self._multiplied = {name: set() for name in self._slots}
        self._laid = None

    def add(self, name: str, layer: int, one: Tensor, other: Tensor, rows: slice | None = None) -> None:
        """Take a pair, [rows, width] each; `rows`: which of the batch's, if not all."""
        rows = rows or slice(0, self._rows)
        compiled = kernel_for("writes", one, other)
        if compiled is not None:
            results = [cut(values, rows).data_ptr() for values in self.of(name, layer)]
            norm, dot, other_norm = results
            compiled(one.data_ptr(), other.data_ptr(), *one.shape, norm, dot, other_norm)
            return
        self._multiplied[name].add(layer)
        slot = self._slots[name]
        if self._lay_at_once(one.device):
            torch.stack((one, one, other, other), 1, out=cut(self._side_by_side(one.device)[slot], rows))
            self._laid = one.device
            return
        assert self._dots is not None
        dots = cut(self._dots[layer][slot], rows)
        for part in pieces(one, copies=_LAID + _RESULTS):
            pair = self._scratch.get("pair", part.stop - part.start, _LAID, self._width, device=one.device)
            a, b = cut(one, part), cut(other, part)
            torch.stack((a, a, b, b), 1, out=pair)
            self._multiply(pair, cut(dots, part))

    def end_of_block(self, layer: int) -> None:
        """Multiply what lies side by side."""
        if self._laid is None:
            return
        assert self._dots is not None
        self._multiply(self._side_by_side(self._laid), self._dots[layer])
        self._laid = None

    def of(self, name: str, layer: int) -> tuple[Tensor, ...]:
        """Where ‖a‖, ⟨a, b⟩ and ‖b‖ of a layer belong, [rows] each, for who has them already."""
        return self._results[name][layer].unbind(0)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._results, self._dots, self._laid = {}, None, None

    def result(self, name: str) -> tuple[Tensor, ...]:
        """‖a‖, ⟨a, b⟩ and ‖b‖, [layer, rows] each; anything in layers that had no such pair."""
        results = self._results[name].together(self._scratch.device)
        if self._multiplied[name]:
            assert self._dots is not None
            dots = self._dots.together(self._scratch.device)[:, self._slots[name]]
            for run in runs(self._multiplied[name]):
                torch.sqrt(dots[run, :, 0], out=results[run, 0])
                results[run, 1] = dots[run, :, 1]
                torch.sqrt(dots[run, :, 2], out=results[run, 2])
        return results.unbind(1)

    def _lay_at_once(self, device: torch.device) -> bool:
        return 4 * (_LAID + _RESULTS) * len(self._slots) * self._rows * self._width <= bytes_at_once(device)

    def _multiply(self, laid: Tensor, out: Tensor) -> None:
        """⟨a, a⟩, ⟨a, b⟩ and ⟨b, b⟩ into [.., 3], of what lies in [.., 4, width]."""
        first, second = laid.narrow(-2, 0, _RESULTS), laid.narrow(-2, 1, _RESULTS)
        terms = self._scratch.get("terms", *first.shape, device=laid.device)
        torch.sum(torch.mul(first, second, out=terms), -1, out=out)

    def _side_by_side(self, device: torch.device) -> Tensor:
        """Room for the pairs of one block, [pair, rows, 4, width]."""
        return self._scratch.get("pairs", len(self._slots), self._rows, _LAID, self._width, device=device)


def runs(numbers: Iterable[int]) -> Iterator[slice]:
    """Consecutive numbers as slices."""
    start = stop = -1
    for number in sorted(numbers):
        if number != stop:
            if stop > start:
                yield slice(start, stop)
            start = number
        stop = number + 1
    if stop > start:
        yield slice(start, stop)
