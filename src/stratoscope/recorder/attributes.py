"""The root attributes of the trace of a recording: what was recorded of which model, and what was proved about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stratoscope import kernels, names
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.plan import CapturePlan
from stratoscope.recorder.proof.receipt import Receipt
from stratoscope.trace.format.attributes import software

_SOFTWARE = ("torch", "transformers", "tokenizers", "numpy", "zarr")
_POST_NORM_NOTE = {
    "id": "L20",
    "severity": "info",
    "text": "This model norms what its MLP writes, so write norms are nearly the same everywhere: see mlp_out_norm.",
}


def trace_attributes(
    loaded: LoadedModel, sites: ModelSites, plan: CapturePlan, receipt: Receipt, notes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The attributes of docs/format.md that a recording knows."""
    widths: dict[str, Any] = {"d_model": sites.d_model, "n_layers": len(sites.layers)}
    mlps = sites.mlps()
    widths |= {"d_ff": sites.d_ff, **({"mlps": mlps} if len(mlps) > 1 or mlps[0]["experts"] else {})}
    post_norm = any(layer.post_norm for layer in sites.layers)
    return {
        "source": names.REAL,
        "token_spelling": "text",
        "model": {**loaded.identity, **widths},
        "tokenizer": loaded.tokenizer_identity,
        "plan": plan.to_json(),
        "receipt": receipt,
        "notes": [*([_POST_NORM_NOTE] if post_norm else []), *notes],
        "software": {**software(*_SOFTWARE), "kernels": kernels.state()},
    }
