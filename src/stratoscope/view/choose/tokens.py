"""What a picture says of its tokens, and of where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.selection import Chosen
from stratoscope.view.spec.tokens import ShownPrompt, ShownTokens
from stratoscope.view.spec.viewspec import provenance_of
from stratoscope.words import isolate, readable_all, visible

if TYPE_CHECKING:
    import xarray as xr


def shown_tokens(prompts: Prompts, tokens: NDArray[np.int64], shown: Sequence[int]) -> ShownTokens:
    """The table of these tokens (indices on `token`), of these prompts."""
    place = np.full(len(prompts), -1, np.int32)
    place[list(shown)] = np.arange(len(shown))
    return ShownTokens(
        tuple(ShownPrompt(visible(prompts.labels[index]), visible(prompts.classes[index])) for index in shown),
        place[prompts.of_token[tokens]],
        prompts.position[tokens].astype(np.int32),
        prompts.spans[tokens].astype(np.int32),
        prompts.first[tokens].astype(np.uint8),
        tuple(token_labels(prompts, tokens)),
    )


def subtitle(dataset: xr.Dataset, chosen: Chosen) -> str:
    """Model, source where it is not a recording, what an imported index means, and what is not shown."""
    provenance = provenance_of(dataset)
    parts = ["Simulated data" if provenance.source == names.SIMULATED else "", provenance.model]
    if provenance.source == names.IMPORTED:
        parts += ["imported from CSV", names.AXIS_WORDS.get(str(dataset.attrs.get("axis", "unknown")), "")]
    return " · ".join(isolate(part) for part in (*parts, chosen.left_out) if part)


def token_labels(prompts: Prompts, tokens: NDArray[np.int64]) -> list[str]:
    """Readable labels of tokens."""
    return readable_all(prompts.words(tokens), spelling=str(prompts.dataset.attrs.get("token_spelling", "text")))
