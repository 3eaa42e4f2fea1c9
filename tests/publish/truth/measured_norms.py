"""The attack that runs the model: which token of the vocabulary has the norms that were published, of 20 tokens."""

from __future__ import annotations

from measured_attacks import TEXT_IS_GONE, published
from measuring import Claim, Lab, Measured, Table, share

from stratoscope.doors.norm_attack import norm_attack
from stratoscope.names import AGGREGATE, NO_TEXT
from stratoscope.publish.attacks.outcome import Attack

LEVELS = (NO_TEXT, AGGREGATE)  # of others less is left, or nothing; each takes some minutes
TOKENS = 20


def norms(lab: Lab) -> Measured:
    """Attack the norms of each of these levels."""
    found: dict[str, Attack] = {}
    for level in LEVELS:
        lab.tell(f"norms: {level}, {TOKENS} tokens")
        found[level] = norm_attack(published(lab, level), lab.corpus, lab.model, tokens=TOKENS)
        lab.tell(str(found[level]))
    rows = [[level, *_cells(attack)] for level, attack in found.items()]
    gains = [attack.gain for level, attack in found.items() if level in TEXT_IS_GONE and attack.gain]
    most = max((gain.high for gain in gains), default=1.0)
    return Measured(
        [
            Table(
                f"With the model: of {TOKENS} tokens, each of another prompt, whose text before them is given, the "
                "share that is found by trying every entry of the vocabulary, and what the model guesses without "
                "the file.",
                ["level", "found", "a guess by the model"],
                rows,
            )
        ],
        [
            Claim(
                f"At `aggregate` it gets back no more of these {TOKENS} tokens than the model guesses anyway. So few "
                f"tokens cannot exclude that it gets {share(most)} more (upper 95 % bound).",
                all(gain.value <= 0 for gain in gains),
            )
        ],
    )


def _cells(attack: Attack) -> list[str]:
    if attack.recovered is None or attack.baseline is None:
        return [f"cannot run: {attack.reason}", "–"]
    return [share(*vars(one).values()) for one in (attack.recovered, attack.baseline)]
