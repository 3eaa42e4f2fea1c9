"""Whether neuron i of one model is neuron i of the other: only where their weights share ancestry (L15).

Equal weights are the same neurons. Of other weights it is measured, layer by layer: over the prompts both traces hold,
the mean activation of neuron i of A is correlated with that of neuron i of B and with those of the other neurons of a
sample. A neuron counts as found again where its namesake correlates best. Of unrelated or renumbered models one neuron
in as many as are sampled is found by chance; of a model and its tuned copy nearly all are. A layer is accepted when at
least half of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.diff.floor import weights_of
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

LEAST_PROMPTS = 8  # of fewer points a correlation hardly tells neurons apart
LEAST_NEURONS = 16  # that vary over the prompts: of fewer, half could be found by chance
LEAST_FOUND = 0.5  # share of neurons that must be found again: chance gives 1 / SAMPLED
SAMPLED = 512


@dataclass(frozen=True)
class Ancestry:
    """What is known before any neuron is looked at.

    Attributes
    ----------
    refused
        Why neurons cannot be compared at all; "" = they can.
    same_weights
        Whether both models have the same weights, so that nothing needs to be measured.
    """

    refused: str
    same_weights: bool


def ancestry(a: xr.Dataset, b: xr.Dataset, prompts: int) -> Ancestry:
    """Whether the neurons of two traces may be compared; `prompts`: how many have the same user tokens in both."""
    for one, called in ((a, "A"), (b, "B")):
        if "prompt_mean" not in one:
            if one.attrs.get("source") == names.IMPORTED:
                return Ancestry(f"{called} is imported, and holds only the neurons of its rows", False)
            return Ancestry(f"trace {called} holds no prompt_mean: record the group prompts", False)
    shapes = [_shape(one) for one in (a, b)]
    if shapes[0] != shapes[1]:
        words = " and ".join(f"{layers} layers of {width} neurons" for layers, width, _ in shapes)
        return Ancestry(f"the models are of different shape ({words})", False)
    if not prompts:
        return Ancestry("no prompt has the same user tokens in both", False)
    weights = [weights_of(one) for one in (a, b)]
    same = bool(weights[0]) and weights[0] == weights[1]
    if not same and prompts < LEAST_PROMPTS:
        few = f"{prompts} prompt{'s' if prompts != 1 else ''} with the same user tokens"
        why = "their weights differ" if all(weights) else "it is not known whether their weights are the same"
        return Ancestry(
            f"{why}, and {few} cannot show whether their neurons are the same: it takes {LEAST_PROMPTS}", False
        )
    return Ancestry("", same)


def share_found(a: Floats, b: Floats, seed: int) -> float:
    """Of a sample of neurons the share that is found again in the other model; NaN where too few of them vary.

    Parameters
    ----------
    a, b
        Mean activations of either model, [prompt, neuron].
    seed
        Of the sample.
    """
    varying = np.flatnonzero(_varies(a) & _varies(b))
    if len(varying) < LEAST_NEURONS:
        return float("nan")
    rng = np.random.default_rng(seed)
    sample = rng.choice(varying, min(SAMPLED, len(varying)), replace=False)
    correlation = _standardised(a[:, sample]).T @ _standardised(b[:, sample])
    return float((np.diag(correlation) >= correlation.max(axis=1) - 1e-12).mean())


def _shape(dataset: xr.Dataset) -> tuple[int, int, Any]:
    mlps = (dataset.attrs.get("model") or {}).get("mlps")
    return int(dataset.sizes[names.LAYER]), int(dataset.sizes[names.NEURON]), mlps


def _varies(values: Floats) -> NDArray[np.bool_]:
    known = np.isfinite(values).all(axis=0)
    varies: NDArray[np.bool_] = known & (np.ptp(np.where(np.isfinite(values), values, 0.0), axis=0) > 0)
    return varies


def _standardised(values: Floats) -> Floats:
    centred = values - values.mean(axis=0)
    scaled: Floats = centred / np.linalg.norm(centred, axis=0)
    return scaled
