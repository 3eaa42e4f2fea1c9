"""The words around the maps: token labels, names of prompts, marks of first and template tokens, the subtitle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.selection import PromptPanel, Selection
from stratoscope.view.maps.strips import TokenAxis
from stratoscope.view.spec import pool
from stratoscope.words import isolate, readable_all

if TYPE_CHECKING:
    import xarray as xr

LEAST_QUERIES = 4  # attention received from fewer other tokens is drawn hatched
ANSWER = "answer"  # stands above the first token that the model generated
_AXIS_WORDS = {
    "neuron": "Neuron_ID: MLP neurons",
    "residual": "Neuron_ID: residual coordinates",
    "unknown": "Neuron_ID: not known whether MLP neurons or residual coordinates",
}


@dataclass(frozen=True)
class LabelledPanel:
    """The tokens of a panel, and the places of those that fewer than `LEAST_QUERIES` later tokens can attend to."""

    tokens: TokenAxis
    rarely_seen: NDArray[np.int64]


def token_panels(dataset: xr.Dataset, panels: Sequence[PromptPanel]) -> list[LabelledPanel]:
    """What a picture says about the tokens of each panel."""
    prompts = Prompts(dataset)
    return [_labelled(prompts, panel) for panel in panels]


def subtitle(dataset: xr.Dataset, chosen: Selection) -> str:
    """Model, source where it is not a recording, what an imported index means, and what is not shown."""
    from stratoscope.view.spec.viewspec import provenance_of

    provenance = provenance_of(dataset)
    parts = [
        "Simulated data" if provenance.source == names.SIMULATED else "",
        provenance.model,
    ]
    if provenance.source == names.IMPORTED:
        parts += ["imported from CSV", _AXIS_WORDS.get(str(dataset.attrs.get("axis", "unknown")), "")]
    return " · ".join(isolate(part) for part in (*parts, chosen.left_out) if part)


def _labelled(prompts: Prompts, panel: PromptPanel) -> LabelledPanel:
    tokens, count = panel.tokens, len(panel.tokens)
    of_token = prompts.of_token[tokens]
    begins = np.flatnonzero(np.diff(of_token, prepend=-1)).tolist() if len(panel.prompts) > 1 else []
    named = [(place, prompts.labels[of_token[place]]) for place in begins]
    answers = _answers(prompts.in_spans(["generated"])[tokens], of_token)
    return LabelledPanel(
        TokenAxis(
            panel.title,
            panel.detail,
            labels=token_labels(prompts, tokens) if count <= pool.MOST_UNPOOLED else (),
            count=count,
            first=np.flatnonzero(prompts.first[tokens]),
            dim=np.flatnonzero(prompts.in_spans(names.TEMPLATE_SPANS)[tokens]),
            starts=tuple(sorted([*named, *((place, ANSWER) for place in answers.tolist())])),
        ),
        np.flatnonzero(prompts.stops[of_token] - 1 - tokens < LEAST_QUERIES),
    )


def _answers(generated: NDArray[np.bool_], prompts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where, after tokens of the same prompt, what the model generated begins."""
    return np.flatnonzero(generated[1:] & ~generated[:-1] & (prompts[1:] == prompts[:-1])) + 1


def token_labels(prompts: Prompts, tokens: NDArray[np.int64]) -> list[str]:
    """Readable labels of tokens."""
    return readable_all(prompts.words(tokens), spelling=str(prompts.dataset.attrs.get("token_spelling", "text")))
