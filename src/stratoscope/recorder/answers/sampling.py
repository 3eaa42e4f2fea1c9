"""The random numbers with which answers are sampled: those of a seed, and of each prompt by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers that begin with the seed; the process's random state is as before afterwards."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type):
        torch.manual_seed(seed)
        yield


class OwnStreams(TorchFunctionMode):
    """While open, the tokens of each prompt are drawn with numbers of its own, so not with those of its batch."""

    def __init__(self, seed: int, ids: Sequence[str], device: torch.device) -> None:
        super().__init__()
        self._streams = []
        for identity in ids:
            digest = hashlib.sha256(f"{seed} {identity}".encode()).digest()
            self._streams.append(torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big")))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.multinomial:
            return func(*args, **kwargs)
        probabilities: Tensor = args[0]
        rows = zip(probabilities[:, None], self._streams, strict=True)
        return torch.cat([func(row, *args[1:], **kwargs, generator=stream) for row, stream in rows])
