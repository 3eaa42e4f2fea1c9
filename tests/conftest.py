"""For all tests: every error has the form of one, and a process that was started with Ctrl-C ignored hears it again."""

from __future__ import annotations

import re
import signal
from typing import Any

import stratoscope.errors


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _hold_the_form_of_errors()


def _hold_the_form_of_errors() -> None:
    make = stratoscope.errors.StratoscopeError.__init__

    def checked(self: Any, what: str, *, where: str = "", fix: str = "") -> None:
        assert not fix or fix.endswith((".", "?")), f"the next step ends with a full stop: {fix!r}"
        assert not fix[:1].islower(), f"the next step begins with a capital: {fix!r}"
        assert not where.endswith("."), f"a place is no sentence: {where!r}"
        assert not re.fullmatch(r"[-+]?\d[\d.,]*", where), f"a place is no bare value: {where!r}"
        make(self, what, where=where, fix=fix)

    stratoscope.errors.StratoscopeError.__init__ = checked  # type: ignore[method-assign]
