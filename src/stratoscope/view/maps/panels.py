"""The words around the maps: token labels, names of prompts, marks of first and template tokens, the subtitle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.selection import PromptPanel
from stratoscope.view.choose.tokens import shown_tokens
from stratoscope.view.maps.strips import TokenAxis

if TYPE_CHECKING:
    import xarray as xr


def token_panels(dataset: xr.Dataset, panels: Sequence[PromptPanel]) -> list[TokenAxis]:
    """What a picture says about the tokens of each panel."""
    prompts = Prompts(dataset)
    shown = [index for panel in panels for index in panel.prompts]
    return [_labelled(prompts, panel, shown) for panel in panels]


def _labelled(prompts: Prompts, panel: PromptPanel, shown: Sequence[int]) -> TokenAxis:
    tokens = panel.tokens
    of_token = prompts.of_token[tokens]
    begins = np.flatnonzero(np.diff(of_token, prepend=-1)).tolist() if len(panel.prompts) > 1 else []
    return TokenAxis(
        panel.title,
        panel.detail,
        shown_tokens(prompts, tokens, shown),
        dim=np.flatnonzero(prompts.in_spans(names.TEMPLATE_SPANS)[tokens]),
        starts=tuple((place, prompts.labels[of_token[place]]) for place in begins),
        answers=_answers(prompts.in_spans(["generated"])[tokens], of_token),
        rarely_seen=np.flatnonzero(prompts.rarely_seen[tokens]),
    )


def _answers(generated: NDArray[np.bool_], prompts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where, after tokens of the same prompt, what the model generated begins."""
    return np.flatnonzero(generated[1:] & ~generated[:-1] & (prompts[1:] == prompts[:-1])) + 1
