"""The layer profile: what a quantity is in the median prompt of each class, layer by layer, and how prompts spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.contrast.profiles import ANSWER, MEAN, SUM, over_tokens, prompt_profiles
from stratoscope.analysis.lint.lint import applicable
from stratoscope.analysis.statistics.rescaled import at_factor
from stratoscope.analysis.values.effect_sums import summed_tokens
from stratoscope.analysis.values.explained import about_explained, doubt
from stratoscope.analysis.values.final_norm import ONE_SCALE_OF_CLASSES, final_scales, is_under_final_norm
from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arrays import Floats
from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.prompts import LEAST_QUERIES, Prompts
from stratoscope.trace.targets import TargetChoice, one_target
from stratoscope.view.charts.parts import height_of, in_unit, layer_axis
from stratoscope.view.choose import quantities
from stratoscope.view.choose.selection import EVERYTHING, Chosen, Selection
from stratoscope.view.choose.tokens import subtitle
from stratoscope.view.spec.cautions import ONLY_PEAKS, RAW_NORM, ROWS_OF_A_FILE
from stratoscope.view.spec.charts import Axis, Band, ChartPanel, Charts, Intervals, Line, Mark, Points, Side, Vertical
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.scale import natural
from stratoscope.view.spec.viewspec import ViewSpec, notes_of, provenance_of
from stratoscope.words import capital, counted, listed

if TYPE_CHECKING:
    import xarray as xr

_SIDES: tuple[Side, ...] = get_args(Side)
_QUARTILES, _RANGE = (0.25, 0.5, 0.75), (0.0, 0.5, 1.0)
_FEWEST = 4  # prompts of which quartiles are drawn; of fewer the band holds all of them
_MOST_POINTS = 40  # layers of which each has a point of its own
_NOT_A_TEST = "A description, not a test: `contrast` tests."


@dataclass(frozen=True, eq=False)
class Spread:
    """How the prompts of one class, or the pairs of two, spread in each layer.

    Attributes
    ----------
    name
        Of the class; of a prompt without class its id, where each is drawn by itself; "" = of all prompts.
    count
        Prompts (or pairs) with a value.
    fewest
        The fewest of them behind a layer that has any.
    low, middle, high
        Lower quartile, median and upper quartile of the prompts' means, of shape (rows,); of fewer than four prompts
        the smallest and the largest in place of the quartiles. NaN = no value.
    """

    name: str
    count: int
    fewest: int
    low: Floats
    middle: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Profile:
    """A quantity of some prompts, layer by layer.

    Attributes
    ----------
    name
        The quantity.
    log
        Whether means are geometric.
    rows
        Layer (or depth) numbers.
    spans
        Which tokens were averaged; none = all.
    classes
        The classes (or prompts) side by side.
    difference
        Of two classes the second − the first: within pairs of prompts where there are pairs, else between the medians
        (then `count` is 0). Of logarithms to base 2 where means are geometric. None = not asked for.
    chosen
        What was selected.
    head
        What was made of heads, as of `values.tables.table`.
    """

    name: str
    log: bool
    rows: tuple[int, ...]
    spans: tuple[str, ...]
    classes: tuple[Spread, ...]
    difference: Spread | None
    chosen: Chosen
    head: str | int | None = None


def profile_spec(
    dataset: xr.Dataset,
    selection: Selection = EVERYTHING,
    look: Look = PLAIN,
    *,
    quantity: str | None = None,
    target: TargetChoice = None,
    head: str | int | None = None,
    difference: bool = False,
) -> ViewSpec:
    """The ViewSpec of a layer profile.

    Parameters
    ----------
    quantity, target, head
        As in `heatmap`.
    difference
        Whether the second class − the first stands beside the two classes; they are in the order of
        `selection.prompt_class`.
    """
    name = profiled_quantity(dataset, quantity)
    dataset = one_target(dataset, [name], target)
    found = layer_profile(dataset, selection, look, quantity=name, head=head, difference=difference)
    return spec_of_profile(dataset, found, look)


def profiled_quantity(dataset: xr.Dataset, quantity: str | None) -> str:
    """The quantity of a profile: the one that is asked for, which must have layers, or the usual one."""
    if quantity is not None:
        return quantities.checked_quantity(dataset, quantity, by_layer=True)
    return quantities.default_quantity(dataset, by_layer=True)


def spec_of_profile(dataset: xr.Dataset, found: Profile, look: Look) -> ViewSpec:
    """The ViewSpec of a profile that was computed from this trace, for this look."""
    row = names.QUANTITIES[found.name]
    every, shown = np.arange(dataset.sizes[row.row_kind]), found.chosen.panels[0].prompts
    described = quantities.describe(dataset, found.name, every, head=found.head, prompts=shown, coloured=False)
    log = natural(signed=row.signed, log=found.log, choice=look.scale) == "log"
    log = log and any((one.middle > 0).any() for one in found.classes)
    doubts = doubt(dataset, found.name)
    title = f"{capital(described.label)}{f' ({doubts})' if doubts else ''}, {row.row_kind} by {row.row_kind}"
    classes = [one.name for one in found.classes if one.name]
    unit = in_unit(row) if row.unit != "as imported" else ""
    axis = Axis(f"{described.label}{unit}", log=log)
    layers = layer_axis(found.rows, row.row_kind)
    marks = [mark for side, one in zip(_SIDES, found.classes, strict=False) for mark in _marks(found, one, side, log)]
    panels = [ChartPanel("", axis, layers, tuple(marks), width=1.3)]
    if found.difference is not None:
        panels.append(_difference_panel(found, found.difference))
    return ViewSpec(
        f"{title}: {listed(classes)}" if classes else title,
        " · ".join(part for part in (subtitle(dataset, found.chosen), described.said, _band_in_words(found)) if part),
        Charts(tuple(panels), max(2.2, height_of(len(found.rows)))),
        look,
        selected=found.chosen.selected(dataset, found.rows, dataset.sizes[row.row_kind], row.row_kind),
        notes=(
            *_notes(found, look, log),
            *notes_of(dataset),
            *about_explained(dataset, [found.name], shown, by_token=False),
            *applicable(dataset, [found.name]),
        ),
        provenance=provenance_of(dataset),
    )


def layer_profile(
    dataset: xr.Dataset,
    selection: Selection = EVERYTHING,
    look: Look = PLAIN,
    *,
    quantity: str | None = None,
    head: str | int | None = None,
    difference: bool = False,
) -> Profile:
    """The numbers of a layer profile; see `profile_spec`.

    Every prompt is one observation: the mean over its tokens, first token left out unless `look.first_token`. Without
    `selection.span` the tokens are those of the user, as in `contrast`; where none is known to be, all.

    Raises
    ------
    InputError
        Something asked for is not there, no token is left, or a difference is not of two classes.
    """
    if look.scale == "per-layer":
        fix = "Leave it out, or choose linear or log."
        raise UsageError("a profile has one axis for all layers, no scale for each", where="scale", fix=fix)
    name = profiled_quantity(dataset, quantity)
    prompts, row = Prompts(dataset), names.QUANTITIES[name]
    selection = _with_span(prompts, selection) if over_tokens(name) == MEAN else selection
    chosen = selection.together(dataset)
    groups = _groups(prompts, chosen.panels[0].prompts, selection)
    if len(groups) > len(_SIDES):
        most = sorted(groups, key=lambda group: -len(groups[group]))[: len(_SIDES)]
        selection = replace(selection, prompt_class=[group for group in groups if group in most])
        chosen = selection.together(dataset)
        groups = {group: groups[group] for group in groups if group in most}
    used = np.zeros(len(prompts.of_token), bool)
    used[chosen.panels[0].tokens] = True
    if not look.first_token:
        used &= summed_tokens(prompts) if over_tokens(name) == SUM else ~prompts.first
    if row.of_later_tokens:
        used &= ~prompts.rarely_seen
    if not used.any() and over_tokens(name) != ANSWER:
        fix = "Let it take part (`--first-token`), or choose another span."
        raise InputError("there is no token besides the first of each prompt", where="prompt", fix=fix)
    kind, numbers = quantities.row_numbers(dataset, name)
    rows = selection.rows(numbers, kind)
    log = row.log and not (name == "imported_norm" and bool((dataset[name].values < 0).any()))
    order = np.array([index for group in groups.values() for index in group])
    means = prompt_profiles(dataset, name, order, used, log=log, head=head)[:, rows]
    ends = np.cumsum([len(group) for group in groups.values()])[:-1]
    of_class = np.split(means, ends)
    spreads = [_spread(group, values) for group, values in zip(groups, of_class, strict=True)]
    apart = None
    compared = at_one_factor(dataset, prompts, name, list(groups.values()), of_class) if difference else of_class
    if difference:
        if len(groups) != 2:
            raise UsageError(f"a difference is of two classes, here are {len(groups)}", where="class",
                             fix="Name two classes.")  # fmt: skip
        medians = [_spread(group, values) for group, values in zip(groups, compared, strict=True)]
        apart = _difference(prompts, list(groups.values()), compared, medians)
    if log:
        spreads = [replace(one, **{end: np.exp2(getattr(one, end)) for end in ("low", "middle", "high")})
                   for one in spreads]  # fmt: skip
    spans = (selection.span,) if isinstance(selection.span, str) else tuple(selection.span or ())
    return Profile(name, log, tuple(numbers[at] for at in rows), spans, tuple(spreads), apart, chosen, head)


def _with_span(prompts: Prompts, selection: Selection) -> Selection:
    """The selection with the span that is averaged when none is named; of a template alone nothing can be learnt."""
    if selection.span is not None or not prompts.in_spans([defaults.SPAN]).any():
        return selection
    return replace(selection, span=defaults.SPAN)


def _groups(prompts: Prompts, chosen: Sequence[int], selection: Selection) -> dict[str, list[int]]:
    """Prompts by class; without classes each by itself, or all together where they are many."""
    classes = [prompts.classes[index] for index in chosen]
    if not any(classes) and 1 < len(chosen) <= len(_SIDES):
        labels = [prompts.labels[index] for index in chosen]
        if len(set(labels)) == len(labels):
            return {label: [index] for label, index in zip(labels, chosen, strict=True)}
    asked = [selection.prompt_class] if isinstance(selection.prompt_class, str) else [*(selection.prompt_class or ())]
    groups: dict[str, list[int]] = {name: [] for name in asked if name in classes}
    for index, name in zip(chosen, classes, strict=True):
        groups.setdefault(name, []).append(index)
    return groups


def _spread(name: str, values: Floats) -> Spread:
    """How values of shape (observations, rows) spread."""
    known = np.isfinite(values)
    there, behind = known.any(axis=0), known.sum(axis=0)
    count = int(known.any(axis=1).sum())
    found = np.full((3, values.shape[1]), np.nan)
    if there.any():
        shares = _QUARTILES if count >= _FEWEST else _RANGE
        found[:, there] = np.nanquantile(values[:, there], shares, axis=0)
    return Spread(name, count, int(behind[there].min(initial=count)), *found)


def at_one_factor(
    dataset: xr.Dataset, prompts: Prompts, name: str, groups: Sequence[Sequence[int]], of_class: Sequence[Floats]
) -> Sequence[Floats]:
    """Values of two classes, of contributions at one factor of the final norm: of a pair its own, else that of all."""
    if not is_under_final_norm(name) or len(groups) != 2:
        return of_class
    factors = final_scales(dataset, name)
    means = [float(np.nanmean(factors[list(group)])) for group in groups]
    by_pair: list[dict[str, list[float]]] = [{}, {}]
    for found, group in zip(by_pair, groups, strict=True):
        for index in group:
            found.setdefault(prompts.pairs[index], []).append(float(factors[index]))
    whole = sum(means) / 2
    common = {
        pair: (np.mean(by_pair[0][pair]) + np.mean(by_pair[1][pair])) / 2
        for pair in by_pair[0]
        if pair and pair in by_pair[1]
    }
    scaled = []
    for group, values in zip(groups, of_class, strict=True):
        wanted = np.array([common.get(prompts.pairs[index], whole) for index in group])
        scaled.append(at_factor(values, factors[list(group)][:, None], wanted[:, None]))
    return scaled


def _difference(
    prompts: Prompts, groups: Sequence[Sequence[int]], of_class: Sequence[Floats], spreads: Sequence[Spread]
) -> Spread:
    """The second class − the first: within pairs, else between the medians."""
    name = f"{spreads[1].name} − {spreads[0].name}"
    by_pair: list[dict[str, list[Floats]]] = [{}, {}]
    for found, group, values in zip(by_pair, groups, of_class, strict=True):
        for index, one in zip(group, values, strict=True):
            found.setdefault(prompts.pairs[index], []).append(one)
    pairs = [pair for pair in by_pair[0] if pair and pair in by_pair[1]]
    if len(pairs) < 2:
        middle = spreads[1].middle - spreads[0].middle
        nothing = np.full_like(middle, np.nan)
        return Spread(name, 0, 0, nothing, middle, nothing)
    first, second = (np.array([np.mean(found[pair], axis=0) for pair in pairs]) for found in by_pair)
    return _spread(name, second - first)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _marks(found: Profile, one: Spread, side: Side, log: bool) -> list[Mark]:
    """A class: its band and its line, both broken where layers are no neighbours."""
    prompts = counted(one.count, "prompt")
    label = one.name if one.count == 1 and one.name else f"{one.name} ({prompts})" if one.name else prompts
    low, middle, high = (np.where(end > 0, end, np.nan) if log else end for end in (one.low, one.middle, one.high))
    return _line_and_band(found.rows, low, middle, high, side, label, spread=one.count > 1)


def _line_and_band(
    rows: Sequence[int], low: Floats, middle: Floats, high: Floats, side: Side, label: str, *, spread: bool
) -> list[Mark]:
    at = np.arange(len(rows), dtype=float)
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    y = np.insert(at, breaks, breaks - 0.5)
    low, line, high = (np.insert(end, breaks, np.nan) for end in (low, middle, high))
    marks: list[Mark] = [Line(line, y, side, label)]
    if spread:
        marks.insert(0, Band(y, low, high, side))
    if len(rows) <= _MOST_POINTS:
        marks.append(Points(middle, at, side))
    if spread and (single := _alone(at, breaks)).size:
        place = np.isin(y, single)
        marks.append(Intervals(line[place], y[place], low[place], high[place], side))
    return marks


def _alone(at: Floats, breaks: NDArray[np.int64]) -> Floats:
    """Rows without a neighbour: a line and a band of one row would not be seen."""
    edges = np.array([0, *breaks.tolist(), len(at)])
    found: Floats = at[edges[:-1][np.diff(edges) == 1]]
    return found


def _difference_panel(found: Profile, apart: Spread) -> ChartPanel:
    marks: list[Mark] = [Vertical(0.0, "muted")]
    label = counted(apart.count, "pair") if apart.count else "between the medians"
    at = _line_and_band(found.rows, apart.low, apart.middle, apart.high, "c", label, spread=apart.count > 1)
    axis = Axis(f"{'log₂ ratio' if found.log else 'difference'}, {apart.name}")
    kind = names.QUANTITIES[found.name].row_kind
    return ChartPanel(apart.name, axis, layer_axis(found.rows, kind), (*marks, *at), width=1.3)


def _band_in_words(found: Profile) -> str:
    """What lines and bands are; "" where there are but single prompts."""
    few = any(1 < one.count < _FEWEST for one in found.classes)
    many = any(one.count >= _FEWEST for one in found.classes)
    if not few:
        return "line: the median prompt, band: the middle half of the prompts (quartiles)" if many else ""
    half = f"the middle half, of fewer than {_FEWEST} prompts all of them" if many else "from the lowest to the highest"
    return f"line: the median prompt, band: {half}"


def _notes(found: Profile, look: Look, log: bool) -> list[Note]:
    """What a line and a band are, and what must not be concluded from them."""
    of_tokens = f"{listed(found.spans, joined='or')} tokens" if found.spans else "tokens"
    first = "" if look.first_token else ", first token left out"
    mean = "geometric mean" if found.log else over_tokens(found.name)
    said = f"Each prompt counts once, as the {mean} over its {of_tokens}{first}."
    if mean == ANSWER:
        said = "Each prompt counts once, with its value at the token from which the model answers."
    notes = [Note("L12", INFO, f"{said} {_NOT_A_TEST}")]
    short = [f"{one.fewest} of {one.count} in {one.name or 'all'}" for one in found.classes if one.fewest < one.count]
    if short:
        notes.append(
            Note("L08", INFO, f"Some layers have no value in some prompts; at least {listed(short)} have one.")
        )
    if (apart := found.difference) is not None:
        how = (
            f"in each of {counted(apart.count, 'pair')}; line: the median pair, band: "
            + ("the middle half" if apart.count >= _FEWEST else "all of them")
            if apart.count
            else "between the two medians, since there are no two pairs of prompts: it has no spread"
        )
        notes.append(Note("L12", INFO, f"{capital(apart.name)}: {how}."))
        if is_under_final_norm(found.name):
            notes.append(Note("L29", INFO, ONE_SCALE_OF_CLASSES))
    if names.QUANTITIES[found.name].of_later_tokens:
        least = f"Tokens that fewer than {LEAST_QUERIES} later ones can attend to are left out."
        notes.append(Note("L02", INFO, least))
    if log and not found.log:
        notes.append(Note("L05", INFO, "What is zero or less has no logarithm: left out."))
    unit = names.QUANTITIES[found.name].unit
    if unit == "L2 norm":
        notes.append(RAW_NORM)
    if found.name == "imported_norm":
        notes.append(ROWS_OF_A_FILE)
    if names.PEAK in names.QUANTITIES[found.name].dims:
        notes.append(ONLY_PEAKS)
    return notes
