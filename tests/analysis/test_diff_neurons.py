"""Neurons are compared only where they are the same, and claims about them are held against what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from diff_traces import noisy, nudged, of_model, said, simulated, with_floor

from stratoscope.analysis.diff.claimed import AS_CLAIMED, GONE, NOT_AT_ALL, NOT_SEEN, OTHERWISE
from stratoscope.analysis.diff.claims import Claim, check_claims, read_claims
from stratoscope.analysis.diff.diff import diff
from stratoscope.analysis.diff.matched_null import rank
from stratoscope.analysis.diff.weight_columns import column_norms
from stratoscope.errors import InputError
from stratoscope.view.report import contents_of

HEAD = "Layer,Neuron_ID,Old_Norm,New_Norm\n"


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    return with_floor(of_model(simulated(), "before"))


def tuned(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign_attrs(model={**trace.attrs["model"], "weights_sha256": "after"})


# --- ancestry ---------------------------------------------------------------------------------------------------------


def test_neurons_of_a_lightly_tuned_copy_are_compared(base: xr.Dataset) -> None:
    result = diff(base, tuned(noisy(base, 0.05)))
    assert result["neurons/same"].all()
    assert (result["neurons/found_again"] > 0.9).all()
    assert np.isfinite(result["neurons/largest"]).all()


def test_renumbered_neurons_are_refused(base: xr.Dataset) -> None:
    order = np.random.default_rng(1).permutation(base.sizes["neuron"])
    turned = tuned(base.assign(prompt_mean=base["prompt_mean"].isel(neuron=order)))
    result = diff(base, turned)
    assert (result["neurons/found_again"] < 0.2).all()
    assert "largest" not in result["neurons"]
    assert "not the same in both models" in said(result, "L15", "warning")


def test_one_renumbered_layer_is_left_out_and_the_others_are_compared(base: xr.Dataset) -> None:
    order = np.random.default_rng(1).permutation(base.sizes["neuron"])
    mean = base["prompt_mean"].values.copy()
    mean[:, 2] = mean[:, 2][:, order]
    result = diff(base, tuned(base.assign(prompt_mean=(base["prompt_mean"].dims, mean))))
    assert result["neurons/same"].values.tolist() == [True, True, False, True]
    assert np.isnan(result["neurons/largest"][2]).all()
    assert "in layers 2" in said(result, "L15", "warning")


def test_neurons_of_an_unrelated_model_are_refused(base: xr.Dataset) -> None:
    values = np.random.default_rng(3).normal(size=base["prompt_mean"].shape).astype("float32")
    result = diff(base, tuned(base.assign(prompt_mean=(base["prompt_mean"].dims, values))))
    assert not result["neurons/same"].any()


def test_equal_weights_need_no_measurement_and_few_prompts_allow_none(base: xr.Dataset) -> None:
    few = base.isel(prompt=slice(0, 3), token=np.flatnonzero(base["prompt"].values < 3))
    same = diff(few, few)
    assert same["neurons/same"].all()
    assert np.isnan(same["neurons/found_again"]).all()
    words = said(diff(few, tuned(few)), "L15", "warning")
    assert "3 prompts with the same user tokens" in words
    assert "it takes 8" in words


def test_simulated_weights_prove_nothing(base: xr.Dataset) -> None:
    plain = [one.assign_attrs(source="simulated") for one in (base, base)]
    assert np.isfinite(diff(*plain)["neurons/found_again"]).all()


def test_models_of_another_width_are_refused(base: xr.Dataset) -> None:
    result = diff(base, tuned(base.isel(neuron=slice(0, 40))))
    assert "of different shape" in said(result, "L15", "warning")


def test_mean_largest_and_times_floor_of_a_neuron_are_over_prompts(base: xr.Dataset) -> None:
    after = tuned(nudged(base, "prompt_mean", (slice(None, None, 2), 1, 7), 0.04))
    result = diff(base, after)
    assert float(result["neurons/difference"][1, 7]) == pytest.approx(0.02, rel=1e-3)
    assert float(result["neurons/largest"][1, 7]) == pytest.approx(0.04, rel=1e-3)
    assert float(result["neurons/times_floor"][1, 7]) == pytest.approx(4, rel=1e-3)
    assert result.attrs["summary"]["neurons"]["above_floor"] == 1
    assert (int(result["listed/layer"][0]), int(result["listed/neuron"][0])) == (1, 7)


def test_norms_of_columns_are_read_off_the_peaks_and_unknown_elsewhere(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])
    neuron, value, write = (base[f"peak_{name}"].values[:, 2].ravel() for name in ("neuron", "value", "write"))
    for one in np.unique(neuron[neuron >= 0])[:5]:
        here = neuron == one
        assert norms[2, one] == pytest.approx(write[here].sum() / np.abs(value[here]).sum(), rel=1e-5)
    absent = np.setdiff1d(np.arange(base.sizes["neuron"]), neuron)
    assert np.isnan(norms[2, absent]).all()


# --- claims: the file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,2,nan,1\n", "line 2: Old_Norm is 'nan'"),
        ("1,2,1,inf\n", "line 2: New_Norm is 'inf'"),
        ("1,2,NA,1\n", "line 2: Old_Norm is 'NA'"),
        ("1,2,,1\n", "line 2: Old_Norm is ''"),
        ("1,2,0,1\n", "line 2: Old_Norm is '0'"),
        ("1,2,1,-1\n", "line 2: New_Norm is '-1'"),
        ("1,2,1_000,1\n", "line 2: Old_Norm is '1_000'"),
        ("1,2,1,1\n1,NULL,1,1\n", "line 3: Neuron_ID is 'NULL'"),
        ("1,2.5,1,1\n", "line 2: Neuron_ID is '2.5'"),
        ("-1,2,1,1\n", "line 2: Layer is '-1'"),
        ("1,2,1\n", "line 2: 3 values under 4 columns"),
        ("1,2,1,1\n\n1,2,1,2\n", "line 4: L1 n2 is claimed again, after line 2"),
        ('1,2,1,"1\n', "not valid CSV"),
        ("", "a header, but no row"),
    ],
)
def test_a_row_that_claims_nothing_sound_is_named_with_its_line(tmp_path: Path, rows: str, words: str) -> None:
    file = tmp_path / "claims.csv"
    file.write_text(HEAD + rows)
    with pytest.raises(InputError) as caught:
        read_claims(file)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the file is empty"),
        (b"Layer,Neuron_ID,Old_Norm\n", "the column New_Norm is missing"),
        (b"Layer,Layer,Neuron_ID,Old_Norm,New_Norm\n", "Layer stands there twice"),
        (b"Layer,Neuron_ID,Old_Norm,New_Norm\n\xff,1,1,1\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "claims.csv"
    file.write_bytes(text)
    with pytest.raises(InputError, match=words):
        read_claims(file)
    with pytest.raises(InputError, match="no such file"):
        read_claims(tmp_path / "nowhere.csv")


def test_other_columns_a_byte_order_mark_and_spaces_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "claims.csv"
    file.write_bytes("\ufeffNote,New_Norm, Layer ,Neuron_ID,Old_Norm\r\nNA,2.5e0,3,4.0, 1.25 \r\n".encode())
    assert read_claims(file) == [Claim(3, 4, 1.25, 2.5, 2)]


def test_a_claim_beyond_the_model_is_named_and_may_be_a_residual_coordinate() -> None:
    narrow = simulated(d_ff=24)
    with pytest.raises(InputError, match="no layer 4"):
        check_claims([Claim(4, 0, 1, 1, 2)], narrow, "f.csv")
    with pytest.raises(InputError, match=r"f.csv, line 3: Neuron_ID 30 is beyond the 24 neurons.*residual coordinates"):
        check_claims([Claim(0, 0, 1, 1, 2), Claim(0, 30, 1, 1, 3)], narrow, "f.csv")


# --- claims: what became of them --------------------------------------------------------------------------------------


def scaled_columns(trace: xr.Dataset, layer: int, neuron: int, factor: float) -> xr.Dataset:
    """The trace as if the column of a neuron had been scaled: its writes change, its activation does not."""
    write = trace["peak_write"].values.copy()
    write[:, layer][trace["peak_neuron"].values[:, layer] == neuron] *= factor
    return trace.assign(peak_write=(trace["peak_write"].dims, write))


def without_peaks(trace: xr.Dataset, layer: int, neuron: int) -> xr.Dataset:
    found = trace["peak_neuron"].values.copy()
    found[:, layer][found[:, layer] == neuron] = -1
    return trace.assign(peak_neuron=(trace["peak_neuron"].dims, found))


def verdicts(result: xr.Dataset) -> list[str]:
    return [str(one) for one in result["claims/verdict"].values]


def test_a_claim_is_judged_by_the_norm_of_its_column_and_its_activation(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])[2]
    seen = np.flatnonzero(np.isfinite(norms))[:5].tolist()
    hidden = int(np.flatnonzero(np.isnan(norms))[0])
    after = tuned(scaled_columns(scaled_columns(base, 2, seen[0], 2.0), 2, seen[1], 3.0))
    after = without_peaks(nudged(after, "prompt_mean", (slice(None), 2, seen[3]), 0.5), 2, seen[4])
    after = scaled_columns(after, 3, 0, 1.0)
    claims = [Claim(2, neuron, 10.0, 20.0) for neuron in (*seen, hidden)]
    result = diff(base, after, claims=claims)
    assert verdicts(result) == [AS_CLAIMED, OTHERWISE, NOT_AT_ALL, OTHERWISE, GONE, NOT_SEEN]
    assert float(result["claims/column_norm_b"][0] / result["claims/column_norm_a"][0]) == pytest.approx(2, rel=1e-4)
    assert int(result["claims/rank"][3]) == 1
    assert int(result["claims/rank"][2]) == -1
    facts = result.attrs["summary"]["claims"]
    assert facts["elsewhere"]["columns_changed"] == 0
    assert facts["elsewhere"]["above_floor"] == 0
    assert facts["elsewhere"]["share_of_activation_change"] == pytest.approx(1)
    assert contents_of(result).title == "1 of 6 claimed neurons changed as claimed, 1 gone from the peaks"


def test_a_column_that_nobody_claimed_is_counted_elsewhere(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])[2]
    claimed, other = np.flatnonzero(np.isfinite(norms))[:2].tolist()
    after = tuned(scaled_columns(scaled_columns(base, 2, claimed, 2.0), 2, other, 1.02))
    elsewhere = diff(base, after, claims=[Claim(2, claimed, 1.0, 2.0)]).attrs["summary"]["claims"]["elsewhere"]
    assert elsewhere["columns_changed"] == 1
    assert 0.9 < elsewhere["share_of_column_change"] < 1


def test_without_a_floor_an_activation_proves_no_claim(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])[2]
    hidden = int(np.flatnonzero(np.isnan(norms))[0])
    bare = base.drop_vars([name for name in base if str(name).startswith("floor_")])
    result = diff(bare, tuned(nudged(bare, "prompt_mean", (slice(None), 2, hidden), 5.0)),
                  claims=[Claim(2, hidden, 1.0, 2.0)])  # fmt: skip
    assert verdicts(result) == [NOT_SEEN]
    assert "no floor" in str(result["claims/why"].values[0])


def test_a_change_before_the_first_claimed_layer_is_a_contradiction(base: xr.Dataset) -> None:
    claims = [Claim(2, 3, 1.0, 2.0)]
    as_it_must = diff(base, tuned(nudged(base, "mlp_out_norm", (5, 2), 9.0)), claims=claims)
    assert as_it_must.attrs["summary"]["claims"]["causality"]["above_floor"] == 0
    assert "nothing changed at all" in said(as_it_must, "L14")
    too_early = diff(base, tuned(nudged(base, "mlp_out_norm", (5, 1), 9.0)), claims=claims)
    assert too_early.attrs["summary"]["claims"]["causality"]["above_floor"] == 1
    assert "the patch is not all that differs" in said(too_early, "L14", "warning")
    into_the_block = diff(base, tuned(nudged(base, "resid_norm", (5, 2), 9.0)), claims=claims)
    assert into_the_block.attrs["summary"]["claims"]["causality"]["above_floor"] == 1


def test_claims_about_neurons_that_cannot_be_compared_are_not_seen(base: xr.Dataset) -> None:
    order = np.random.default_rng(1).permutation(base.sizes["neuron"])
    turned: Any = tuned(base.assign(prompt_mean=base["prompt_mean"].isel(neuron=order)))
    result = diff(base, turned, claims=[Claim(2, 3, 1.0, 2.0)])
    assert verdicts(result) == [NOT_SEEN]
    assert np.isnan(result["claims/largest"]).all()


def test_the_rank_among_random_patches_counts_those_at_least_as_large() -> None:
    draws = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(rank(draws, np.array([2.0, 0.1])), [3 / 4, 1 / 4])
