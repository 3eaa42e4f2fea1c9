"""Checks of what explains logits: where it predicts, how far effects can be believed, under which final norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.lint.check import COMPARISONS, check
from stratoscope.analysis.values.final_norm import SCALE, final_scales
from stratoscope.trace.calibration import Calibration
from stratoscope.trace.notes import INFO, WARNING
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.targets import Targets
from stratoscope.words import counted, times

if TYPE_CHECKING:
    import xarray as xr

_DIRECT = ("target_logit", "attn_logit", "mlp_logit", "head_logit")  # at every token
_EFFECTS = ("neuron_effect", "mlp_effect", "attn_effect", "head_effect")
_APART = 1.2  # times: final norms that far apart make a row of contributions look changed


@check("L24", INFO, "A logit is read as a prediction where no answer is due.", _DIRECT)
def logits_of_other_tokens(dataset: xr.Dataset) -> str | None:
    """Contributions at tokens from which the model does not answer."""
    there = [name for name in _DIRECT if name in dataset]
    if not there:
        return None
    prompts = Prompts(dataset)
    answers = prompts.answer[prompts.answer >= 0]
    others = np.setdiff1d(np.arange(len(prompts.of_token)), answers)[:4_096]
    if not len(others) or not np.isfinite(dataset[there[0]][others].values).any():
        return None
    tokens = f"Values of {there[0]} stand at {counted(len(prompts.of_token), 'token')}"
    return f"{tokens}; only at {len(answers):,}, from which the model answers, is it a prediction."


@check("L24", INFO, "Logits of different tokens are averaged as if they were of one.", {*_DIRECT, *_EFFECTS})
def targets_of_their_own(dataset: xr.Dataset) -> str | None:
    """Each prompt's own likeliest token as its target, of which there are several."""
    targets = Targets(dataset)
    if not targets.own or "target_token" not in dataset:
        return None
    different = len(np.unique(dataset["target_token"].values))
    if different < 2:
        return None
    return f"Each prompt has its own target, {different:,} different tokens in all: no average over prompts is of one."


@check("L28", INFO, "What contributes directly is taken for what matters.", _DIRECT)
def direct_without_effects(dataset: xr.Dataset) -> str | None:
    """Direct contributions, and no total effects beside them."""
    if not any(name in dataset for name in (*_DIRECT, "neuron_logit")) or any(name in dataset for name in _EFFECTS):
        return None
    return "Direct contributions are recorded and total effects are not: what removing a part changes is not known."


@check("L28", WARNING, "Effects to first order are taken for what ablating would show.", ())
def effects_without_calibration(dataset: xr.Dataset) -> str | None:
    """Effects that were not held against ablations, or do not agree with them; every picture of them says so itself."""
    if not any(name in dataset for name in _EFFECTS):
        return None
    calibration = Calibration.from_receipt(dataset.attrs.get("receipt"))
    if calibration.calibrated:
        return None
    if not calibration.agreements:
        return "Total effects are not calibrated: none was held against really ablating."
    return "Total effects are not calibrated: some do not agree well enough with really ablating; `info` has the table."


@check("L29", INFO, "Layers that did not change are blamed for what the final norm does.", COMPARISONS)
def other_final_norms(dataset: xr.Dataset) -> str | None:
    """Prompts whose final norms multiply contributions by different factors, or by factors that are not known."""
    if not any(name in dataset for name in _DIRECT[1:]):
        return None
    if SCALE not in dataset:
        return f"Without {SCALE} direct contributions of two prompts or models cannot be compared."
    factors = final_scales(dataset, "a contribution")
    known = factors[np.isfinite(factors)]
    if len(known) < 2 or known.max() < _APART * known.min():
        return None
    most = times(known.max() / known.min())
    return (
        f"The final norm multiplies contributions of one prompt {most} as much as of another: divide by {SCALE} first."
    )
