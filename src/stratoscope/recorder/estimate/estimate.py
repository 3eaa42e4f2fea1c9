"""What a recording will take of disk, memory and time, and what to leave out where that is too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What something takes.

    Attributes
    ----------
    disk_bytes
        Of the finished trace.
    memory_bytes, card_memory_bytes
        The most that is held at once, in memory and on accelerators; None where the system does not say.
    seconds
        For all prompts.
    """

    disk_bytes: int
    memory_bytes: int | None
    card_memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a recording will take, measured on its largest batch and on a typical one.

    Attributes
    ----------
    prompts, tokens, batches
        How many; tokens of answers not counted.
    begin_seconds
        What loading and proving the model took.
    model
        The model alone; on disk, the tokens and everything that is not in a group.
    groups
        What each record group adds. They share work, so together they take less time than their sum.
    total
        The whole recording, `begin_seconds` included.
    disk_free, memory_free, card_memory_free
        Bytes that this machine has for it; None where nobody says.
    has_card
        Whether the model computes on an accelerator that keeps count of its memory; without, those bytes are 0.
    answers_at_most
        The most tokens of an answer: where answers are written, everything is what they take at most.
    was_split
        Whether the largest batch did not fit into memory and was run in parts.
    batching
        What is to be said about which prompts run together, in sentences.
    calibration_seconds
        Of the seconds of the group effects, those in which a sample of them is ablated; 0 = none is.
    """

    prompts: int
    tokens: int
    batches: int
    begin_seconds: float
    model: Cost
    groups: Mapping[str, Cost]
    total: Cost
    disk_free: int
    memory_free: int | None
    card_memory_free: int
    has_card: bool
    answers_at_most: int
    was_split: bool
    batching: tuple[str, ...] = ()
    calibration_seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether the disk and the memory suffice."""
        return not self.lacking

    @property
    def lacking(self) -> dict[str, int]:
        """Field of `Cost` to the bytes that are missing."""
        free = {
            "disk_bytes": self.disk_free,
            "memory_bytes": self.memory_free,
            "card_memory_bytes": self.card_memory_free,
        }
        wanted = {name: getattr(self.total, name) for name in free}
        return {
            name: wanted[name] - there for name, there in free.items() if there is not None and wanted[name] > there
        }

    @property
    def advice(self) -> list[str]:
        """What to leave out or make smaller, in sentences; empty where everything fits."""
        found = []
        for field, missing in self.lacking.items():
            if field != "disk_bytes" and self.batches < self.prompts:
                found.append("Use a smaller --batch-size: the largest batch decides how much is held at once.")
            dropped = self._dropped(field, missing)
            kept = [group for group in self.groups if group not in dropped]
            if dropped and kept:
                found.append(f"It fits without {' and '.join(dropped)}: --record {','.join(kept)}.")
            elif field == "disk_bytes":
                found.append("Use fewer prompts, or another disk with -o.")
        return found

    def _dropped(self, field: str, missing: int) -> list[str]:
        """The fewest groups, largest first, without which enough would be left; none where that cannot be."""
        costs = {group: getattr(cost, field) or 0 for group, cost in self.groups.items()}
        dropped: list[str] = []
        for group in sorted(costs, key=lambda one: -costs[one]):
            if missing <= 0 or not costs[group]:
                break
            dropped.append(group)
            missing -= costs[group]
        return dropped if missing <= 0 else []

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, with `fits` and `advice`."""
        return {**asdict(self), "fits": self.fits, "advice": self.advice}
