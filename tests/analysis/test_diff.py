"""Two traces compared: aligned, held against a floor, neurons only where they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.analysis.diff.claims import (
    GONE,
    NOT,
    OTHERWISE,
    UNSEEN,
    Claim,
    check_claims,
    compare_claims,
    read_claims,
)
from stratoscope.analysis.diff.diff import diff
from stratoscope.analysis.result import notes_in
from stratoscope.errors import InputError
from stratoscope.view.report import contents_of, save_result

HEAD = "Layer,Neuron_ID,Old_Norm,New_Norm\n"


def simulated(**options: Any) -> xr.Dataset:
    shape: dict[str, Any] = {"prompts": 16, "tokens": 12, "layers": 4, "d_ff": 48, "heads": 2, "seed": 2}
    return stratoscope.simulate(**{**shape, **options})


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    return simulated()


def with_floor(trace: xr.Dataset, size: float = 0.01) -> xr.Dataset:
    """The trace with the same floor for every quantity and layer."""
    found = {}
    for name, row in names.QUANTITIES.items():
        if name in trace and names.has_floor(row):
            dim = row.dims[1]
            found[names.floor_name(name)] = (dim, np.full(trace.sizes[dim], size, "float32"))
    return trace.assign(found)


def nudged(trace: xr.Dataset, name: str, where: Any, by: float) -> xr.Dataset:
    changed = trace.copy(deep=True)
    changed[name].values[where] += by
    return changed.assign_attrs(uuid="another")


def texts_of(result: xr.Dataset, line: str) -> str:
    return " ".join(note.text for note in notes_in(result) if note.id == line)


def warned(result: xr.Dataset) -> set[str]:
    return {note.id for note in notes_in(result) if note.severity == "warning"}


# --- cells ------------------------------------------------------------------------------------------------------------


def test_equal_traces_have_no_difference_and_say_so(base: xr.Dataset) -> None:
    result = diff(base, base)
    assert result.attrs["summary"]["no_difference"]
    assert contents_of(result).title == "No difference"
    assert not np.nan_to_num(result["mlp_out_norm_difference"]).any()


def test_difference_ratio_and_times_are_of_b_against_a(base: xr.Dataset) -> None:
    other = nudged(base, "mlp_out_norm", (5, 2), 0.25)
    result = diff(with_floor(base), other)
    cell = {"column": 5, "layer": 2}
    before = float(base["mlp_out_norm"][5, 2])
    assert float(result["mlp_out_norm_difference"][cell]) == pytest.approx(0.25, rel=1e-5)
    assert float(result["mlp_out_norm_ratio"][cell]) == pytest.approx((before + 0.25) / before, rel=1e-5)
    assert float(result["mlp_out_norm_times"][cell]) == pytest.approx(25, rel=1e-4)
    assert int((result["mlp_out_norm_times"] > 1).sum()) == 1
    assert result.attrs["summary"]["changes"]["mlp_out_norm"]["most_times"] == pytest.approx(25, rel=1e-4)
    assert result.attrs["summary"]["changes"]["resid_norm"]["largest"] == 0


def test_the_floor_is_the_larger_one_of_both_traces_and_never_below_rounding(base: xr.Dataset) -> None:
    other = nudged(base, "mlp_out_norm", (5, 2), 0.25)
    result = diff(with_floor(base, 0.01), with_floor(other, 0.05))
    assert float(result["mlp_out_norm_times"][5, 2]) == pytest.approx(5, rel=1e-4)
    coarse = other.assign_attrs(model={**other.attrs["model"], "dtype": "bfloat16"})
    value = float(other["mlp_out_norm"][5, 2])
    held = diff(with_floor(base, 1e-9), coarse)
    assert float(held["mlp_out_norm_times"][5, 2]) == pytest.approx(0.25 / (value * 2**-8), rel=1e-3)


def test_without_a_floor_nothing_is_claimed(base: xr.Dataset) -> None:
    result = diff(base, nudged(base, "mlp_out_norm", (5, 2), 0.25))
    assert np.isnan(result["mlp_out_norm_times"]).all()
    assert result.attrs["summary"]["changes"]["mlp_out_norm"]["most_times"] is None
    assert "L14" in warned(result)
    assert contents_of(result).title == "Differences, with no noise floor to hold them against"


def test_first_tokens_are_shown_but_do_not_count(base: xr.Dataset) -> None:
    result = diff(with_floor(base), nudged(base, "mlp_out_norm", (0, 1), 9.0))
    assert float(result["mlp_out_norm_difference"][0, 1]) == pytest.approx(9, rel=1e-4)
    assert result.attrs["summary"]["no_difference"]


# --- alignment --------------------------------------------------------------------------------------------------------


def longer(trace: xr.Dataset, at: int = 3) -> xr.Dataset:
    """The trace with two more tokens in its first prompt."""
    tokens = np.insert(np.arange(trace.sizes["token"]), at, [at, at])
    found = trace.isel(token=tokens)
    ids = found["token_id"].values.copy()
    ids[at : at + 2] = 9000
    position = found["position"].values.copy()
    first = found["prompt"].values == 0
    position[first] = np.arange(first.sum())
    return found.assign_coords(token_id=("token", ids), position=("token", position))


def test_inserted_tokens_stay_gaps_and_what_follows_is_compared_with_itself(base: xr.Dataset) -> None:
    result = diff(base, longer(base))
    first = result.isel(column=[str(one) == str(base["prompt_id"].values[0]) for one in result["column_prompt"].values])
    assert first["position_a"].values.tolist() == [0, 1, 2, -1, -1, *range(3, 12)]
    assert first["column_equal"].values.sum() == 12
    assert np.isnan(first["mlp_out_norm_a"].values[3:5]).all()
    assert not np.nan_to_num(first["mlp_out_norm_difference"].values).any()
    assert "1 of 16 prompts have other tokens" in texts_of(result, "L11")


def test_prompts_are_matched_by_id_whatever_their_order_else_by_their_tokens(base: xr.Dataset) -> None:
    order = np.arange(16)[::-1]
    tokens = np.concatenate([np.flatnonzero(base["prompt"].values == prompt) for prompt in order])
    mixed = base.isel(token=tokens, prompt=order).assign_coords(prompt=("token", np.repeat(np.arange(16), 12)))
    assert diff(base, mixed).attrs["summary"]["no_difference"]
    renamed = mixed.assign_coords(prompt_id=("prompt", np.array([f"x{place}" for place in range(16)], dtype=object)))
    by_tokens = diff(base, renamed)
    assert by_tokens.attrs["summary"]["matched_by"] == "tokens"
    assert by_tokens.attrs["summary"]["no_difference"]


def test_traces_without_a_prompt_in_common_are_refused(base: xr.Dataset) -> None:
    other = simulated(seed=9, tokens=13)
    renamed = other.assign_coords(prompt_id=("prompt", np.array([f"x{place}" for place in range(16)], dtype=object)))
    with pytest.raises(InputError, match="no prompt in common"):
        diff(base, renamed)


def test_of_the_same_weights_nothing_may_differ_before_the_first_edit(base: xr.Dataset) -> None:
    one = with_floor(base.assign_attrs(model={**base.attrs["model"], "weights_sha256": "x"}))
    assert "L11" not in warned(diff(one, longer(one)))
    broken = nudged(longer(one), "mlp_out_norm", (2, 1), 5.0)
    result = diff(one, broken)
    assert "L11" in warned(result)
    assert "critical-1" in texts_of(result, "L11") or "critical-01" in texts_of(result, "L11")
    later = nudged(longer(one), "mlp_out_norm", (9, 1), 5.0)
    assert "L11" not in warned(diff(one, later))


# --- neurons ----------------------------------------------------------------------------------------------------------


def test_neurons_of_a_slightly_changed_model_are_the_same(base: xr.Dataset) -> None:
    means = base["prompt_mean"].values
    noise = 0.05 * means.std(axis=0) * np.random.default_rng(0).normal(size=means.shape)
    tuned = base.assign(prompt_mean=(base["prompt_mean"].dims, (means + noise).astype("float32")))
    result = diff(with_floor(base), tuned)
    assert result.attrs["summary"]["neurons_compared"]
    expected = np.abs(tuned["prompt_mean"] - base["prompt_mean"]).max("prompt")
    np.testing.assert_allclose(result["neuron_largest"], expected, rtol=1e-4)
    assert (result["neuron_times"] > 0).all()


@pytest.mark.parametrize("other", ["permuted", "unrelated"])
def test_neurons_of_another_model_are_never_compared(base: xr.Dataset, other: str) -> None:
    means = base["prompt_mean"].values
    random = np.random.default_rng(0)
    changed = means[:, :, random.permutation(48)] if other == "permuted" else random.normal(size=means.shape)
    result = diff(base, base.assign(prompt_mean=(base["prompt_mean"].dims, changed.astype("float32"))))
    assert not result.attrs["summary"]["neurons_compared"]
    assert "neuron_largest" not in result
    assert "L15" in warned(result)


def test_equal_weights_need_no_measurement_and_few_prompts_allow_none(base: xr.Dataset) -> None:
    few = base.isel(prompt=slice(0, 4), token=slice(0, 48))
    assert "L15" in warned(diff(few, few))
    same = few.assign_attrs(model={**few.attrs["model"], "weights_sha256": "x"})
    assert "L15" not in warned(diff(same, same))


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Layer,Neuron_ID\n", "no column Old_Norm"),
        (HEAD, "claims nothing"),
        (HEAD + "1,2,3\n", "2: is no claim"),
        (HEAD + "1,2,3,4\nx,2,3,4\n", "3: is no claim"),
        (HEAD + "1,2,nan,4\n", "finite"),
        (HEAD + "1,2,3,-4\n", "0 or more"),
        (HEAD + "1,2,3,4\n1,2,3,5\n", "already that of line 2"),
    ],
)
def test_a_claim_that_is_none_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_claims(tmp_path / "c.csv")


def test_claims_keep_their_numbers_and_other_columns_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("\ufeffNote,Layer,Neuron_ID,Old_Norm,New_Norm\nNA,22,394,1.5,0.25\n", "utf-8")
    assert read_claims(tmp_path / "c.csv") == [Claim(22, 394, 1.5, 0.25, 2)]


def test_a_claim_outside_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="residual coordinate"):
        check_claims([Claim(1, 4036, 1, 2, 2)], np.arange(4), 48)
    with pytest.raises(InputError, match="no layer 31"):
        check_claims([Claim(31, 3, 1, 2, 2)], np.arange(4), 48)


def test_a_claim_is_confirmed_only_by_the_norms_that_the_peaks_show() -> None:
    before, after = np.full((2, 6), np.nan), np.full((2, 6), np.nan)
    before[1], after[1] = 2.0, 2.0
    after[1, 0], after[1, 1], after[1, 3] = 0.5, 1.0, np.nan
    before[1, 4] = after[1, 4] = np.nan
    claims = [Claim(7, neuron, 2.0, 0.5, 2 + neuron) for neuron in range(5)]
    times = np.full((2, 6), 0.1)
    found = compare_claims(claims, np.array([3, 7]), np.ones((2, 6)), times, (before, after))
    assert found.verdict == ("as claimed", OTHERWISE, NOT, GONE, UNSEEN)
    assert found.norms_are_columns is True
    assert found.columns_changed_elsewhere == 0
    after[1, 5] = 9.0
    assert (
        compare_claims(claims, np.array([3, 7]), np.ones((2, 6)), times, (before, after)).columns_changed_elsewhere == 1
    )
    wrong = [Claim(7, 0, 40.0, 10.0, 2)]
    assert compare_claims(wrong, np.array([3, 7]), np.ones((2, 6)), times, (before, after)).norms_are_columns is False


# --- the report -------------------------------------------------------------------------------------------------------


def test_a_and_b_are_drawn_on_one_scale_and_their_difference_about_zero(base: xr.Dataset, tmp_path: Path) -> None:
    result = diff(with_floor(base), nudged(base, "mlp_out_norm", (5, 2), 0.25))
    figures = {figure.name: figure.spec for figure in contents_of(result).figures()}
    values, change = figures["1-mlp_out_norm-values"], figures["1-mlp_out_norm-change"]
    assert [panel["title"] for panel in values.content["panels"]] == ["a", "b"]
    assert len(values.content["quantities"]) == 1
    assert [one["scale"] for one in change.content["quantities"]] == ["diverging", "log"]
    folder = save_result(result, tmp_path / "d")
    assert "times the noise floor" in (folder / "report.html").read_text("utf-8")


def test_what_is_not_in_both_traces_is_refused_with_what_is(base: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"In both: neuron_norm, mlp_out_norm"):
        diff(base, base, quantity="attention")
    with pytest.raises(InputError, match="no prompt 'nobody'"):
        diff(base, base, prompt="nobody")
