"""What this machine has, and the most that this process has used of it."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PIECE, _WRITTEN = 2**22, 2**27
_GROUPS = (  # a container's memory: its limit, and what is used of it
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def memory_used() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say (no /proc)."""
    return _status("VmRSS")


def most_memory_used() -> int:
    """The most bytes of memory that this process has held, since it began or since `forget_most_used`."""
    known = _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return known if known is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_most_used(devices: Sequence[torch.device]) -> None:
    """Measure anew the most that is held, here and on devices, where that can be; what was freed is given back."""
    for device in cards(devices):
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        _FORGET.write_text("5")


def memory_free() -> int | None:
    """Bytes that can still be had, here or in the container that this process is in; None where nobody says."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    for limit, used in _GROUPS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            found.append(int(limit.read_text("ascii")) - int(used.read_text("ascii")))
    return min(found, default=None)


# --- disk -----------------------------------------------------------------------------------------------------------


def disk_free(folder: Path) -> int:
    """Bytes that can still be written there."""
    return shutil.disk_usage(folder).free


def durable_bytes_per_second(folder: Path, most: int) -> float:
    """How fast a disk takes bytes for good: measured on 128 MiB, or on `most` if that is less."""
    content = os.urandom(min(most, _PIECE))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(max(1, min(most, _WRITTEN) // _PIECE)):
            file.write(content)
        os.fsync(file.fileno())
        return file.tell() / (time.perf_counter() - start)


# --- accelerators ---------------------------------------------------------------------------------------------------


def cards(devices: Sequence[torch.device]) -> list[torch.device]:
    """Those that keep count of their memory, each once."""
    return sorted({device for device in devices if device.type == "cuda"}, key=str)


def most_card_memory_used(devices: Sequence[torch.device]) -> int:
    """The most bytes that tensors have held on them, since `forget_most_used`."""
    return sum(torch.cuda.max_memory_allocated(device) for device in cards(devices))


def card_memory_free(devices: Sequence[torch.device]) -> int:
    """Bytes that can still be had on them, with what this process holds in reserve."""
    reserved = sum(
        torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) for device in cards(devices)
    )
    return reserved + sum(torch.cuda.mem_get_info(device)[0] for device in cards(devices))


def finish(devices: Sequence[torch.device]) -> None:
    """Wait until they have done what they were given."""
    for device in cards(devices):
        torch.cuda.synchronize(device)


def _status(key: str) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        lines = _STATUS.read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
    return None
