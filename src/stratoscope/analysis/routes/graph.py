"""`route_graph`: along which edges a token's stream came about, or what they bring to a target, within a number of them."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.analysis.routes import choice, notes, recorded
from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arguments import at_least, whole
from stratoscope.trace.calibration import Calibration
from stratoscope.trace.opened import opened
from stratoscope.trace.prompts import GONE, Prompts, some_prompts
from stratoscope.trace.targets import TargetChoice, Targets, one_target
from stratoscope.words import number_ranges

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.routes.choice import Chosen
    from stratoscope.analysis.routes.recorded import Edges, Made
    from stratoscope.trace.arrays import Floats, Ints
    from stratoscope.trace.opened import Inputs

KIND = "routes"
_OF_ROUTES = re.compile(r"\broutes?\b|by source token", re.IGNORECASE)
NOTHING = -1  # a position or head that there is not


def route_graph(
    trace: Inputs,
    *,
    prompt: str | int | None = None,
    token: int | None = None,
    target: TargetChoice = None,
    edges: int = defaults.ROUTE_EDGES,
    first_token: bool = defaults.FIRST_TOKEN,
) -> xr.DataTree:
    """Choose the edges along which a token's stream came about: which head brought what from which token, and where.

    A node is a token at a depth of the residual stream. It is made of the token's own stream before the layer
    (carry-over), of what each head brought from each token (an edge), of attention's biases and of what the MLP wrote.
    All that stands at the end, the chosen token behind the last layer, is one whole. Each node passes on what runs
    through it to what it is made of, in proportion to the sizes of their signed weights, and the edge through which
    most would run is taken next, among those that lead into a node that is reached. `covered` is what reaches the
    embeddings along edges that are shown; the rest is 1 − `covered` (docs/routes.md).

    Parameters
    ----------
    trace
        A trace with the group "routes", or a Dataset of it.
    prompt
        By its id or index; by default the first.
    token
        Position of the token in which the way ends; by default the one from which the model answers.
    target
        Weigh edges by what they bring to this target's logit instead, to first order: by its text or number. The trace
        must hold "effects" too. The way then ends in the token from which the model answers.
    edges
        At most so many edges, 1 to 150; carry-overs and MLPs of the tokens that they reach come in addition.
    first_token
        Let edges from the first token be shown. What comes from it is counted either way.

    Returns
    -------
    xarray.DataTree
        A Result of kind "routes". `edges`: `to_position`, `to_depth`, `from_position`, `from_depth` (−1 = of no
        token), `kind`, `head` (−1 = none), `weight` (signed, as recorded), `flow` (share of the whole), `covered` (of
        the whole, with this edge of a head and all before it; NaN of others); edges of heads first, in the order in
        which they were chosen. `nodes`: `position`, `depth`, `flow`, and `rest`, the share that is lost from view
        there. `depths`: the share of the whole that there is at each depth, and that is in view. `tokens`: `position`
        and `text` of the tokens that are reached. `summary`: `covered`, `rest`, `first_token` (what at least
        comes from the first token), `bias`, `prompt`, `token`, `tokens`, `layers`, `target`, `unsplit` (layers that
        are not split by token), `limits`.

    Raises
    ------
    InputError
        There are no routes in the input, or there is no such prompt, token or target.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=4, record="routes")
    >>> graph = stratoscope.route_graph(trace, prompt=0, edges=20)
    >>> summary = graph.attrs["summary"]
    >>> 0 < summary["covered"] < 1 and abs(summary["covered"] + summary["rest"] - 1) < 1e-9
    True
    """
    most = at_least(1, edges, "edges")
    if most > defaults.ROUTE_EDGES:
        fix = f"Give {defaults.ROUTE_EDGES} or fewer."
        raise UsageError(f"{most} edges are more than a picture can show", where="edges", fix=fix)
    held = opened(trace)
    prompts = some_prompts(held)
    index = 0 if prompt is None else prompts.find(prompt)
    end = _end(prompts, index, token, towards=target is not None)
    layers = held.sizes[names.LAYER]
    parameters = {"prompt": prompts.labels[index], "token": token, "target": target, "edges": most,
                  "first_token": first_token}  # fmt: skip
    if target is None:
        of = recorded.made(held, index)
        _refuse_unknown_end(of, end, prompts, index)
        chosen = choice.along(of, end, most, first_token=first_token)
        tables = {"edges": _edges_along(of, chosen), "nodes": _nodes_along(of, chosen)}
        tables["depths"] = _depths(np.ones(layers + 1), chosen.at_node.sum(axis=0))
        bias = float((chosen.at_node[:, 1:] * of.bias).sum())
    else:
        held = one_target(held, ["route_effect"], target)
        effects = recorded.effects(held, index)
        chosen = choice.towards(effects, end, most, first_token=first_token)
        tables = {"edges": _edges_towards(effects.edges, chosen), "nodes": _nodes_towards(effects.edges, chosen)}
        shown = np.bincount(chosen.layer + 1, chosen.flow, layers + 1).astype(np.float64)
        tables["depths"] = _depths(np.concatenate([[0.0], effects.by_layer / (effects.whole or 1.0)]), shown)
        bias = 0.0
    return make_result(
        KIND,
        tables | {"tokens": _tokens(prompts, index, chosen)},
        sources=[held],
        parameters=parameters,
        notes=notes.notes(held, index, towards=target is not None, first_token=first_token),
        summary={
            "prompt": prompts.labels[index],
            "token": end,
            "tokens": int(prompts.lengths[index]),
            "layers": layers,
            "covered": chosen.covered,
            "rest": 1.0 - chosen.covered,
            "first_token": chosen.first,
            "bias": bias,
            "edges": len(chosen.token),
            **_towards(held, index, asked=target is not None),
            "unsplit": recorded.unsplit(held, index),
            "limits": limits(held),
        },
    )


def limits(dataset: xr.Dataset) -> list[str]:
    """What the receipt names that routes of this trace do not show, such as layers that cannot be split by token."""
    receipt = dataset.attrs.get("receipt")
    found = receipt.get("limits") if isinstance(receipt, Mapping) else None
    return [str(one) for one in found if _OF_ROUTES.search(str(one))] if isinstance(found, list) else []


def _end(prompts: Prompts, prompt: int, token: int | None, *, towards: bool) -> int:
    """Place of the token in which the way ends, among those of its prompt; by default the model answers from it."""
    answer = int(prompts.answer[prompt])
    own = prompts.tokens(prompt)
    if token is None or towards:
        if answer == GONE:
            what = "the token from which it is answered is not in this Dataset"
            raise InputError(what, where=prompts.labels[prompt], fix="Do not cut it.")
        if token is not None and whole(token, "token", "Give a position such as 10.") != prompts.position[answer]:
            fix = "Leave it out: a way towards a target ends in the token from which the model answers."
            raise UsageError("a target is explained at the answer position only", where="token", fix=fix)
        return answer - int(own.start)
    position = whole(token, "token", "Give a position such as 10.")
    places = np.flatnonzero(prompts.position[own] == position)
    if not len(places):
        there = f"There are: {number_ranges(prompts.position[own].tolist())}."
        raise InputError(f"no position {position} in {prompts.labels[prompt]}", where="token", fix=there)
    return int(places[0])


def _refuse_unknown_end(of: Made, end: int, prompts: Prompts, prompt: int) -> None:
    if not np.isfinite(of.carry_weight[end]).any():
        fix = "Its values are missing in the trace. Choose another token."
        if prompts.in_spans(["generated"])[prompts.tokens(prompt).start + end]:
            fix = "Choose one of the prompt's own tokens: routes are not recorded of what was generated."
        raise InputError(f"no route of position {end} is recorded", where="token", fix=fix)


def _edges_along(of: Made, chosen: Chosen) -> Mapping[str, Any]:
    """The edges of heads, in the order in which they were chosen, then what else makes the nodes that are reached."""
    tokens, depths = _reached(chosen)
    layers, whole = depths - 1, chosen.at_node[tokens, depths]
    lost = whole * _lost(of, chosen)[tokens, layers]
    nowhere = np.full(len(tokens), NOTHING)
    parts = [
        _edges_of_heads(of.edges, chosen),
        _part("carry-over", tokens, depths, tokens, layers, of.carry_weight[tokens, layers],
              whole * of.carry[tokens, layers]),
        _part("mlp", tokens, depths, tokens, layers, of.mlp_weight[tokens, layers], whole * of.mlp[tokens, layers]),
        _part("bias", tokens, depths, nowhere, nowhere, of.bias_weight[tokens, layers],
              whole * of.bias[tokens, layers]),
        _part("rest", tokens, depths, nowhere, nowhere, np.full(len(tokens), np.nan), lost),
    ]  # fmt: skip
    return _table(parts)


def _edges_towards(edges: Edges, chosen: Chosen) -> Mapping[str, Any]:
    """The edges of heads, and the streams of the tokens in which they end, of which no size is known."""
    tokens, depths = _reached(chosen)
    unknown = np.full(len(tokens), np.nan)
    streams = _part("carry-over", tokens, depths, tokens, depths - 1, unknown, unknown)
    return _table([_edges_of_heads(edges, chosen), streams])


def _edges_of_heads(edges: Edges, chosen: Chosen) -> dict[str, Any]:
    at = chosen.token, chosen.layer, chosen.route
    part = _part("attention", chosen.token, chosen.layer + 1, edges.source[at], chosen.layer, edges.weight[at],
                 chosen.flow, edges.head[at])  # fmt: skip
    return {**part, "covered": chosen.covered_by}


def _part(
    kind: names.RouteKind, token: Ints, depth: Ints, source: Ints, below: Ints, weight: Floats, flow: Floats,
    head: Ints | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Edges of one kind; an MLP, a bias or a rest through which nothing runs is left out."""
    none = np.full(len(token), NOTHING)
    columns = {
        "to_position": token,
        "to_depth": depth,
        "from_position": source,
        "from_depth": below,
        "head": none if head is None else head,
        "weight": weight,
        "flow": flow,
        "covered": np.full(len(token), np.nan),
    }
    there = slice(None) if kind in ("attention", "carry-over") else flow > 0
    return {"kind": kind, **{name: values[there] for name, values in columns.items()}}


def _table(parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    kinds = [str(part["kind"]) for part in parts for _ in part["weight"]]
    columns: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "kind"
    }
    return table_of("edge", {**columns, "kind": kinds})


def _reached(chosen: Chosen) -> tuple[Ints, Ints]:
    """Token and depth of each node above the embeddings through which something runs, the highest first."""
    depths, tokens = np.nonzero(chosen.at_node[:, :0:-1].T > 0)
    return tokens, chosen.at_node.shape[1] - 1 - depths


def _lost(of: Made, chosen: Chosen) -> Floats:
    """Share of each node that is of no token, or of an edge that is not shown; [token, layer]."""
    shown = np.zeros(of.share.shape, bool)
    shown[chosen.token, chosen.layer, chosen.route] = True
    lost: Floats = of.rest + np.where(shown, 0.0, of.share).sum(axis=2)
    return lost


def _nodes_along(of: Made, chosen: Chosen) -> Mapping[str, Any]:
    rest = np.zeros(chosen.at_node.shape)
    rest[:, 1:] = chosen.at_node[:, 1:] * _lost(of, chosen)
    return _nodes(chosen, rest)


def _nodes_towards(edges: Edges, chosen: Chosen) -> Mapping[str, Any]:
    """Nodes with what edges bring into each of them; what is not shown of it is the rest."""
    rest = chosen.at_node.copy()
    np.subtract.at(rest, (chosen.token, chosen.layer + 1), chosen.flow)
    return _nodes(chosen, np.maximum(rest, 0.0))


def _nodes(chosen: Chosen, rest: Floats) -> Mapping[str, Any]:
    tokens, depths = np.nonzero(chosen.at_node > 0)
    columns = {
        "position": tokens,
        "depth": depths,
        "flow": chosen.at_node[tokens, depths],
        "rest": rest[tokens, depths],
    }
    return table_of("node", columns)


def _depths(there: Floats, in_view: Floats) -> Mapping[str, Any]:
    """Of each depth the share of the whole that there is, and that is shown."""
    return table_of("row", {"depth": np.arange(len(there)), "there": there, "in_view": in_view})


def _tokens(prompts: Prompts, prompt: int, chosen: Chosen) -> Mapping[str, Any]:
    """The tokens that are reached, in reading order, with their texts."""
    own, places = prompts.tokens(prompt), np.sort(chosen.columns)
    return table_of("shown", {"position": places, "text": list(prompts.words(own.start + places))})


def _towards(dataset: xr.Dataset, prompt: int, *, asked: bool) -> dict[str, Any]:
    """The target in words, and whether effects of heads are calibrated; "" where edges are weighed by the stream."""
    if not asked:
        return {"target": "", "not_calibrated": ""}
    targets = Targets(dataset)
    calibration = Calibration.from_receipt(dataset.attrs.get("receipt"))
    return {
        "target": targets.label_of([prompt], 0),
        "not_calibrated": calibration.mark("head", "zero", targets.number(0)),
    }
