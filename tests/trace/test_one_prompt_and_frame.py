"""For people in Python: one prompt as a Dataset of its own, and a quantity as a tidy table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.trace.export import frame


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return stratoscope.simulate(
        prompts=6, tokens=(5, 9), layers=3, d_model=8, d_ff=24, heads=2, top_k=2, record=names.WITHOUT_TARGETS
    )


def test_one_prompt_holds_its_own_values_of_every_kind_and_those_of_no_other(trace: xr.Dataset) -> None:
    one = stratoscope.prompt(trace, "critical-2")
    mine = trace["prompt"].values == 2
    assert (one.sizes["prompt"], one.sizes["token"]) == (1, int(mine.sum()))
    np.testing.assert_array_equal(one["resid_norm"], trace["resid_norm"].values[mine])
    np.testing.assert_array_equal(one["prompt_mean"], trace["prompt_mean"].values[[2]])
    np.testing.assert_array_equal(
        stratoscope.attention_matrix(one, 0, layer=1, head=1), stratoscope.attention_matrix(trace, 2, layer=1, head=1)
    )
    assert {entry.get("prompt", "critical-2") for entry in one.attrs["planted"]} == {"critical-2"}
    assert one.attrs["notes"][-1]["text"] == "Only critical-2, of 6 prompts."
    assert one["position"].attrs == trace["position"].attrs
    assert stratoscope.prompt(one, 0).identical(one)


def test_every_verb_works_on_one_prompt(trace: xr.Dataset, tmp_path: Path) -> None:
    one, other = stratoscope.prompt(trace, "critical-2"), stratoscope.prompt(trace, 3)
    assert stratoscope.info(one)["prompts"] == 1
    assert stratoscope.lint(one).attrs["kind"] == "lint"
    assert stratoscope.anomalies(one).attrs["kind"] == "anomalies"
    assert stratoscope.diff(one, trace)["tokens"].sizes["column"] == one.sizes["token"]
    one_map, same = stratoscope.heatmap(one).axes[0].images[0], stratoscope.heatmap(trace, prompt=2).axes[0].images[0]
    np.testing.assert_array_equal(one_map.get_array(), same.get_array())
    assert stratoscope.export_csv(one, tmp_path / "one.csv") == [tmp_path / "one.csv"]
    with pytest.raises(InputError, match="class"):
        stratoscope.contrast(other)


def test_one_csv_file_of_several_is_as_if_it_alone_had_been_read(tmp_path: Path) -> None:
    for name, value in (("a", 1.5), ("b", 2.5)):
        rows = f"0,<s>,3,7,{value}\n1,▁Hi,4,9,{value + 1}\n"
        (tmp_path / f"{name}.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n" + rows, "utf-8")
    one, alone = (
        stratoscope.prompt([tmp_path / "a.csv", tmp_path / "b.csv"], "b"),
        stratoscope.import_csv(tmp_path / "b.csv"),
    )
    xr.testing.assert_equal(one, alone)
    assert one.attrs["plan"]["files"] == alone.attrs["plan"]["files"]


def test_xarray_alone_leaves_the_tokens_or_the_prompts_of_all(trace: xr.Dataset) -> None:
    assert trace.isel(prompt=[2]).sizes["token"] == trace.sizes["token"]
    assert trace.isel(token=trace["prompt"].values == 2).sizes["prompt"] == 6


@pytest.mark.parametrize(
    "quantity",
    [
        "mlp_out_norm",
        "resid_norm",
        "peak_neuron",
        "prompt_mean",
        "attn_entropy",
        "attention",
        "lens_logprob",
        "route_weight",
    ],
)
def test_each_cell_of_a_quantity_is_a_row_of_the_table_with_its_place_beside_it(
    trace: xr.Dataset, quantity: str
) -> None:
    array, table = trace[quantity], stratoscope.to_frame(trace, quantity)
    assert len(table) == array.size
    assert table.columns[-1] == quantity
    ids, texts = trace["prompt_id"].values, trace["text"].values
    for row in np.random.default_rng(0).integers(0, array.size, 30).tolist():
        cell, at = table.iloc[row], np.unravel_index(row, array.shape)
        np.testing.assert_array_equal(cell[quantity], array.values[at])
        place = dict(zip(array.dims, (int(one) for one in at), strict=True))
        for dim in {"layer", "depth", "head", "neuron", "peak", "route", "lens_rank"} & place.keys():
            assert cell[dim] == place[dim]
        if "token" in place:
            token = place["token"]
            assert (cell["token"], cell["position"]) == (texts[token], trace["position"].values[token])
            assert cell["prompt_id"] == ids[trace["prompt"].values[token]]
            assert cell["first"] == (cell["position"] == 0)
            assert cell["answer"] == (token + 1 == len(texts) or trace["prompt"].values[token + 1] != cell["prompt"])
            assert cell["span"] == names.SPANS[trace["span"].values[token]]
        elif "prompt" in place:
            assert cell["prompt_id"] == ids[place["prompt"]]
        else:
            found = stratoscope.attention_matrix(trace, cell["prompt_id"], layer=cell["layer"], head=cell["head"])
            np.testing.assert_array_equal(found[cell["position"], cell["key_position"]], cell[quantity])


def test_tokens_that_a_lens_reads_have_their_texts_beside_their_ids(trace: xr.Dataset) -> None:
    table = stratoscope.to_frame(trace, "lens_token")
    assert table.columns.tolist()[-2:] == ["lens_text", "lens_token"]
    known = table[table["lens_token"] >= 0]
    wanted = [trace.attrs["token_texts"][str(number)] for number in known["lens_token"]]
    assert [text.replace("<0xE4>", "\udce4") for text in known["lens_text"]] == wanted
    assert (table.loc[table["lens_token"] < 0, "lens_text"] == "").all()


def test_a_table_of_a_csv_gives_its_rows_back(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Note\n1,<s>,3,7,1.5,x\n2,▁Hi,4,9,2.5,y\n", "utf-8"
    )
    table = stratoscope.to_frame(tmp_path / "a.csv", "imported_norm")
    assert table[["position", "token", "layer", "neuron", "Note", "imported_norm"]].values.tolist() == [
        [1, "<s>", 3, 7, "x", 1.5], [2, "▁Hi", 4, 9, "y", 2.5],
    ]  # fmt: skip
    assert table["first"].tolist() == [True, False]


def test_what_makes_no_table_is_refused_with_what_there_is(trace: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no quantity 'norm' in it\. .*There are: neuron_norm"):
        stratoscope.to_frame(trace, "norm")
    monkeypatch.setattr(frame, "_MOST_CELLS", 10)
    with pytest.raises(InputError, match=r"stratoscope\.prompt"):
        stratoscope.to_frame(trace, "mlp_out_norm")


def test_tokens_out_of_reading_order_are_refused_with_a_line_that_puts_them_in_order(trace: xr.Dataset) -> None:
    backwards = trace.isel(token=slice(None, None, -1))
    with pytest.raises(TraceError, match=r"dataset\.sortby\(\['prompt', 'position'\]\)"):
        stratoscope.to_frame(backwards, "mlp_out_norm")
    with pytest.raises(TraceError, match="not in reading order"):
        stratoscope.lint(backwards.sortby("prompt"))
    with pytest.raises(TraceError, match="choose no token twice"):
        stratoscope.lint(trace.isel(token=[0, 0, 1]))
    in_order = backwards.sortby(["prompt", "position"])
    pd.testing.assert_frame_equal(
        stratoscope.to_frame(in_order, "mlp_out_norm"), stratoscope.to_frame(trace, "mlp_out_norm")
    )


def test_info_counts_what_the_other_verbs_see_of_a_dataset_that_was_cut(trace: xr.Dataset) -> None:
    assert stratoscope.info(trace.isel(token=trace.prompt.isin([0, 3]).values))["prompts"] == 2
    with pytest.raises(TraceError):
        stratoscope.info(trace.isel(prompt=2))


def test_no_prompt_at_all_is_no_choice_and_no_number_is_one_but_an_index(trace: xr.Dataset) -> None:
    for choice, words in (([], "no prompt is named"), (True, "True names no prompt"), ("-1", "no prompt called '-1'")):
        with pytest.raises(InputError, match=words) as error:
            stratoscope.heatmap(trace, prompt=choice)
        assert "Did you mean" not in str(error.value)
