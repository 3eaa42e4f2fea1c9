"""What is asked about targets, checked before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stratoscope import names
from stratoscope.errors import UsageError, refuse_unknown


@dataclass(frozen=True)
class TargetSettings:
    """Which logits are explained, and where.

    Attributes
    ----------
    texts
        One token each; none = of each prompt the token that the model finds likeliest, against its second.
    against
        The token that each is compared with; None = the mean over the vocabulary.
    answer_prefix
        What is put behind each prompt, as the beginning of its answer.
    every_position
        Whether the strongest neurons are explained at every token rather than only where the answer begins.
    """

    texts: tuple[str, ...] = ()
    against: str | None = None
    answer_prefix: str = ""
    every_position: bool = False

    @property
    def planned(self) -> dict[str, Any]:
        """What the plan of the trace will hold of it, known before the model is loaded."""
        return {
            "answer_prefix": self.answer_prefix or None,
            "positions": names.ALL_POSITIONS if self.every_position else names.ANSWER_POSITION,
        }


def target_settings(
    groups: Iterable[str],
    targets: Iterable[str] | None,
    against: str | None,
    answer_prefix: str | None,
    positions: str | None,
) -> TargetSettings | None:
    """The arguments of a verb about targets, checked; None where no group explains logits.

    Parameters
    ----------
    groups
        Those of the recorded groups that explain logits.
    targets, against, answer_prefix, positions
        As those of `capture`; None where nothing was said.

    Raises
    ------
    InputError
        A text is empty or stands twice, a target is compared with itself or with nothing, or nothing uses targets.
    """
    if isinstance(targets, str):
        raise UsageError("targets are one text, not several", where="targets", fix=f"Use {targets.split('|')}.")
    texts = () if targets is None else tuple(targets)
    given = {"targets": targets, "against": against, "answer_prefix": answer_prefix, "positions": positions}
    idle = next((name for name, value in given.items() if value is not None), None)
    if idle and not [*groups]:
        fix = f"Record a group that does: --record {' or '.join(names.OF_TARGETS)}."
        raise UsageError("nothing that is recorded explains a logit", where=idle, fix=fix)
    if positions is not None:
        refuse_unknown(positions, names.POSITIONS, "positions", where="positions")
    if targets is not None and not texts:
        raise UsageError("there is none", where="targets", fix="Name a token, or leave targets out: the likeliest.")
    for name, text in [*(("targets", one) for one in texts), ("against", against), ("answer_prefix", answer_prefix)]:
        if text is not None and not isinstance(text, str):
            raise UsageError(f"{text!r} is no text", where=name, fix='Give a text such as "Sorry".')
        if text == "":
            raise UsageError("it is empty", where=name, fix='Give a text such as "Sorry", or leave it out.')
    if against is not None and not texts:
        raise UsageError("it is compared with no target", where="against", fix="Name targets too.")
    if against in texts:
        raise UsageError(f"the target {against!r} is compared with itself", where="against", fix="Name another token.")
    twice = next((text for place, text in enumerate(texts) if text in texts[:place]), None)
    if twice is not None:
        raise UsageError(f"{twice!r} stands there twice", where="targets", fix="Name each once.")
    if not [*groups]:
        return None
    return TargetSettings(texts, against, answer_prefix or "", positions == names.ALL_POSITIONS)
