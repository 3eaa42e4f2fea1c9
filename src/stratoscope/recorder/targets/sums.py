"""Contributions add up to the model's own logits, where answers begin, in every batch; how far they are off is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stratoscope.errors import CaptureError
from stratoscope.recorder.tolerance import LargestErrors, Tolerance

RECEIPT = "contributions"  # key of the receipt
_FULL, _ROUNDINGS = 1e-5, 4  # of Σ|c|: in float32 and float64; in half precision as many roundings
_BEYOND = "Contributions to logits add up less exactly than within"
_WORDS = {
    "error": "the contributions of all parts to the logit of target {target} do not add up to it",
    "heads_error": "the contributions of the heads of layer {layer} do not add up to that of its attention",
    "neurons_error": "the contributions of the neurons of layer {layer} do not add up to that of its MLP",
    "sources_error": "what the heads of layer {layer} took from all tokens does not add up to their contributions",
}

Arrays = Mapping[str, np.ndarray]


class ContributionSums:
    """The largest errors of the sums so far, as shares of Σ|c| over all parts of the model.

    Parameters
    ----------
    dtype
        In which the model computes.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._tolerance = Tolerance(dtype, full=_FULL, roundings=_ROUNDINGS)
        limit = self.limit = self._tolerance.limit
        beyond = f"{_BEYOND} {_ROUNDINGS} roundings, {limit:.1g} of their sizes; the receipt has the largest error."
        self._errors = LargestErrors(RECEIPT, _WORDS, limit, beyond)

    def go_on(self, receipt: Mapping[str, Any] | None) -> None:
        """Take up what was found before an interruption."""
        self._errors.go_on(receipt)

    def check(self, arrays: Arrays, rows: Sequence[int], ids: Sequence[str]) -> None:
        """Check a batch.

        Parameters
        ----------
        arrays
            Quantities of the batch; nothing is checked where contributions are not among them.
        rows
            Of each prompt, the token where its answer begins.
        ids
            Of the prompts.

        Raises
        ------
        CaptureError
            A sum is further off than rounding explains; in half precision that is kept, and said, instead.
        """
        if "embed_logit" not in arrays:
            return
        for name, error in _errors(arrays, rows).items():
            worst = float(error.max(initial=0.0))
            if self._tolerance.stops(worst):
                prompt, place = np.argwhere(~(error <= self.limit))[0][:2]
                raise CaptureError(
                    f"{_WORDS[name].format(target=place, layer=place)}: they are off by {worst:.2g} of their "
                    f"sizes, and {self.limit:.1g} is rounding",
                    where=f"prompt {ids[prompt]}",
                    fix="This model does more than was proved of it: record without the group logits.",
                )
            self._errors.add(name, worst)

    def into(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with the largest errors; with a limit, where they are more than some roundings."""
        return self._errors.into(receipt)


def _errors(arrays: Arrays, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Errors [prompt, target], or [prompt, layer, target], as shares of Σ|c| of the prompt and target."""

    def at(name: str) -> np.ndarray:
        """A quantity of tokens at the rows, 0 where a block lacks it."""
        return np.nan_to_num(arrays[name][list(rows)].astype(np.float64)) if name in arrays else np.zeros(())

    attn, mlp = at("attn_logit"), at("mlp_logit")
    whole = [at("embed_logit")[:, None], *(at(name) for name in ("attn_logit", "mlp_logit") if name in arrays)]
    whole += [arrays[f"{one}_bias_logit"][:, None] for one in ("norm", "head")]
    parts = np.concatenate(whole, axis=1)
    size = np.abs(parts).sum(1)
    size = np.where(size > 0, size, 1.0)
    own = arrays["answer_logit"]
    ends = [parts.sum(1) - own, at("target_logit") - own]  # as a sum of parts, and read off the last block's output
    found = {"error": np.max(np.abs(ends), axis=0) / size}
    each = size[:, None]
    if "head_logit" in arrays:
        heads = arrays["head_logit"][list(rows)].astype(np.float64)
        known = ~np.isnan(heads).all(axis=2)
        total = np.nansum(heads, axis=2) + at("attn_bias_logit")
        found["heads_error"] = np.where(known, np.abs(total - attn), 0) / each
        if "source_logit" in arrays:
            sources = np.add.reduceat(np.nan_to_num(arrays["source_logit"].astype(np.float64)), _starts(rows), axis=0)
            split = ~np.isnan(arrays["source_logit"][list(rows)]) & ~np.isnan(heads)
            found["sources_error"] = np.where(split, np.abs(sources - heads), 0).max(axis=2) / each
    if "neuron_logit" in arrays:
        others = arrays["other_neurons_logit"][list(rows)]
        total = np.nansum(arrays["neuron_logit"][list(rows)].astype(np.float64), axis=3) + others + at("mlp_bias_logit")
        found["neurons_error"] = np.where(np.isnan(others), 0, np.abs(total - mlp)) / each
    return found


def _starts(rows: Sequence[int]) -> list[int]:
    """First rows of the prompts; with the answer of the prompt before, which is nobody's source."""
    return [0, *(row + 1 for row in rows[:-1])]
