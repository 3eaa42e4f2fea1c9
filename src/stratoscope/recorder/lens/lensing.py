"""What a recording does about lenses: open them for its model, name them, say how far they agree with the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stratoscope import names
from stratoscope.defaults import LENS_POSITIONS
from stratoscope.errors import CaptureError, ModelError
from stratoscope.model.head import Unproved
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.lens.asked import LensSettings
from stratoscope.recorder.lens.fitted import open_lens
from stratoscope.recorder.lens.lenses import Lenses
from stratoscope.recorder.tolerance import LargestErrors, Tolerance
from stratoscope.trace.labels import note

RECEIPT = "lens"  # key of the receipt
_FULL, _ROUNDINGS = 1e-4, 8  # of the largest logit: in float32 and float64; in half precision as many roundings
_BEYOND = "Lenses read the last depth less exactly than within"
_WHY = "they compute in float32 what the model rounds"
_CORPUS = "A fitted lens measures the text that it was fitted to as well as the model; `info` names the texts."


class Lensing:
    """The part of a recording that is about lenses; where none are asked for, it does nothing.

    Parameters
    ----------
    asked
        What is asked; None where the group is not recorded.
    loaded
        The model and its tokenizer.

    Attributes
    ----------
    lenses
        Of the model, once its sites are known; None where none are asked for.
    token_ids
        Tokens that lenses have read so far.
    """

    def __init__(self, asked: LensSettings | None, loaded: LoadedModel) -> None:
        self.asked, self._identity = asked, loaded.identity
        self._tolerance = Tolerance(next(loaded.model.parameters()).dtype, full=_FULL, roundings=_ROUNDINGS)
        limit = self._limit = self._tolerance.limit
        beyond = (
            f"{_BEYOND} {_ROUNDINGS} roundings of the model's own logits, {limit:.1g} of the largest: they compute "
        )
        self._errors = LargestErrors(RECEIPT, ["error"], limit, beyond + "in float32 what the model rounds.")
        self.lenses: Lenses | None = None
        self.token_ids: set[int] = set()

    @property
    def last_tokens(self) -> int:
        """Of how many of a forward's last tokens logits are wanted; 0 = of all."""
        if self.asked is None:
            return 1
        return 0 if self.asked.every_position else LENS_POSITIONS

    def open(self, sites: ModelSites) -> Lenses | None:
        """The lenses of the model; None where none are asked for.

        Raises
        ------
        ModelError
            The head is not proved.
        InputError
            The file of the fitted lens cannot be used.
        """
        if self.asked is None:
            return None
        if isinstance(sites.head, Unproved):
            raise ModelError(
                f"its residual stream cannot be read as tokens: {sites.head.why}",
                where=str(self._identity["name"]),
                fix=f"Record without {names.LENSES}.",
            )
        fitted = None
        if self.asked.file is not None:
            weights, depths = self._identity.get("weights_sha256"), len(sites.layers) + 1
            fitted = open_lens(self.asked.file, weights_sha256=weights, d_model=sites.d_model, depths=depths)
        self.lenses = Lenses(fitted, every_position=self.asked.every_position)
        return self.lenses

    def among(self, record: Collection[str]) -> Lenses | None:
        """The lenses, where they are among these groups."""
        return self.lenses if names.LENSES in record else None

    @property
    def plan(self) -> dict[str, Any]:
        """The fields of the plan that are about lenses."""
        if self.asked is None or self.lenses is None:
            return {}
        fitted = self.lenses.fitted
        facts = None if fitted is None else dict(fitted.facts)
        return {"lenses": [*self.lenses.names], "lens_file": facts, **self.asked.planned}

    @property
    def notes(self) -> list[dict[str, str]]:
        """What is to be said of them."""
        fitted = self.lenses is not None and self.lenses.fitted is not None
        return [note("L35", "info", _CORPUS)] if fitted else []

    # --- batch by batch -----------------------------------------------------------------------------------------------

    def go_on(self, receipt: Mapping[str, Any] | None) -> None:
        """Take up what was found before an interruption."""
        self._errors.go_on(receipt)

    def check(self, arrays: Mapping[str, np.ndarray], ids: Sequence[str]) -> None:
        """What was read of a batch of these prompts.

        Raises
        ------
        CaptureError
            A lens reads what is no number, or the last depth, read as the others, is not the model's logits.
        """
        if self.lenses is None or "lens_token" not in arrays:
            return
        self.token_ids |= {*np.unique(arrays["lens_token"]).tolist()}
        errors = self.lenses.errors.numpy()
        worst = float(np.nan_to_num(errors, nan=np.inf).max(initial=0.0))
        if self._tolerance.stops(worst):
            raise CaptureError(
                f"the last depth, read as all others are, differs from the model's own logits by {worst:.2g} of the "
                f"largest; at most {self._limit:.2g} is rounding",
                where=f"prompt {ids[int(np.argmax(np.nan_to_num(errors, nan=np.inf)))]}",
                fix=f"This model does more than was proved of it: record without the group {names.LENSES}.",
            )
        self._errors.add("error", worst)

    def into(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with the largest error; with a limit, where it is more than some roundings."""
        return self._errors.into(receipt)
