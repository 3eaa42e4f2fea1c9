"""The command `peaks3d`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options, others, outputs

PageOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="The page to write, .html; it works offline. By default NAME-peaks3d.html beside the INPUT.",
    ),
]
Threshold = Annotated[float, typer.Option("--threshold", metavar="VALUE", help="Leave out peaks lower than this.")]


def peaks3d(
    inputs: options.Inputs,
    out: PageOut = None,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    threshold: Threshold = defaults.THRESHOLD,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw the peaks as an interactive 3D page.

    Its axes are token, layer and height of a peak. The page is one file that works offline.
    """
    asked = options.given(locals())
    asked["out"] = outputs.picture(out, inputs, "peaks3d", ".html", overwrite=overwrite)
    stratoscope.peaks3d(**asked)
    console.remark_of_layer(quantity)
    others.remark(inputs, prompt=prompt, prompt_class=prompt_class, all_prompts=all_prompts, span=span)
    console.tell_path(asked["out"])
