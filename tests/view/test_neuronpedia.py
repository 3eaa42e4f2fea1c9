"""Routes as Neuronpedia's attribution-graph JSON: a file that its viewer and circuit-tracer's read without a fault.

`SCHEMA` says what the viewers read: the fields that the public schema (graph-schema.json of github.com/hijohnnylin/
neuronpedia) and the data model of circuit-tracer require, with the types on which both agree. The tests below hold what
their scripts rely on besides: unique ids, no link to nowhere, one link between two nodes, a layer above 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import stratoscope
from route_traces import route_trace
from stratoscope.analysis.results.result import rows_in
from stratoscope.analysis.routes.graph import route_graph
from stratoscope.errors import InputError
from stratoscope.view.routes import neuronpedia

TEXT = {"type": "string"}
NODE = {
    "node_id": TEXT,
    "feature": {"type": "integer"},
    "layer": {"type": "string", "pattern": "^(E|[0-9]+)$"},
    "ctx_idx": {"type": "integer", "minimum": 0},
    "feature_type": TEXT,
    "jsNodeId": TEXT,
    "clerp": TEXT,
}
LINK = {"source": TEXT, "target": TEXT, "weight": {"type": "number"}}
Q_PARAMS = {
    "pinnedIds": {"type": "array", "items": TEXT},
    "supernodes": {"type": "array", "items": {"type": "array", "items": TEXT}},
    "linkType": TEXT,
    "clickedId": TEXT,
    "sg_pos": TEXT,
}
METADATA = {
    "slug": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    "scan": TEXT,
    "transcoder_list": {"type": "array", "items": TEXT},
    "prompt_tokens": {"type": "array", "items": TEXT, "minItems": 1},
    "prompt": TEXT,
}


def of_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [*fields]}


SCHEMA = of_fields(
    {
        "metadata": of_fields(METADATA),
        "qParams": of_fields(Q_PARAMS),
        "nodes": {"type": "array", "items": of_fields(NODE), "minItems": 1},
        "links": {"type": "array", "items": of_fields(LINK)},
    }
)
NOT_READ_AS_FEATURES = {"embedding", "residual stream", "attention head", "mlp", "bias"}


def written(tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], Any]:
    trace = route_trace(7, layers=3, bias=0.05, **changes)
    graph = route_graph(trace, edges=30, first_token=True)
    stratoscope.routes(trace, tmp_path / "graph.json", edges=30, first_token=True)
    return json.loads((tmp_path / "graph.json").read_bytes()), graph


def test_the_file_has_the_fields_that_viewers_require(tmp_path: Path) -> None:
    found, _ = written(tmp_path)
    Draft202012Validator(SCHEMA).validate(found)
    assert {node["feature_type"] for node in found["nodes"]} == NOT_READ_AS_FEATURES
    assert len(found["metadata"]["prompt_tokens"]) == 7
    assert found["metadata"]["prompt"] == "".join(found["metadata"]["prompt_tokens"])


def test_every_link_leads_from_a_node_to_another_and_none_twice(tmp_path: Path) -> None:
    found, _ = written(tmp_path)
    ids = [node["node_id"] for node in found["nodes"]]
    layers = {node["node_id"]: -1 if node["layer"] == "E" else int(node["layer"]) for node in found["nodes"]}
    links = [(link["source"], link["target"]) for link in found["links"]]
    assert len({*ids}) == len(ids)
    assert len({*links}) == len(links)
    assert {one for link in links for one in link} == {*ids}
    assert all(layers[source] <= layers[target] for source, target in links)
    of_viewer = [(node["layer"], node["feature"], node["ctx_idx"]) for node in found["nodes"]]
    assert len({*of_viewer}) == len(of_viewer)  # by which viewers tell nodes apart
    assert found["qParams"]["clickedId"] in ids


def test_heads_are_nodes_with_the_weights_of_their_edges(tmp_path: Path) -> None:
    found, graph = written(tmp_path)
    rows = rows_in(graph, "edges")
    mlp = {(row["to_position"], row["to_depth"]): row["weight"] for row in rows if row["kind"] == "mlp"}
    into = [row for row in rows if row["kind"] == "attention"]
    weight = {(link["source"], link["target"]): link["weight"] for link in found["links"]}
    for row in into:
        layer = row["to_depth"] - 1
        head = f"{layer}_{row['head']}_{row['to_position']}"
        source = f"{'E' if layer == 0 else layer - 1}_residual_{row['from_position']}"
        share = row["weight"] * (1 - mlp.get((row["to_position"], row["to_depth"]), 0.0))
        assert weight[source, head] == pytest.approx(share, abs=1e-12)
    heads = {link for link in weight if link[0].split("_")[1].isdigit()}
    total = sum(weight[link] for link in heads)
    assert total == pytest.approx(sum(value for (_, to), value in weight.items() if to.split("_")[1].isdigit()))
    assert len(heads) > 5


def test_what_leads_into_the_end_is_all_of_it_but_the_rest(tmp_path: Path) -> None:
    """All links are parts of one sum: at a node with every edge in view they are 1."""
    trace = route_trace(3, layers=2, heads=2, kept=16)
    graph = route_graph(trace, edges=150, first_token=True)
    found = neuronpedia.attribution_graph(trace, graph)
    end = found["qParams"]["clickedId"]  # type: ignore[index, call-overload]
    links: Any = found["links"]
    assert sum(link["weight"] for link in links if link["target"] == end) == pytest.approx(1.0, abs=1e-5)


def test_bytes_that_are_no_character_and_markup_stay_texts(tmp_path: Path) -> None:
    trace = route_trace(3, layers=2)
    trace["text"].values[:] = ["</script>", "\udce4", '"\u202e\x00']
    stratoscope.routes(trace, tmp_path / "graph.json", edges=10, first_token=True)
    raw = (tmp_path / "graph.json").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["metadata"]["prompt_tokens"] == ["</script>", "\ufffd", '"\u202e\x00']


def test_ways_towards_a_target_are_refused_since_their_streams_have_no_weight() -> None:
    trace = route_trace(4, layers=2, targets=1)
    graph = route_graph(trace, target=0, edges=10)
    with pytest.raises(InputError, match="unknown weight"):
        neuronpedia.attribution_graph(trace, graph)
    assert np.isnan(graph["edges"]["weight"].values).any()
