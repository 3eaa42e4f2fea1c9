"""Simulated traces that hold contributions to the logit of a target and effects on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

import stratoscope


def explained(*, targets: Sequence[str] = ("Sorry",), record: str = "logits,effects", **sizes: Any) -> xr.Dataset:
    shape = {"prompts": 4, "tokens": (12, 20), "layers": 6, "d_model": 64, "d_ff": 128, "heads": 4}
    return stratoscope.simulate(**{**shape, **sizes}, record=record, targets=targets)
