"""A recording that goes on a little each time it is called, so that several can take turns."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stratoscope.model.from_object import given_model
from stratoscope.model.load import LoadedModel
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.recording import Recording


class Running:
    """A recording, with a model of its own, that goes on by a window each time it is called.

    Parameters
    ----------
    loaded, prompts, out
        The model, which is copied, what it is given, and the trace.
    record, batch_size, **asked
        As `Recording` takes them.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Prompt],
        out: Path,
        *,
        record: tuple[str, ...],
        batch_size: int,
        **asked: Any,
    ) -> None:
        model = given_model(copy.deepcopy(loaded.model), loaded.tokenizer)
        how: dict[str, Any] = {"top_k": 10, "chat": False, "progress": lambda *_: None, **asked}
        recording = Recording(model, prompts, record=record, batch_size=batch_size, **how)
        start = time.perf_counter()
        self._writer = recording.writer(out)
        self._windows = recording.windows(self._writer)
        self._begun, self._left = time.perf_counter() - start, time.monotonic()

    def __call__(self) -> None:
        """Record the next prompts; the time that others took meanwhile brings no commit nearer."""
        self._writer._last_commit += time.monotonic() - self._left
        next(self._windows)
        self._left = time.monotonic()

    def close(self) -> None:
        """Leave the rest."""
        self._windows.close()
        self._writer.close()

    def finish(self) -> float:
        """Seconds that it takes to begin a trace, to commit what is left and to complete it."""
        start = time.perf_counter()
        self._windows.close()
        self._writer.commit()
        self._writer.finish()
        self._writer.close()
        return self._begun + time.perf_counter() - start
