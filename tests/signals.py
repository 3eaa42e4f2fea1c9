"""Signals in the processes that tests start."""

from __future__ import annotations

import signal


def heed_signals() -> None:
    """Heed what a terminal sends, as `preexec_fn`: under nohup or in the background it is ignored, and inherited so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
