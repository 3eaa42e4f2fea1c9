"""One family of errors: what went wrong, where, and what to do next."""

from __future__ import annotations


class StratoscopeError(Exception):
    """Something a person can act on; shown as one line, without a traceback.

    Parameters
    ----------
    what
        What is wrong, in one clause.
    where
        The file, line, prompt, layer or option concerned.
    fix
        What to do next.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(": ".join(part for part in (where, what) if part) + (f". {fix}" if fix else ""))


class InputError(StratoscopeError):
    """A file or an argument that a person gave cannot be used."""


class TraceError(StratoscopeError):
    """A trace on disk cannot be opened, is damaged, or is being written by somebody else."""


class ModelError(StratoscopeError):
    """A model cannot be loaded, or its inner places could not be found and proved."""


class CaptureError(StratoscopeError):
    """What was recorded would not be what happened."""


class OutOfMemory(CaptureError):
    """A batch does not fit into memory; a smaller one might."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, to be put into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch on any device, or this package says that memory has run out."""
    words = str(error)
    return isinstance(error, (MemoryError, OutOfMemory)) or "can't allocate memory" in words or "out of memory" in words
