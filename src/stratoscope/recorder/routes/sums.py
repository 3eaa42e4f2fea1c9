"""Routes add up to the residual stream that they make, in every batch; how far they are off is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stratoscope.errors import CaptureError
from stratoscope.names import ROUTES
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.tolerance import LargestErrors, Tolerance

_FULL, _ROUNDINGS = 1e-5, 4  # of Σ|share|: in float32 and float64; in half precision as many roundings
_BEYOND = "Routes add up less exactly than within"
_WORDS = {
    "error": "edges, attention's biases and what is carried over do not add up to what the MLP of layer {layer} finds",
    "mlp_error": "what the MLP of layer {layer} finds and what it writes do not add up to what leaves the block",
}

Arrays = Mapping[str, np.ndarray]


class RouteSums:
    """The largest errors of the sums so far, as shares of Σ|share|.

    Parameters
    ----------
    dtype
        In which the model computes.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._tolerance = Tolerance(dtype, full=_FULL, roundings=_ROUNDINGS)
        limit = self.limit = self._tolerance.limit
        beyond = f"{_BEYOND} {_ROUNDINGS} roundings, {limit:.1g} of their sizes; the receipt has the largest error."
        self._errors = LargestErrors(ROUTES, _WORDS, limit, beyond)

    def go_on(self, receipt: Mapping[str, Any] | None) -> None:
        """Take up what was found before an interruption."""
        self._errors.go_on(receipt)

    def check(
        self,
        arrays: Arrays,
        prompts: Sequence[TokenisedPrompt],
        whole: Sequence[TokenisedPrompt],
        ids: Sequence[str],
    ) -> None:
        """Check a batch.

        Parameters
        ----------
        arrays
            Quantities of the batch; nothing is checked where routes are not among them.
        prompts, whole, ids
            The prompts without and with their answers, and their ids.

        Raises
        ------
        CaptureError
            A sum is further off than rounding explains; in half precision that is kept, and said, instead.
        """
        if "route_carry" not in arrays:
            return
        own = [np.arange(len(one.ids)) < len(prompt.ids) for prompt, one in zip(prompts, whole, strict=True)]
        rows = np.flatnonzero(np.concatenate(own))
        for name, error in _errors(arrays, rows).items():
            worst = float(error.max(initial=0.0))
            if self._tolerance.stops(worst):
                row, layer = np.argwhere(~(error <= self.limit))[0]
                ends = np.cumsum([len(one.ids) for one in whole])
                raise CaptureError(
                    f"{_WORDS[name].format(layer=layer)}: they are off by {worst:.2g} of their sizes, and "
                    f"{self.limit:.1g} is rounding",
                    where=f"prompt {ids[int(np.searchsorted(ends, rows[row], side='right'))]}",
                    fix="This model does more than was proved of it: record without the group routes.",
                )
            self._errors.add(name, worst)

    def into(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with the largest errors; with a limit, where they are more than some roundings."""
        return self._errors.into(receipt)


def _errors(arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Errors [row, layer], as shares of Σ|share|; 0 where there is no stream that anything could be a share of."""

    def at(name: str) -> np.ndarray:
        values: np.ndarray = arrays[name][rows].astype(np.float64)
        return values

    kept, others = (
        np.nan_to_num(at("route_weight")),
        [at(name) for name in ("route_other", "route_bias", "route_carry")],
    )
    size = np.abs(kept).sum(-1) + at("route_other_size") + np.abs(others[1]) + np.abs(others[2])
    middle = np.abs(kept.sum(-1) + sum(others) - 1) / size
    mid, mlp = at("route_mid"), at("route_mlp")
    behind = np.abs(mid + mlp - 1) / (np.abs(mid) + np.abs(mlp))
    return {"error": np.where(np.isnan(others[2]), 0, middle), "mlp_error": np.where(np.isnan(mid), 0, behind)}
