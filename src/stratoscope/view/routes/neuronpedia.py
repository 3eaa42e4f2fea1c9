"""A route graph as Neuronpedia's attribution-graph JSON, so that viewers of that format open it.

Those viewers keep one link between two nodes, and several heads may join the same two. So each head that writes into a
token in a layer is a node by itself: links lead to it from the tokens from which it brings something, and from it to
the stream behind the layer. An MLP is a node too; between the token's own streams goes what is carried over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stratoscope.analysis.results.result import Row, rows_in
from stratoscope.errors import InputError
from stratoscope.trace.prompts import Prompts
from stratoscope.version import __version__
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.viewspec import provenance_of
from stratoscope.words import counted, head_name, percent, plain_text

if TYPE_CHECKING:
    import xarray as xr

_STREAM, _MLP, _BIAS = -1, -2, -3  # what stands in the place of a feature's number; a head has its own
_TYPES = {_STREAM: "residual stream", _MLP: "mlp", _BIAS: "bias"}
_SLUG = re.compile(r"[^a-z0-9]+")


def refuse_two(graphs: Sequence[xr.DataTree]) -> xr.DataTree:
    """The only graph, or an `InputError`: the format holds one prompt."""
    if len(graphs) > 1:
        fix = "Name one prompt, and write one file for each; or write .html for both."
        raise InputError("a graph of that format is of one prompt", where="prompt", fix=fix)
    return graphs[0]


@dataclass(frozen=True)
class _Node:
    """A node of the JSON: a stream, a head, an MLP or biases, at a token behind a layer; layer −1 = the embedding."""

    position: int
    layer: int
    feature: int = _STREAM

    def identity(self) -> str:
        """What links call it."""
        name = self.feature if self.feature >= 0 else _TYPES[self.feature].split()[0]
        return f"{'E' if self.layer < 0 else self.layer}_{name}_{self.position}"


@dataclass
class _Links:
    """The links between nodes; what joins the same two is one."""

    weights: dict[tuple[_Node, _Node], float] = field(default_factory=dict)

    def add(self, source: _Node, target: _Node, weight: float) -> None:
        """Add what goes from one to the other."""
        self.weights[source, target] = self.weights.get((source, target), 0.0) + weight


def attribution_graph(dataset: xr.Dataset, graph: xr.DataTree) -> Mapping[str, Json]:
    """The JSON of a route graph.

    Parameters
    ----------
    dataset
        The trace.
    graph
        What `route_graph` made of it.

    Raises
    ------
    InputError
        It leads towards the logit of a target: nothing is known then of the streams that join its edges.
    """
    summary = graph.attrs["summary"]
    if summary["target"]:
        fix = "Leave --target out, or write .html, .svg or .pdf."
        raise InputError("edges towards a target are joined by streams of unknown weight", where="target", fix=fix)
    end = _Node(summary["token"], summary["layers"] - 1)
    links = _links(rows_in(graph, "edges"))
    nodes = sorted(
        {end, *(one for pair in links.weights for one in pair)}, key=lambda one: (one.layer, one.position, one.feature)
    )
    flows = {(row["position"], row["depth"]): row["flow"] for row in rows_in(graph, "nodes")}
    texts = _texts(dataset, summary["prompt"])
    return {
        "metadata": _metadata(dataset, graph, texts),
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": end.identity(), "sg_pos": ""},
        "nodes": [_described(node, texts, flows) for node in nodes],
        "links": [
            {"source": source.identity(), "target": target.identity(), "weight": weight}
            for (source, target), weight in links.weights.items()
        ],
    }


def _links(edges: Sequence[Row]) -> _Links:
    """The links of the edges of a route graph, all as parts of the stream behind the layer that they lead into."""
    by_mlp = {(row["to_position"], row["to_depth"]): row["weight"] for row in edges if row["kind"] == "mlp"}
    links = _Links()
    for edge in edges:
        to, layer, kind = edge["to_position"], edge["to_depth"] - 1, edge["kind"]
        stream, before = _Node(to, layer), _Node(edge["from_position"], edge["from_depth"] - 1)
        weight = edge["weight"] * (1.0 if kind == "mlp" else 1.0 - by_mlp.get((to, layer + 1), 0.0))
        if kind == "carry-over":
            links.add(before, stream, weight)
        elif kind == "bias":
            links.add(_Node(to, layer, _BIAS), stream, weight)
        elif kind != "rest":
            through = _Node(to, layer, edge["head"] if kind == "attention" else _MLP)
            links.add(before, through, weight)
            links.add(through, stream, weight)
    return links


def _described(node: _Node, texts: Sequence[str], flows: Mapping[tuple[int, int], float]) -> Mapping[str, Json]:
    """A node as the format has it."""
    is_embedding = node.layer < 0
    kind = "embedding" if is_embedding else _TYPES.get(node.feature, "attention head")
    return {
        "node_id": node.identity(),
        "feature": node.position if is_embedding else node.feature,
        "layer": "E" if is_embedding else str(node.layer),
        "ctx_idx": node.position,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{node.identity()}-0",
        "clerp": _label(node, texts, flows),
    }


def _label(node: _Node, texts: Sequence[str], flows: Mapping[tuple[int, int], float]) -> str:
    token = f'"{texts[node.position]}"'
    if node.layer < 0:
        return f"embedding of {token}"
    if node.feature >= 0:
        return f"{head_name(node.layer, node.feature)} at {token}"
    if node.feature == _STREAM:
        flow = flows.get((node.position, node.layer + 1))
        share = "" if flow is None else f", {percent(flow)} of the end"
        return f"stream of {token} after L{node.layer}{share}"
    return f"{'MLP' if node.feature == _MLP else 'attention biases'} of L{node.layer} at {token}"


def _metadata(dataset: xr.Dataset, graph: xr.DataTree, texts: Sequence[str]) -> Mapping[str, Json]:
    summary, parameters = graph.attrs["summary"], graph.attrs["parameters"]
    model = provenance_of(dataset).model or "simulated"
    name = f"{model} {summary['prompt']} token {summary['token']}"
    return {
        "slug": _SLUG.sub("-", name.lower()).strip("-"),
        "scan": model,
        "transcoder_list": [],
        "prompt_tokens": list(texts),
        "prompt": "".join(texts),
        "info": {
            "description": _description(graph),
            "generator": {"name": "stratoscope", "version": __version__},
        },
        "generation_settings": {
            "edges": parameters["edges"],
            "first_token": parameters["first_token"],
            "covered": summary["covered"],
        },
    }


def _description(graph: xr.DataTree) -> str:
    """What the weights are, which a reader of other graphs would not expect."""
    summary = graph.attrs["summary"]
    return (
        f"Routes of attention into token {summary['token']}: {counted(summary['edges'], 'edge')} and own streams cover "
        f"{percent(summary['covered'])} of its residual stream, rest {percent(summary['rest'])}. A node is the stream "
        "of a token behind a layer, or a head or MLP that writes into it; no node is a feature. A weight is "
        "signed: the share of the stream in front of the MLP, times the share of that stream in the one behind the "
        "layer. These are parts of sums, not effects."
    )


def _texts(dataset: xr.Dataset, prompt: str) -> list[str]:
    """The texts of all tokens of a prompt, as they are; a byte that is no character is U+FFFD."""
    prompts = Prompts(dataset)
    own = prompts.tokens(prompts.labels.index(prompt))
    spelling = str(dataset.attrs.get("token_spelling", "text"))
    texts = (plain_text(str(text), spelling) for text in dataset["text"].values[own])
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
