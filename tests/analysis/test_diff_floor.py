"""What a difference is held against is what was not the same in both recordings, and equal numbers need no floor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from diff_traces import NO_FLOOR, longer, nudged, of_model, said, simulated, with_floor

from stratoscope import names
from stratoscope.analysis.diff.claims import Claim
from stratoscope.analysis.diff.conditions import conditions
from stratoscope.analysis.diff.diff import diff
from stratoscope.analysis.diff.floor import Noise
from stratoscope.analysis.diff.weight_columns import column_norms
from stratoscope.view.maps.diff import diff_spec
from stratoscope.view.report import diff_words
from stratoscope.view.report.diff_words import lead

Q = "mlp_out_norm"
CELL = (5, 2)  # token, layer


@pytest.fixture(scope="module")
def base() -> xr.Dataset:
    return of_model(simulated(), "before")


def tuned(trace: xr.Dataset, dtype: str = "float32") -> xr.Dataset:
    return of_model(trace, "after", dtype)


def told(trace: xr.Dataset, **receipt: Any) -> xr.Dataset:
    """The trace with a receipt."""
    return trace.assign_attrs(receipt={"device": "cpu", "threads": 1, **receipt})


def measured(trace: xr.Dataset, dtypes: tuple[str, str] = ("float32", "bfloat16"), **facts: Any) -> xr.Dataset:
    """A floor of 0.01 under another batch size and padding, of 1 under another dtype; on 40 tokens."""
    floor = {"tokens": 44, "prompts": ["a", "b", "c", "d"], "dtypes": list(dtypes), **facts}
    near = with_floor(trace, 0.01, ["batch", "padding"])
    return told(with_floor(near, 1.0, ["dtype"]), noise_floor=floor)


def times_at(result: xr.Dataset) -> float:
    return float(result[f"tokens/{Q}/times_floor"][CELL])


def title(result: xr.Dataset) -> str:
    return diff_words.title(result.attrs["summary"])


# --- which floor counts -----------------------------------------------------------------------------------------------


def test_what_another_dtype_changes_does_not_count_between_two_recordings_in_one_dtype(base: xr.Dataset) -> None:
    result = diff(measured(base), tuned(nudged(base, Q, CELL, 0.25)))
    assert times_at(result) == pytest.approx(25, rel=1e-4)
    assert "another batch size or padding, measured" in said(result, "L14", "info")
    assert "dtype" not in said(result, "L32", "warning")


def test_between_two_dtypes_it_counts_and_the_comparison_with_itself_is_called_circular(base: xr.Dataset) -> None:
    result = diff(measured(base), tuned(nudged(base, Q, CELL, 0.25), "bfloat16"))
    assert times_at(result) == pytest.approx(0.25, rel=1e-4)
    assert "If only the dtype was changed, the floor is made of the very change that is compared" in said(result, "L32")
    one = measured(base)
    same = of_model(nudged(base, Q, (5, 0), 0.25), "before", "bfloat16")
    assert "The weights are the same, so the floor is made of the very change" in said(diff(one, same), "L32")
    assert title(diff(one, same)).startswith("The traces differ no more than float32 and bfloat16 do by themselves")


def test_a_floor_of_other_dtypes_than_those_compared_does_not_count(base: xr.Dataset) -> None:
    result = diff(measured(base), tuned(nudged(base, Q, CELL, 0.25), "float16"))
    assert times_at(result) > 1
    assert "No floor holds what float32 against float16 changes" in said(result, "L32", "warning")


def test_a_floor_whose_dtype_part_could_not_be_measured_says_so_between_dtypes(base: xr.Dataset) -> None:
    result = diff(with_floor(base, 0.01, ["batch"]), tuned(base, "bfloat16"))
    assert "No floor holds what float32 against bfloat16 changes" in said(result, "L32", "warning")


def test_the_undivided_floor_of_format_1_counts_and_says_that_it_is_too_high(base: xr.Dataset) -> None:
    old = with_floor(base, 1.0, [""])
    result = diff(old, tuned(nudged(base, Q, CELL, 0.25)))
    assert times_at(result) == pytest.approx(0.25, rel=1e-4)
    assert "stored by an older version" in said(result, "L32", "warning")
    assert "It is too high, and hides differences" in said(result, "L32", "warning")
    assert "older version" not in said(diff(old, tuned(base, "bfloat16")), "L32")
    assert "the very change that is compared" in said(diff(old, tuned(base, "bfloat16")), "L32", "warning")
    unknown = of_model(old, "before", "")
    assert "dtype of the traces is not known" in said(diff(unknown, tuned(base, "")), "L32", "warning")


def test_of_two_float32_recordings_made_alike_the_rounding_of_bfloat16_hides_nothing(base: xr.Dataset) -> None:
    one, other = (
        told(with_floor(of_model(trace, weights, "bfloat16"), 0.0))
        for trace, weights in ((base, "before"), (nudged(base, Q, CELL, 0.001), "after"))
    )
    assert times_at(diff(one, other)) > 100
    elsewhere = other.assign_attrs(receipt={**other.attrs["receipt"], "threads": 4})
    assert times_at(diff(one, elsewhere)) < 1  # another summation order is rounded to bfloat16 anew


def test_a_floor_of_nothing_but_another_dtype_is_none_within_one_dtype_and_says_why(base: xr.Dataset) -> None:
    one, other = with_floor(base, 1.0, ["dtype"]), tuned(nudged(base, Q, (5, 0), 0.25))
    result = diff(one, other)
    assert "times_floor" not in result[f"tokens/{Q}"]
    words = said(result, "L14", "warning")
    assert "that of A is for another dtype, which does not differ here" in words
    assert "Neither trace" not in words
    assert "Neither trace has a noise floor" in said(diff(base, other), "L14", "warning")


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -1.0])
def test_a_floor_that_is_no_size_is_no_floor(base: xr.Dataset, nothing: float) -> None:
    result = diff(with_floor(base, nothing), tuned(nudged(base, Q, (5, 0), 0.25)))
    assert "times_floor" not in result[f"tokens/{Q}"]
    assert "No noise floor fits" in said(result, "L14", "warning")
    assert title(result) == NO_FLOOR


def test_a_layer_without_a_floor_has_no_multiples_of_it_and_does_not_spoil_the_others(base: xr.Dataset) -> None:
    floored = with_floor(base)
    for nuisance in names.NUISANCES:
        floored[names.floor_name(Q, nuisance)].values[1] = np.nan
    result = diff(floored, tuned(nudged(base, Q, CELL, 0.25)))
    assert np.isnan(result[f"tokens/{Q}/times_floor"][:, 1]).all()
    assert times_at(result) == pytest.approx(25, rel=1e-4)


def test_a_floor_of_zero_leaves_rounding_and_no_infinity(base: xr.Dataset) -> None:
    result = diff(with_floor(base, 0.0), tuned(nudged(base, Q, CELL, 0.25)))
    assert np.isfinite(times_at(result))
    assert times_at(result) == pytest.approx(0.25 / (float(base[Q][CELL] + 0.25) * 2**-24), rel=1e-3)


def test_a_floor_of_one_trace_only_and_of_short_prompts_says_so(base: xr.Dataset) -> None:
    result = diff(measured(base, longest=3), tuned(nudged(base, Q, CELL, 0.25)))
    assert "Only A has a floor: the noise of B" in said(result, "L32", "info")
    assert "at most 3 tokens of a prompt; the longest compared has 12" in said(result, "L32", "info")


@pytest.mark.parametrize("odd", [3, "x", {"tokens": "x", "prompts": 3, "longest": []}, {"dtypes": 4, "tokens": None}])
def test_an_odd_receipt_of_a_stranger_breaks_nothing(base: xr.Dataset, odd: object) -> None:
    strange = told(with_floor(base), noise_floor=odd)
    assert diff(strange, tuned(nudged(base, Q, CELL, 0.25))).attrs["summary"]["floor"]


# --- what chance leaves above it --------------------------------------------------------------------------------------


def test_the_share_that_noise_leaves_above_a_maximum_is_bounded_as_often_as_it_says(base: xr.Dataset) -> None:
    random, layers = np.random.default_rng(0), 20
    most = Noise(measured(base), base).most_by_chance(Q, layers, 100_000)
    floors = random.standard_t(3, (4000, layers, 40)).max(axis=2)
    cells = np.sort(random.standard_t(3, 100_000))
    share = 1 - np.searchsorted(cells, floors) / len(cells)
    assert 0.02 < (share > most).any(axis=1).mean() < 0.07
    assert Noise(with_floor(base), base).most_by_chance(Q, layers, 100_000) == 0


def test_of_few_cells_noise_may_leave_more_above_a_maximum_and_of_one_all(base: xr.Dataset) -> None:
    random, layers, cells = np.random.default_rng(0), 20, 6
    noise = Noise(measured(base), base)
    floors = random.standard_t(3, (4000, layers, 40)).max(axis=2)
    share = (random.standard_t(3, (4000, layers, cells)) > floors[..., None]).mean(axis=2)
    most = noise.most_by_chance(Q, layers, cells)
    assert (share > most).any(axis=1).mean() < 0.05
    assert (share > noise.most_by_chance(Q, layers, 100_000)).any(axis=1).mean() > 0.2  # what holds of many cells
    assert noise.most_by_chance(Q, layers, 1) == 1
    assert noise.most_by_chance(Q, layers, 0) == 0
    everywhere = noise.exceeded(Q, layers, np.array([1.0, 1.0, np.nan]), np.array([1.0, 40.0, 0.0]))
    assert everywhere.tolist() == [False, True, False]


def test_noise_is_not_the_headline_and_a_layer_beyond_it_is(base: xr.Dataset) -> None:
    random = np.random.default_rng(0)
    noise = base[Q].copy(data=base[Q] + random.normal(0, 0.004, base[Q].shape))  # the floor is 2.5 of its deviations
    first = measured(base)
    again = base.assign({Q: noise.astype("float32")})
    assert diff(first, again).attrs["summary"]["beyond"] is None
    assert title(diff(first, again)) == "No more cells exceed the noise floor than noise alone would make"
    moved = tuned(nudged(again, Q, (slice(None), 3), 0.1))
    assert diff(first, moved).attrs["summary"]["beyond"] == 3
    assert title(diff(first, moved)).endswith("beyond the noise floor, from layer 3 on")
    lines = " ".join(lead(diff(first, again)))
    assert f"Too small to be seen: a change of {Q} by less than about" in lines
    assert "where noise alone makes 2.4 %" in lines


def rerun(base: xr.Dataset, deviation: float) -> tuple[xr.Dataset, xr.Dataset]:
    """A trace and the same model again in another batch size, which adds noise; the floor is 0.01."""
    noise = np.random.default_rng(0).normal(0, deviation, base[Q].shape)
    first = measured(base).assign_attrs(plan={"batch_size": 8})
    again = first.assign({Q: (base[Q] + noise).astype("float32")})
    return first, again.assign_attrs(plan={"batch_size": 3})


def test_noise_of_the_same_weights_is_no_warning_and_what_is_more_is_one(base: xr.Dataset) -> None:
    result = diff(*rerun(base, 0.004))
    assert title(result).startswith("No more cells exceed the noise floor")
    summary = result.attrs["summary"]["quantities"][Q]
    assert 0 < summary["share_above_floor"] < summary["share_above_by_chance"]
    assert "something else was not the same" not in said(result, "L14")
    assert "differ by no more than noise does (" in said(result, "L14", "info")
    assert "something else was not the same" in said(diff(*rerun(base, 0.02)), "L14", "warning")
    first, again = rerun(base, 0.0)
    far = diff(first, nudged(again, Q, CELL, 2.0))
    assert "differ by up to 200 times the floor (mlp_out_norm of layer 2), 1 of" in said(far, "L14", "warning")


def test_few_cells_of_noise_before_an_edit_are_no_warning(base: xr.Dataset) -> None:
    first, again = rerun(base, 0.0)
    keep = np.flatnonzero(base["prompt"].values == 0)
    one, other = (trace.isel(prompt=[0], token=keep) for trace in (first, again))
    edited = diff(one, nudged(longer(other, 3), Q, (2, 1), 0.02))  # two tokens but the first before the edit
    assert "something else was not the same" not in said(edited, "L14")
    assert "1 of" in said(edited, "L14", "info")


def test_noise_before_the_claimed_layer_is_no_contradiction_and_of_traces_made_alike_any_change_is(
    base: xr.Dataset,
) -> None:
    claims = [Claim(3, 0, 1.0, 2.0)]
    first, again = rerun(base, 0.004)
    words = said(diff(first, tuned(again), claims=claims), "L14")
    assert "cells beyond the floor, no more than noise leaves there." in words
    assert "the patch is not all that differs" not in words
    noisy = diff(first, tuned(rerun(base, 0.02)[1]), claims=claims)
    assert "the patch is not all that differs" in said(noisy, "L14", "warning")
    alike = diff(told(with_floor(base)), told(tuned(nudged(base, Q, CELL, 0.001))), claims=claims)
    assert "1 of" in said(alike, "L14", "warning")
    assert "although both were recorded alike: the patch is not all that differs" in said(alike, "L14", "warning")


def test_few_cells_far_beyond_the_floor_are_not_called_noise(base: xr.Dataset) -> None:
    first = measured(base)
    other = tuned(nudged(nudged(base, Q, CELL, 50.0), Q, (5, 0), 1e-6))
    assert title(diff(first, other)).startswith("Few cells exceed the noise floor, but by far: in layer 2 by")


# --- what is exactly equal --------------------------------------------------------------------------------------------


def test_the_first_layer_that_changed_is_the_headline_and_what_is_equal_before_it(base: xr.Dataset) -> None:
    after = base.copy(deep=True)
    for name in ("mlp_out_norm", "mlp_write_norm"):
        after[name].values[:, 2:] *= 1.5
    for name, row in names.QUANTITIES.items():
        if name in after and row.dims[:2] in (("token", "layer"), ("token", "depth")) and row.dtype == "float32":
            after[name].values[:, 3:] += 1.5  # depth 3 is what layer 2 made
    after["prompt_mean"].values[:, 3:] += 1.5
    result = diff(told(base), told(tuned(after)))
    exact = result.attrs["summary"]["exact"]
    assert (exact["first"], exact["equal"], exact["share_after"]) == (2, [0, 1], 1.0)
    assert {"mlp_out_norm", "mlp_write_norm", "resid_norm"} == set(exact["other_there"])
    assert "neuron_norm" in exact["same_there"]
    assert title(result) == (
        "Layers 0-1 are exactly equal; layer 2 is the first that changed, and after it every number differs"
    )
    assert "recorded alike" in said(result, "L32", "info")


def test_where_equality_is_exact_nothing_is_put_down_to_noise(base: xr.Dataset) -> None:
    after = tuned(nudged(base, Q, (slice(None), 2), 0.25))
    floored = measured(base)
    alike, again = diff(floored, told(after)), diff(floored, told(after, threads=4))
    assert alike.attrs["summary"]["repeats"]
    assert not again.attrs["summary"]["repeats"]
    contradictions = ("noise alone makes", "Too small to be seen", "by chance")
    for words in contradictions[:2]:
        assert words in " ".join(lead(again))
        assert words not in " ".join(lead(alike))
    prompt = str(base["prompt_id"].values[0])
    shown, shown_again = (" ".join(note.text for note in diff_spec(one, prompt, Q).notes) for one in (alike, again))
    assert "would by chance" in shown_again
    assert not any(words in shown for words in contradictions)
    assert "exceed the noise floor; at first tokens none was measured" in shown
    assert "by chance" not in said(alike, "L14")
    assert "by chance" in said(again, "L14")
    same = diff(floored, told(nudged(base, Q, CELL, 0.25)))  # of the same weights, what differs is noise
    assert not same.attrs["summary"]["repeats"]


def test_a_changed_first_layer_or_embedding_is_named_as_the_first_that_changed(base: xr.Dataset) -> None:
    floored = measured(base)
    after = told(tuned(nudged(base, Q, (slice(None), 0), 0.25)))
    result = diff(floored, after)
    assert title(result) == "Layer 0 is the first that changed"
    first = next(line for line in lead(result) if line.startswith("In layer 0, "))
    assert first.startswith(f"In layer 0, {Q} differs; exactly equal there: ")
    assert "noise alone makes" not in " ".join(lead(result))
    assert "a difference of any size comes from the weights" in said(result, "L32", "info")
    embedding = diff(floored, told(tuned(nudged(base, "resid_norm", (slice(None), 0), 0.5))))
    assert title(embedding).startswith("The embedding is the first that changed")
    again = diff(floored, told(tuned(nudged(base, Q, (slice(None), 0), 0.25)), threads=4))
    assert "first that changed" not in title(again)  # not recorded alike: noise makes it as well


def test_what_is_said_of_typical_and_farthest_cells_is_of_the_quantity_that_is_named(base: xr.Dataset) -> None:
    after = nudged(nudged(base, Q, (slice(None), slice(1, 4)), 0.05), Q, CELL, 0.2)
    other = tuned(nudged(after, "mlp_write_norm", CELL, 5.0))  # farther, but of another quantity
    result = diff(measured(base), other)
    words = next(line for line in lead(result) if line.startswith(f"{Q} has the most cells beyond the noise floor"))
    assert "; its farthest, in layer 2, is 25 times the floor." in words
    assert words.endswith("In its median layer, the median cell differs by 5 times the floor.")


def test_a_first_token_and_a_hole_count_as_other_numbers(base: xr.Dataset) -> None:
    for where, by in (((0, 1), 9.0), (CELL, np.nan)):
        assert diff(base, tuned(nudged(base, Q, where, by))).attrs["summary"]["exact"]["first"] == where[1]


def test_a_change_of_the_embedding_is_before_every_layer(base: xr.Dataset) -> None:
    result = diff(with_floor(base), tuned(nudged(base, "resid_norm", (slice(None), 0), 0.5)))
    assert result.attrs["summary"]["exact"]["first"] == -1
    assert title(result).endswith("from the embedding on")


def test_behind_an_edit_nothing_is_called_equal_or_changed(base: xr.Dataset) -> None:
    edited = nudged(longer(base, 6), Q, (10, 1), 5.0)
    result = diff(told(with_floor(base)), told(edited))
    assert result.attrs["summary"]["exact"]["changed"] == 0
    assert title(result).startswith("Everything is exactly equal up to the first edit of each prompt")
    patched = tuned(nudged(longer(base, 6), Q, (4, 2), 5.0))
    assert title(diff(told(base), told(patched))).startswith(
        "Layers 0-1 are exactly equal up to the first edit; layer 2"
    )


def test_nothing_differs_says_what_would_have_been_seen_and_when_the_weights_do(base: xr.Dataset) -> None:
    same = diff(told(base), told(base))
    assert title(same) == "Nothing differs, exactly: every number that was compared is the same in both traces"
    numbers = same.attrs["summary"]["exact"]["numbers"]
    assert f"last bit of any of the {numbers:,} numbers would have been seen" in lead(same)[1]
    assert "the unembedding" in lead(same)[1]
    assert "although the models' weights do" in title(diff(told(base), told(tuned(base))))


def test_only_layers_that_were_compared_are_called_equal(base: xr.Dataset) -> None:
    after = tuned(nudged(base, Q, (5, 3), 0.25))
    assert diff(base, after, layers="1-3").attrs["summary"]["exact"]["equal"] == [1, 2]
    assert diff(base, after, layers="2-3", quantity=Q).attrs["summary"]["exact"]["equal"] == [2]
    residual = tuned(nudged(base, "resid_norm", (5, 3), 0.25))  # depth 3 is what layer 2 made
    assert diff(base, residual, quantity="resid_norm").attrs["summary"]["exact"]["first"] == 2


# --- recorded alike ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"receipt": {"device": "cuda:0", "threads": 1}}, "device"),
        ({"receipt": {"device": "cpu", "threads": 4}}, "threads"),
        ({"software": {"torch": "2.0"}}, "torch"),
        ({"plan": {"batch_size": 2}}, "batch size"),
        ({"plan": {"padding_side": "left"}}, "padding"),
        ({"plan": {"together": "none"}}, "prompts that run together"),
    ],
)
def test_what_was_not_recorded_alike_is_found(base: xr.Dataset, changes: dict[str, Any], what: str) -> None:
    one = told(base).assign_attrs(plan={"batch_size": 8, "padding_side": "right"}, software={"torch": "2.13"})
    other = one.assign_attrs({key: {**one.attrs[key], **values} for key, values in changes.items()})
    assert list(conditions(one, other).unlike) == [what]
    result = diff(with_floor(one), nudged(other, Q, CELL, 0.25))
    covered = what in ("batch size", "padding", "prompts that run together")
    assert what in said(result, "L32", "info" if covered else "warning")
    assert ("No floor is measured under that" in said(result, "L32", "warning")) == (not covered)


def test_other_prompts_make_other_batches(base: xr.Dataset) -> None:
    fewer = told(base).isel(prompt=slice(0, 9), token=np.flatnonzero(base["prompt"].values < 9))
    assert "other prompts in the batches" in conditions(told(base), fewer).unlike
    assert conditions(told(base), told(base)).alike
    assert not conditions(base, base).known  # without a receipt nothing is known


def test_equal_weights_recorded_alike_that_differ_are_a_contradiction(base: xr.Dataset) -> None:
    result = diff(told(base), told(nudged(base, Q, CELL, 1e-3)))
    assert "recordings here do not repeat exactly" in said(result, "L32", "warning")


# --- what is proved ---------------------------------------------------------------------------------------------------


def scaled(trace: xr.Dataset, layer: int, neuron: int, factor: float) -> xr.Dataset:
    """The trace as if one column had been scaled; its peaks stay where they are."""
    changed = trace.copy(deep=True)
    here = changed["peak_neuron"].values[:, layer] == neuron
    changed["peak_write"].values[:, layer][here] *= factor
    return changed


def test_columns_of_another_norm_come_first_and_are_listed_first(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])[2]
    few, many = np.flatnonzero(np.isfinite(norms))[:2].tolist()
    after = scaled(scaled(base, 2, few, 1.001), 2, many, 0.5)
    after["prompt_mean"].values[:, 1, 7] += 5.0  # moves far more
    result = diff(with_floor(base), tuned(after))
    listed = list(zip(result["listed/layer"].values.tolist(), result["listed/neuron"].values.tolist(), strict=True))
    assert listed[:3] == [(2, many), (2, few), (1, 7)]
    assert lead(result)[0].startswith("Proved: 2 columns have another norm, in layer 2: ")
    assert f"L2 n{many} ×0.5 and L2 n{few} ×1.001;" in lead(result)[0]
    assert result["neurons/column_changed"].values.sum() == 2


def test_a_neuron_that_moved_before_anything_else_comes_before_those_that_moved_more(base: xr.Dataset) -> None:
    after = base.copy(deep=True)
    after["prompt_mean"].values[:, 1, 9] += 0.01
    after["neuron_norm"].values[:, 1] += 0.01
    after["prompt_mean"].values[:, 2:] += 5.0
    result = diff(told(base), told(tuned(after)))
    assert (int(result["listed/layer"][0]), int(result["listed/neuron"][0])) == (1, 9)
    assert "In layer 1 the mean activation of 1 of 48 neurons differs" in " ".join(lead(result))
    after["attn_write_norm"].values[:, 1] += 0.01  # attention changed first: the neuron proves nothing
    other = diff(told(base), told(tuned(after)))
    assert int(other["listed/layer"][0]) > 1
    assert other.attrs["summary"]["neurons"]["changed_themselves"] == 0


def test_norms_within_the_rounding_of_another_dtype_prove_nothing_between_dtypes(base: xr.Dataset) -> None:
    norms = column_norms(base, np.arange(4), base.sizes["neuron"])[2]
    neuron = int(np.flatnonzero(np.isfinite(norms))[0])
    assert diff(base, tuned(scaled(base, 2, neuron, 1.001)))["neurons/column_changed"].values.sum() == 1
    assert diff(base, tuned(scaled(base, 2, neuron, 1.001), "bfloat16"))["neurons/column_changed"].values.sum() == 0


def peaks_of(writes: np.ndarray, activations: np.ndarray, norms: np.ndarray, k: int) -> dict[str, np.ndarray]:
    order = np.argsort(-writes, axis=-1)[..., :k]
    return {
        "peak_neuron": order.astype("int32"),
        "peak_value": np.take_along_axis(activations, order, -1).astype("float32"),
        "peak_write": np.take_along_axis(writes, order, -1).astype("float32"),
    }


def test_a_column_gone_from_the_peaks_is_bounded_where_activations_are_the_same_and_never_wrongly(
    base: xr.Dataset,
) -> None:
    random = np.random.default_rng(0)
    shape = tuple(base.sizes[dim] for dim in ("token", "layer", "neuron"))
    activations, norms = random.normal(size=shape), random.uniform(1, 2, shape[1:])

    def trace(norms: np.ndarray) -> xr.Dataset:
        found = peaks_of(np.abs(activations) * norms, activations, norms, 10)
        return base.assign({name: (("token", "layer", "peak"), values) for name, values in found.items()})

    other = norms.copy()
    other[2, :5] *= 0.05
    other[2, 5:8] *= 30
    result = diff(trace(norms), tuned(trace(other)))
    changed = result["neurons/column_changed"].values
    assert np.argwhere(changed).tolist() == [[2, neuron] for neuron in range(8)]
    most = result["neurons/column_most_b"].values
    assert np.isfinite(most[2, :5]).any()
    assert (np.isnan(most) | (most >= other - 1e-5)).all()
    moved = tuned(nudged(trace(other), "prompt_mean", (slice(None), 2), 0.1))  # what moved bounds nothing
    assert not diff(trace(norms), moved)["neurons/column_changed"].values[2, :5].any()


def test_a_claim_is_held_against_what_a_column_can_be_at_most(base: xr.Dataset) -> None:
    random = np.random.default_rng(0)
    shape = tuple(base.sizes[dim] for dim in ("token", "layer", "neuron"))
    activations, norms = random.normal(size=shape), random.uniform(1, 2, shape[1:])
    other = norms.copy()
    other[2, :2] *= 0.05
    one, two = (
        base.assign({name: (("token", "layer", "peak"), values) for name, values in peaks_of(
            np.abs(activations) * of, activations, of, 10).items()})
        for of in (norms, other)
    )  # fmt: skip
    result = diff(one, tuned(two), claims=[Claim(2, 0, 1.0, 0.05), Claim(2, 1, 1.0, 0.9)])
    assert result["claims/verdict"].values.tolist() == ["gone from the peaks", "changed otherwise"]
    assert "which fits the claim" in str(result["claims/why"].values[0])
    assert "× at most" in str(result["claims/why"].values[1])
    assert title(result) == "0 of 2 claimed neurons changed as claimed, 1 gone from the peaks"
    unclaimed = diff(one, tuned(two), claims=[Claim(2, 0, 1.0, 0.05)])
    assert title(unclaimed).endswith("; 1 column that nobody claimed has another norm")


def test_where_no_quantity_is_in_both_traces_nothing_is_said_to_be_equal() -> None:
    def logits_of(target: str) -> xr.Dataset:
        return of_model(simulated(record="logits", prompts=2, targets=(target,)), target)

    for target, words in (("Sure", "Nothing can be compared: the traces hold no"), ("Sorry", "Only explained logits")):
        result = diff(logits_of("Sorry"), logits_of(target))
        assert title(result).startswith(words)
        assert "--record norms" in lead(result)[-1]
        assert not any("would have been seen" in line for line in lead(result))
