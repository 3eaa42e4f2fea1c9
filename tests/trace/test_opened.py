"""What every verb can be given: a trace, CSV files, or a Dataset that somebody cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.trace.opened import opened

HEAD = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"


def csv(path: Path, rows: str = "0,<s>,3,7,1.5\n1,▁Hi,3,9,2.5\n") -> Path:
    path.write_text(HEAD + rows, "utf-8")
    return path


def simulated() -> xr.Dataset:
    return stratoscope.simulate(prompts=2, tokens=6, layers=2, d_model=8, d_ff=24, heads=2, top_k=2)


def test_a_dataset_is_taken_as_it_is() -> None:
    dataset = simulated()
    assert opened(dataset) is dataset


def test_of_a_dataset_that_was_cut_the_prompts_without_a_token_are_left_out() -> None:
    dataset = simulated()
    last = int(dataset["prompt"].values[-1])
    cut = opened(dataset.isel(token=dataset["prompt"].values == last))
    assert cut["prompt_id"].values.tolist() == dataset["prompt_id"].values[[last]].tolist()
    assert set(cut["prompt"].values.tolist()) == {0}
    assert f"Left out: {last} prompt without a token" in cut.attrs["notes"][-1]["text"]


def test_csv_files_become_one_prompt_each(tmp_path: Path) -> None:
    dataset = opened([csv(tmp_path / "critical.csv"), str(csv(tmp_path / "neutral.CSV"))])
    assert list(dataset["prompt_class"].values) == ["critical", "neutral"]
    np.testing.assert_array_equal(dataset["imported_norm"], [1.5, 2.5, 1.5, 2.5])


def test_a_trace_is_opened_from_its_path(tmp_path: Path) -> None:
    from stratoscope.recorder.simulate import simulate

    simulate(tmp_path / "t.zarr", prompts=2, layers=2, d_model=16, d_ff=32, heads=2, top_k=2)
    for given in (tmp_path / "t.zarr", str(tmp_path / "t.zarr"), [tmp_path / "t.zarr"]):
        assert opened(given).sizes["prompt"] == 2


def test_several_traces_or_a_mixture_are_refused_with_advice(tmp_path: Path) -> None:
    first, second = tmp_path / "a.zarr", tmp_path / "b.zarr"
    first.mkdir(), second.mkdir()
    for given in ([first, second], [first, csv(tmp_path / "c.csv")]):
        with pytest.raises(InputError, match="Give one trace"):
            opened(given)


@pytest.mark.parametrize("given", ["nowhere.csv", Path("nowhere.zarr"), ["nowhere.csv"]])
def test_a_missing_path_is_named(given) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"nowhere\.(csv|zarr): does not exist"):
        opened(given)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt, line 1: this is no CSV"):
        opened(tmp_path / "notes.txt")


def test_columns_are_named_for_csv_files_and_refused_for_a_trace(tmp_path: Path) -> None:
    file = csv(tmp_path / "p.csv")
    file.write_text(file.read_text("utf-8").replace("Token_Pos", "pos"), "utf-8")
    np.testing.assert_array_equal(opened(file, "Token_Pos=pos")["imported_norm"], [1.5, 2.5])
    with pytest.raises(InputError, match="this is a trace, which has no columns"):
        opened(simulated(), {"Token_Pos": "pos"})


def test_nothing_and_nonsense_are_refused() -> None:
    with pytest.raises(InputError, match="nothing is given"):
        opened([])
    with pytest.raises(InputError, match="int is no path"):
        opened([3])  # type: ignore[list-item]


def test_attention_pairs_of_a_dataset_whose_tokens_were_cut_are_never_read_for_other_tokens() -> None:
    trace = stratoscope.simulate(prompts=4, tokens=6, layers=2, d_ff=24, heads=2, record=names.WITHOUT_TARGETS)
    whole = stratoscope.attention_matrix(trace, 3, layer=1, head=0)
    cut = trace.isel(token=trace["position"].values > 0)
    with pytest.raises(InputError, match="attention pairs were not"):
        stratoscope.attention_matrix(cut, 3, layer=1, head=0)
    assert "attention" not in opened(cut)
    assert whole.shape == (6, 6)


def test_refusals_of_a_cut_dataset_give_advice_that_works_when_it_is_followed() -> None:
    trace = stratoscope.simulate(prompts=4, tokens=6, layers=3, d_ff=24, heads=2)
    for cut, advised in (
        (trace.isel(prompt=[0, 3]), trace.isel(token=trace["prompt"].isin([0, 3]).values)),
        (trace.sel(layer=2), trace.sel(layer=[2])),
        (trace.transpose(), trace.transpose().transpose("token", "prompt", "layer", ...)),
    ):
        with pytest.raises(TraceError, match=r"trace\.isel\(token=|Choose with a list|dataset\.transpose\("):
            opened(cut)
        assert opened(advised).sizes["token"]


def test_prompt_texts_that_xarray_dropped_are_empty_and_not_a_fault() -> None:
    trace = stratoscope.simulate(prompts=4, tokens=6, layers=3, d_ff=24, heads=2)
    chosen = opened(trace[["mlp_out_norm"]])
    assert chosen["prompt_class"].values.tolist() == [""] * 4
    assert chosen["prompt_id"].values.tolist() == ["0", "1", "2", "3"]


def test_whatever_draws_a_csv_can_be_asked_of_every_verb_or_says_in_one_line_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, after = csv(tmp_path / "a" / "x.csv"), csv(tmp_path / "b" / "x.csv", "0,<s>,3,7,1.5\n1,▁Hi,3,9,4.5\n")
    assert stratoscope.info(before)["tokens"] == 2
    assert "L08" in {one["id"] for one in stratoscope.lint([before]).attrs["notes"]}
    assert stratoscope.diff(before, after)["tokens/imported_norm/difference"].values.tolist() == [[0.0], [2.0]]
    (written,) = stratoscope.export_csv(str(before), tmp_path / "out.csv")
    assert written.read_text("utf-8") == before.read_text("utf-8")
    for verb, what in ((stratoscope.contrast, "--class"), (stratoscope.anomalies, "as a CSV has none")):
        with pytest.raises(InputError, match=what) as refused:
            verb([before, csv(tmp_path / "y.csv")])
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="--record attention-full"):
        stratoscope.attention_matrix(before, 0, layer=3, head=0)


def test_columns_are_named_for_every_verb(tmp_path: Path) -> None:
    file = csv(tmp_path / "p.csv")
    file.write_text(file.read_text("utf-8").replace("Token_Pos", "pos"), "utf-8")
    for verb in (stratoscope.info, stratoscope.lint, stratoscope.prompt, stratoscope.to_frame, stratoscope.anomalies):
        more = {stratoscope.prompt: (0,), stratoscope.to_frame: ("imported_norm",)}.get(verb, ())
        with pytest.raises(InputError, match="lacks the column Token_Pos"):
            verb(file, *more)
        if verb is not stratoscope.anomalies:
            verb(file, *more, columns="Token_Pos=pos")


def test_a_folder_of_csv_files_is_no_trace_and_the_files_are_to_be_named(tmp_path: Path) -> None:
    csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"folder of CSV files.*\*\.csv"):
        opened(tmp_path)
