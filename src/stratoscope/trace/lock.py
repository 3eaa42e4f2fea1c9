"""One writer at a time: a lock file beside the trace that a killed process cannot leave behind locked."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from stratoscope.errors import TraceError


class TraceLock:
    """Holds `<trace>.lock` from construction to `release`.

    Raises
    ------
    TraceError
        When another process (or this one) is writing the trace, or the folder cannot be written.
    """

    def __init__(self, trace: Path) -> None:
        self.path = trace.with_name(trace.name + ".lock")
        self._descriptor = self._acquire(trace)

    def _acquire(self, trace: Path) -> int:
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                raise TraceError(
                    f"cannot write here ({error.strerror})", where=str(trace), fix="Choose a folder you can write to."
                ) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise TraceError(
                    "another process is writing this trace",
                    where=str(trace),
                    fix="Wait until it has finished, or choose another output.",
                ) from None
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)  # its holder removed the file between our open and our lock

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def is_ours(self) -> bool:
        """Whether the file is still the one that was locked: without it, another writer would not be refused."""
        return self.held and self._is_current(self._descriptor)

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Remove the lock file and let others write."""
        if self.held:
            if self.is_ours():  # another's is left to it
                with suppress(OSError):  # a file without its lock hinders nobody
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1
