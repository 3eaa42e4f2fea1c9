"""The targets of the batch in hand: which tokens they are, of each of its prompts, and their directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.targets.directions import Directions
from stratoscope.recorder.targets.tokens import Target


class BatchTargets:
    """The targets of one batch after another.

    Parameters
    ----------
    targets
        Those of every prompt; none = of each prompt the token that the model finds likeliest, against its second.
    directions
        Of the model.
    every_position
        Whether what is large is explained at every token.
    last_logits
        Gives the logits at the last token of each prompt of a batch, unobserved, [prompt, vocabulary].

    Attributes
    ----------
    token, against
        Ids of the targets of the batch in hand and of what they are compared with, −1 = the mean over the vocabulary:
        int64, [prompt, target].
    answers_begin
        Whether the forward in hand is of the prompts: their last tokens, in the last column, predict the answers.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        directions: Directions,
        last_logits: Callable[[Batch], Tensor],
        *,
        every_position: bool = False,
    ) -> None:
        self._every_position, self.answers_begin = every_position, True
        self._targets, self.directions, self._last_logits = tuple(targets), directions, last_logits
        self.token = self.against = torch.empty(0, len(self), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._targets) or 1

    @property
    def need_a_forward(self) -> bool:
        """Whether the model itself says which tokens they are."""
        return not self._targets

    def begin(self, batch: Batch) -> None:
        """Take up a batch; its last tokens stand in the last column."""
        if self._targets:
            ids = torch.tensor([[one.token_id, one.against_id] for one in self._targets])
            self.token, self.against = ids.T[:, None].expand(2, len(batch.input_ids), -1).unbind(0)
            return
        logits = self._last_logits(batch)[:, : self.directions.vocabulary]
        likeliest = logits.topk(2, dim=-1).indices.cpu()
        self.token, self.against = likeliest[:, :1], likeliest[:, 1:]

    def explained(self, length: int) -> slice | None:
        """Which rows of a forward of prompts of that length are explained in full; None: none."""
        if self._every_position:
            return slice(None)
        return slice(length - 1, None, length) if self.answers_begin else None

    def vectors(self) -> Tensor:
        """The directions, [prompt, target, residual], of one prompt where they are the same for all."""
        return self.directions.of(*self._distinct())

    def constants(self) -> tuple[Tensor, Tensor]:
        """What the final norm's β and the unembedding's bias add, [prompt, target], or of one prompt."""
        return self.directions.constants(*self._distinct())

    def values(self, logits: Tensor) -> Tensor:
        """y of logits at the answer position, [prompt, vocabulary]: [prompt, target], float64."""
        return self.directions.values(logits, self.token, self.against)

    def _distinct(self) -> tuple[Tensor, Tensor]:
        few = slice(1) if self._targets else slice(None)
        return self.token[few], self.against[few]

    def ids(self) -> dict[str, np.ndarray]:
        """`target_token` and `against_token`, int32, [prompt, target]."""
        found = {"target_token": self.token, "against_token": self.against}
        return {name: ids.numpy().astype(np.int32) for name, ids in found.items()}
