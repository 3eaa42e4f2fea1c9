"""Planted words: 100 markers of ten kinds in every kind of input, before publishing and after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from measuring import Claim, Lab, Measured, Table

import stratoscope
from stratoscope.names import LEVELS
from stratoscope.progress import silent

if TYPE_CHECKING:
    from stratoscope.publish.audit.outcome import Canary

PROMPTS = 120  # of a simulated trace; of each class 36 differ


def canaries(lab: Lab) -> Measured:
    """Publish copies with markers in them as every kind of input, and look for them."""
    from stratoscope.publish.audit.canary.canary import canaries as tried

    trace = stratoscope.simulate(prompts=PROMPTS, layers=4, d_model=32, d_ff=64, heads=4)
    found: dict[str, dict[str, Canary]] = {}
    for level in LEVELS:
        for one in tried(trace, level, silent):
            lab.tell(f"canaries: {one.kind}, {level}")
            found.setdefault(one.kind, {})[level] = one
    every = [one for of in found.values() for one in of.values()]
    return Measured(
        [
            Table(
                "100 markers of ten kinds (words, ids, pairs, paths, machines, e-mail addresses, keys, identifiers, "
                "chat templates, given names) in the trace and in the file itself: how many the search finds where "
                "they are left in, and how many are left after publishing that the level does not keep.",
                ["input", "found before", *LEVELS],
                [[kind, _before(of.values()), *(_after(of[level]) for level in LEVELS)] for kind, of in found.items()],
            )
        ],
        [
            Claim("Where markers are left in, all are found.", all(one.found == one.planted for one in every)),
            Claim("After publishing none is left that the level does not keep.", not any(one.left for one in every)),
        ],
    )


def _before(of: Iterable[Canary]) -> str:
    fewest = min(of, key=lambda one: one.found)
    return f"{fewest.found} of {fewest.planted}"


def _after(one: Canary) -> str:
    return f"{len(one.left)} (and {one.kept} kept)" if one.kept else str(len(one.left))
