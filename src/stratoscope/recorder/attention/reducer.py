"""A reducer that watches attention itself, besides the sites of blocks: open while forwards are observed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any


class AttentionReducer(ABC):
    """A context manager around what watches attention.

    Attributes
    ----------
    watched
        What is open meanwhile.
    """

    watched: AbstractContextManager[Any]

    def __enter__(self) -> AttentionReducer:
        self.watched.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.watched.__exit__(kind, error, tb)

    @property
    @abstractmethod
    def limits(self) -> list[str]:
        """Where attention is not split, in sentences: found out at first, or in a batch."""
