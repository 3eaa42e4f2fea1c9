"""One row per prompt: many prompts under each other, each over its own tokens, pooled over the layers by maximum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arrays import AnyFloats
from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.build import build
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.cautions import SEEN_BY_FEW
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import PROMPT_ROWS, DrawnQuantity
from stratoscope.view.spec.page import Page
from stratoscope.view.spec.tokens import ShownPrompt, ShownTokens
from stratoscope.view.spec.viewspec import ViewSpec, notes_of, provenance_of
from stratoscope.words import capital, counted, percent, visible

if TYPE_CHECKING:
    import xarray as xr

PROMPTS, TOKENS = 8, 250  # more than so many prompts, of more tokens than fit a page, have a row each unless asked
MOST_ROWS = 2_000
_READ = 2**16  # tokens read at a time


def has_rows_of_prompts(dataset: xr.Dataset, selection: Selection, rows: names.Rows | None) -> bool:
    """Whether each prompt is a row: as it was asked, else where all prompts are, and they would fill over a page."""
    if rows is not None:
        return rows == "prompts"
    if not selection.all_prompts:
        return False
    (panel, *_) = selection.of(dataset).panels
    return len(panel.prompts) > PROMPTS and len(panel.tokens) > TOKENS


def prompt_rows_spec(
    dataset: xr.Dataset, name: str, selection: Selection, look: Look, page: Page, *, head: str | int | None = None
) -> ViewSpec:
    """The ViewSpec of a picture with one row per prompt.

    Raises
    ------
    InputError
        Something asked for is not there, or there are more prompts than rows.
    """
    from stratoscope.analysis.lint.lint import applicable
    from stratoscope.analysis.values.explained import about_explained, doubt
    from stratoscope.view.choose import quantities
    from stratoscope.view.choose.tokens import subtitle

    if look.scale == "per-layer":
        fix = "Leave it out, or choose linear or log; for a layer by itself, --layers N."
        raise UsageError("rows of prompts have one scale, not one for each layer", where="scale", fix=fix)
    prompts, chosen = Prompts(dataset), selection.together(dataset)
    tokens = chosen.panels[0].tokens
    shown = _by_class(prompts, np.unique(prompts.of_token[tokens]).tolist())
    if len(shown) > MOST_ROWS:
        raise InputError(
            f"{len(shown):,} prompts are too many for a row each",
            where="prompt",
            fix=f"Choose at most {MOST_ROWS:,} (`--class`, `--prompt`), or draw the classes (`--profile`).",
        )
    kind, numbers = quantities.row_numbers(dataset, name)
    layers = selection.rows(numbers, kind)
    described = quantities.describe(dataset, name, layers, head=head, prompts=shown)
    values, each = _pooled(dataset, name, tokens, layers, signed=described.signed, head=head)
    notes = _of_one_layer(each, described)
    if names.QUANTITIES[name].of_later_tokens:
        values = np.where(prompts.rarely_seen[tokens], np.nan, values)
        notes.append(Note("L02", INFO, f"Hatched: {SEEN_BY_FEW}."))
    row = np.full(len(prompts), -1)
    row[shown] = np.arange(len(shown))[::-1]  # the first at the top
    position = prompts.position[tokens]
    start, count = int(position.min()), int(np.ptp(position)) + 1
    table = np.full((count, len(shown)), np.nan, values.dtype)
    there = (position - start, row[prompts.of_token[tokens]])
    table[there] = values
    absent = np.ones(table.shape, bool)
    absent[there] = False
    first = np.zeros(count, np.uint8)
    first[position[prompts.first[tokens]] - start] = 1
    nothing = np.full(count, -1, np.int32)
    axis = ShownTokens(
        tuple(ShownPrompt(visible(prompts.labels[one]), visible(prompts.classes[one])) for one in reversed(shown)),
        nothing,
        indices(np.arange(start, start + count)),
        nothing,
        first,
    )
    doubts = doubt(dataset, name)
    strip = Strip(_of_prompts(described, len(shown), kind), [table], absent=[absent])
    return build(
        f"{capital(described.label)} by token and prompt" + (f" ({doubts})" if doubts else ""),
        subtitle(dataset, chosen),
        [TokenAxis("", "", axis)],
        [strip],
        look=look,
        selected=chosen.selected(dataset, described.rows, len(numbers), kind),
        notes=(*notes, *notes_of(dataset), *about_explained(dataset, [name], shown), *applicable(dataset, [name])),
        provenance=provenance_of(dataset),
        page=page,
    )


def _by_class(prompts: Prompts, chosen: list[int]) -> list[int]:
    """Prompts of one class under each other; classes, and prompts of a class, in the order of the trace."""
    order = list(dict.fromkeys(prompts.classes[index] for index in chosen))
    return sorted(chosen, key=lambda index: order.index(prompts.classes[index]))


def _pooled(
    dataset: xr.Dataset,
    name: str,
    tokens: NDArray[np.int64],
    layers: NDArray[np.int64],
    *,
    signed: bool,
    head: str | int | None,
) -> tuple[AnyFloats, NDArray[np.int64]]:
    """For each token its largest value over the layers (where signed, that of largest size), NaN if none has one.

    Returns
    -------
    values, each
        And of how many tokens the value is that of each layer.
    """
    from stratoscope.view.choose import quantities
    from stratoscope.view.spec import pool

    found, each = [], np.zeros(len(layers), np.int64)
    for begin in range(0, len(tokens), _READ):
        values = quantities.table(dataset, name, tokens[begin : begin + _READ], layers, head=head)
        sizes = np.where(np.isnan(values), -np.inf, np.abs(values) if signed else values)
        known = ~np.isnan(values).all(axis=1)
        each += np.bincount(sizes.argmax(axis=1)[known], minlength=len(layers))
        if values.shape[1] > 1:
            values = pool.pool(values.T, values.shape[1], signed=signed).T
        found.append(values[:, 0])
    pooled: AnyFloats = np.concatenate(found)
    return pooled, each


def _of_one_layer(each: NDArray[np.int64], described: DrawnQuantity) -> list[Note]:
    """A note where most cells are those of one layer; `each`: how many are those of each."""
    most = int(each.argmax())
    share = each[most] / max(int(each.sum()), 1)
    if len(each) < 2 or share <= 0.5:
        return []
    row = f"{names.ROW_LETTERS[described.row_kind]}{described.rows[most]}"
    return [
        Note(
            "L07",
            INFO,
            f"{percent(float(share))} of the cells are those of {row}: choose {described.row_kind}s by --layers.",
        )
    ]


def _of_prompts(described: DrawnQuantity, count: int, kind: str) -> DrawnQuantity:
    """The quantity with prompts for rows, and what was done to its layers."""
    layers = len(described.rows)
    most = "value of largest size" if described.signed else "maximum"
    said = f"{most} over {counted(layers, kind)}" if layers > 1 else f"{kind} {described.rows[0]}"
    said = ", ".join(part for part in (described.said, said) if part)
    return replace(described, said=said, row_kind=PROMPT_ROWS, rows=tuple(range(count)))
