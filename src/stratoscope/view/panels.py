"""The words around the maps: token labels, names of prompts, marks of first and template tokens, the subtitle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.view import pool
from stratoscope.view.map_spec import TokenAxis
from stratoscope.view.select import PromptPanel, Selection
from stratoscope.words import isolate, readable_all

if TYPE_CHECKING:
    import xarray as xr

LEAST_QUERIES = 4  # attention received from fewer other tokens is drawn hatched
ANSWER = "answer"  # stands above the first token that the model generated
_GENERATED = names.SPANS.index("generated")
_TEMPLATE = [names.SPANS.index(span) for span in names.TEMPLATE_SPANS]
_AXIS_WORDS = {
    "neuron": "Neuron_ID: MLP neurons",
    "residual": "Neuron_ID: residual coordinates",
    "unknown": "Neuron_ID: not known whether MLP neurons or residual coordinates",
}


@dataclass(frozen=True)
class LabelledPanel:
    """The tokens of a panel, and the places of those that fewer than `LEAST_QUERIES` later tokens can attend to."""

    tokens: TokenAxis
    thin: NDArray[np.int64]


def token_panels(dataset: xr.Dataset, panels: Sequence[PromptPanel]) -> list[LabelledPanel]:
    """What a picture says about the tokens of each panel."""
    of_token = np.asarray(dataset["prompt"].values)
    return [_labelled(dataset, panel, of_token) for panel in panels]


def subtitle(dataset: xr.Dataset, chosen: Selection) -> str:
    """Model, source where it is not a recording, what an imported index means, and what is not shown."""
    from stratoscope.view.spec import provenance_of

    provenance = provenance_of(dataset)
    parts = [
        "Simulated data" if provenance.source == names.SIMULATED else "",
        provenance.model,
    ]
    if provenance.source == names.IMPORTED:
        parts += ["imported from CSV", _AXIS_WORDS.get(str(dataset.attrs.get("axis", "unknown")), "")]
    return " · ".join(isolate(part) for part in (*parts, chosen.left_out) if part)


def _labelled(dataset: xr.Dataset, panel: PromptPanel, of_token: NDArray[np.int32]) -> LabelledPanel:
    tokens, count = panel.tokens, len(panel.tokens)
    prompts = of_token[tokens]
    begins = np.searchsorted(of_token, prompts)  # of each token, where its prompt begins and ends
    ends = np.searchsorted(of_token, prompts, side="right")
    position = np.asarray(dataset["position"].values)[tokens]
    span = np.asarray(dataset["span"].values)[tokens] if "span" in dataset.coords else np.full(count, -1)
    starts = np.flatnonzero(np.diff(prompts, prepend=-1))
    called = _names(dataset) if len(panel.prompts) > 1 else []
    named = [(int(place), called[prompts[place]]) for place in starts] if called else []
    return LabelledPanel(
        TokenAxis(
            panel.title,
            panel.detail,
            labels=_labels(dataset, tokens) if count <= pool.MOST_UNPOOLED else (),
            count=count,
            first=np.flatnonzero((tokens == begins) & (position <= 1)),
            dim=np.flatnonzero(np.isin(span, _TEMPLATE)),
            starts=tuple(sorted([*named, *((int(place), ANSWER) for place in _answers(span, prompts))])),
        ),
        np.flatnonzero(ends - 1 - tokens < LEAST_QUERIES),
    )


def _answers(span: NDArray[np.int8], prompts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where, after tokens of the same prompt, what the model generated begins."""
    generated = span == _GENERATED
    return np.flatnonzero(generated[1:] & ~generated[:-1] & (prompts[1:] == prompts[:-1])) + 1


def _labels(dataset: xr.Dataset, tokens: NDArray[np.int64]) -> list[str]:
    if "text" not in dataset.coords:
        return [f"#{position}" for position in np.asarray(dataset["position"].values)[tokens]]
    texts = dataset["text"].isel({names.TOKEN: tokens}).values
    return readable_all(texts, spelling=str(dataset.attrs.get("token_spelling", "text")))


def _names(dataset: xr.Dataset) -> list[str]:
    """What each prompt is called."""
    ids = dataset["prompt_id"].values if "prompt_id" in dataset.coords else [""] * dataset.sizes[names.PROMPT]
    return [str(identity) or f"prompt {prompt}" for prompt, identity in enumerate(ids)]
