"""Norm matching on a published file: `probe` runs the model, `publish` says what it is worth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from stratoscope import defaults
from stratoscope.progress import Progress, silent

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.publish.attacks.outcome import Attack


def norm_attack(
    published: xr.Dataset | xr.DataTree,
    original: xr.Dataset,
    model: str | os.PathLike[str] | Any,
    *,
    tokenizer: Any = None,
    tokens: int = defaults.ATTACK_TOKENS,
    progress: Progress | None = None,
) -> Attack:
    """Attack the norms that a file holds, of a sample of the user's tokens.

    Parameters
    ----------
    published
        A trace, or a Result of class profiles, as it was written.
    original
        The trace that it was made of.
    model, tokenizer
        The model of the trace, as of `capture`.
    tokens
        How many tokens are attacked, some 16 s each on one processor with a vocabulary of 49,152.
    progress
        Is told what is being done.

    Raises
    ------
    InputError
        It is another model, or the original was not recorded.
    ModelError
        The model cannot be loaded, or keeps nothing of the text before a token.
    """
    from stratoscope.analysis.classes.units import counted_tokens
    from stratoscope.probe.norm_matching import QUANTITIES, match_norms, sampled_tokens
    from stratoscope.probe.rerun import model_of
    from stratoscope.publish.attacks import norms
    from stratoscope.publish.attacks.outcome import not_run

    report = progress or silent
    told = norms.published_norms(published, original, QUANTITIES)
    if not told:
        return not_run(norms.NAME, norms.HOLDS, norms.UNIT, "no norm of a layer is published")
    loaded = model_of(original, model, tokenizer, report)
    chosen = sampled_tokens(original, counted_tokens(original, defaults.SPAN), tokens)
    found = match_norms(original, loaded.model, told, chosen, progress=report)
    return norms.norm_attack(original, found.tokens, found.ids, found.guesses, found.by_norms, found.blind, found.left)
