"""The lenses of a recording, and what they need to know of the forward in hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stratoscope.defaults import LENS_POSITIONS
from stratoscope.errors import CaptureError
from stratoscope.recorder.lens.fitted import FittedLens
from stratoscope.trace.lenses import LOGIT_LENS


class Lenses:
    """The logit lens, and the parts of a fitted one.

    Parameters
    ----------
    fitted
        Read beside the logit lens; None = that alone.
    every_position
        Whether every token is read, rather than the last of each prompt.

    Attributes
    ----------
    names : tuple of str
        Of all of them, the logit lens first.
    errors : Tensor
        Of each prompt of the batch, how far what is read of the last depth is from the model's own logits, as a share
        of the largest of them.
    """

    def __init__(self, fitted: FittedLens | None = None, *, every_position: bool = False) -> None:
        self.fitted, self.every_position = fitted, every_position
        self.names = (LOGIT_LENS, *(() if fitted is None else fitted.parts))
        self.errors = torch.zeros(0)
        self._logits: Tensor | None = None

    def begin(self, prompts: int, *, goes_on: bool) -> None:
        """The next forward; `goes_on`: it is of answers, behind the prompts."""
        self._logits = None
        if not goes_on:
            self.errors = torch.zeros(prompts)

    def columns(self, length: int, *, goes_on: bool) -> slice | None:
        """Which columns of a forward of that length are read, whose prompts end in its last; None: none.

        `goes_on` as of `begin`.
        """
        if self.every_position:
            return slice(0, length)
        return None if goes_on else slice(max(0, length - LENS_POSITIONS), length)

    def reads(self, lens: int, depth: int) -> bool:
        """Whether a lens reads a depth."""
        return lens == 0 or (self.fitted is not None and self.fitted.fitted(depth))

    def transported(self, lens: int, depth: int, x: Tensor) -> Tensor:
        """What a lens makes of residuals of a depth before they are unembedded, [row, residual], float32."""
        x = x.float()
        return x if lens == 0 or self.fitted is None else self.fitted.apply(lens - 1, depth, x)

    def take(self, output: Any) -> None:
        """What the model returned."""
        self._logits = output.logits

    def own_logits(self, columns: slice) -> Tensor:
        """The model's own logits of these columns, [prompt × column, vocabulary]."""
        count = columns.stop - columns.start
        if self._logits is None or self._logits.shape[1] < count:
            raise CaptureError(
                "the model gives no logits at the tokens that are read",
                where="group lens",
                fix="Record without the group lens.",
            )
        return self._logits[:, -count:].flatten(0, 1)

    def forget(self) -> None:
        """Let go of what the model returned."""
        self._logits = None
