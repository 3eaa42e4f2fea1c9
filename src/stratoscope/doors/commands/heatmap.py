"""The command `heatmap`."""

from __future__ import annotations

from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, others, outputs

Rows = Annotated[
    names.Rows | None,
    typer.Option("--rows", help="What a row is: by default layers; with --all, where they fill over a page, prompts."),
]
Profile = Annotated[
    bool,
    typer.Option("--profile", help="Draw each class layer by layer instead: the median prompt and the middle half."),
]


def heatmap(
    inputs: options.Inputs,
    out: options.FigureOut = None,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    target: options.Target = None,
    head: options.Head = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    rows: Rows = None,
    profile: Profile = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    width: options.PageWidth = None,
    font_size: options.FontSize = None,
    title: options.PageTitle = None,
    caption: options.CaptionPlace = defaults.CAPTION,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw activity by token and layer.

    Tokens stand in reading order, layer 0 at the bottom. Of many prompts, the first pair is drawn side by side.
    """
    asked = options.given(locals())
    asked["out"] = outputs.picture(out, inputs, "heatmap", overwrite=overwrite)
    stratoscope.heatmap(**asked)
    console.remark_of_layer(quantity)
    others.remark(
        inputs,
        prompt=prompt,
        prompt_class=prompt_class,
        all_prompts=all_prompts or profile or rows == "prompts",
        span=span,
        compared=_compared(columns, quantity),
    )
    console.tell_path(asked["out"])


def _compared(columns: str | None, quantity: str | None) -> list[str]:
    """The options of this picture that `compare` has too."""
    given = {"--columns": columns, "--quantity": quantity}
    return [part for option, value in given.items() if value is not None for part in (option, value)]
