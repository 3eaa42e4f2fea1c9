"""What a recording asks of total effects, where it records none: nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from stratoscope.progress import Progress
from stratoscope.recorder.effects.all_prompts import AllPrompts
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.observe import Observer

MakeBatch = Callable[[Sequence[TokenisedPrompt]], Batch]
Arrays = dict[str, np.ndarray]


class NoEffects:
    """What a recording does about total effects where it records none.

    Attributes
    ----------
    token_ids
        Tokens that are named in what was recorded.
    variables, sizes
        Names of its quantities, of this model, and lengths of their dimensions.
    plan, notes
        The fields of the plan that are about effects, and what is to be said of them.
    """

    token_ids: Collection[int] = ()
    variables: Sequence[str] = ()
    sizes: Mapping[str, int] = MappingProxyType({})
    plan: Mapping[str, Any] = MappingProxyType({})
    notes: Sequence[dict[str, str]] = ()

    def only(self, record: Collection[str]) -> NoEffects:
        """The same, where only these groups are recorded."""
        return self

    def begin(self, prompts: AllPrompts, receipt: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """What runs before anything is recorded, unobserved: prompts for their means, and a sample that is ablated.

        Parameters
        ----------
        prompts
            Those of the recording.
        receipt
            That of the trace; what an earlier run has measured is not measured again.
        progress
            Called with (stage, done, total or None).

        Returns
        -------
        dict
            What the receipt gains.
        """
        return {}

    def seconds_before(self, prompts: AllPrompts, seconds_of_all: float) -> tuple[float, float]:
        """What `begin` takes, in seconds: for means, where all prompts once take so many; for the ablations."""
        return 0.0, 0.0

    def outcome(
        self,
        observer: Observer,
        prompts: Sequence[TokenisedPrompt],
        whole: Sequence[TokenisedPrompt],
        ids: Sequence[str],
        logits: Tensor | None,
        make_batch: MakeBatch,
    ) -> Arrays:
        """The effects of a batch as its other quantities are, [token or prompt, …]; tokens of answers have none.

        Parameters
        ----------
        observer
            Sees nothing of the forwards that this takes.
        prompts, whole, ids
            The prompts, those with their answers, and their names.
        logits, make_batch
            As those of `EffectsRecorder.of_batch`.
        """
        return {}

    def into(self, receipt: dict[str, Any]) -> dict[str, Any]:
        """The receipt with how the differentiated forwards agreed with the recorded ones."""
        return receipt
