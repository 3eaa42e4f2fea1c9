"""What every reduction shares: reused scratch, pieces that fit into it, tensors held between two sites of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.compiled import kernel_for
from stratoscope.recorder.reduce.mixture import Mixture

_CACHE_BYTES = 2**21  # what a CPU core keeps close: longer tensors are reduced in pieces of this size
_BYTES_ELSEWHERE = 2**28  # … and on other devices, where large operators are fast and memory is dear


class Reducer(Protocol):
    """Turns the tensors of a batch's sites into quantities.

    `kinds` are the kinds of sites it wants to see; `result` maps names of quantities to float or integer tensors whose
    first axis is layer or depth and whose second is the batch's rows (valid and padding) or, for prompt quantities,
    its prompts.
    """

    kinds: frozenset[str]

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Reduce one site's tensor, [rows, width]; of a block with a mixture of experts not its neurons."""

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Reduce the mixture of experts of one block."""

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""

    def result(self) -> Mapping[str, Tensor]:
        """The quantities of the batch; valid until the next `begin`."""


class Scratch:
    """Named tensors that are allocated once and grow only when a larger batch comes.

    Fresh tensors above some 128 KiB are mapped anew by the operating system each time, which costs more than the
    arithmetic in them.

    Parameters
    ----------
    device
        Where the results come together.
    layers
        Where each layer is reduced, if not there.
    """

    def __init__(self, device: torch.device, layers: Sequence[torch.device] = ()) -> None:
        self.device, self._places = device, list(layers)
        self._one_device = set(layers) <= {device}
        self._flat: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self._last: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def get(
        self, name: str, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Tensor:
        """An uninitialised tensor of that shape; what it held under the same name on that device is lost."""
        key = name, device or self.device, dtype
        last = self._last.get(key)
        if last is not None and last.shape == shape:
            return last
        size = torch.Size(shape).numel()
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            flat = self._flat[key] = torch.empty(size, dtype=dtype, device=key[1])
        found = self._last[key] = flat[:size].view(shape)
        return found

    def by_layer(self, name: str, layers: int, *shape: int, dtype: torch.dtype = torch.float32) -> Layers:
        """Uninitialised tensors of that shape, one a layer, each on its layer's device.

        Of the L+1 places of the residual stream, the first is with the first layer and each other where its layer is.
        """
        if self._one_device:
            whole = self.get(name, layers, *shape, dtype=dtype)
            return Layers(whole.unbind(0), whole)
        places = [*self._places[: layers - len(self._places)], *self._places]
        parts = [self.get(f"{name}/{n}", *shape, dtype=dtype, device=place) for n, place in enumerate(places)]
        return Layers(parts)

    def together(self, out: Mapping[str, Layers]) -> dict[str, Tensor]:
        """What `by_layer` gave, as ordinary tensors on one device."""
        return {name: layers.together(self.device) for name, layers in out.items()}

    def clear(self) -> None:
        """Let go of everything."""
        self._flat.clear()
        self._last.clear()

    def float32(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor itself if it is float32, else a float32 copy in scratch."""
        if tensor.dtype == torch.float32:
            return tensor
        return self.get(name, *tensor.shape, device=tensor.device).copy_(tensor)


class Layers:
    """Tensors of equal shape, one a layer, each on its layer's device; `whole` where they are parts of one."""

    def __init__(self, parts: Sequence[Tensor], whole: Tensor | None = None) -> None:
        self._parts, self._whole = parts, whole

    def __getitem__(self, layer: int) -> Tensor:
        return self._parts[layer]

    def together(self, device: torch.device) -> Tensor:
        """[layers, …] on one device."""
        if self._whole is not None:
            return self._whole
        return torch.stack([part.to(device) for part in self._parts])


class Held:
    """A tensor kept from one site to a later one of the same block, proved not to have been changed in between."""

    def __init__(self, site: Site, tensor: Tensor) -> None:
        self._site, self._tensor, self._version = site, tensor, tensor._version

    @property
    def is_intact(self) -> bool:
        """Whether the model has not written into it since."""
        return self._tensor._version == self._version

    def get(self) -> Tensor:
        """The tensor as it was; CaptureError if the model has written into it since."""
        if not self.is_intact:
            raise CaptureError(
                "the model overwrites this tensor before its block ends",
                where=str(self._site),
                fix="This architecture cannot be recorded with the group norms: use --record residual,peaks,prompts.",
            )
        return self._tensor


def bytes_at_once(device: torch.device) -> int:
    """How much scratch a reduction may use at once."""
    return _CACHE_BYTES if device.type == "cpu" else _BYTES_ELSEWHERE


def pieces(tensor: Tensor, *, copies: int = 1) -> Iterator[slice]:
    """Cut a tensor's rows so that float32 copies of a piece are no more than is used at once."""
    rows, width = tensor.shape
    step = max(16, bytes_at_once(tensor.device) // (4 * copies * width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def cut(tensor: Tensor, rows: slice, *, axis: int = 0) -> Tensor:
    """Some rows of a tensor; the tensor itself where they are all: a view costs as much as a small operator."""
    length = tensor.shape[axis]
    if rows.start == 0 and rows.stop == length:
        return tensor
    return tensor.narrow(axis, rows.start, rows.stop - rows.start)


def norms_into(out: Tensor, tensor: Tensor) -> None:
    """L2 norm of each row, accumulated in float32; `out` is contiguous."""
    compiled = kernel_for("norms", tensor)
    if compiled is not None:
        compiled(tensor.data_ptr(), *tensor.shape, out.data_ptr())
        return
    torch.linalg.vector_norm(tensor, dim=-1, dtype=torch.float32, out=out)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio; NaN, which means undefined, where the denominator is zero."""
    return torch.where(denominator > 0, numerator / denominator, torch.nan)
