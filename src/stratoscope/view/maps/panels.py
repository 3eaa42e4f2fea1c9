"""The words around the maps: token labels, names of prompts, marks of first and template tokens, the subtitle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.targets import Targets
from stratoscope.view.choose.selection import PromptPanel
from stratoscope.view.choose.tokens import shown_tokens
from stratoscope.view.maps.strips import NO_TOKENS, TokenAxis

if TYPE_CHECKING:
    import xarray as xr


def token_panels(dataset: xr.Dataset, panels: Sequence[PromptPanel], *, mark_answers: bool = False) -> list[TokenAxis]:
    """What a picture says about the tokens of each panel.

    Parameters
    ----------
    mark_answers
        Whether the tokens from which the model answers are marked.
    """
    prompts = Prompts(dataset)
    shown = [index for panel in panels for index in panel.prompts]
    return [_labelled(prompts, panel, shown, mark_answers=mark_answers) for panel in panels]


def _labelled(prompts: Prompts, panel: PromptPanel, shown: Sequence[int], *, mark_answers: bool) -> TokenAxis:
    tokens = panel.tokens
    of_token = prompts.of_token[tokens]
    begins = np.flatnonzero(np.diff(of_token, prepend=-1)).tolist() if len(panel.prompts) > 1 else []
    return TokenAxis(
        panel.title,
        " · ".join(part for part in (panel.detail, _own_target(prompts, panel) if mark_answers else "") if part),
        shown_tokens(prompts, tokens, shown),
        dim=np.flatnonzero(prompts.in_spans(names.TEMPLATE_SPANS)[tokens]),
        starts=tuple((place, prompts.labels[of_token[place]]) for place in begins),
        answers=_answers(prompts.in_spans(["generated"])[tokens], of_token),
        rarely_seen=np.flatnonzero(prompts.rarely_seen[tokens]),
        predicting=np.flatnonzero(np.isin(tokens, prompts.answer)) if mark_answers else NO_TOKENS,
    )


def _own_target(prompts: Prompts, panel: PromptPanel) -> str:
    """The target of a prompt, where each has one of its own."""
    targets = Targets(prompts.dataset)
    return targets.label_in(panel.prompts[0], 0) if targets.own and len(panel.prompts) == 1 else ""


def _answers(generated: NDArray[np.bool_], prompts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where, after tokens of the same prompt, what the model generated begins."""
    return np.flatnonzero(generated[1:] & ~generated[:-1] & (prompts[1:] == prompts[:-1])) + 1
