"""What a trace holds of lenses and of routes, as JSON-able facts for `info`, and as lines of its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stratoscope.defaults import LENS_POSITIONS
from stratoscope.names import ALL_POSITIONS, LENS, ROUTE, TOKEN
from stratoscope.trace.lenses import lens_names
from stratoscope.trace.routes import unsplit_layers
from stratoscope.words import counted, listed

if TYPE_CHECKING:
    import xarray as xr


def lenses(dataset: xr.Dataset) -> dict[str, Any] | None:
    """Facts about the lenses of a trace; None where it holds none.

    Returns
    -------
    dict
        `lenses` (names, "logit" first), `positions` ("answer" or "all"; "" = not said), `file` (what is known of the
        fitted lens; None = there is none), `targets` (whether logits of targets were read too), `error` and `limit`
        (how far the last depth, computed anew, is from the model's own logits, and what is allowed; None = not said).
    """
    if LENS not in dataset.sizes:
        return None
    plan = dataset.attrs.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    file, positions = plan.get("lens_file"), plan.get("positions")
    return {
        "lenses": [*lens_names(plan, dataset.sizes[LENS])],
        "positions": positions if isinstance(positions, str) else "",
        "file": dict(file) if isinstance(file, Mapping) else None,
        "targets": "lens_target_logit" in dataset,
        **_error(dataset, "lens"),
    }


def routes(dataset: xr.Dataset) -> dict[str, Any] | None:
    """Facts about the routes of a trace; None where it holds none.

    Returns
    -------
    dict
        `edges` (kept of a token and layer), `not_split` (layers whose mixer is not split by token: they have none),
        `effects` (whether edges are there by what they bring to targets), `error` and `limit` (how far sums are from
        1, and what is allowed; None = not said).
    """
    if ROUTE not in dataset.sizes:
        return None
    return {
        "edges": dataset.sizes[ROUTE],
        "not_split": unsplit_layers(dataset.isel({TOKEN: slice(1)})),  # every layer that is split has an edge there
        "effects": "route_effect" in dataset,
        **_error(dataset, "routes"),
    }


def lens_lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Titles and words of the lines about lenses."""
    yield "lenses", "; ".join(facts["lenses"])
    last = f"the answer position and the {LENS_POSITIONS - 1} tokens before it"
    read = "every token" if facts["positions"] == ALL_POSITIONS else last
    yield "read at", f"{read}; logits of targets at every token" if facts["targets"] else read
    if facts["file"]:
        plain = {key: value for key, value in facts["file"].items() if isinstance(value, str | int | float)}
        yield "fitted lens", ", ".join(f"{key} {value}" for key, value in plain.items())
        corpora = facts["file"].get("corpora")
        each = corpora if isinstance(corpora, list | tuple) else []
        if named := [str(one["name"]) for one in each if isinstance(one, Mapping) and "name" in one]:
            yield "fitted on", listed(named)
    if facts["error"] is not None:
        yield "last depth", f"computed anew it misses the model's own logits by at most {_error_text(facts)}"
    yield "drawn by", "stratoscope lens"


def route_lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Titles and words of the lines about routes."""
    kept = f"the {counted(facts['edges'], 'edge')} of attention of largest size, of every token and layer"
    yield "edges", f"{kept}, and the sum of all others"
    if facts["effects"]:
        yield "effects", "edges by their total effect on targets too, to first order"
    if facts["not_split"]:
        layers = ", ".join(f"L{layer}" for layer in facts["not_split"])
        yield "not split", f"{layers}: the mixer is not split by token, its whole write is in the sum of all others"
    if facts["error"] is not None:
        yield "sums", f"shares of a token miss 1 by at most {_error_text(facts)}"
    yield "drawn by", "stratoscope routes"


def _error(dataset: xr.Dataset, group: str) -> dict[str, float | None]:
    receipt = dataset.attrs.get("receipt")
    said = receipt.get(group) if isinstance(receipt, Mapping) else None
    said = said if isinstance(said, Mapping) else {}
    return {key: _number(said.get(key)) for key in ("error", "limit")}


def _error_text(facts: Mapping[str, Any]) -> str:
    allowed = "" if facts["limit"] is None else f", allowed are {facts['limit']:.0e}"
    return f"{facts['error']:.1e}{allowed}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
