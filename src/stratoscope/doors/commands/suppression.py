"""The command `suppression`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import options, results

Trace = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace that was recorded with logits, effects or both.")]


def suppression(
    trace: Trace,
    out: options.ResultOut = None,
    target: options.Target = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    groups: options.Groups = defaults.AVERAGE_GROUPS,
    unequal: options.Unequal = defaults.UNEQUAL,
    alpha: options.Alpha = defaults.ALPHA,
    permutations: options.Permutations = defaults.PERMUTATIONS,
    seed: options.Seed = defaults.SEED,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show what promotes and what suppresses a target token.

    Direct contributions and total effects of layers, neurons and heads, and what set them off: of one prompt, or means
    of classes and, of two, their difference. No model is needed. Writes a folder with a page, its figures, a table and
    all numbers.
    """
    asked = options.given(locals(), "out", "as_json", "overwrite")
    from stratoscope.view.report import default_folder

    named = [target or "", *(prompt or ()), *(prompt_class or ())]
    folder = out or default_folder(trace, "suppression", *named)
    found = results.saved(lambda show: stratoscope.suppression(**asked, progress=show), folder, overwrite=overwrite)
    results.tell(found, folder, as_json=as_json)
