"""Traces by hand that hold what explains the logits of targets."""

from __future__ import annotations

from typing import Any

import xarray as xr
from view_traces import make_trace

from stratoscope import names

SORRY = {"text": "Sorry", "token_id": 5, "against": "Sure", "against_id": 6}
NO = {"text": " No", "token_id": 7, "against": None, "against_id": -1}
PLAN: dict[str, Any] = {"targets": [SORRY, NO], "answer_prefix": "", "positions": "answer"}
OWN: dict[str, Any] = {"targets": "top"}
EXPLAINED = tuple(name for name, row in names.QUANTITIES.items() if row.group in (names.TARGETS, *names.OF_TARGETS))


def explained_trace(*quantities: str, plan: dict[str, Any] = PLAN, **settings: Any) -> xr.Dataset:
    """A trace of these quantities (all that explain logits, where none is named); first tokens are no sinks."""
    count = 1 if plan["targets"] == "top" else len(plan["targets"])
    return make_trace(quantities=quantities or EXPLAINED, targets=count, sink=1.0, plan=plan, **settings)
