"""Two traces compared token by token: aligned, in multiples of a floor, and drawn on one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from diff_traces import NO_FLOOR, longer, nudged, of_model, said, simulated, with_floor

import stratoscope
from stratoscope import open_result, save_result
from stratoscope.analysis.diff.diff import diff
from stratoscope.errors import InputError
from stratoscope.view.maps.diff import diff_spec
from stratoscope.view.report import contents_of
from stratoscope.view.sheet.layout import arrange
from stratoscope.view.spec.maps import Maps

Q = "mlp_out_norm"


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    return simulated()


@pytest.fixture(scope="module")
def first(base: xr.Dataset) -> str:
    return str(base["prompt_id"].values[0])


# --- cells ------------------------------------------------------------------------------------------------------------


def test_identical_traces_say_that_there_is_no_difference(base: xr.Dataset, first: str) -> None:
    result = diff(with_floor(base), base)
    assert result.attrs["summary"]["identical"]
    assert contents_of(result).title.startswith("Nothing differs, exactly")
    assert "A difference in the last bit of any of the" in " ".join(contents_of(result).lead)
    spec = diff_spec(result, first, Q)
    assert spec.title.startswith("No difference")
    drawn = [text.text for text in arrange(spec, spec.content).texts()]
    assert drawn.count("All zero: no difference") == 2  # of B − A and of times the floor
    assert not np.nan_to_num(result[f"tokens/{Q}/times_floor"]).any()


def test_difference_ratio_and_times_floor_are_of_b_against_a(base: xr.Dataset) -> None:
    result = diff(with_floor(base), nudged(base, Q, (5, 2), 0.25))
    before = float(base[Q][5, 2])
    cell = {"column": 5, "layer": 2}
    assert float(result[f"tokens/{Q}/difference"][cell]) == pytest.approx(0.25, rel=1e-5)
    assert float(result[f"tokens/{Q}/ratio"][cell]) == pytest.approx((before + 0.25) / before, rel=1e-5)
    assert float(result[f"tokens/{Q}/times_floor"][cell]) == pytest.approx(25, rel=1e-4)
    assert int((result[f"tokens/{Q}/times_floor"] > 1).sum()) == 1
    assert float(result[f"profiles/{Q}/times_largest"][2]) == pytest.approx(25, rel=1e-4)
    assert result.attrs["summary"]["quantities"]["resid_norm"]["identical"]
    assert not result.attrs["summary"]["identical"]


def test_the_floor_is_the_larger_of_both_traces_and_never_below_the_rounding_of_the_coarser_dtype(
    base: xr.Dataset,
) -> None:
    other = nudged(base, Q, (5, 2), 0.25)
    result = diff(with_floor(base, 0.01), with_floor(other, 0.05))
    assert float(result[f"tokens/{Q}/times_floor"][5, 2]) == pytest.approx(5, rel=1e-4)
    rounded = diff(with_floor(of_model(base, dtype="float32"), 1e-9), of_model(other, dtype="bfloat16"))
    assert float(rounded[f"tokens/{Q}/times_floor"][5, 2]) == pytest.approx(
        0.25 / (float(other[Q][5, 2]) * 2**-8), rel=1e-4
    )


def test_traces_that_are_equal_in_every_cell_have_no_chart_of_how_far_they_are_apart(base: xr.Dataset) -> None:
    assert not [one for one in contents_of(diff(base, base)).figures() if one.name == "layers"]
    assert [one for one in contents_of(diff(base, nudged(base, Q, (5, 2), 0.25))).figures() if one.name == "layers"]


def test_without_a_floor_there_are_no_multiples_of_it_and_a_warning(base: xr.Dataset) -> None:
    result = diff(base, nudged(base, Q, (5, 2), 0.25))
    assert "times_floor" not in result[f"tokens/{Q}"]
    assert "share_above" not in result[f"profiles/{Q}"]
    assert "nothing but noise" in said(result, "L14", "warning")
    assert NO_FLOOR.partition("; ")[2] in contents_of(result).title
    assert contents_of(diff(base, nudged(base, Q, (5, 0), 0.25))).title == NO_FLOOR


def test_a_first_token_is_shown_but_counts_in_no_summary_and_has_no_multiple_of_the_floor(base: xr.Dataset) -> None:
    result = diff(with_floor(base), nudged(base, Q, (0, 1), 9.0))
    assert float(result[f"tokens/{Q}/difference"][0, 1]) == pytest.approx(9, rel=1e-4)
    assert np.isnan(result[f"tokens/{Q}/times_floor"][0]).all()
    assert float(result[f"profiles/{Q}/size_largest"].max()) == 0


def test_an_undefined_cell_stays_undefined_and_never_becomes_zero(base: xr.Dataset) -> None:
    holed = base.copy(deep=True)
    holed[Q].values[5, 2] = np.nan
    result = diff(with_floor(base), holed)
    for kind in ("difference", "ratio", "times_floor"):
        assert np.isnan(result[f"tokens/{Q}/{kind}"][5, 2]), kind
    assert not result.attrs["summary"]["identical"]


def test_summaries_are_of_all_prompts_and_do_not_depend_on_which_are_kept(base: xr.Dataset) -> None:
    other = base.copy(deep=True)
    other[Q].values[...] *= np.random.default_rng(0).uniform(0.9, 1.1, other[Q].shape)
    whole, one = diff(with_floor(base), other), diff(with_floor(base), other, prompt=3, quantity=Q)
    later = base["position"].values > 0
    size = np.abs(other[Q].values.astype(float) - base[Q].values)[later]
    np.testing.assert_allclose(whole[f"profiles/{Q}/size_median"], np.median(size, axis=0), rtol=1e-6)
    np.testing.assert_allclose(whole[f"profiles/{Q}/size_95"], np.quantile(size, 0.95, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(one[f"profiles/{Q}/times_95"], whole[f"profiles/{Q}/times_95"])
    assert set(one["tokens/prompt_id"].values) == {str(base["prompt_id"].values[3])}
    assert "resid_norm" not in one["tokens"]


def test_rows_read_a_few_at_a_time_give_what_one_reading_gives(
    base: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = nudged(base, "attn_entropy", (7, 3, 1), 0.2)
    wanted = diff(with_floor(base), other)
    monkeypatch.setattr("stratoscope.analysis.diff.cells._BYTES", 1)
    xr.testing.assert_equal(diff(with_floor(base), other), wanted)


def test_only_the_layers_asked_for_are_compared(base: xr.Dataset) -> None:
    result = diff(base, base, layers="1-2")
    assert result["neurons/layer"].values.tolist() == result[f"tokens/{Q}/layer"].values.tolist() == [1, 2]
    assert result["tokens/resid_norm/depth"].values.tolist() == [1, 2]
    with pytest.raises(InputError, match="no layer 9"):
        diff(base, base, layers="9")


def test_models_of_another_depth_are_compared_by_the_number_of_their_layers_with_a_warning(base: xr.Dataset) -> None:
    shallow = base.isel(layer=slice(1, 3), depth=slice(1, 4))
    result = diff(base, shallow)
    assert result[f"tokens/{Q}/layer"].values.tolist() == [1, 2]
    assert not result[f"tokens/{Q}/difference"].fillna(0).any()
    assert "4 and 2 layers" in said(result, "L15", "warning")


# --- alignment --------------------------------------------------------------------------------------------------------


def test_inserted_tokens_stay_gaps_and_equal_ones_are_compared_with_themselves(base: xr.Dataset, first: str) -> None:
    result = diff(with_floor(base), longer(base), prompt=first)
    inserted = result["tokens/position_a"].values == -1
    assert np.flatnonzero(inserted).tolist() == [3, 4]
    assert np.isnan(result[f"tokens/{Q}/a"].values[inserted]).all()
    assert np.isfinite(result[f"tokens/{Q}/b"].values[inserted]).all()
    assert np.isnan(result[f"tokens/{Q}/difference"].values[inserted]).all()
    assert not result[f"tokens/{Q}/difference"].values[~inserted].any()
    assert result["tokens/before"].values.tolist() == [True] * 3 + [False] * (result["tokens"].sizes["column"] - 3)
    assert "In 1 of 16 prompts the tokens differ" in said(result, "L11", "warning")


def test_a_replaced_token_is_shown_on_both_sides_and_compared_on_none(base: xr.Dataset, first: str) -> None:
    ids = base["token_id"].values.copy()
    ids[4] = 9000
    result = diff(base, base.assign_coords(token_id=("token", ids)), prompt=first)
    assert np.isfinite(result[f"tokens/{Q}/a"][4]).all()
    assert np.isfinite(result[f"tokens/{Q}/b"][4]).all()
    assert np.isnan(result[f"tokens/{Q}/difference"][4]).all()


def test_prompts_are_matched_by_id_whatever_their_order_else_by_equal_tokens(base: xr.Dataset) -> None:
    count = base.sizes["prompt"]
    edges = np.searchsorted(base["prompt"].values, np.arange(count + 1))
    order = np.arange(count)[::-1]
    tokens = np.concatenate([np.arange(edges[prompt], edges[prompt + 1]) for prompt in order])
    turned = base.isel(prompt=order, token=tokens)
    number = np.repeat(np.arange(count, dtype="int32"), np.diff(edges)[order])
    turned = turned.assign_coords(prompt=("token", number))
    assert diff(base, turned).attrs["summary"]["identical"]
    unnamed = turned.assign_coords(prompt_id=("prompt", np.array([""] * count, dtype=object)))
    result = diff(base, unnamed)
    assert not result["prompts/by_id"].any()
    assert "by equal tokens" in said(result, "L11")
    assert result.attrs["summary"]["identical"]


def test_ids_of_another_tokenizer_are_not_taken_for_the_same_tokens(base: xr.Dataset) -> None:
    a = base.assign_attrs(tokenizer={"sha256": "a"})
    ids = base["token_id"].values[::-1].copy()
    b = base.assign_coords(token_id=("token", ids)).assign_attrs(tokenizer={"sha256": "b"})
    assert diff(a, b)["tokens/equal"].all()
    with pytest.raises(InputError, match="cannot be told apart"):
        diff(a, b.drop_vars("text"))


def test_the_same_id_on_another_prompt_is_doubted(base: xr.Dataset) -> None:
    ids = base["token_id"].values.copy()
    ids[base["prompt"].values == 0] += 10_000
    result = diff(base, base.assign_coords(token_id=("token", ids)))
    assert "Is it the same prompt?" in said(result, "L11", "warning")


def test_traces_without_a_prompt_in_common_and_unknown_prompts_are_refused(base: xr.Dataset) -> None:
    ids = np.array([f"x{number}" for number in range(base.sizes["prompt"])], dtype=object)
    other = base.assign_coords(prompt_id=("prompt", ids), token_id=base["token_id"] + 10_000)
    with pytest.raises(InputError, match="no prompt in common"):
        diff(base, other)
    with pytest.raises(InputError, match="no prompt called 'nobody'"):
        diff(base, base, prompt="nobody")
    with pytest.raises(InputError, match="'peak_value' cannot be compared"):
        diff(base, base, quantity="peak_value")


def test_of_equal_weights_and_dtype_tokens_before_the_first_edit_must_be_alike(base: xr.Dataset) -> None:
    model = of_model(with_floor(base), "same")
    after = nudged(longer(model, 6), Q, (9, 1), 5.0)
    assert "exactly equal" in said(diff(model, after), "L14")
    strange = nudged(longer(model, 6), Q, (4, 1), 5.0)
    words = said(diff(model, strange), "L14", "warning")
    assert "differ by up to 500 times the floor" in words
    tuned = strange.assign_attrs(model={**strange.attrs["model"], "weights_sha256": "other"})
    assert "differ by up to" not in said(diff(model, tuned), "L14", "warning")
    bare = [one.drop_vars([name for name in one if str(name).startswith("floor_")]) for one in (model, strange)]
    assert "square root of the rounding" in said(diff(*bare), "L14", "warning")


# --- pictures, report -------------------------------------------------------------------------------------------------


def test_a_and_b_share_their_limits_and_their_difference_is_centred_on_zero(base: xr.Dataset, first: str) -> None:
    other = base.copy(deep=True)
    other[Q].values[...] *= 3
    spec = diff_spec(diff(with_floor(base), other), first, Q)
    assert isinstance(spec.content, Maps)
    a, b, difference, times = (one.colouring(spec.look) for one in spec.content.quantities)
    assert (a.limits.low, a.limits.high) == (b.limits.low, b.limits.high)
    assert a.clipped != b.clipped  # each its own share
    assert difference.limits.low == -difference.limits.high
    assert (times.limits.kind, times.limits.low) == ("log", 1.0)
    assert any(note.text == "Times the floor: from 1, fixed, to at least 2." for note in spec.notes)
    same = diff_spec(diff(with_floor(base), base), first, Q)
    assert not any(note.text.startswith("Times the floor") for note in same.notes)  # all zero: no limits
    assert len(spec.content.panels) == 1


def test_tokens_that_only_one_side_has_are_marked_and_hatched(base: xr.Dataset, first: str) -> None:
    spec = diff_spec(diff(base, longer(base), prompt=first), first, Q)
    assert isinstance(spec.content, Maps)
    labels = spec.tokens.text
    assert [label[0] == "+" for label in labels[2:6]] == [False, True, True, False]
    assert [one.missing for one in spec.content.maps] == [True, False, True]
    assert any("Hatched" in note.text for note in spec.notes)


def test_the_folder_of_a_diff_opens_again_and_holds_its_figures(base: xr.Dataset, tmp_path: Path, first: str) -> None:
    other = base.copy(deep=True)
    other[Q].values[...] *= 1.1
    folder = save_result(diff(with_floor(base), other, prompt=first), tmp_path / "out")
    found = open_result(folder)
    assert found.attrs["kind"] == "diff"
    assert (folder / "figures" / "prompt-1.png").stat().st_size > 10_000
    assert (folder / "figures" / "layers.svg").exists()
    page = (folder / "report.html").read_text("utf-8")
    assert "beyond the noise floor" in page
    assert (folder / "table.csv").read_text("utf-8").startswith("quantity,rows,row,size_median")


def test_imports_of_the_same_words_can_be_compared(tmp_path: Path) -> None:
    head = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
    traces = []
    for name, value in (("a", 1.0), ("b", 1.5)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "x.csv"
        file.write_text(head + "".join(f"{t},w{t},{layer},0,{value}\n" for t in range(3) for layer in (0, 1)))
        traces.append(stratoscope.import_csv([file], tmp_path / f"{name}.trace"))
    result = diff(*traces)
    assert np.unique(result["tokens/imported_norm/difference"]).tolist() == [0.5]
    assert "nothing but noise" in said(result, "L14", "warning")
    assert "Neurons are not compared" in said(result, "L15", "warning")
