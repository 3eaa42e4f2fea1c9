"""One simulated prompt: each part is made when it is asked for, from random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from stratoscope.defaults import LENS_POSITIONS
from stratoscope.recorder.simulated import activity, attention
from stratoscope.recorder.simulated.activity import Peaks, Summaries
from stratoscope.recorder.simulated.contributions import SimulatedContributions
from stratoscope.recorder.simulated.lenses import SimulatedLenses
from stratoscope.recorder.simulated.model import SimulatedModel
from stratoscope.recorder.simulated.neurons import SimulatedNeurons
from stratoscope.recorder.simulated.routes import SimulatedRoutes


class SimulatedPrompt:
    """What the record groups take their values from.

    Once `neurons` has been asked for, `peaks` and `summaries` are what all layers of them say.

    Parameters
    ----------
    model, index
        The pretended model, and which of its prompts.
    summaries
        Gives what stays the same of the summaries of all prompts.

    Attributes
    ----------
    text
        Its words.
    """

    def __init__(self, model: SimulatedModel, index: int, summaries: Callable[[], Summaries]) -> None:
        self.model, self.text, self._summaries = model, model.text(index), summaries
        self._neurons: SimulatedNeurons | None = None

    @cached_property
    def norms(self) -> dict[str, np.ndarray]:
        """Norms, ratios and cosines of the writes, and `resid_norm`, [token, layer or depth]."""
        return activity.norms(self.model, self.text)

    @cached_property
    def _drawn_peaks(self) -> Peaks:
        return activity.peaks(self.model, self.text, self.norms["mlp_out_norm"])

    @property
    def neurons(self) -> SimulatedNeurons:
        """Every activation, layer by layer."""
        if self._neurons is None:
            self._neurons = SimulatedNeurons(self.model, self._summaries(), self.text, self._drawn_peaks)
        return self._neurons

    @property
    def peaks(self) -> Peaks:
        """The strongest neurons, and what they say of all others."""
        return self._drawn_peaks if self._neurons is None else self._neurons.totals.peaks

    @property
    def summaries(self) -> dict[str, np.ndarray]:
        """`prompt_mean`, `prompt_max`, `prompt_min`."""
        if self._neurons is None:
            return self._summaries().of(self.text, self._drawn_peaks)
        return self._neurons.totals.summaries

    @cached_property
    def contributions(self) -> SimulatedContributions:
        """Contributions to the logits of targets, and effects on them."""
        return SimulatedContributions(self.model, self.text, self._drawn_peaks)

    @property
    def lenses(self) -> dict[str, np.ndarray]:
        """What lenses read, at the last tokens or at all."""
        shape = self.model.shape
        target_logit = self.contributions.logits["target_logit"] if shape.targets else None
        first = 0 if shape.every_position else max(0, len(self.text.words) - LENS_POSITIONS)
        return SimulatedLenses(self.model, self.text, target_logit).quantities(first)

    @property
    def routes(self) -> dict[str, np.ndarray]:
        """The edges of attention, by what they write and by what they bring to targets."""
        routes = SimulatedRoutes(self.model, self.text)
        found = routes.shares(self.norms)
        return found | (routes.effects(self.contributions.effects["head_effect"]) if self.model.shape.targets else {})

    @property
    def attention(self) -> dict[str, np.ndarray]:
        """The `attn_*` quantities."""
        return attention.attention(self.model, self.text, self.norms["attn_write_norm"])

    def attention_pairs(self, layer: int) -> Iterator[np.ndarray]:
        """Every attention weight of a layer, in runs of queries, [pair, head]."""
        first, weight = self._attention_parts
        return attention.pairs(first[:, layer], weight[:, layer])

    @cached_property
    def _attention_parts(self) -> tuple[np.ndarray, np.ndarray]:
        return attention.first_and_weights(self.model, self.text)
