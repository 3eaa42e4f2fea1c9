"""The factor of the final norm, which multiplies every direct contribution and which every write changes (L29)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Floats
from stratoscope.trace.targets import has_targets

if TYPE_CHECKING:
    import xarray as xr

SCALE = "final_scale"
ONE_SCALE = "B − A is taken at the mean of the factors of both final norms: what the norms did is in no layer's row."
ONE_SCALE_OF_CLASSES = (
    "Contributions are compared at the answer position, at the mean of the factors of both final norms (of pairs their "
    "own): what the norms did is in no layer's row."
)
AT_ANSWER = " It stands where the factors are known: at the answer position, and before the first edit."
_WITHOUT = ("target_logit", "norm_bias_logit", "head_bias_logit")  # the whole logit, and what stands behind the norm
_AT_ANSWER = ("source_logit",)  # every token has its value at the answer position


def is_under_final_norm(quantity: str) -> bool:
    """Whether a quantity is a direct contribution that was multiplied by the factor of the final norm."""
    return has_targets(quantity) and names.QUANTITIES[quantity].group == names.LOGITS and quantity not in _WITHOUT


def is_at_answer(quantity: str) -> bool:
    """Whether all its tokens stand under the factor of the answer position."""
    return quantity in _AT_ANSWER


def final_scales(dataset: xr.Dataset, quantity: str) -> Floats:
    """The factor at the answer position of each prompt, [prompt]; NaN where it is none.

    Raises
    ------
    InputError
        The trace does not hold it, so that contributions cannot be compared.
    """
    if SCALE not in dataset:
        raise InputError(
            f"{quantity} of two prompts or models stands under two final norms, and {SCALE} is not in this input",
            where="quantity",
            fix="Record it: `stratoscope capture … --record logits --targets …`.",
        )
    values = np.asarray(dataset[SCALE].values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
