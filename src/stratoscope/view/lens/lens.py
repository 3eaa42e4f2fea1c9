"""The verb `lens`: what lenses read at the tokens of a prompt, depth by depth."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.errors import UsageError
from stratoscope.view.lens.words import notes, subtitle, title_of
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page, Width, page_of
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from stratoscope.analysis.lens.finding import Found
    from stratoscope.trace.targets import TargetChoice
    from stratoscope.view.choose.selection import TextChoice
    from stratoscope.view.matplotlib.given_axes import GivenAxes


def lens(
    trace: str | os.PathLike[str] | xr.Dataset,
    out: str | os.PathLike[str] | None = None,
    *,
    prompt: str | int | None = None,
    token: int | None = None,
    target: TargetChoice = None,
    in_cells: str | None = None,
    span: TextChoice = None,
    most_tokens: int | None = None,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
    ax: GivenAxes = None,
    overwrite: bool = False,
) -> Figure:
    """Draw what a lens reads at the tokens of a prompt, depth by depth.

    Columns are tokens in reading order, rows are depths, D0 (in front of the first block) at the bottom; in each cell
    stands the token that the lens finds likeliest to come next, and its colour is the probability. Beside them: the
    log-probability and the rank of the model's answer, and of targets, at one token.

    Parameters
    ----------
    trace
        A trace that was recorded with the group lens, or a Dataset.
    out
        A .png, .svg or .pdf file to write. None writes nothing.
    prompt
        The prompt, by id or index; by default the first.
    token
        Position in the prompt of the token whose trajectories are drawn; by default the one from which the model
        answers, if lenses were read there, else the last one where they were.
    target
        Only this target has its trajectories drawn, by its text or its number; by default all that were recorded.
    in_cells
        Which lens is in the cells: "logit", or the name of a fitted one, "jacobian". By default the fitted one, where
        it was recorded; the other one's trajectories stand beside its own, dashed.
    span
        Only tokens of these spans.
    most_tokens
        The most tokens that are drawn, around `token`; by default as many as have room for words. More than that have
        narrower columns, whose words are left out where they do not fit.
    theme, width, font_size, title, caption, overwrite
        As in `heatmap`.
    ax
        Axes of your own figure to draw into, in place of a page: one for the cells, or as many more as there are
        trajectories.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are the cells, then the charts of trajectories.

    Raises
    ------
    InputError
        The trace holds no lenses, something asked for is not there, or `out` cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3, record=["lens"])
    >>> figure = stratoscope.lens(trace)
    >>> [axes.get_xlabel() for axes in figure.axes[1:]]
    ['log-probability (nat)', 'rank (1 = likeliest)']
    """
    drawn = drawn_by("lens", locals())
    from stratoscope.view.matplotlib.render import render

    page = page_of(width, font_size, title, caption)

    def describe(look: Look) -> ViewSpec:
        from stratoscope.trace.opened import opened

        spec, _ = lens_spec(
            opened(trace), look, prompt=prompt, token=token, target=target, in_cells=in_cells, span=span,
            most_tokens=most_tokens, page=page,
        )  # fmt: skip
        return replace(spec, drawn_by=drawn)

    return render(describe, out, Look(scale="linear", theme=theme), page, overwrite=overwrite, inputs=trace, ax=ax)


def lens_spec(
    dataset: xr.Dataset,
    look: Look = PLAIN,
    *,
    prompt: str | int | None = None,
    token: int | None = None,
    target: TargetChoice = None,
    in_cells: str | None = None,
    span: TextChoice = None,
    most_tokens: int | None = None,
    page: Page = PLAIN_PAGE,
) -> tuple[ViewSpec, Found]:
    """The ViewSpec of `lens`, and what lenses say at its chosen token."""
    import numpy as np

    from stratoscope.analysis.lens.finding import find, targets_at
    from stratoscope.analysis.lens.leading import leading
    from stratoscope.analysis.lens.lenses import lenses_of
    from stratoscope.analysis.lens.reading import read
    from stratoscope.trace.targets import Targets
    from stratoscope.view.lens.cells import SCALE, cells_of
    from stratoscope.view.lens.chosen import chosen_tokens
    from stratoscope.view.lens.trajectories import trajectories
    from stratoscope.view.sheet.lens import columns_with_words
    from stratoscope.view.spec.buffers import indices
    from stratoscope.view.spec.lens import Lens

    lenses = lenses_of(dataset)
    name = in_cells or lenses.usual
    lenses.place(name)  # refuses an unknown one
    chosen = chosen_tokens(
        dataset, prompt=prompt, token=token, span=span, columns=most_tokens, most=columns_with_words(page)
    )
    shown = read(dataset, lenses, name, chosen.tokens)
    targets = targets_at(dataset, shown, chosen.token)
    if target is not None:
        asked = Targets(dataset).find(target)
        if asked not in targets:
            fix = "Record it with `--targets`; targets are read where lenses are."
            raise UsageError("no lens was read for this target here", where="target", fix=fix)
        targets = [asked]
    found = find(dataset, lenses, shown, chosen.token, targets)
    cells, where = cells_of(dataset, chosen, shown), leading(shown.answer_rank)
    changing = np.argwhere(shown.changes) if shown.changes is not None else np.empty((0, 2))
    content = Lens(
        cells.maps,
        cells.texts,
        cells.likeliest,
        indices(changing).reshape(-1, 2),
        indices(where.first),
        indices(where.stays),
        chosen.token,
        trajectories(dataset, lenses, found, int(chosen.tokens[chosen.token]), targets, shown.depths),
    )
    spec = ViewSpec(
        title_of(name),
        subtitle(dataset, found),
        content,
        replace(look, scale=SCALE),
        cells.tokens,
        chosen.selected,
        tuple(notes(dataset, lenses, found, shown)),
        provenance_of(dataset),
        {"lens": found.record()},
    )
    return spec, found
