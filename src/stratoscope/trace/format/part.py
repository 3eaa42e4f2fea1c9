"""Which part of a recording a trace holds, as its plan says it: a run of the prompts of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAN_FIELDS = ("part", "part_prompts")  # the fields of a plan in which the parts of one recording differ


@dataclass(frozen=True)
class Part:
    """A part of a recording.

    Attributes
    ----------
    number, of
        Which of how many, counted from 1.
    prompts
        Places of its prompts in the prompt file, counted from 0.
    whole
        Prompts of the whole recording.
    """

    number: int
    of: int
    prompts: range
    whole: int

    def __str__(self) -> str:
        first, last = self.prompts.start + 1, self.prompts.stop
        return f"part {self.number:,} of {self.of:,} (prompts {first:,}-{last:,} of {self.whole:,})"


def part_of(plan: Any) -> Part | None:
    """The part that a trace's plan describes, None where it describes a whole recording or nothing sound."""
    if not isinstance(plan, Mapping):
        return None
    numbers, bounds = (_pair(plan.get(field)) for field in PLAN_FIELDS)
    whole = plan.get("prompts")
    if numbers is None or bounds is None or type(whole) is not int:
        return None
    sound = 1 <= numbers[0] <= numbers[1] and 0 <= bounds[0] < bounds[1] <= whole
    return Part(*numbers, range(*bounds), whole) if sound else None


def recording_digest(attrs: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the values of a trace: the same for all parts of a recording, and for what they make."""
    plan = attrs.get("plan")
    whole = {key: value for key, value in plan.items() if key not in PLAN_FIELDS} if isinstance(plan, Mapping) else None
    model = attrs.get("model")
    named = [model.get("name"), model.get("weights_sha256")] if isinstance(model, Mapping) else None
    decided = [attrs.get("source"), whole, named]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def planned_prompts(plan: Any) -> int | None:
    """How many prompts a trace will hold when it is complete, None where its plan does not say."""
    if part := part_of(plan):
        return len(part.prompts)
    planned = plan.get("prompts") if isinstance(plan, Mapping) else None
    return planned if isinstance(planned, int) else None


def _pair(value: Any) -> tuple[int, int] | None:
    sound = isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
    return (value[0], value[1]) if sound else None
