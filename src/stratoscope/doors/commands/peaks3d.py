"""The command `peaks3d`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options

PageOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write, .html; it works offline.")
]
Threshold = Annotated[float, typer.Option("--threshold", metavar="VALUE", help="Leave out peaks lower than this.")]


def peaks3d(
    inputs: options.Inputs,
    out: PageOut,
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
    stratoscope.peaks3d(**options.given(locals()))
    console.remark_of_layer(quantity)
    console.tell_path(out)
