"""Activity by token and layer: of a trace, of CSV files, or of a bare array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stratoscope import defaults, names
from stratoscope.errors import UsageError, refuse_unknown
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.maps.build import build
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec import pool
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.page import PLAIN_PAGE, Page, Width, page_of
from stratoscope.view.spec.tokens import unknown_tokens
from stratoscope.view.spec.viewspec import Provenance, ViewSpec, notes_of, provenance_of
from stratoscope.words import capital

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.targets import TargetChoice
    from stratoscope.view.choose.selection import LayerChoice, PromptChoice, TextChoice
    from stratoscope.view.matplotlib.given_axes import GivenAxes


def heatmap(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    *,
    columns: Columns = None,
    quantity: str | None = None,
    target: TargetChoice = None,
    head: str | int | None = None,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    all_prompts: bool = False,
    rows: names.Rows | None = None,
    profile: bool = False,
    layers: LayerChoice = None,
    span: TextChoice = None,
    scale: names.Scale = defaults.SCALE,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
    ax: GivenAxes = None,
    overwrite: bool = False,
) -> Figure:
    """Draw a quantity by token and layer.

    Columns are tokens in reading order, rows are layers, layer 0 at the bottom. Of many prompts the first pair is drawn
    (else the first prompt of each class), side by side on one scale. Up to 1,500 tokens are wrapped like lines of text;
    more are pooled by maximum.

    Parameters
    ----------
    inputs
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    out
        A .png, .svg or .pdf file to write. None writes nothing.
    columns
        Which column of CSV files is which, as in `import_csv`.
    quantity
        A name of `names.QUANTITIES` that the input has. Without it `mlp_out_norm`, of CSV files the mean of
        `imported_norm` over the rows of each token and layer. Of peaks and other ranks the strongest is drawn.
    target
        Of a quantity that explains logits: the target, by its text or its number. Without it the first, and a note
        says so.
    head
        "mean", "sum" or "max" over the heads, or the number of one head. Without it attention is averaged, and what
        adds up (contributions, effects) is added.
    prompt
        Prompts by id or index, instead of the first pair.
    prompt_class
        Only prompts of these classes.
    all_prompts
        Every prompt: end to end, or a row each.
    rows
        "prompts": each prompt is one row of cells over its own tokens, its layers pooled by maximum (one of `layers`:
        that layer), prompts of a class under each other; all prompts, unless `prompt` names some. "layers": rows are
        layers. None = prompts with `all_prompts` where more than 8 prompts have more than 250 tokens, which would
        fill over a page; else layers.
    profile
        Draw all prompts layer by layer instead: of each class the median prompt and the middle half, each prompt the
        mean over its tokens (of the user, unless `span` says otherwise). A description, no test: `contrast` tests.
    layers
        "22-31,0" or numbers; of `resid_norm` depths.
    span
        Only tokens of these spans.
    scale
        "robust": the quantity's own scale (logarithmic for norms and ratios, linear for shares, zero-centred where
        signed) with limits that clip the farthest cells at either end (`view.spec.scale.Distribution.fit`), so that
        neither a token nor a layer owns it. "per-layer": the same for each layer by itself. "linear", "log": that
        scale, limits at the extremes.
    first_token
        Whether the first token of each prompt takes part in the limits (of a profile in the means).
    theme
        "light" or "dark".
    width
        Exact width of the picture, for a paper: inches, or a text such as "85mm", "8.5cm" or "3.3in". Its text then has
        7 points, nothing less than nine tenths of that, and the maps are arranged anew: below each other, wrapped, and
        where a page cannot hold their labels, without them. None = as wide as its content, at most a slide.
    font_size
        Points of its labels; the title has 1.2 times that, the smallest text nine tenths.
    title
        Stands in the place of the picture's own title. "none" leaves the title away, and what stands below it goes
        into the caption.
    caption
        Where it says what is drawn and how: "below" the maps, in a text "file" beside `out` (`map.txt` of `map.png`),
        or "none". That numbers are simulated or imported, and warnings, stand on the picture whatever is asked for; the
        file's metadata hold all of it.
    ax
        Axes of your own figure to draw into, one for each map, in place of a page: cells, labels, and beside the last a
        small colour bar. All maps of one call share their limits. Warnings are raised as `UserWarning`.
    overwrite
        Whether `out`, and the file of its caption, may be replaced.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are the maps, in reading order. With `ax`, yours.

    Raises
    ------
    InputError
        Something asked for is not there, or `out` cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3)
    >>> figure = stratoscope.heatmap(trace, quantity="mlp_write_ratio")
    >>> len(figure.axes)  # of matplotlib, one for each prompt
    2
    >>> figure.savefig("map.pdf")
    """
    drawn = drawn_by("heatmap", locals())
    from stratoscope.view.matplotlib.render import render

    selection = Selection(prompt, prompt_class, all_prompts, layers, span)
    if rows is not None:
        refuse_unknown(rows, names.ROWS, "rows")
        if profile:
            raise UsageError("a profile has no rows to choose", where="rows", fix="Leave out one of the two.")
    page = page_of(width, font_size, title, caption)
    asked: dict[str, Any] = {"quantity": quantity, "target": target, "head": head}

    def describe(look: Look) -> ViewSpec:
        from stratoscope.trace.opened import opened

        dataset = opened(inputs, columns)
        if profile:
            from stratoscope.view.charts.profile import profile_spec

            spec = profile_spec(dataset, selection, look, **asked)
        else:
            spec = heatmap_spec(dataset, selection, look, **asked, rows=rows, page=page)
        return replace(spec, drawn_by=drawn)

    return render(describe, out, Look(scale, first_token, theme), page, overwrite=overwrite, inputs=inputs, ax=ax)


def heatmap_spec(
    dataset: xr.Dataset,
    selection: Selection = EVERYTHING,
    look: Look = PLAIN,
    *,
    quantity: str | None = None,
    target: TargetChoice = None,
    head: str | int | None = None,
    rows: names.Rows | None = None,
    page: Page = PLAIN_PAGE,
) -> ViewSpec:
    """The ViewSpec of `heatmap`."""
    from stratoscope.trace.targets import one_target
    from stratoscope.view.choose.quantities import checked_quantity, default_quantity
    from stratoscope.view.maps.prompt_rows import has_rows_of_prompts, prompt_rows_spec

    name = default_quantity(dataset) if quantity is None else checked_quantity(dataset, quantity)
    dataset = one_target(dataset, [name], target)
    if has_rows_of_prompts(dataset, selection, rows):
        return prompt_rows_spec(dataset, name, selection, look, page, head=head)
    return maps_spec(dataset, [name], selection, look, head=head, page=page)


def maps_spec(
    dataset: xr.Dataset,
    shown: Sequence[str],
    selection: Selection,
    look: Look,
    *,
    title: str = "",
    head: str | int | None = None,
    missing: Sequence[str] = (),
    advice: str = "",
    most_unpooled: int = pool.MOST_UNPOOLED,
    page: Page = PLAIN_PAGE,
) -> ViewSpec:
    """Quantities of a trace over the same tokens and rows; without a title it is named after the first of them."""
    from stratoscope.analysis.lint.lint import applicable
    from stratoscope.analysis.values.explained import about_explained, marks_answers
    from stratoscope.view.choose import quantities
    from stratoscope.view.choose.tokens import subtitle
    from stratoscope.view.maps.panels import token_panels

    chosen = selection.of(dataset)
    kind, numbers = quantities.row_numbers(dataset, shown[0])
    rows = selection.rows(numbers, kind)
    shown_prompts = [prompt for panel in chosen.panels for prompt in panel.prompts]
    strips = []
    for name in shown:
        tables = [quantities.table(dataset, name, panel.tokens, rows, head=head) for panel in chosen.panels]
        described = quantities.describe(dataset, name, rows, head=head, prompts=shown_prompts)
        strips.append(Strip(described, tables, rarely_seen=names.QUANTITIES[name].of_later_tokens))
    first = strips[0].quantity
    return build(
        title or _title(dataset, first),
        subtitle(dataset, chosen),
        token_panels(dataset, chosen.panels, mark_answers=marks_answers(shown)),
        strips,
        look=look,
        selected=chosen.selected(dataset, first.rows, len(numbers), kind),
        notes=(*notes_of(dataset), *about_explained(dataset, shown, shown_prompts), *applicable(dataset, shown)),
        provenance=provenance_of(dataset),
        missing=missing,
        advice=advice,
        most_unpooled=most_unpooled,
        page=page,
    )


def _title(dataset: xr.Dataset, first: DrawnQuantity) -> str:
    """What is drawn, by what; and that effects are not calibrated, where they are not."""
    from stratoscope.analysis.values.explained import doubt

    rows = "" if first.row_kind == names.TARGET else f" and {first.row_kind}"
    doubts = doubt(dataset, first.name)
    return f"{capital(first.label)} by token{rows}" + (f" ({doubts})" if doubts else "")


def heatmap_of_array(
    values: AnyFloats,
    out: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    labels: Sequence[str] = (),
    rows: Sequence[int] | None = None,
    unit: str = "1",
    signed: bool = False,
    log: bool = False,
    first: Sequence[int] = (0,),
    source: str = "",
    scale: names.Scale = defaults.SCALE,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    caption: names.Caption = defaults.CAPTION,
    ax: GivenAxes = None,
    overwrite: bool = False,
) -> Figure:
    """Draw an array by token and layer; needs neither a trace nor the libraries that read one.

    Parameters
    ----------
    values
        Shape (tokens, layers); NaN = not recorded.
    labels
        Readable token labels (`words.readable`), one for each token, or none.
    rows
        Block numbers; by default 0, 1, ….
    unit, signed, log
        Unit ("1" = a pure number), whether negative values have a meaning, whether the natural scale is logarithmic.
    first
        Places of first tokens of a prompt, left out of the limits unless `first_token`.
    source
        "real", "simulated" or "imported"; "" is drawn as unknown.
    out, scale, theme, width, font_size, title, caption, ax, overwrite
        As in `heatmap`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from stratoscope.view.matplotlib.render import render

    page = page_of(width, font_size, title, caption)

    def describe(look: Look) -> ViewSpec:
        numbers = tuple(range(values.shape[1])) if rows is None else tuple(rows)
        described = DrawnQuantity("values", "value", unit, "", signed=signed, log=log, rows=numbers)
        places = [place for place in first if place < len(values)]
        tokens = TokenAxis("", "", unknown_tokens(len(values), places, labels))
        strips = [Strip(described, [values])]
        name, given = "Activity by token and layer", Provenance(source=source)
        return build(name, "", [tokens], strips, look=look, provenance=given, page=page)

    return render(describe, out, Look(scale, first_token, theme), page, overwrite=overwrite, ax=ax)
