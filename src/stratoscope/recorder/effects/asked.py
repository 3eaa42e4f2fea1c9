"""What is asked about total effects, checked before anything is loaded. No torch."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope import defaults, names
from stratoscope.errors import UsageError, refuse_unknown
from stratoscope.names import Baseline
from stratoscope.trace.arguments import at_least
from stratoscope.trace.format import place

MOST_ABLATED = 512  # of each kind: they are stored in the receipt


@dataclass(frozen=True)
class EffectSettings:
    """From where total effects are counted, and how.

    Attributes
    ----------
    baseline
        What activations are compared with.
    mean_of
        The trace that holds the means; None where they are taken from the prompts themselves.
    steps
        At how many points of the way from the baseline gradients are taken; 1 = first order.
    calibration
        How many effects of each kind are compared with really ablating; 0 = none.
    """

    baseline: Baseline = defaults.BASELINE
    mean_of: Path | None = None
    steps: int = defaults.EFFECT_STEPS
    calibration: int = defaults.CALIBRATION

    @property
    def first_pass(self) -> bool:
        """Whether all prompts are run once before anything is recorded, for their means."""
        return self.baseline == "mean" and self.mean_of is None

    @property
    def planned(self) -> dict[str, Any]:
        """What the plan of the trace will hold of it, known before the model is loaded."""
        return {"baseline": self.baseline, "effect_steps": self.steps, "calibration": self.calibration}


def effect_settings(
    record: Collection[str],
    baseline: str | None,
    mean_of: str | Path | None,
    steps: int | None,
    calibration: int | None,
    part: tuple[int, int] | None,
) -> EffectSettings | None:
    """The arguments of a verb about total effects, checked; None where none are recorded.

    Parameters
    ----------
    record
        The recorded groups.
    baseline, mean_of, steps, calibration, part
        As those of `capture`; None where nothing was said.

    Raises
    ------
    InputError
        One is of no use, or does not go with another.
    """
    given = {"baseline": baseline, "mean_of": mean_of, "effect_steps": steps, "calibration": calibration}
    idle = next((name for name, value in given.items() if value is not None), None)
    if names.EFFECTS not in record:
        if idle:
            fix = f"Record them: --record {names.EFFECTS}."
            raise UsageError("no total effects are recorded", where=idle, fix=fix)
        return None
    baseline = defaults.BASELINE if baseline is None else baseline
    refuse_unknown(baseline, names.BASELINES, "baseline", where="baseline")
    steps = at_least(1, defaults.EFFECT_STEPS if steps is None else steps, "effect_steps")
    calibration = at_least(0, defaults.CALIBRATION if calibration is None else calibration, "calibration")
    if calibration > MOST_ABLATED:
        fix = f"Use at most {MOST_ABLATED}: intervals hardly become narrower."
        raise UsageError(f"{calibration:,} of each kind are too many to store", where="calibration", fix=fix)
    if mean_of is not None and baseline != "mean":
        raise UsageError(
            "means are compared with nothing else", where="mean_of", fix="Use --baseline mean, or leave it out."
        )
    if mean_of is not None and not isinstance(mean_of, str | os.PathLike):
        raise UsageError("it is no path of a trace", where="mean_of", fix='Give a path such as "means.trace".')
    if mean_of is not None:
        place.refuse_absent(Path(mean_of))
    if baseline == "mean" and mean_of is None and part is not None:
        raise UsageError(
            "the means are those of all prompts, and a part does not run all of them",
            where="baseline",
            fix="Give --mean-of with a trace of the same model that holds the group prompts, the same for every part.",
        )
    return EffectSettings(baseline, None if mean_of is None else Path(mean_of), steps, calibration)  # type: ignore[arg-type]
