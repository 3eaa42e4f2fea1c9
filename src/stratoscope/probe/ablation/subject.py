"""A model and the prompts that it runs over again and again, and what is read off its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from stratoscope import names
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.probe.ablation.asked import AblationSettings
from stratoscope.progress import Progress
from stratoscope.recorder.answers.outcome import Opener, tokenised_openers
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.grouping import Batching
from stratoscope.recorder.prompts.prompt import PromptList
from stratoscope.recorder.recording import Recording
from stratoscope.recorder.targets.directions import Directions


class Subject:
    """A model and its prompts, as a recording of targets and openers would run them.

    Parameters
    ----------
    loaded, prompts
        The model, and the prompts.
    asked
        What is asked.
    progress
        Called with (stage, done, total or None).

    Attributes
    ----------
    tokens, ids
        Of each prompt.
    token, against
        Ids of each prompt's targets and of what they are compared with, −1 = the mean: [prompt, target].
    """

    def __init__(self, loaded: LoadedModel, prompts: PromptList, asked: AblationSettings, progress: Progress) -> None:
        self.recording = Recording(
            loaded, prompts, record=(names.RESIDUAL,), top_k=1, batch_size=asked.batch_size, chat=asked.chat,
            answers=asked.answers, targets=asked.targets, day=asked.day, remarks=prompts.remarks, progress=progress,
        )  # fmt: skip
        self.loaded, self.model = loaded, loaded.model
        self.tokenizer: Any = loaded.tokenizer
        self.everywhere = asked.positions == names.ALL_POSITIONS
        self._first = 0 if asked.first_token else 1
        self.ids = [prompt.id for prompt in prompts]
        self.tokens = [self.recording.batched.encoded(index) for index in range(len(prompts))]
        self.openers: list[Opener] = tokenised_openers(asked.answers.openers, loaded.tokenizer)
        self._progress = progress
        of_batch = self.recording.targets
        assert of_batch is not None
        self.directions: Directions = of_batch.directions
        self.token, self.against = (torch.full((len(prompts), len(of_batch)), -1) for _ in range(2))
        for chosen, batch in self.batches("reading the targets"):
            of_batch.begin(batch)
            self.token[chosen], self.against[chosen] = of_batch.token, of_batch.against

    @property
    def sites(self) -> ModelSites:
        """The model's proved sites."""
        found: ModelSites = self.recording.sites
        return found

    @property
    def batching(self) -> Batching:
        """Which prompts may run together."""
        return self.recording.plan.batching

    @property
    def targets(self) -> int:
        """How many targets there are."""
        return self.token.shape[1]

    @property
    def outcomes(self) -> int:
        """Targets and openers together."""
        return self.targets + len(self.openers)

    @property
    def pad_id(self) -> int:
        """What stands in front of shorter prompts."""
        return self.recording.batched.pad_id

    def batches(self, stage: str) -> Iterator[tuple[list[int], Batch]]:
        """All prompts, batch by batch: their indices, and the batch, padded on the left."""
        done = 0
        for chosen in self.batching.batches([len(one.ids) for one in self.tokens]):
            self._progress(stage, done, len(self.tokens))
            yield chosen, self.recording.batched.batch([self.tokens[index] for index in chosen])
            done += len(chosen)
        self._progress(stage, done, len(self.tokens))

    def values(self, logits: Tensor, chosen: Sequence[int]) -> Tensor:
        """The targets of logits [row, vocabulary], whose rows are of these prompts: [row, target], float64."""
        return self.directions.values(logits, self.token[chosen], self.against[chosen])

    def rows_of(self, batch: Batch) -> list[Tensor]:
        """Of each prompt of a batch, the rows of the flattened rectangle that are its tokens."""
        return [row.nonzero()[:, 0] + place * row.numel() for place, row in enumerate(batch.mask.bool())]

    def later_rows(self, batch: Batch) -> Tensor:
        """Rows of all tokens but each prompt's first."""
        return torch.cat([rows[1:] for rows in self.rows_of(batch)])

    def ablated_rows(self, batch: Batch) -> Tensor:
        """Rows of the tokens at which is ablated."""
        return torch.cat([rows[self.start(len(rows)) :] for rows in self.rows_of(batch)])

    def start(self, length: int) -> int:
        """The first token at which is ablated, of a prompt of so many; of one token that one."""
        return min(self._first, length - 1) if self.everywhere else length - 1
