"""What pictures of direct contributions and of effects say about themselves: where they predict, and what they are not."""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.trace.calibration import KIND_OF, Calibration
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.trace.targets import Targets, has_targets

if TYPE_CHECKING:
    import xarray as xr

_BY_SOURCE = "source_logit"  # its tokens are those that are looked at from the answer position
PREDICTS = (
    "Only the marked column (predicts) is a prediction of the answer's first token; at other tokens no answer is due."
)
SOURCES = "Each column is what was read from that token at the answer position."
NO_EFFECT = "A direct contribution is no effect: what removing it would change is often something else (`effects`)."
AT_ANSWER = "Heads and neurons are explained at the answer position only, unless `--positions all` was given."
OWN = "Each prompt has a target of its own, its likeliest token against its second: they are not the same tokens."
FIRST_ORDER = "First order: activation times slope, not what removing it was seen to change."


def marks_answers(quantities: Iterable[str]) -> bool:
    """Whether the tokens from which the model answers are marked: wherever a quantity has a target."""
    return any(map(has_targets, quantities))


def doubt(dataset: xr.Dataset, quantity: str) -> str:
    """What a title adds about effects whose calibration is poor or absent: "not calibrated"; else ""."""
    kind = KIND_OF.get(quantity)
    return Calibration.from_receipt(dataset.attrs.get("receipt")).mark(kind, target=_number(dataset)) if kind else ""


def _calibration(dataset: xr.Dataset, quantity: str) -> str:
    """How far the effects that are shown agree with really ablating."""
    calibration = Calibration.from_receipt(dataset.attrs.get("receipt"))
    return calibration.sentence(KIND_OF.get(quantity, "mlp"), target=_number(dataset))


def _number(dataset: xr.Dataset) -> int:
    return Targets(dataset).number(0)


def about_explained(
    dataset: xr.Dataset, quantities: Iterable[str], prompts: Sequence[int], *, by_token: bool = True
) -> list[Note]:
    """The notes of a picture of these quantities, as far as they explain logits.

    Parameters
    ----------
    prompts
        Those that are looked at.
    by_token
        Whether its columns are tokens, so that it must say which of them predict.
    """
    shown = [name for name in quantities if has_targets(name)]
    direct = [name for name in shown if names.QUANTITIES[name].group == names.LOGITS]
    notes = []
    if by_token and any(name != _BY_SOURCE for name in direct):
        notes.append(Note("L24", INFO, PREDICTS))
    if by_token and any(names.QUANTITIES[name].at_answer for name in direct):
        notes.append(Note("L08", INFO, AT_ANSWER))
    if by_token and _BY_SOURCE in direct:
        notes.append(Note("L24", INFO, SOURCES))
    if any(name != "target_logit" for name in direct):
        notes.append(Note("L28", INFO, NO_EFFECT))
    targets = Targets(dataset)
    effects = [name for name in shown if name not in direct]
    if effects:
        notes.append(Note("L28", INFO, FIRST_ORDER))
    notes += [Note("L28", INFO, text) for text in dict.fromkeys(_calibration(dataset, name) for name in effects)]
    if shown and targets.own and len({targets.label_in(prompt, 0) for prompt in prompts}) > 1:
        notes.append(Note("L24", WARNING, OWN))
    return notes
