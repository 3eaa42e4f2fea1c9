"""What a recording does about targets: name them, choose them for each batch, say what the model's own logits are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from stratoscope import names
from stratoscope.errors import CaptureError, InputError, ModelError
from stratoscope.model.head import Head, Unproved
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.targets.asked import TargetSettings
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.recorder.targets.directions import Directions
from stratoscope.recorder.targets.sums import ContributionSums
from stratoscope.recorder.targets.tokens import tokenised_targets
from stratoscope.trace.labels import note

_LIKELIEST = "No targets were named: of each prompt the likeliest next token is explained, against the second."


class Targeting:
    """The part of a recording that is about targets; where none are asked for, it does nothing.

    Parameters
    ----------
    asked
        What is asked; None where no recorded group explains a logit.
    loaded
        The model and its tokenizer.
    vocabulary
        How many tokens the model knows; None where that is not known.

    Attributes
    ----------
    variables, sizes
        Quantities of the targets, and the length of their dimension.
    sums
        How far contributions are from adding up.
    token_ids
        Tokens that were targets so far, or were compared with one.

    Raises
    ------
    InputError
        A target is not one token.
    """

    def __init__(self, asked: TargetSettings | None, loaded: LoadedModel, vocabulary: int | None) -> None:
        self.asked, self._model, self._tokenizer = asked, loaded.model, loaded.tokenizer
        self._name, self._vocabulary = str(loaded.identity["name"]), vocabulary
        self._targets = () if asked is None else tokenised_targets(asked, self._tokenizer, vocabulary)
        self._of_batch: BatchTargets | None = None
        self.sums = ContributionSums(next(loaded.model.parameters()).dtype)
        of_targets = [quantity.name for quantity in names.quantities_of([names.TARGETS])]
        self.token_ids: set[int] = set()
        self.variables = [] if asked is None else of_targets
        self.sizes = {} if asked is None else {names.TARGET: len(self._targets) or 1}

    @property
    def answer_prefix(self) -> str:
        """What is put behind each prompt."""
        return "" if self.asked is None else self.asked.answer_prefix

    @property
    def notes(self) -> list[dict[str, str]]:
        """What is to be said where the model chooses the targets."""
        chosen = self.asked is not None and not self._targets
        return [note("L24", "info", _LIKELIEST)] if chosen else []

    @property
    def _tokens(self) -> int:
        """How many tokens both the tokenizer and the model know."""
        return min(filter(None, (len(self._tokenizer), self._vocabulary)))

    def of_real_tokens(self, sites: ModelSites) -> ModelSites:
        """The sites with a head that knows which of its rows are padding of the vocabulary."""
        if isinstance(sites.head, Unproved):
            return sites
        return replace(sites, head=replace(sites.head, vocabulary=self._tokens))

    def plan(self) -> dict[str, Any]:
        """The fields of the plan that are about targets."""
        if self.asked is None:
            return {}
        return {"targets": [one.to_json() for one in self._targets] or names.TOP, **self.asked.planned}

    def refuse_unanswerable(self, prompts: Sequence[Prompt], encoded: Sequence[TokenisedPrompt]) -> None:
        """InputError where a conversation has been answered, so that no answer's first token is predicted."""
        for prompt, tokens in zip(prompts, encoded, strict=True):
            if self.asked is not None and not tokens.answers:
                raise InputError(
                    "ends with an assistant's message, so no answer comes next whose first token could be explained",
                    where=f"prompt {prompt.id}",
                    fix=f"Remove that message, or record without {' and '.join(names.OF_TARGETS)}.",
                )

    def of_batches(self, head: Head | Unproved, last_logits: Callable[[Batch], Tensor]) -> BatchTargets | None:
        """The targets of each batch; None where none are asked for.

        Parameters
        ----------
        head
            The model's.
        last_logits
            As that of `BatchTargets`.

        Raises
        ------
        ModelError
            The head is not proved.
        """
        if self.asked is None:
            return None
        if isinstance(head, Unproved):
            raise ModelError(
                f"its logits cannot be explained: {head.why}",
                where=self._name,
                fix=f"Record without {' and '.join(names.OF_TARGETS)}.",
            )
        self._of_batch = BatchTargets(
            self._targets,
            Directions(self._model, head, self._tokens),
            last_logits,
            every_position=self.asked.every_position,
        )
        return self._of_batch

    def outcome(
        self,
        logits: Tensor | None,
        arrays: Mapping[str, np.ndarray],
        prompts: Sequence[TokenisedPrompt],
        whole: Sequence[TokenisedPrompt],
        ids: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """The quantities of the targets of a batch; what was recorded of them is checked.

        Parameters
        ----------
        logits
            Those that predict the answers' first tokens, [prompt, vocabulary].
        arrays
            What was recorded of the batch.
        prompts, whole, ids
            The prompts without and with their answers, and their ids.

        Raises
        ------
        CaptureError
            A logit is not finite, or contributions do not add up to it.
        """
        if self._of_batch is None:
            return {}
        assert logits is not None
        values = self._of_batch.values(logits).cpu().numpy().astype(np.float32)
        if not np.isfinite(values).all():
            raise CaptureError(
                "the logit of a target is not finite",
                where=f"prompt {ids[int(np.argwhere(~np.isfinite(values))[0, 0])]}",
                fix="The weights or the dtype are broken: check the download, or try --dtype float32.",
            )
        tokens = self._of_batch.ids()
        self.token_ids |= {*np.unique([*tokens.values()]).tolist()}
        found = {**tokens, "answer_logit": values}
        begins = np.cumsum([0, *(len(prompt.ids) for prompt in whole[:-1])])
        rows = [int(begin) + len(prompt.ids) - 1 for begin, prompt in zip(begins, prompts, strict=True)]
        self.sums.check({**arrays, **found}, rows, ids)
        return found
