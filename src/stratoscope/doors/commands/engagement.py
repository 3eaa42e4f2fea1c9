"""The command `engagement`."""

from __future__ import annotations

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options, others, outputs


def engagement(
    inputs: options.Inputs,
    out: options.FigureOut = None,
    columns: options.CsvColumns = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    head: options.Head = None,
    target: options.Target = None,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    width: options.PageWidth = None,
    font_size: options.FontSize = None,
    title: options.PageTitle = None,
    caption: options.CaptionPlace = defaults.CAPTION,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw which layers engage with which tokens.

    Beside them it draws how attention cascades, where the trace holds attention (`capture --record norms,attention`).
    """
    asked = options.given(locals())
    asked["out"] = outputs.picture(out, inputs, "engagement", overwrite=overwrite)
    stratoscope.engagement(**asked)
    others.remark(inputs, prompt=prompt, prompt_class=prompt_class, all_prompts=all_prompts, span=span)
    console.tell_path(asked["out"])
