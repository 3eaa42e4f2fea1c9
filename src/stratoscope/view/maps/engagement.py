"""Which layers engage with which tokens, and how attention cascades: five quantities side by side."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.maps.heatmap import maps_spec
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page, Width, page_of
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.targets import TargetChoice
    from stratoscope.view.choose.selection import LayerChoice, PromptChoice, TextChoice

QUANTITIES = ("mlp_write_ratio", "attn_write_ratio", "attn_received_nosink", "attn_entropy_nosink", "attn_first")
EXPLAINED = (("attn_effect", "mlp_effect"), ("attn_logit", "mlp_logit"))  # below them, of a target: the first there
TITLE = "Which layers engage with which tokens"
MOST_UNPOOLED = 600  # tokens that are drawn one by one


def engagement(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    *,
    columns: Columns = None,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    all_prompts: bool = False,
    layers: LayerChoice = None,
    span: TextChoice = None,
    scale: names.Scale = defaults.SCALE,
    head: str | int | None = None,
    target: TargetChoice = None,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
    overwrite: bool = False,
) -> Figure:
    """Draw how strongly MLP and attention write, how much attention each token receives, and how focused it is.

    The quantities are `mlp_write_ratio`, `attn_write_ratio`, `attn_received_nosink`, `attn_entropy_nosink` and
    `attn_first`, each on a scale of its own that all prompts share. An input without some of them is drawn as far as it
    goes, with the command that records the rest.

    Parameters
    ----------
    head
        "mean", "sum" or "max" over the heads, or the number of one head; by default the mean, of what adds up the sum.
    target
        With a target, by its text or number, what attention and MLP do for its logit stands below: total effects where
        they are recorded, else direct contributions.
    inputs, out, columns, prompt, prompt_class, all_prompts, layers, span, scale, first_token, theme, width, font_size,
    title, caption, overwrite
        As in `heatmap`.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are the maps, in reading order.

    Raises
    ------
    InputError
        Something asked for is not there, or `out` cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3)
    >>> figure = stratoscope.engagement(trace, "engagement.png", prompt="critical-1")
    >>> len(figure.axes)  # maps, one below the other
    5
    """
    drawn = drawn_by("engagement", locals())
    from stratoscope.view.matplotlib.render import render

    selection = Selection(prompt, prompt_class, all_prompts, layers, span)
    page = page_of(width, font_size, title, caption)

    def describe(look: Look) -> ViewSpec:
        from stratoscope.trace.opened import opened

        spec = engagement_spec(opened(inputs, columns), selection, look, head=head, target=target, page=page)
        return replace(spec, drawn_by=drawn)

    return render(describe, out, Look(scale, first_token, theme), page, overwrite=overwrite, inputs=inputs)


def engagement_spec(
    dataset: xr.Dataset,
    selection: Selection = EVERYTHING,
    look: Look = PLAIN,
    *,
    head: str | int | None = None,
    target: TargetChoice = None,
    page: Page = PLAIN_PAGE,
) -> ViewSpec:
    """The ViewSpec of `engagement`."""
    from stratoscope.trace.targets import one_target
    from stratoscope.view.choose.quantities import default_quantity, record

    present = [name for name in QUANTITIES if name in dataset]
    missing = [name for name in QUANTITIES if name not in dataset]
    shown = present or [default_quantity(dataset)]
    if target is not None:
        shown = [*shown, *next((some for some in EXPLAINED if all(name in dataset for name in some)), ())]
    return maps_spec(
        one_target(dataset, shown, target),
        shown,
        selection,
        look,
        title=TITLE if present else "",
        head=head,
        missing=[names.QUANTITIES[name].label for name in missing],
        advice=record(*missing),
        most_unpooled=MOST_UNPOOLED,
        page=page,
    )
