"""The routes of two prompts side by side: columns are aligned tokens, on one scale; and B − A of matched edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.results.result import notes_in, rows_in, table_in
from stratoscope.analysis.routes import recorded
from stratoscope.analysis.routes.difference import ATTENTION, MLP, Difference, Side, difference
from stratoscope.analysis.values.align import GAP, Alignment, align, token_keys
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.tokens import shown_tokens
from stratoscope.view.routes.build import Placing, content_of, most_whole, panel_of, widest_in
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.routes import LEAST_MLP, RoutePanel, RouteSides
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.tokens import ShownTokens, joined
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of
from stratoscope.words import counted, number, percent, visible

if TYPE_CHECKING:
    import xarray as xr

_Number = TypeVar("_Number", np.int32, np.uint8)
NO_COUNTERPART = "Edges at hatched tokens have no counterpart and are not compared: they are drawn dashed."
ABSENT = (
    "edge that only one prompt has among its recorded ones is not zero in the other: its difference is not known, "
    "and it is drawn dashed. In the other prompt it is no larger than the smallest edge recorded there"
)


@dataclass(frozen=True, eq=False)
class _Two:
    """Two prompts of a trace and their graphs, with the columns that are shown.

    Attributes
    ----------
    columns
        All of their alignment.
    shown
        Which of these are shown, ascending.
    """

    dataset: xr.Dataset
    prompts: Prompts
    places: tuple[int, int]
    graphs: tuple[xr.DataTree, xr.DataTree]
    columns: Alignment
    shown: Ints

    @property
    def labels(self) -> tuple[str, str]:
        """What they are called."""
        a, b = (visible(self.prompts.labels[place]) for place in self.places)
        return a, b


def two_spec(
    dataset: xr.Dataset,
    graphs: tuple[xr.DataTree, xr.DataTree],
    look: Look = PLAIN,
    page: Page = PLAIN_PAGE,
    *,
    with_difference: bool,
) -> ViewSpec:
    """The ViewSpec of the routes of two prompts of one trace.

    Parameters
    ----------
    dataset
        The trace; towards a target, of that target.
    graphs
        What `route_graph` made of either.
    page
        On a narrow one, tokens that no edge reaches have no column either.
    with_difference
        Whether B − A is a third panel.
    """
    two = _two(dataset, graphs, most_whole(page))
    width = len(two.shown)
    sides = (two.columns.a, two.columns.b)
    tokens = [_tokens(two, at) for at in sides]
    panels = [_panel(two, number, start=number * width) for number in (0, 1)]
    notes = list(dict.fromkeys(note for graph in graphs for note in notes_in(graph)))
    called: tuple[str, ...] = ()
    if with_difference:
        found = difference(_side(two, 0), _side(two, 1), two.columns)
        tokens.append(_tokens_of_both(two, *tokens))
        panels.append(_difference_panel(two, _marked(two, found), start=2 * width))
        shares = not graphs[0].attrs["summary"]["target"]
        notes += [Note("L08", INFO, sentence) for sentence in _absent(found, percent if shares else number)]
        called = two.labels
    content = content_of(graphs[0], panels)
    return ViewSpec(
        _title(two, with_difference=with_difference),
        _subtitle(two),
        replace(content, widest=widest_in(panels[:2]), called=called),
        look,
        joined(tokens),
        Selected(two.labels, of_trace=_left_out(two)),
        tuple(notes),
        provenance_of(dataset),
        {
            "parameters": [graph.attrs["parameters"] for graph in graphs],
            "summary": [one.attrs["summary"] for one in graphs],
        },
    )


def _two(dataset: xr.Dataset, graphs: tuple[xr.DataTree, xr.DataTree], most: int) -> _Two:
    prompts = Prompts(dataset)
    a, b = (prompts.labels.index(graph.attrs["summary"]["prompt"]) for graph in graphs)
    columns = align(*(token_keys(dataset, prompts.tokens(place)) for place in (a, b)))
    shown = np.arange(len(columns))
    if len(columns) > most:
        reached = np.zeros(len(columns), bool)
        for graph, at in zip(graphs, (columns.a, columns.b), strict=True):
            reached |= np.isin(at, table_in(graph, "tokens")["position"].values) & (at != GAP)
        shown = np.flatnonzero(reached)
    return _Two(dataset, prompts, (a, b), graphs, columns, shown)


def _placing(two: _Two, at: NDArray[np.int64], start: int) -> Placing:
    """Where the tokens of one prompt stand."""
    mine = at[two.shown].tolist()
    return Placing(
        {place: column for column, place in enumerate(mine) if place != GAP},
        indices(np.diff(two.shown, prepend=-1, append=len(two.columns)) - 1),
        start,
    )


def _panel(two: _Two, number: int, start: int) -> RoutePanel:
    at = (two.columns.a, two.columns.b)[number]
    unmatched = ~two.columns.equal[two.shown]
    panel = panel_of(two.dataset, two.graphs[number], _placing(two, at, start))
    return replace(panel, unmatched=unmatched.astype("|u1"))


def _tokens(two: _Two, at: NDArray[np.int64]) -> ShownTokens:
    """The tokens of one prompt, in their columns; where it has none, nothing."""
    mine = at[two.shown]
    place = two.places[0] if at is two.columns.a else two.places[1]
    there = np.flatnonzero(mine != GAP)
    known = shown_tokens(two.prompts, two.prompts.tokens(place).start + mine[there], two.places)

    def spread(values: NDArray[_Number], nothing: int) -> NDArray[_Number]:
        found = np.full(len(mine), nothing, values.dtype)
        found[there] = values
        return found

    text = [""] * len(mine)
    for column, words in zip(there.tolist(), known.text, strict=True):
        text[column] = words
    return ShownTokens(
        known.prompts,
        spread(known.prompt, -1),
        spread(known.position, -1),
        spread(known.span, -1),
        spread(known.first, 0),
        tuple(text),
    )


def _tokens_of_both(two: _Two, a: ShownTokens, b: ShownTokens) -> ShownTokens:
    """The columns of the difference: a token of both, or those of either."""
    pairs = zip(a.text, b.text, two.columns.equal[two.shown].tolist(), strict=True)
    text = tuple(one if equal or not other else f"{one} | {other}" if one else other for one, other, equal in pairs)
    first = np.where(a.position >= 0, a.position, b.position).astype(np.int32)
    of_none = np.full(len(text), -1, np.int32)
    return ShownTokens(
        a.prompts, of_none, first, np.where(a.span >= 0, a.span, b.span), np.maximum(a.first, b.first), text
    )


def _side(two: _Two, number: int) -> Side:
    """What the trace holds of one of the prompts."""
    graph, place = two.graphs[number], two.places[number]
    if graph.attrs["summary"]["target"]:
        effects = recorded.effects(two.dataset, place)
        return Side(graph, effects.edges, effects.other, {})
    made = recorded.made(two.dataset, place)
    own = two.dataset["route_other_size"].isel({names.TOKEN: two.prompts.tokens(place)})
    other: Floats = np.asarray(own.values, float)
    return Side(graph, made.edges, other, {"carry-over": made.carry_weight, MLP: made.mlp_weight})


def _marked(two: _Two, found: Difference) -> Difference:
    """Without the MLPs through which next to nothing runs in either prompt."""
    marked = {
        (int(column), row["to_depth"])
        for graph, at in zip(two.graphs, (two.columns.a, two.columns.b), strict=True)
        for row in rows_in(graph, "edges")
        if row["kind"] == MLP and row["flow"] >= LEAST_MLP
        for column in np.flatnonzero(at == row["to_position"])
    }
    places = zip(found.kind, found.to_column.tolist(), found.to_depth.tolist(), strict=True)
    return found.at([kind != MLP or (column, depth) in marked for kind, column, depth in places])


def _difference_panel(two: _Two, found: Difference, start: int) -> RoutePanel:
    """B − A as a panel; of what neither prompt has anything there is no whole, and no share."""
    column = {int(one): place for place, one in enumerate(two.shown)}

    def places(values: Ints) -> NDArray[np.int32]:
        return indices([column[one] for one in values.tolist()])

    to, source = places(found.to_column), places(found.from_column)
    nodes = sorted(
        {
            *zip(to.tolist(), found.to_depth.tolist(), strict=True),
            *zip(source.tolist(), found.from_depth.tolist(), strict=True),
        }
    )
    unknown, count = np.full(len(nodes), np.nan), len(found.a)
    depths = two.graphs[0].attrs["summary"]["layers"] + 1
    a, b = two.labels
    return RoutePanel(
        title=f"{b} − {a}",
        detail=_counts(found, a, b),
        start=start,
        stop=start + len(two.shown),
        left_out=_placing(two, two.columns.a, start).left_out,
        end=column[int(np.flatnonzero(two.columns.b == two.graphs[1].attrs["summary"]["token"])[0])],
        covered=None,
        rest=None,
        first_token=None,
        bias=None,
        there=np.full(depths, np.nan),
        in_view=np.full(depths, np.nan),
        node_column=indices([node[0] for node in nodes]),
        node_depth=indices([node[1] for node in nodes]),
        node_flow=unknown,
        node_rest=unknown,
        to_column=to,
        to_depth=indices(found.to_depth),
        from_column=source,
        from_depth=indices(found.from_depth),
        edge_kind=np.array([names.ROUTE_KINDS.index(kind) for kind in found.kind], "|u1"),
        head=indices(found.head),
        weight=found.difference,
        flow=np.full(count, np.nan),
        covered_by=np.full(count, np.nan),
        unmatched=(~two.columns.equal[two.shown]).astype("|u1"),
        sides=RouteSides(found.a, found.b, found.most),
    )


def _counts(found: Difference, a: str, b: str) -> str:
    """How many edges of heads are matched, how many only one prompt has, and how many have no counterpart."""
    heads = np.array([kind == ATTENTION for kind in found.kind], bool)
    both = int((heads & np.isfinite(found.difference)).sum())
    only_a, only_b = (int((heads & found.is_bounded & np.isnan(weight)).sum()) for weight in (found.b, found.a))
    apart = int(heads.sum()) - both - only_a - only_b
    counts = f"{counted(both, 'edge')} recorded in both, {only_a} only in {a}, {only_b} only in {b}"
    return f"{counts}, {apart} at tokens without an equal one" if apart else counts


def _absent(found: Difference, said: Callable[[float], str]) -> list[str]:
    """What is not compared, and what an edge that is not recorded may be."""
    apart = np.isnan(found.difference) & ~found.is_bounded
    sentences = [NO_COUNTERPART] if apart.any() else []
    if found.is_bounded.any():
        most = said(float(found.most[found.is_bounded].max()))
        sentences.append(f"{'Another' if apart.any() else 'An'} {ABSENT} (at most {most}).")
    return sentences


def _title(two: _Two, *, with_difference: bool) -> str:
    a, b = two.labels
    summary = two.graphs[0].attrs["summary"]
    towards = f" towards {summary['target']}" if summary["target"] else ""
    doubt = f" · {summary['not_calibrated']}" if summary["not_calibrated"] else ""
    return f"Routes of {a} and {b}{towards}{f', and {b} − {a}' if with_difference else ''}{doubt}"


def _subtitle(two: _Two) -> str:
    """The model; how much of either is covered."""
    parts = [provenance_of(two.dataset).model]
    for name, graph in zip(two.labels, two.graphs, strict=True):
        summary = graph.attrs["summary"]
        streams = "" if summary["target"] else " and own streams"
        parts.append(f"{name}: {counted(summary['edges'], 'edge')}{streams} cover {percent(summary['covered'])}")
    return " · ".join(part for part in parts if part)


def _left_out(two: _Two) -> str:
    """How many columns are not shown."""
    absent = len(two.columns) - len(two.shown)
    return (
        f"{len(two.shown):,} of {counted(len(two.columns), 'aligned token')}; no edge reaches the others"
        if absent
        else ""
    )
