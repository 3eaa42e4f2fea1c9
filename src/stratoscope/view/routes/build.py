"""Route graphs as the content of a ViewSpec: which tokens have a column, and what stands above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.tokens import shown_tokens
from stratoscope.view.routes.neurons import neurons_of
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.routes import RoutePanel, Routes
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.tokens import ShownTokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of
from stratoscope.words import counted, percent, visible

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.arrays import Ints

_MOST_WHOLE = 64  # tokens of a prompt that all have a column; of a longer one only those that an edge reaches
_LABEL = 0.17  # inches of a label on a page of a given width
_STREAM, _EFFECTS = "the chosen token's residual stream", "the sizes of all effects"


def routes_spec(dataset: xr.Dataset, graph: xr.DataTree, look: Look = PLAIN, page: Page = PLAIN_PAGE) -> ViewSpec:
    """The ViewSpec of the routes of one prompt.

    Parameters
    ----------
    dataset
        The trace.
    graph
        What `route_graph` made of it.
    page
        On a narrow one, tokens that no edge reaches have no column either.
    """
    summary, prompts = graph.attrs["summary"], Prompts(dataset)
    place = prompts.labels.index(summary["prompt"])
    positions = columns_of(graph, most_whole(page))
    tokens = shown_tokens(prompts, prompts.tokens(place).start + positions, [place])
    panel = panel_of(dataset, graph, placed(positions, summary["tokens"]))
    return ViewSpec(
        _title(graph, tokens, positions),
        _subtitle(graph, provenance_of(dataset).model),
        content_of(graph, [panel]),
        look,
        tokens,
        Selected((tokens.prompts[0].id,), of_trace=_left_out(summary, len(positions))),
        notes_in(graph),
        provenance_of(dataset),
        {"parameters": graph.attrs["parameters"], "summary": summary},
    )


def content_of(graph: xr.DataTree, panels: Sequence[RoutePanel]) -> Routes:
    """Panels of one kind of weight."""
    summary = graph.attrs["summary"]
    row = names.QUANTITIES["route_effect" if summary["target"] else "route_weight"]
    weight = DrawnQuantity(
        row.name, row.label, row.unit, row.formula, signed=True, row_kind=names.DEPTH,
        rows=tuple(range(summary["layers"] + 1)),
    )  # fmt: skip
    return Routes(weight, _EFFECTS if summary["target"] else _STREAM, widest_in(panels), tuple(panels))


def widest_in(panels: Sequence[RoutePanel]) -> float:
    """Size of the largest weight of a head in any of them."""
    sizes = np.concatenate([np.abs(one.weight[one.of_heads]) for one in panels])
    return float(sizes.max(initial=0.0)) or 1.0


def most_whole(page: Page) -> int:
    """Of so many tokens all have a column: no more than there is room for on a page of a given width."""
    return _MOST_WHOLE if page.width is None else int(page.width / _LABEL)


def columns_of(graph: xr.DataTree, most: int) -> Ints:
    """Positions of the tokens that have a column, in reading order: of at most `most` tokens all have one."""
    summary = graph.attrs["summary"]
    if summary["tokens"] <= most:
        return np.arange(summary["tokens"])
    return np.asarray(table_in(graph, "tokens")["position"].values, np.int64)


@dataclass(frozen=True, eq=False)
class Placing:
    """Where the tokens of a prompt stand.

    Attributes
    ----------
    column
        Position → column, of those that have one.
    left_out
        How many tokens have none, before each column and behind the last.
    start
        Where the columns begin in the picture's table of tokens.
    """

    column: Mapping[int, int]
    left_out: NDArray[np.int32]
    start: int = 0


def placed(positions: Ints, tokens: int) -> Placing:
    """The tokens of a prompt of so many at these positions, side by side."""
    column = {position: place for place, position in enumerate(positions.tolist())}
    return Placing(column, indices(np.diff(positions, prepend=-1, append=tokens) - 1))


def panel_of(dataset: xr.Dataset, graph: xr.DataTree, placing: Placing) -> RoutePanel:
    """The panel of a prompt."""
    summary = graph.attrs["summary"]
    edges, nodes = table_in(graph, "edges"), table_in(graph, "nodes")
    depths = summary["layers"] + 1

    def columns(values: Any) -> Any:
        return indices([placing.column.get(one, -1) for one in values.tolist()])

    prompt = Prompts(dataset).labels.index(summary["prompt"])
    kinds = [names.ROUTE_KINDS.index(kind) for kind in edges["kind"].values.tolist()]
    there, in_view = _by_depth(graph, depths)
    return RoutePanel(
        title=visible(summary["prompt"]),
        detail="",
        start=placing.start,
        stop=placing.start + len(placing.left_out) - 1,
        left_out=placing.left_out,
        end=placing.column[summary["token"]],
        covered=summary["covered"],
        rest=summary["rest"],
        first_token=summary["first_token"],
        bias=summary["bias"],
        there=there,
        in_view=in_view,
        node_column=columns(nodes["position"].values),
        node_depth=indices(nodes["depth"].values),
        node_flow=nodes["flow"].values.astype("<f8"),
        node_rest=nodes["rest"].values.astype("<f8"),
        to_column=columns(edges["to_position"].values),
        to_depth=indices(edges["to_depth"].values),
        from_column=columns(edges["from_position"].values),
        from_depth=indices(edges["from_depth"].values),
        edge_kind=np.array(kinds, "|u1"),
        head=indices(edges["head"].values),
        weight=edges["weight"].values.astype("<f8"),
        flow=edges["flow"].values.astype("<f8"),
        covered_by=edges["covered"].values.astype("<f8"),
        unmatched=np.zeros(len(placing.left_out) - 1, "|u1"),
        neurons=neurons_of(
            dataset, prompt, nodes["position"].values, nodes["depth"].values, towards=bool(summary["target"])
        ),
    )


def _by_depth(graph: xr.DataTree, depths: int) -> tuple[Any, Any]:
    """Share of the whole that there is at each depth, and that is in view there."""
    depth = table_in(graph, "depths")
    return depth["there"].values.astype("<f8"), depth["in_view"].values.astype("<f8")


def _title(graph: xr.DataTree, tokens: ShownTokens, positions: Ints) -> str:
    summary = graph.attrs["summary"]
    end = int(np.searchsorted(positions, summary["token"]))
    name = f"“{tokens.text[end]}” (token {summary['token']})"
    covered, rest, edges = percent(summary["covered"]), percent(summary["rest"]), counted(summary["edges"], "edge")
    if not summary["target"]:
        return f"Routes into {name}: {edges} and own streams cover {covered}, rest {rest}"
    doubt = f" · {summary['not_calibrated']}" if summary["not_calibrated"] else ""
    return f"Routes towards {summary['target']}: {edges} cover {covered} of all effects, rest {rest}{doubt}"


def _subtitle(graph: xr.DataTree, model: str) -> str:
    """The prompt and the model; what the rest is, in parts of the whole."""
    summary = graph.attrs["summary"]
    first = f"at least {percent(summary['first_token'])} comes from the first token"
    bias = f"{percent(summary['bias'])} from biases" if summary["bias"] > 0 else ""
    return " · ".join(part for part in (summary["prompt"], model, first, bias) if part)


def _left_out(summary: Any, columns: int) -> str:
    """How much of the prompt has no column."""
    absent = summary["tokens"] - columns
    return f"{columns:,} of {counted(summary['tokens'], 'token')}; no edge reaches the others" if absent else ""
