"""What a contrast found, in one sentence."""

from __future__ import annotations

import numpy as np

from stratoscope.analysis.contrast.power import size_in_words, would_be_found
from stratoscope.view.report.report import Facts
from stratoscope.words import agreeing, counted


def headline(summary: Facts) -> str:
    """What was found among the neurons, or what would have been."""
    pair = f"{summary['a']} and {summary['b']}"
    found = summary.get("neurons")
    if found is None:
        return f"Layer profiles of {pair}; no neuron was tested"
    if not found["tested"]:
        return f"No neuron was tested between {pair}: none varies between the prompts of a class"
    if not found["discoveries"]:
        nothing = f"None of {found['tested']:,} neurons is found to differ between {pair}"
        if found["family_wise"]:
            few = f"{found['family_wise']:,} {agreeing(found['family_wise'], 'does', 'do')}"
            return f"{nothing} by false discovery rate; {few} by the stricter family-wise p of exchanged labels"
        size = size_in_words(found["would_find"], "neuron")
        if not size:
            return f"{nothing}; one alone could not have been found, however large"
        return f"{nothing}; {would_be_found(f'one with {size}')}"
    count = counted(found["discoveries"], "neuron")
    return f"{count} of {found['tested']:,} {agreeing(found['discoveries'], 'differs', 'differ')} between {pair}"


def level_text(level: float) -> str:
    """A level of confidence with as many digits as tell it from certainty: 95 %, 99.998 %."""
    digits = max(0, int(np.ceil(-np.log10(max(1 - level, 1e-12)))) - 2)
    return f"{100 * level:.{digits}f} %"
