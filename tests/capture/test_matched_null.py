"""A patch in memory: it changes what it should, is taken back bit for bit, and is compared with random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from stratoscope.analysis.diff.claims import Claim  # noqa: E402
from stratoscope.analysis.diff.diff import diff  # noqa: E402
from stratoscope.errors import InputError  # noqa: E402
from stratoscope.model.find import find_sites  # noqa: E402
from stratoscope.probe.attach import with_null  # noqa: E402
from stratoscope.probe.matched_null import matched_null  # noqa: E402
from stratoscope.probe.scale import down_projection, scaled_columns  # noqa: E402
from stratoscope.view.report import contents_of  # noqa: E402

GROUPS = ("norms", "residual", "peaks", "prompts")
LAYER, NEURONS = 1, (3, 10, 40)
TEXTS = [f"{word} and then some other words, number {number}" for number, word in enumerate("abcdefghij")]
Record = Callable[..., tuple[Any, xr.Dataset]]


class Loaded:
    """What `matched_null` needs of a loaded model."""

    def __init__(self, model: Any) -> None:
        self.model = model


def claims_of(model: Any, factor: float) -> list[Claim]:
    """The patch that multiplies the columns of `NEURONS`."""
    sites = find_sites(model, torch.arange(4)[None])
    norms = down_projection(model, sites, LAYER).norm(dim=0)
    return [
        Claim(LAYER, neuron, float(norms[neuron]), factor * float(norms[neuron]), 2 + place)
        for place, neuron in enumerate(NEURONS)
    ]


@pytest.mark.model
@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_columns_are_scaled_while_open_and_bit_equal_after(record: Record, family: str) -> None:
    model, _ = record(family, ("norms",), texts=TEXTS)
    sites = find_sites(model, torch.arange(4)[None])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    old = down_projection(model, sites, LAYER)[:, 3].clone()

    def interrupted() -> None:
        with scaled_columns(model, sites, {LAYER: [(3, 0.1)], 2: [(0, 7.0)]}):
            torch.testing.assert_close(down_projection(model, sites, LAYER)[:, 3], old * 0.1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.model
def test_a_patched_model_changes_from_the_patched_layer_on_and_its_claim_is_seen(
    record: Record, tmp_path: Path
) -> None:
    from tiny import byte_tokenizer

    from stratoscope import capture

    model, before = record("Llama", GROUPS, texts=TEXTS, floor=True, top_k=72)
    claims = claims_of(model, 3.0)
    sites = find_sites(model, torch.arange(4)[None])
    with scaled_columns(model, sites, {LAYER: [(neuron, 3.0) for neuron in NEURONS]}):
        after = capture(model, TEXTS, tmp_path / "b.trace", record=GROUPS, tokenizer=byte_tokenizer("right"), top_k=72)
    file = tmp_path / "claims.csv"
    file.write_text(
        "Layer,Neuron_ID,Old_Norm,New_Norm\n" + "".join(f"{c.layer},{c.neuron},{c.old},{c.new}\n" for c in claims)
    )
    result = diff(before, after, claims=file)
    changed = result["change_most_times"].values[result["quantity"].values.tolist().index("mlp_out_norm")]
    assert changed[0] == 0
    assert changed[LAYER] > 1
    assert result["claim_verdict"].values.tolist() == ["as claimed"] * 3
    assert result.attrs["summary"]["claims"]["columns_changed_elsewhere"] == 0
    assert result.attrs["summary"]["claims"]["norms_are_columns"]
    assert not any(note["id"] == "L14" and note["severity"] == "warning" for note in result.attrs["notes"])


@pytest.mark.model
def test_a_large_patch_of_strong_neurons_stands_out_of_random_ones_and_no_patch_does_not(record: Record) -> None:
    model, trace = record("Llama", GROUPS, texts=TEXTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    null = matched_null(Loaded(model), trace, claims_of(model, 1.0), runs=5)
    assert null.by == "difference of norms"
    assert (null.claimed == 0).all()
    assert (null.p == 1).all()
    strong = matched_null(Loaded(model), trace, claims_of(model, 40.0), runs=5)
    assert strong.null.shape == (5, 3)
    assert (strong.claimed > 0).all()
    assert ((strong.p >= 1 / 6) & (strong.p <= 1)).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.model
def test_the_claimed_patch_in_memory_changes_what_it_changed_in_the_recording(record: Record, tmp_path: Path) -> None:
    from tiny import byte_tokenizer

    from stratoscope import capture

    model, trace = record("Llama", GROUPS, texts=TEXTS)
    null = matched_null(Loaded(model), trace, claims_of(model, 3.0), runs=1)
    sites = find_sites(model, torch.arange(4)[None])
    with scaled_columns(model, sites, {LAYER: [(neuron, 3.0) for neuron in NEURONS]}):
        after = capture(model, TEXTS, tmp_path / "b.trace", record=GROUPS, tokenizer=byte_tokenizer("right"))
    later = trace["position"].values > 0
    for place, name in enumerate(null.quantities[:2]):
        expected = np.abs(after[name].values[later].astype(float) - trace[name].values[later]).mean()
        assert null.claimed[place] == pytest.approx(expected, rel=1e-3)
    result = with_null(diff(trace, after), null)
    assert any("random patches" in line for line in contents_of(result).lead)


@pytest.mark.model
def test_norms_that_are_no_columns_are_taken_as_a_ratio(record: Record) -> None:
    model, trace = record("Llama", ("norms", "residual"), texts=TEXTS)
    null = matched_null(Loaded(model), trace, [Claim(LAYER, 3, 50.0, 25.0, 2)], runs=2)
    assert null.by == "ratio"
    with pytest.raises(InputError, match="old norm is 0"):
        matched_null(Loaded(model), trace, [Claim(LAYER, 3, 0.0, 25.0, 2)], runs=1)
