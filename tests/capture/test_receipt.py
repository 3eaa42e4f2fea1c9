"""The receipt claims what was checked and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import TEXTS, byte_tokenizer, tiny
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stratoscope import capture
from stratoscope.errors import CaptureError
from stratoscope.names import ATTENTION, NORMS
from stratoscope.recorder.proof.receipt import finished
from stratoscope.recorder.proof.verify import Outcome, Standard

EMBEDDED = "Token ids that the model embedded equal the tokenizer's in every recorded forward."
BEGUN = {"embedding_watched": True, "limits": [], "logits_bit_identical": True, "residual_replay": "bit-equal"}
SAMPLE = [{"largest_differences": {}, "prompts": [], "median": False}] * 2


def run(out: Path, model: nn.Module, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"record": (NORMS,), "tokenizer": byte_tokenizer(), **options}
    receipt: dict[str, Any] = capture(model, TEXTS, out, **settings).attrs["receipt"]
    return receipt


def test_embedded_tokens_are_claimed_only_where_the_embedding_was_watched(tmp_path: Path) -> None:
    assert EMBEDDED in run(tmp_path / "watched", tiny("Llama"))["checks"]
    model = tiny("Llama")
    model.get_input_embeddings = lambda: nn.Embedding(300, 2)  # not what the model calls
    assert not any("embedded" in check for check in run(tmp_path / "not", model)["checks"])


def test_what_a_full_verification_could_not_replay_is_a_limit() -> None:
    verified = Outcome(Standard("alone", "eager", 0.1), {"resid_norm": 0.01}, ["a"], 9, {"b": "no memory"})
    observer: Any = SimpleNamespace(records_attention=False, sites_per_forward=3, limits=[])
    recorded = ["resid_norm", "mlp_out_norm"]
    begun = {**BEGUN, "replays": SAMPLE}
    receipt = finished(begun, batches=1, tokens=9, observer=observer, verified=verified, recorded=recorded)
    assert receipt["replays"][-1]["replay"] == "the trace on disk: alone"
    assert receipt["limits"] == [
        "Not replayed (alone, eager attention): mlp_out_norm.",
        "Not replayed (alone, eager attention): prompt b (no memory).",
    ]


def test_attention_of_the_probes_answers_is_compared_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, stages = ALL_ATTENTION_FUNCTIONS["sdpa"], []

    def faulty(module: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        return original(module, query * (1.5 if query.shape[2] == 1 else 1), *args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", faulty)
    with pytest.raises(CaptureError, match="do not give the model's own attention output"):
        run(
            tmp_path / "t",
            tiny("Llama"),
            record=(NORMS, ATTENTION),
            generate=3,
            progress=lambda stage, *_: stages.append(stage),
        )
    assert "recording" not in stages
