"""Many tests at once: q-values (Benjamini and Hochberg 1995), which bound the expected share of false discoveries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def q_values(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Q-values of all finite p-values together, in the shape of `p`; NaN stays NaN and is not counted.

    They hold for independent tests and for positively dependent ones (Benjamini and Yekutieli 2001).
    """
    from scipy.stats import false_discovery_control

    q = np.full(np.shape(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(np.asarray(p, np.float64)[known])
    return q
