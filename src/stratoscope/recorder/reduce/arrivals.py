"""Tensors on their way from the device that made them to the host: asked for while the model runs, waited for once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MOST_BYTES = 2**30  # on their way at once; beyond it the host waits, or its memory would hold a whole batch's neurons


class Arrivals:
    """Brings tensors to the host without holding up the device that computes.

    What is on the CPU is there. What is not is copied without anybody waiting, into page-locked memory where the device
    is a CUDA one, and handed over when somebody waits for all.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Callable[[Tensor], None]]] = []
        self._from: set[torch.device] = set()
        self._bytes = 0

    def bring(self, tensor: Tensor, receive: Callable[[Tensor], None]) -> None:
        """Have `receive` called with the tensor on the CPU: at once where it is there, else with `wait`."""
        if tensor.device.type == "cpu":
            receive(tensor)
            return
        there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        there.copy_(tensor, non_blocking=True)
        self._waiting.append((there, receive))
        self._from.add(tensor.device)
        self._bytes += there.nbytes
        if self._bytes > _MOST_BYTES:
            self.wait()

    def wait(self) -> None:
        """Wait until everything has arrived, and hand it over in the order in which it was asked for."""
        for device in self._from:
            torch.accelerator.synchronize(device)
        waiting = self._waiting
        self.forget()
        for tensor, receive in waiting:
            receive(tensor)

    def forget(self) -> None:
        """Let go of what has not been handed over."""
        self._waiting, self._from, self._bytes = [], set(), 0
