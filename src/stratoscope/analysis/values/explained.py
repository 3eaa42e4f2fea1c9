"""What pictures of direct contributions and of effects say about themselves: where they predict, and what they are not."""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stratoscope import names
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
OWN = "Each prompt has a target of its own, its likeliest token against its second: they are not the same tokens."
FIRST_ORDER = "First order: activation times slope, not what removing it was seen to change."


def marks_answers(quantities: Iterable[str]) -> bool:
    """Whether the tokens from which the model answers are marked: wherever a quantity has a target."""
    return any(map(has_targets, quantities))


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
    if by_token and _BY_SOURCE in direct:
        notes.append(Note("L24", INFO, SOURCES))
    if any(name != "target_logit" for name in direct):
        notes.append(Note("L28", INFO, NO_EFFECT))
    if len(direct) < len(shown):
        notes.append(Note("L28", INFO, FIRST_ORDER))
    targets = Targets(dataset)
    if shown and targets.own and len({targets.label_in(prompt, 0) for prompt in prompts}) > 1:
        notes.append(Note("L24", WARNING, OWN))
    return notes
