"""What a recording asks of total effects, where it records none: nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from stratoscope.progress import Progress
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.observe import Observer

MakeBatch = Callable[[Sequence[TokenisedPrompt]], Batch]
Arrays = dict[str, np.ndarray]


class NoEffects:
    """What a recording does about total effects where it records none.

    Attributes
    ----------
    first_pass
        Whether all prompts run once before anything is recorded, for their means.
    token_ids
        Tokens that are named in what was recorded.
    variables, sizes
        Names of its quantities, of this model, and lengths of their dimensions.
    plan, notes
        The fields of the plan that are about effects, and what is to be said of them.
    """

    first_pass = False
    token_ids: Collection[int] = ()
    variables: Sequence[str] = ()
    sizes: Mapping[str, int] = MappingProxyType({})
    plan: Mapping[str, Any] = MappingProxyType({})
    notes: Sequence[dict[str, str]] = ()

    def only(self, record: Collection[str]) -> NoEffects:
        """The same, where only these groups are recorded."""
        return self

    def take_means(
        self,
        batches: Sequence[Sequence[int]],
        lengths: Sequence[int],
        ids: Sequence[str],
        make_batch: Callable[[Sequence[int]], Batch],
        progress: Progress,
    ) -> None:
        """Run all prompts once, unobserved, and count effects from the means of their words, if that is asked.

        Parameters
        ----------
        batches
            Indices of the prompts that run together.
        lengths, ids
            Tokens and name of every prompt.
        make_batch
            Makes a batch of prompts, by their indices.
        progress
            Called with (stage, done, total or None).
        """

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
