"""What is published at the level `aggregate`: means of classes of 20 prompts that differ, and nothing of one prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from class_traces import different, trace_of

import stratoscope
from result_tables import documented, made
from stratoscope import names
from stratoscope.analysis.results.result import notes_in, warnings_in
from stratoscope.analysis.values.tables import has_cells, rank_of
from stratoscope.errors import InputError
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.model import public_model
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.words import number

TWO = ["calm"] * 34 + ["stormy"] * 40
VALUES = np.linspace(1, 9, 74)


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return trace_of(different(74), TWO, values=VALUES)


def test_means_are_over_prompts_of_logarithms_without_first_tokens(trace: xr.Dataset) -> None:
    found = class_profiles(trace, quantities=["mlp_write_ratio", "mlp_write_cos"], neurons=True)
    ratio = found["profiles/mlp_write_ratio/mean"]
    for name, some in (("calm", VALUES[:34]), ("stormy", VALUES[34:])):
        np.testing.assert_allclose(
            ratio.sel(prompt_class=name), np.log2(some).mean() + np.arange(trace.sizes["layer"]), rtol=1e-6
        )
        cosine, neurons = found["profiles/mlp_write_cos/mean"], found["neurons/prompt_mean/mean"]
        np.testing.assert_allclose(cosine.sel(prompt_class=name), some.mean() / 10, rtol=1e-6)
        np.testing.assert_allclose(neurons.sel(prompt_class=name), some.mean(), rtol=1e-6)
    assert (ratio.attrs["scale"], found["profiles/mlp_write_cos/mean"].attrs["scale"]) == ("log2", "linear")
    assert found["classes/prompts"].values.tolist() == [30, 40]
    assert found["classes/tokens"].values.tolist() == [9, 9]


def test_one_prompt_given_a_hundred_times_has_the_weight_of_one() -> None:
    texts, copies = different(30), [different(30)[0]] * 100
    once = class_profiles(trace_of(texts, [""] * 30))
    often = class_profiles(trace_of([*texts, *copies], [""] * 130, values=[*range(1, 31), *[1.0] * 100]))
    xr.testing.assert_equal(
        once["profiles/mlp_write_ratio"].to_dataset(), often["profiles/mlp_write_ratio"].to_dataset()
    )
    assert often["classes/prompts"].item() == 30


def test_copies_do_not_make_a_class_large_enough() -> None:
    texts = [*different(19), *(f"{text} please" for text in different(19))]
    with pytest.raises(InputError, match=r"the trace has 19 prompts that differ, 20 are needed"):
        class_profiles(trace_of(texts, [""] * 38))


def test_every_class_that_is_too_small_is_counted_in_one_line_and_can_be_left_out() -> None:
    trace = trace_of(different(52), ["critical"] * 16 + ["neutral"] * 16 + ["other"] * 20)
    with pytest.raises(InputError) as refused:
        class_profiles(trace)
    said = str(refused.value)
    assert "class 'critical' has 16 prompts that differ and class 'neutral' has 16 prompts that differ" in said
    assert "20 are needed" in said
    assert "--class other" in said
    assert "\n" not in said
    assert class_profiles(trace, prompt_class="other")["classes/prompt_class"].values.tolist() == ["other"]


def test_prompts_without_a_class_are_left_out_and_that_is_told() -> None:
    texts = different(30)
    found = class_profiles(trace_of(texts, ["calm"] * 22 + [""] * 8))
    only = class_profiles(trace_of(texts[:22], ["calm"] * 22))
    xr.testing.assert_equal(
        found["profiles/mlp_write_ratio"].to_dataset(), only["profiles/mlp_write_ratio"].to_dataset()
    )
    assert any(note.text == "Prompts without a class are left out." for note in notes_in(found))
    assert not any("left out." in note.text and "class" in note.text for note in notes_in(only))


def test_a_mean_of_fewer_than_twenty_prompts_is_not_given(trace: xr.Dataset) -> None:
    lacking = trace.copy(deep=True)
    lacking["mlp_write_ratio"].values[lacking["prompt"].values < 15, 1] = np.nan  # 19 of the calm ones are left
    found = class_profiles(lacking)
    mean = found["profiles/mlp_write_ratio/mean"]
    assert any("no mean is given" in note.text for note in notes_in(found))
    assert not any("no mean is given" in note.text for note in notes_in(class_profiles(trace)))
    assert np.isnan(mean.sel(prompt_class="calm")).values.tolist() == [False, True, False]
    assert np.isfinite(mean.sel(prompt_class="stormy")).all()


@pytest.mark.parametrize("quantity", ["peak_value", "prompt_max", "prompt_min", "peak_neuron", "text", "answer_logit"])
def test_no_extreme_and_no_text_is_averaged(simulated: xr.Dataset, quantity: str) -> None:
    with pytest.raises(InputError, match=quantity):
        class_profiles(simulated, quantities=[quantity])


def test_what_may_be_published_has_one_size_for_each_token_and_layer() -> None:
    rows = [names.QUANTITIES[name] for name in PROFILED]
    assert all(has_cells(row) and not rank_of(row) and names.TARGET not in row.dims for row in rows)


def test_nothing_of_a_single_prompt_or_of_where_it_was_recorded_is_said(trace: xr.Dataset) -> None:
    found = class_profiles(trace, neurons=True)
    said = json.dumps([found.attrs, [str(node.variables) for node in found.subtree]])
    hidden = [trace.attrs["uuid"], "f00d", "/home", "ann", "cuda", "id-3", "w3x1", trace.attrs["created"]]
    assert [word for word in hidden if word in said] == []
    assert found.attrs["summary"]["model"] == {"name": "secret-7b", "architecture": "Tiny", "n_layers": 3}
    assert found.attrs["published"]["level"] == found.attrs["summary"]["level"] == names.AGGREGATE


def test_a_fact_of_the_model_that_is_not_as_it_is_stated_is_left_out(trace: xr.Dataset) -> None:
    odd = {"architecture": "/home/ann", "context": "ann@example.org", "n_layers": 3, "owner": "ann"}
    assert public_model(trace.assign_attrs(model=odd)) == {"n_layers": 3}


def test_counts_are_rounded_to_tens(simulated: xr.Dataset) -> None:
    found = class_profiles(simulated)
    assert (found["classes/prompts"].values % 10 == 0).all()
    assert found.attrs["sources"][0]["prompts"] % 10 == 0


def csv_files(folder: Path, count: int) -> list[Path]:
    """Files of five tokens in two layers; all values of one are its number, times two in the second layer."""
    files = []
    for one in range(1, count + 1):
        rows = [f"{place},w{one}x{place},{layer},7,{one * 2 ** (layer - 22) if place else 1e6}"
                for place in range(5) for layer in (22, 23)]  # fmt: skip
        files.append(folder / f"ann-{one}.csv")
        files[-1].write_text("\n".join(["Token_Pos,Token,Layer,Neuron_ID,Activation_Norm", *rows]), "utf-8")
    return files


def test_twenty_csv_files_of_a_class_are_averaged_and_no_name_of_a_file_is_left(tmp_path: Path) -> None:
    files = csv_files(tmp_path, 44)
    found = class_profiles(stratoscope.import_csv(files, prompt_class=TWO[14:34] + TWO[-24:]))
    mean = found["profiles/imported_norm/mean"]
    for name, some in (("calm", np.arange(1, 21)), ("stormy", np.arange(21, 45))):
        np.testing.assert_allclose(mean.sel(prompt_class=name), np.log2(some).mean() + np.arange(2), rtol=1e-6)
    assert "ann" not in json.dumps(found.attrs)
    assert found["profiles/imported_norm/layer"].values.tolist() == [22, 23]


def test_csv_files_without_classes_and_too_few_of_them_are_refused(tmp_path: Path) -> None:
    files = csv_files(tmp_path, 21)
    with pytest.raises(InputError, match="the class of a CSV file is its name, which is not published"):
        class_profiles(stratoscope.import_csv(files))
    with pytest.raises(InputError, match="class 'calm' has 19 prompts that differ and class 'stormy' has 2 prompts"):
        class_profiles(stratoscope.import_csv(files, prompt_class=["calm"] * 19 + ["stormy"] * 2))


def test_neurons_never_go_out_without_what_our_attack_found(simulated: xr.Dataset) -> None:
    found = class_profiles(simulated, neurons=True)
    measured = found.attrs["summary"]["membership"]
    assert [one["prompt_class"] for one in measured] == ["critical", "neutral"]
    low, high = measured[0]["auc"][1:]
    assert 0 <= low <= measured[0]["auc"][0] <= high <= 1
    (warning,) = [note for note in warnings_in(found) if "Our own attack" in note.text]
    worst = max(measured, key=lambda one: one["auc"][0])
    assert f"AUC {number(worst['auc'][0])}" in warning.text
    assert "membership" not in class_profiles(simulated).attrs["summary"]


def test_neurons_of_a_class_too_small_to_attack_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be measured: it needs 32 prompts or more, and there are 24"):
        class_profiles(trace_of(different(24), [""] * 24), neurons=True)


def test_neurons_that_were_not_recorded_are_refused(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="holds no prompt_mean"):
        class_profiles(trace.drop_vars("prompt_mean"), neurons=True)


def test_a_trace_of_peaks_alone_has_no_profiles(simulated: xr.Dataset) -> None:
    with pytest.raises(InputError, match="nothing of which class profiles are made"):
        class_profiles(simulated[["peak_value", "peak_neuron"]])


def test_the_page_has_every_variable_of_profiles_and_no_other(simulated: xr.Dataset) -> None:
    pytest.importorskip("opendp")
    assert made([class_profiles(simulated, neurons=True), private_profiles(simulated)]) == documented("profiles")
