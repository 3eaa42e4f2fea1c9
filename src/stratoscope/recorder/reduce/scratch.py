"""What every reduction shares: float32 arithmetic in reused scratch, and tensors held between two sites of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.compiled import kernel_for
from stratoscope.recorder.reduce.mixture import Mixture

_CACHE_BYTES = 2**21  # what a CPU core keeps close: longer tensors are reduced in pieces of this size


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
        self.one_device = set(layers) <= {device}
        self._flat: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def get(
        self, name: str, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> Tensor:
        """An uninitialised tensor of that shape; what it held under the same name on that device is lost."""
        size = torch.Size(shape).numel()
        key = name, device or self.device, dtype
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            flat = self._flat[key] = torch.empty(size, dtype=dtype, device=key[1])
        return flat[:size].view(shape)

    def by_layer(self, name: str, layers: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor [layers, *shape]; with several devices each layer's part is on its own device.

        Of the L+1 places of the residual stream, the first is with the first layer and each other where its layer is.
        """
        if self.one_device:
            return self.get(name, layers, *shape, dtype=dtype)
        places = [*self._places[: layers - len(self._places)], *self._places]
        parts = [self.get(f"{name}/{n}", *shape, dtype=dtype, device=place) for n, place in enumerate(places)]
        return cast(Tensor, Layers(parts))

    def together(self, out: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `by_layer` gave, as ordinary tensors on one device."""
        if self.one_device:
            return out
        return {name: cast(Layers, layers).together(self.device) for name, layers in out.items()}

    def clear(self) -> None:
        """Let go of everything."""
        self._flat.clear()

    def float32(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor itself if it is float32, else a float32 copy in scratch."""
        if tensor.dtype == torch.float32:
            return tensor
        return self.get(name, *tensor.shape, device=tensor.device).copy_(tensor)


class Layers:
    """Tensors of equal shape on several devices, indexed like one tensor [layer, …]."""

    def __init__(self, parts: list[Tensor]) -> None:
        self._parts = parts

    def __getitem__(self, place: int | tuple[int, slice]) -> Tensor:
        layer, *rest = place if isinstance(place, tuple) else (place,)
        return self._parts[layer][tuple(rest)]

    def __setitem__(self, place: int | tuple[int, slice], value: Tensor | float) -> None:
        self[place][...] = value

    def together(self, device: torch.device) -> Tensor:
        """[layers, …] on one device."""
        return torch.stack([part.to(device) for part in self._parts])


class Held:
    """A tensor kept from one site to a later one of the same block, proved not to have been changed in between."""

    def __init__(self, site: Site, tensor: Tensor) -> None:
        self._site, self._tensor, self._version = site, tensor, tensor._version

    def get(self) -> Tensor:
        """The tensor as it was; CaptureError if the model has written into it since."""
        if self._tensor._version != self._version:
            raise CaptureError(
                "the model overwrites this tensor before its block ends",
                where=str(self._site),
                fix="This architecture cannot be recorded with the group norms: use --record residual,peaks,prompts",
            )
        return self._tensor


def pieces(tensor: Tensor) -> Iterator[slice]:
    """Cut a tensor's rows so that a piece, as float32, fits into a CPU core's cache; other devices get one piece."""
    rows, width = tensor.shape
    step = max(16, _CACHE_BYTES // (4 * width)) if tensor.device.type == "cpu" else max(1, rows)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def norms_into(out: Tensor, tensor: Tensor) -> None:
    """L2 norm of each row, accumulated in float32; `out` is contiguous."""
    compiled = kernel_for("norms", tensor)
    if compiled is not None:
        compiled(tensor.data_ptr(), *tensor.shape, out.data_ptr())
        return
    torch.linalg.vector_norm(tensor, dim=-1, dtype=torch.float32, out=out)


def write_into(norm: Tensor, dot: Tensor, base_norm: Tensor, write: Tensor, base: Tensor, scratch: Scratch) -> None:
    """Norms of each row of a write and of what it is added to, and their dot product, in float32."""
    compiled = kernel_for("writes", write, base)
    if compiled is not None:
        addresses = (norm.data_ptr(), dot.data_ptr(), base_norm.data_ptr())
        compiled(write.data_ptr(), base.data_ptr(), *write.shape, *addresses)
        return
    norms_into(norm, write)
    norms_into(base_norm, base)
    dots_into(dot, write, base, scratch)


def dots_into(out: Tensor, one: Tensor, other: Tensor, scratch: Scratch) -> None:
    """Dot product of each pair of rows, in float32."""
    if one.dtype == other.dtype == torch.float32:
        torch.linalg.vecdot(one, other, dim=-1, out=out)
        return
    for part in pieces(one):
        torch.linalg.vecdot(
            scratch.float32("one", one[part]), scratch.float32("other", other[part]), dim=-1, out=out[part]
        )


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio; NaN, which means undefined, where the denominator is zero."""
    return torch.where(denominator > 0, numerator / denominator, torch.nan)
