"""What is asked about lenses, checked before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope import names
from stratoscope.errors import UsageError


@dataclass(frozen=True)
class LensSettings:
    """With which lenses the residual stream is read, and where.

    Attributes
    ----------
    file
        Of a fitted lens, read beside the logit lens; None = the logit lens alone.
    every_position
        Whether every token is read, rather than the last of each prompt.
    """

    file: Path | None = None
    every_position: bool = False

    @property
    def planned(self) -> dict[str, Any]:
        """What the plan of the trace will hold of it, known before the model is loaded."""
        return {"positions": names.ALL_POSITIONS if self.every_position else names.ANSWER_POSITION}


def lens_settings(record: Sequence[str], lens: Any, positions: str | None) -> LensSettings | None:
    """The arguments of a verb about lenses, checked; None where the group is not recorded.

    Raises
    ------
    UsageError
        A fitted lens is given that nothing reads.
    """
    if names.LENSES in record:
        return LensSettings(None if lens is None else Path(lens), positions == names.ALL_POSITIONS)
    if lens is not None:
        fix = f"Record the group {names.LENSES}, or leave it out."
        raise UsageError("nothing that is recorded is read with a lens", where="lens", fix=fix)
    return None
