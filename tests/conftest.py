"""For all tests: errors, notes and receipts are sentences; a process that was started with Ctrl-C ignored hears it."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import stratoscope.errors
import stratoscope.trace.format.receipt
import stratoscope.trace.notes
from sentences import is_sentence

_READ_BACK = {"read_notes", "_dataclass"}  # what stands in a file was made elsewhere


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share: organisms are trained in it."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "organisms"


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _hold_the_form_of_errors()
    _hold_the_form_of_notes()
    _hold_the_form_of_receipts()


def _hold_the_form_of_errors() -> None:
    make = stratoscope.errors.StratoscopeError.__init__

    def checked(self: Any, what: str, *, where: str = "", fix: str = "") -> None:
        assert not fix or is_sentence(fix), f"the next step is no sentence: {fix!r}"
        assert not where.endswith("."), f"a place is no sentence: {where!r}"
        assert not re.fullmatch(r"[-+]?\d[\d.,]*", where), f"a place is no bare value: {where!r}"
        make(self, what, where=where, fix=fix)

    stratoscope.errors.StratoscopeError.__init__ = checked  # type: ignore[method-assign]


def _hold_the_form_of_notes() -> None:
    make = stratoscope.trace.notes.Note.__init__

    def checked(self: Any, id: str, severity: str, text: str, *states: Any, **named: Any) -> None:
        maker, caller = sys._getframe(1), sys._getframe(2)  # of a generator it is the second that has a name
        ours = str(maker.f_globals["__name__"]).startswith("stratoscope.")
        ours = ours and not {maker.f_code.co_name, caller.f_code.co_name} & _READ_BACK
        assert not ours or is_sentence(text), f"a note is a sentence: {text!r}"
        make(self, id, severity, text, *states, **named)

    stratoscope.trace.notes.Note.__init__ = checked  # type: ignore[method-assign]


def _hold_the_form_of_receipts() -> None:
    line = stratoscope.trace.format.receipt.receipt_line

    def checked(receipt: Any) -> str:
        unlike = [limit for limit in receipt["limits"] if not is_sentence(limit)]
        assert not unlike, f"a limit is a sentence: {unlike[0]!r}"
        return line(receipt)

    stratoscope.trace.format.receipt.receipt_line = checked
