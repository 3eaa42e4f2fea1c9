"""The three-dimensional picture: token × layer × peak, as a Plotly figure and as one page that works offline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.trace.opened import Inputs, PathLike, opened
from stratoscope.view.choose.selection import LayerChoice, PromptChoice, Selection, TextChoice
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.look import Look

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from stratoscope.trace.csv.columns import Columns


def peaks3d(
    inputs: Inputs,
    out: PathLike | None = None,
    *,
    columns: Columns = None,
    quantity: str | None = None,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    all_prompts: bool = False,
    layers: LayerChoice = None,
    span: TextChoice = None,
    scale: names.Scale = defaults.SCALE,
    threshold: float = defaults.THRESHOLD,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
    overwrite: bool = False,
) -> go.Figure:
    """Draw the peaks in three dimensions: tokens across, layers into the depth, each peak as high as it is strong.

    At most 24,000 peaks are drawn: the highest of every layer for every token (or run of tokens), the 1,000 highest of
    all, and then the next highest.

    Parameters
    ----------
    inputs
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    out
        The page to write (.html): one file that needs nothing else, with controls to sort tokens, pick layers, set a
        threshold and choose classes. None: only the figure is returned.
    columns
        Which column of CSV files is which, as in `import_csv`.
    quantity
        What is drawn upwards: "peak_write" (the default: L2 norm of what the neuron writes), "peak_value" (its
        activation, without the sign) or, of an import, "imported_norm".
    prompt, prompt_class, all_prompts
        Prompts by id or index, prompts of a class, or every prompt. Without these, the first pair, else the first
        prompt of each class.
    layers
        "22-31,0", one block number, or a sequence of them; None = all.
    span
        Only tokens of these parts of a prompt (`names.SPANS`).
    scale
        "robust": heights and colours are logarithmic between limits by the rule of `heatmap`; beyond these, heights are
        closer together. "linear", "log": heights and colours. "per-layer": both as a share of the highest peak of the
        layer.
    threshold
        Peaks lower than this are left out before the 24,000 are chosen.
    first_token
        Let the first token of a prompt take part in the scale.
    theme
        "dark", or "light", which on the page gives way to a reader whose system is set to dark.
    overwrite
        Replace `out` if it exists.

    Returns
    -------
    plotly.graph_objects.Figure
        One scene for each prompt (for each class where there are more than four prompts).

    Raises
    ------
    InputError
        There are no peaks in the input, what was asked for is not there, or `out` exists or is no .html file.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3)
    >>> figure = stratoscope.peaks3d(trace, "peaks.html")  # of Plotly
    >>> figure.layout.title.text
    'Peak write by token and layer'
    """
    drawn = drawn_by("peaks3d", locals())
    from stratoscope.view.peaks3d import page
    from stratoscope.view.peaks3d.build import peaks_spec
    from stratoscope.view.peaks3d.figure import figure

    selection, look = Selection(prompt, prompt_class, all_prompts, layers, span), Look(scale, first_token, theme)
    target = None if out is None else page.check(out, overwrite=overwrite, inputs=inputs)
    spec = peaks_spec(opened(inputs, columns), selection, look, quantity=quantity, threshold=threshold)
    result = figure(spec)
    if target is not None:
        page.write(replace(spec, drawn_by=drawn), target, overwrite=overwrite)
    return result
