"""What a Result of a diff holds of explained logits: tables of contributions and effects, their facts and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.comparison import Comparison
from stratoscope.analysis.results.result import table_of
from stratoscope.trace.arrays import Floats
from stratoscope.trace.calibration import Calibration
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.words import capital, number

_WORDS = {
    "a": "contribution in A",
    "b": "contribution in B",
    "difference": "B − A at the mean of both final norms' factors; of the final norm what the factors did",
}
_MOST_LEFT = 1e-3  # of a logit: what may be left of a difference that its rows explain
_FINAL_NORM = (
    "Direct contributions are compared at the mean of both final norms' factors; what the factors did to all of them "
    "is the row “final norm”."
)
NO_EFFECT = "A direct contribution is no effect: rows behind a changed layer also pass on what that layer changed."


def add_tables(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    """The tables `contributions` and `effects`, where both traces hold what they need."""
    if parts.explained is None:
        return
    if (found := parts.explained.contributions) is not None:
        of: dict[str, Any] = {
            **table_of(names.TARGET, {"target_text": found.targets}),
            **table_of("part", {"part_text": found.part, "part_layer": found.layer}),
            **table_of((names.PROMPT, names.TARGET), {"total": found.total, "unexplained": found.unexplained}),
            **table_of(names.PROMPT, {"final_scale_a": found.scales[0], "final_scale_b": found.scales[1]}),
        }
        for name, words in _WORDS.items():
            of[name] = ((names.PROMPT, names.TARGET, "part"), getattr(found, name), {"long_name": words})
        tables["contributions"] = of
    if (effects := parts.explained.effects) is not None:
        dims = (names.PROMPT, names.TARGET, names.LAYER)
        cells = {}
        for block in effects.a:
            for side, values in (("a", effects.a), ("b", effects.b)):
                cells[f"{block.lower()}_{side}"] = values[block]
            cells[f"{block.lower()}_difference"] = effects.b[block] - effects.a[block]
        targets = table_of(names.TARGET, {"target_text": effects.targets})
        tables["effects"] = {names.LAYER: effects.numbers, **targets, **table_of(dims, cells)}


def summary(parts: Comparison) -> dict[str, Any] | None:
    """Facts of explained logits; None where the traces hold none."""
    found = parts.explained
    if found is None:
        return None
    contributions, effects = found.contributions, found.effects
    of = contributions or effects
    return {
        "refused": found.refused,
        "targets": [] if of is None else of.targets,
        "contributions": contributions is not None,
        "effects": effects is not None,
        "unexplained": None if contributions is None else _largest(contributions.unexplained),
        "calibration": _calibrations(parts) if effects is not None else [],
    }


def notes(parts: Comparison) -> list[Note]:
    """What a reader of contributions and effects must know."""
    found = parts.explained
    if found is None:
        return []
    made = []
    if found.refused:
        what = "Contributions are" if found.effects is not None else "Explained logits are"
        made.append(Note("L29", WARNING, f"{what} not compared: {found.refused}."))
    if found.contributions is not None:
        made += [Note("L29", INFO, _FINAL_NORM), Note("L28", INFO, NO_EFFECT)]
        left = _largest(found.contributions.unexplained)
        if left is not None and left > _MOST_LEFT:
            text = f"The rows leave {number(left)} of a logit unexplained: more than rounding in single precision."
            made.append(Note("L29", WARNING, text))
    if found.effects is not None:
        made += [Note("L28", INFO, f"{side}: {words}") for side, words in zip("AB", _calibrations(parts), strict=True)]
    return made


def _calibrations(parts: Comparison) -> list[str]:
    """How far the effects of MLPs in either trace agree with ablating them."""
    receipts = (one.attrs.get("receipt") for one in (parts.a, parts.b))
    return [capital(Calibration.from_receipt(one).sentence("mlp")) for one in receipts]


def _largest(values: Floats) -> float | None:
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else None
