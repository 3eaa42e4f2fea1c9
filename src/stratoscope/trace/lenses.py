"""The lenses of a trace: ways to read its residual stream as tokens, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOGIT_LENS = "logit"  # unembed(norm(x)); it stands first in every trace that holds lenses


def lens_names(plan: Any, count: int) -> list[str]:
    """Names of the lenses from a trace's plan; their numbers where it does not name them."""
    listed = plan.get("lenses") if isinstance(plan, Mapping) else None
    sound = isinstance(listed, list) and len(listed) == count and all(isinstance(one, str) for one in listed)
    return [*listed] if sound and listed else [f"lens {number}" for number in range(count)]
