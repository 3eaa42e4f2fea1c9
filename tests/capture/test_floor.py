"""The noise floor is what quantities really change by, and nothing is claimed that was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import expected
from test_capture import Stop
from tiny import FAMILIES, TEXTS, byte_tokenizer, tiny

from stratoscope import capture, heatmap, names, open_trace
from stratoscope.errors import InputError
from stratoscope.names import ATTENTION, NORMS, PEAKS, PROMPTS, QUANTITIES, RESIDUAL, SUMMARIES, floor_name
from stratoscope.recorder.proof import floor
from stratoscope.recorder.proof.floor import sample
from stratoscope.trace.write.from_dataset import write_dataset

GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TEXT = "Tell me how a clock works, please"


def run(out: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": GROUPS, "top_k": 5, "floor": True, "prompts": TEXTS, "model": tiny("Llama")}
    settings |= {"tokenizer": byte_tokenizer(), **options}
    return capture(settings.pop("model"), settings.pop("prompts"), out, **settings)


def floors(trace: Any) -> dict[str, np.ndarray]:
    return {name: trace[name].values for name in trace.data_vars if name.startswith("floor_")}


def with_parameters_in(dtype: torch.dtype, model: Any) -> Any:
    """The model as it is when loaded so: rotary frequencies stay in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_the_floor_under_another_dtype_is_what_a_plain_computation_gives(tmp_path: Path, family: str) -> None:
    trace = run(tmp_path / "t", prompts=[TEXT], model=tiny(family))
    length, wanted = len(TEXT), {}
    for tokens in (length, length * 192 // 256, length * 128 // 256, length * 64 // 256):  # the one prompt, cut
        ids = trace.token_id.values[:tokens].tolist()
        one, other = (
            expected(with_parameters_in(dtype, tiny(family)), FAMILIES[family], ids, list(range(tokens)), 5)
            for dtype in (torch.float32, torch.bfloat16)
        )
        for name in one:
            change = np.abs(one[name] - other[name])
            change = change[None] if name.startswith("prompt_") else change[1:, ..., None]  # [token, layer, rest]
            change = change.reshape(len(change), change.shape[1], -1).max(axis=(0, 2))
            wanted[name] = np.maximum(wanted.get(name, 0), change)
    found = {name: values for name, values in floors(trace).items() if name.startswith("floor_dtype_")}
    assert set(found) == {floor_name(name, "dtype") for name in set(wanted) - {"peak_neuron", "peak_value"}}
    for name, values in found.items():
        # W a and x + attention are rounded in the one, not the other
        name = name.removeprefix("floor_dtype_")
        np.testing.assert_allclose(values, wanted[name], rtol=0.05, atol=1e-4, err_msg=name)


def test_what_nothing_changes_has_a_floor_of_zero_and_not_nan(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", model=with_parameters_in(torch.float32, tiny("Llama", torch.bfloat16)))
    for nuisance in names.NUISANCES:  # embeddings are the same numbers in every batch and dtype
        assert trace[floor_name("resid_norm", nuisance)].values[0] == 0.0
    assert (trace.floor_dtype_resid_norm.values[1:] > 0).all()


def test_each_nuisance_has_its_own_floor_and_the_receipt_says_what_it_was(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", record=SUMMARIES)
    facts = trace.attrs["receipt"]["noise_floor"]
    batch, padding, dtype = facts["largest_changes"].values()
    words = ["4 prompts in a batch, against each alone", "padding on the left, against the right",
             "bfloat16, against float32"]  # fmt: skip
    assert facts["nuisances"] == dict(zip(names.NUISANCES, words, strict=True))
    assert list(facts["largest_changes"]) == words
    assert facts["dtypes"] == ["float32", "bfloat16"]
    assert facts["longest"] == max(np.bincount(trace["prompt"].values))
    assert facts["limits"] == []
    assert facts["prompts"][0] == "p0003"  # the longest
    for nuisance, largest in zip(names.NUISANCES, (batch, padding, dtype), strict=True):
        for name in largest:
            values = trace[floor_name(name, nuisance)].values
            assert np.nanmax(values) == np.float32(largest[name])
            assert values.shape == (4 if name == "resid_norm" else 3,)
    assert batch["resid_norm"] < 1e-3 < dtype["resid_norm"]


def test_every_float_quantity_of_a_layer_has_a_floor_in_the_table() -> None:
    with_floor = {name for name in QUANTITIES if floor_name(name, "dtype") in QUANTITIES}
    by_layer = {name for name, row in QUANTITIES.items() if row.group in SUMMARIES and row.dtype == "float32"}
    assert with_floor == by_layer - {"peak_value", "router_weight"}  # of other neurons, of other experts
    for name in with_floor:
        whole = ("",) if QUANTITIES[name].since.startswith("1.") else ()  # as format 1 stored it
        for nuisance in (*whole, *names.NUISANCES):
            row = QUANTITIES[floor_name(name, nuisance)]
            assert (row.dims, row.unit, row.group) == (QUANTITIES[name].dims[1:2], QUANTITIES[name].unit, names.FLOOR)


def test_without_the_option_there_is_no_floor(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", floor=False)
    assert not floors(trace)
    assert "noise_floor" not in trace.attrs["receipt"]


def test_only_what_is_recorded_has_a_floor(tmp_path: Path) -> None:
    assert set(floors(run(tmp_path / "t", record=(ATTENTION,)))) == {
        floor_name(quantity.name, nuisance)
        for quantity in names.quantities_of((ATTENTION,))
        for nuisance in names.NUISANCES
        if quantity.name != "attn_null"
    }


def test_a_copy_that_does_not_fit_is_a_limit_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "_free_bytes", lambda device: 10_000)
    trace = run(tmp_path / "t")
    (limit,) = trace.attrs["receipt"]["limits"]
    assert limit.startswith("Noise floor without bfloat16, against float32: a copy takes")
    assert len(trace.attrs["receipt"]["noise_floor"]["largest_changes"]) == 2
    assert trace.floor_batch_resid_norm.values.max() < 1e-3
    assert not [name for name in floors(trace) if name.startswith("floor_dtype_")]


def test_prompts_of_one_token_have_no_floor_rather_than_zero(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", prompts=["a", "b"])
    assert not floors(trace)
    assert trace.attrs["receipt"]["limits"][0].startswith("Noise floor: nothing to compare beyond the first tokens for")


def test_the_model_is_as_it_was(tmp_path: Path) -> None:
    model = tiny("Llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(tmp_path / "t", model=model, record=SUMMARIES)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.float32 for name in before)


def test_a_resumed_recording_keeps_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"batch_size": 1}
    whole = run(tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", **options)
    monkeypatch.setattr("stratoscope.recorder.recording.measure_floor", lambda *_, **__: pytest.fail("measured again"))
    resumed = run(tmp_path / "t", resume=True, **options)
    assert resumed.attrs["receipt"] == whole.attrs["receipt"]
    for name, values in floors(whole).items():
        np.testing.assert_array_equal(resumed[name].values, values)


def test_a_floor_survives_copying_and_is_refused_as_a_picture(tmp_path: Path) -> None:
    trace = run(tmp_path / "t")
    write_dataset(trace.isel(prompt=slice(0, 5)), tmp_path / "copy")
    again = open_trace(tmp_path / "copy")
    np.testing.assert_array_equal(again.floor_dtype_mlp_write_ratio.values, trace.floor_dtype_mlp_write_ratio.values)
    assert again.floor_dtype_mlp_write_ratio.attrs["source"] == "real"
    with pytest.raises(InputError, match="floor_batch_resid_norm has no size for each token and layer"):
        heatmap(tmp_path / "t", tmp_path / "f.png", quantity="floor_batch_resid_norm")


def test_the_sample_has_the_longest_and_the_first_prompt_and_is_always_the_same() -> None:
    lengths = [3, 9, 4, 20, 5, 6]
    assert sample(lengths)[:2] == [3, 0]
    assert len(set(sample(lengths))) == 4
    assert sample(lengths) == sample(lengths)
    assert sample([7]) == [0, 0, 0, 0]


def test_a_resumed_recording_keeps_the_floor_it_began_with(tmp_path: Path) -> None:
    began = run(tmp_path / "with")
    again = run(tmp_path / "with", floor=False, resume=True)
    assert floors(again).keys() == floors(began).keys() != set()
    assert all(np.array_equal(values, floors(began)[name]) for name, values in floors(again).items())
    run(tmp_path / "without", floor=False)
    with pytest.raises(InputError, match="was begun without a noise floor"):
        run(tmp_path / "without", floor=True, resume=True)
