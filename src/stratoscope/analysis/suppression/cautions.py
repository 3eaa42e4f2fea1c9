"""What a reader of a suppression must know: what both measures are, where they hold, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.classes.design import enough
from stratoscope.analysis.classes.units import PAIRS
from stratoscope.analysis.statistics.permutation import smallest_p
from stratoscope.trace.notes import INFO, WARNING, Note, notes_of
from stratoscope.words import counted, number

if TYPE_CHECKING:
    from stratoscope.analysis.suppression.explained import Comparison, Explained

PREDICTION = Note(
    "L24",
    INFO,
    "Direct contributions are those at the answer position, the only one at which this logit is a prediction.",
)
NOT_EFFECT = Note(
    "L28", INFO, "A direct contribution is not an effect: it leaves out what later layers make of a write. What is "
    "ranked by total effect carries its agreement with really ablating."
)  # fmt: skip
FIRST = Note(
    "L05", INFO, "Total effects of layers and heads are summed over all tokens but the first of a prompt; no neuron is "
    "listed there. Its activations are so large that first order says little of them."
)  # fmt: skip
SAME_FACTOR = Note(
    "L29", INFO, "Direct contributions of both classes are compared at one factor of the final norm; what the factors "
    "themselves differ by is the row “final norm”."
)  # fmt: skip


def notes(parts: Explained, compared: Comparison | None) -> list[Note]:
    """All that holds for it."""
    found = list(notes_of(parts.dataset))
    if parts.direct is not None:
        found += [PREDICTION, NOT_EFFECT]
    if parts.total is not None:
        found += [Note("L28", INFO, _measure(parts)), FIRST]
    if not parts.prompts.single:
        found += _of_several(parts)
    if compared is not None:
        found += _of_two_classes(parts, compared)
    if parts.total is not None and "strongest_effect" in parts.dataset:
        most = parts.dataset.sizes.get(names.STRONGEST, 0) // 2
        found.append(
            Note("L08", INFO, f"Recorded are the {most} neurons of either sign that are strongest in each prompt: one "
                 "that is not listed may have any smaller effect.")
        )  # fmt: skip
    return found


def _measure(parts: Explained) -> str:
    """How total effects were taken."""
    less = {"zero": "", "mean": " less its mean"}[parts.baseline]
    if parts.steps > 1:
        return f"Total effects: activation{less} times its gradient, the mean of {parts.steps} steps from the baseline."
    return f"Total effects are first order: activation{less} times its gradient."


def _of_several(parts: Explained) -> list[Note]:
    found = [Note("L12", INFO, "A prompt is one observation: its tokens are summed, never counted.")]
    tokens, against = (np.unique(of[parts.prompts.prompts]) for of in (parts.chosen.tokens, parts.chosen.against))
    if len(tokens) > 1 or len(against) > 1:
        found.append(
            Note("L24", WARNING, f"The prompts do not share a target: {counted(len(tokens), 'token')} are each the "
                 "likeliest of some prompt. Means are over different targets.")
        )  # fmt: skip
    return found


def _of_two_classes(parts: Explained, compared: Comparison) -> list[Note]:
    units = compared.design.units
    found = [Note("L12", INFO, f"Units: {units.in_words()}.")]
    found += [Note("L12", WARNING, text) for text in units.left_out]
    if not compared.tested:
        count_a, count_b = units.sizes
        least = smallest_p(count_a) if units.design == PAIRS else smallest_p(count_a, count_b)
        found.append(
            Note("L12", WARNING, f"Not tested: the smallest p-value that {units.in_words()} could ever give is "
                 f"{number(least)}. Record at least {enough(units, compared.design.alpha)}.")
        )  # fmt: skip
    if "direct_compared" in compared.families:
        found.append(SAME_FACTOR)
    elif parts.direct is not None:
        found.append(
            Note("L29", WARNING, "Direct contributions are not compared: this trace lacks final_scale, without which a "
                 "difference would blame layers for what the final norm did.")
        )  # fmt: skip
    return found
