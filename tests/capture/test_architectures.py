"""Every causal model of transformers is recorded or refused by name, and the documentation says which."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from survey import page, survey_listed, survey_others

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
Survey = tuple[Any, Any, Any]

UNPROVED = {
    "head": {"megatron-bert", "modernbert-decoder", "roberta-prelayernorm", "xlm-roberta-xl"},  # not linear
    "gate": {"bitnet"},  # norms its neurons
    "norm": {"axk2"},  # gates the norm in front of its experts
}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    folder = tmp_path_factory.mktemp("survey")
    return survey_listed(folder), *survey_others(folder)


@pytest.mark.timeout(600)
def test_every_named_architecture_is_recorded_with_unchanged_logits(survey: Survey) -> None:
    for finding in survey[0]:
        assert finding.trace is not None, f"{finding.name}: {finding.refused}"
        assert finding.trace.attrs["receipt"]["logits_bit_identical"], finding.name


def test_models_nobody_named_are_recorded_or_refused_by_name(survey: Survey) -> None:
    others = {finding.name: finding for finding in survey[1]}
    for name in (
        "olmo3",
        "smollm3",
        "ernie4_5_moe",
        "apertus",
        "nemotron",
        "seed_oss",
        "qwen3_next",
        "recurrent_gemma",
    ):
        assert others[name].trace is not None, f"{name}: {others[name].refused}"
    for name in ("llama4_text", "rwkv", "bert"):
        assert others[name].trace is None
        assert "block 0" in others[name].refused
    assert all(finding.trace is not None or finding.refused for finding in survey[1])


def test_the_head_and_the_gate_of_every_recorded_model_are_proved_or_a_named_limit(survey: Survey) -> None:
    unproved = {"head": set(), "gate": set(), "norm": set()}  # type: dict[str, set[str]]
    for finding in (one for one in (*survey[0], *survey[1]) if one.trace is not None):
        receipt, mlps = finding.trace.attrs["receipt"], "mlp_out_norm" in finding.trace
        for what, names in unproved.items():
            if any(f"{what} not proved: " in limit.lower() for limit in receipt["limits"]):
                names.add(finding.name)
        assert receipt["head"] or finding.name in unproved["head"], finding.name
        assert receipt["gates"] or finding.name in unproved["gate"] or not mlps, finding.name
    assert unproved == UNPROVED


def test_contributions_add_up_in_every_model_with_a_proved_head(survey: Survey) -> None:
    unexplained, whole = set(), set()
    for finding in (one for one in (*survey[0], *survey[1]) if one.trace is not None):
        found = finding.trace.attrs["receipt"].get("contributions", {})
        unexplained |= set() if found else {finding.name}
        assert bool(found) == (finding.unexplained == ""), finding.name
        assert all(value <= 1e-5 for value in found.values()), finding.name
        whole |= {finding.name} if finding.attention == "yes" and found and "head_logit" not in finding.trace else set()
    assert unexplained == UNPROVED["head"]
    assert whole == {"whisper"}  # its configuration does not say how many heads the decoder has


def test_routes_add_up_in_every_model_that_is_recorded(survey: Survey) -> None:
    """Where attention is not split into edges, the receipt says why, layer by layer."""
    for finding in (one for one in (*survey[0], *survey[1]) if one.trace is not None):
        trace, receipt = finding.trace, finding.trace.attrs["receipt"]
        assert 0 < receipt["routes"]["error"] <= 1e-5, finding.name
        assert receipt["routes"]["mlp_error"] <= 1e-5, finding.name
        whole = (trace.route_source.values < 0).all((0, 2)) & (trace.route_other_size.values > 0).any(0)
        said = [limit for limit in receipt["limits"] if "not split by source token" in limit]
        for layer in np.flatnonzero(whole):
            named = (re.match(r"Layers? ([\d, ]+):", limit) for limit in said)
            assert any(one and str(layer) in one[1].split(", ") for one in named), (finding.name, layer)


def test_the_page_on_architectures_says_what_recording_gave(survey: Survey) -> None:
    text = page(*survey)
    if os.environ.get("STRATOSCOPE_WRITE_DOCS"):
        PAGE.write_text(text, "utf-8")
    assert PAGE.read_text("utf-8") == text, "run `make docs`"
