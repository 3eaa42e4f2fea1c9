"""What `comparison` says of two prompts: held against loops over plain arrays that share nothing with it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from compare_traces import LAYERS, PEAKS, activations, columns_of, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

import stratoscope
from stratoscope.analysis.compare import cautions
from stratoscope.analysis.compare.tables import cell_rows, neuron_rows
from stratoscope.errors import StratoscopeError

TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=9)
A, B = [0, 1, 2, 3, 4, 5], [0, 1, 7, 3, 4, 8, 5]
MANY = {
    "prompts": [A, B, [0, 1, 2, 9, 4], [0, 1, 3, 9, 4], [0, 5, 6, 7], [0, 5, 8, 7]],
    "classes": ["critical", "neutral"] * 3,
    "pairs": ["x", "x", "y", "y", "z", "z"],
}


def norms(tokens: list[int], model: int = 0) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(activations(tokens, model), axis=2).astype(np.float32).astype(float)
    return found


@settings(max_examples=25, deadline=None)
@given(TOKENS, TOKENS)
def test_every_token_stands_once_and_only_equal_ones_are_subtracted(a: list[int], b: list[int]) -> None:
    result = stratoscope.comparison(recorded([a, b]), prompt=[0, 1])
    tokens, cells = result["tokens"], result["tokens/mlp_out_norm"]
    places = [tokens[f"position_{side}"].values for side in "ab"]
    for place, prompt in zip(places, (a, b), strict=True):
        assert place[place >= 0].tolist() == list(range(len(prompt)))
    values = norms(a), norms(b)
    for column, (in_a, in_b) in enumerate(zip(*places, strict=True)):
        equal = in_a >= 0 and in_b >= 0 and a[in_a] == b[in_b]
        assert bool(tokens["equal"].values[column]) == equal
        for side, prompt, at in (("a", values[0], in_a), ("b", values[1], in_b)):
            expected = prompt[at] if at >= 0 else np.full(LAYERS, np.nan)
            np.testing.assert_array_equal(cells[side].values[column], expected)
        difference = values[1][in_b] - values[0][in_a] if equal else np.full(LAYERS, np.nan)
        np.testing.assert_allclose(cells["difference"].values[column], difference, rtol=0, atol=1e-7)
    same = [x == y for x, y in zip(a, b, strict=False)]
    edit = same.index(False) if False in same else min(len(a), len(b))
    assert result.attrs["summary"]["before"]["tokens"] == edit
    assert result.attrs["summary"]["before"]["equal"] == (edit > 0)  # of a causal model, to the last bit


@settings(max_examples=12, deadline=None)
@given(TOKENS, TOKENS)
def test_what_is_said_of_a_neuron_in_one_list_only_is_true_of_all_neurons(a: list[int], b: list[int]) -> None:
    """`at_least` rests on the lists alone; here every activation is known."""
    result = stratoscope.comparison(recorded([a, b]), prompt=[0, 1])
    write = [np.abs(activations(prompt)) * columns_of() for prompt in (a, b)]
    tokens = result["tokens"]
    listed = {}
    expected = set()
    if "one_list_only" in result:
        table = result["one_list_only"].to_dataset().to_dataframe()
        sure = table.get("at_least", table["write"] * np.nan).fillna(-1)
        assert (np.diff(sure) <= 0).all()  # the surest first
        listed = {(one.in_b, one.column, one.layer, one.neuron): one for one in table.itertuples()}
    for column in np.flatnonzero(tokens["equal"].values).tolist():
        at = [int(tokens[f"position_{side}"].values[column]) for side in "ab"]
        for layer in range(LAYERS):
            here = [write[side][at[side], layer] for side in (0, 1)]
            top = [set(np.argsort(-one)[:PEAKS].tolist()) for one in here]
            for side in (0, 1):
                for neuron in top[side] - top[1 - side]:
                    expected.add((bool(side), column, layer, neuron))
                    found = listed[bool(side), column, layer, neuron]
                    assert found.write == pytest.approx(here[side][neuron], rel=1e-6)
                    at_least, weakest = getattr(found, "at_least", np.nan), np.sort(here[1 - side])[-PEAKS]
                    assert np.isnan(at_least) == (here[side][neuron] < weakest)
                    assert not at_least > here[side][neuron] - here[1 - side][neuron] + 1e-6
    assert set(listed) == expected


def test_the_yardstick_counts_the_cells_of_other_pairs_that_are_as_strong() -> None:
    result = stratoscope.comparison(recorded(**MANY))
    summary, others = result.attrs["summary"], result["others"]
    assert summary["prompts"] == ["p0", "p1"]  # the first pair
    assert summary["others"]["relation"] == "other minimal pairs"

    def apart(a: list[int], b: list[int], pairs: list[tuple[int, int]]) -> np.ndarray:
        return np.abs(np.concatenate([norms(b)[j] - norms(a)[i] for i, j in pairs]))

    mine = apart(A, B, [(3, 3), (4, 4), (5, 6)])  # the equal tokens behind the first edit
    strong = np.sort(mine)[-1]  # the strongest hundredth of nine is the strongest
    assert summary["difference"]["cells"] == len(mine) == 9
    assert summary["difference"]["strong_from"] == pytest.approx(np.quantile(mine, 0.99, method="lower"), rel=1e-6)
    prompts = MANY["prompts"]
    for place, (a, b, equal) in enumerate(((2, 3, [(3, 3), (4, 4)]), (4, 5, [(3, 3)]))):
        sizes = apart(prompts[a], prompts[b], equal)
        assert (others["prompt_a"].values[place], others["prompt_b"].values[place]) == (a, b)
        assert others["cells"].values[place] == sizes.size
        assert others["as_strong"].values[place] == (sizes >= summary["difference"]["strong_from"]).sum()
        assert others["largest"].values[place] == pytest.approx(sizes.max(), rel=1e-6)
    assert strong >= summary["difference"]["strong_from"]
    assert "The two other minimal pairs have 16.7 % and 33.3 % such cells." in cautions.yardstick(summary)


@pytest.mark.parametrize(
    ("prompts", "choice", "relation", "of"),
    [
        ([0, 1, 2, 3, 4, 5], [0, 3], "one prompt of critical and one of neutral", 4),
        ([0, 1, 2, 3, 4, 5], [0, 2], "two prompts of critical", 0),
        ([0, 1], [0, 1], "", 0),
    ],
)
def test_other_pairs_are_of_the_same_relation_and_never_of_these_prompts(
    prompts: list[int], choice: list[int], relation: str, of: int
) -> None:
    some: dict[str, Any] = {name: [values[place] for place in prompts] for name, values in MANY.items()}
    result = stratoscope.comparison(recorded(**some), prompt=choice)
    others = result.attrs["summary"]["others"]
    if of:
        assert relation in others["relation"]
        assert others["of"] == of
    if "others" in result:
        for side in "ab":
            assert not set(result["others"][f"prompt_{side}"].values.tolist()) & set(choice)
    assert (others["measured"] > 0) == ("others" in result)
    if len(prompts) == 2:
        assert "no other pair of prompts" in cautions.yardstick(result.attrs["summary"])


def test_rounding_before_the_first_edit_is_called_so_and_more_than_that_a_warning() -> None:
    trace = recorded([A, B])
    for moved, severity, words in ((1e-6, "info", "rounding, since"), (0.1, "warning", "not recorded alike")):
        other = trace.copy(deep=True)
        other["mlp_out_norm"].values[len(A) + 1, 2] *= 1 + moved  # the second token of B
        result = stratoscope.comparison(other, prompt=[0, 1])
        (note,) = [note for note in result.attrs["notes"] if note["id"] == "L27"]
        assert note["severity"] == severity
        assert words in note["text"]
        before = result.attrs["summary"]["before"]
        assert before["largest"] == pytest.approx(moved * norms(B)[1, 2], rel=0.1)
    received = trace.assign(
        attn_received=(("token", "layer", "head"), np.random.default_rng(0).random((13, 3, 1), "float32"))
    )
    result = stratoscope.comparison(received, prompt=[0, 1], quantity="attn_received")
    assert "rests on later tokens" in cautions.before(result.attrs["summary"])
    assert result["tokens"]["rarely_seen"].values.tolist() == [False, False, True, True, True, True, True]
    assert result.attrs["summary"]["difference"]["cells"] == LAYERS  # of the second token alone


def test_two_traces_are_compared_at_the_prompt_that_both_have() -> None:
    before, after = recorded(**MANY), recorded(**MANY, model=1)
    other = after.isel(token=after["prompt"].values > 0)  # its first prompt is gone
    result = stratoscope.comparison([before, other])
    summary = result.attrs["summary"]
    assert (summary["prompts"], summary["called"], summary["one_model"]) == (["p1", "p1"], ["A", "B"], False)
    expected = norms(B, model=1) - norms(B)
    np.testing.assert_allclose(result["tokens/mlp_out_norm"]["difference"], expected, atol=1e-6)
    assert summary["difference"]["cells"] == expected[1:].size  # all but the first token count: no edit comes
    assert summary["others"]["relation"] == "other prompts that both traces hold"
    assert summary["others"]["of"] == 4
    named = stratoscope.comparison([before, after], prompt=["p0", "p3"]).attrs["summary"]
    assert named["called"] == ["p0 (A)", "p3 (B)"]
    same = stratoscope.comparison([before, before.copy()]).attrs["summary"]
    assert same["one_model"] is True
    assert (same["difference"]["differ"], cautions.yardstick(same)) == (0, "Nothing differs.")


def write_csv(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("Token_Pos", "Token", "Layer", "Neuron_ID", "Activation_Norm"), *rows])
    return path


def test_two_csv_files_are_compared_row_by_row(tmp_path: Path) -> None:
    a = write_csv(
        tmp_path / "one.csv", [(0, "I", 5, 1, 9.0), (1, "am", 5, 3, 2.0), (1, "am", 5, 4, 4.0), (2, "x", 5, 8, 1)]
    )
    b = write_csv(
        tmp_path / "two.csv", [(0, "I", 5, 1, 9.0), (1, "am", 5, 3, 3.0), (1, "am", 5, 7, 6.0), (1, "am", 6, 9, 5)]
    )
    result = stratoscope.comparison([a, b])
    summary = result.attrs["summary"]
    assert summary["called"] == ["one", "two"]
    assert (summary["quantity"], summary["columns"]["only_a"]) == ("imported_norm", 1)
    np.testing.assert_array_equal(
        result["tokens/imported_norm"]["difference"], [[0, np.nan], [1.5, np.nan], [np.nan, np.nan]]
    )
    listed = result["one_list_only"]  # of layer 6 only one file has a list, and says nothing of the other
    assert listed["neuron"].values.tolist() == [7, 4]
    assert listed["in_b"].values.tolist() == [True, False]
    assert "at_least" not in listed


def test_the_tables_give_back_every_number(tmp_path: Path) -> None:
    trace = recorded([A, B])
    trace["text"].values[:] = np.array(["=cmd(1)", *trace["text"].values[1:]], object)
    result = stratoscope.comparison(trace, prompt=[0, 1])
    out = tmp_path / "cells.csv", tmp_path / "neurons.csv"
    stratoscope.compare(result, table=out[0], peaks_table=out[1])
    cells, neurons = (list(csv.DictReader(path.open())) for path in out)
    difference = result["tokens/mlp_out_norm"]["difference"].values
    assert len(cells) == difference.size
    for row, value in zip(cells, difference.ravel().tolist(), strict=True):
        assert (row["difference"] == "") == np.isnan(value) == (row["equal"] == "0")
        if row["difference"]:
            assert float(row["difference"]) == value
            assert float(row["value_b"]) - float(row["value_a"]) == pytest.approx(value, abs=1e-6)
    assert cells[0]["token_a"] == "'=cmd(1)"  # no formula
    only_b = [row for row in cells if row["position_a"] == ""]
    assert {(row["token_a"], row["value_a"]) for row in only_b} == {("", "")}
    assert len(neurons) == result["one_list_only"].sizes["listed"]
    assert {row["listed_by"] for row in neurons} == {"p0", "p1"}
    assert float(neurons[0]["larger_by_at_least"]) == pytest.approx(
        float(result["one_list_only"]["at_least"][0]), rel=1e-6
    )
    for again in ({"table": out[0]}, {"peaks_table": out[1]}):
        with pytest.raises(StratoscopeError, match="already exists"):
            stratoscope.compare(result, **again)
    with pytest.raises(StratoscopeError, match="two tables in one file"):
        stratoscope.compare(result, table=tmp_path / "t.csv", peaks_table=tmp_path / "t.csv")
    assert [len(list(rows(result)[1])) for rows in (cell_rows, neuron_rows)] == [len(cells), len(neurons)]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"prompt": "p0"}, "Name its twin, too: `--prompt p0 --prompt p1`"),
        ({"prompt": ["p0", "p1", "p2"]}, "3 prompts are named"),
        ({"prompt": ["p0", 0]}, "nothing differs from itself"),
        ({"prompt": ["p0", "p9"]}, "no prompt called 'p9'"),
        ({"prompt": []}, "no prompt is named"),
        ({"span": "usr"}, "Did you mean user"),
        ({"span": "system"}, "no token of these prompts is in that span"),
        ({"layers": "9"}, "9"),
        ({"quantity": "attn_first"}, "attn_first is not in this input"),
    ],
)
def test_what_is_no_pair_of_prompts_is_refused_with_what_to_do(choice: dict[str, Any], words: str) -> None:
    with pytest.raises(StratoscopeError) as caught:
        stratoscope.comparison(recorded(**MANY), **choice)
    assert words in str(caught.value)


def test_inputs_that_hold_no_two_prompts_are_refused_with_what_to_do(tmp_path: Path) -> None:
    one = recorded([A])
    path = write_csv(tmp_path / "one.csv", [(0, "I", 5, 1, 9.0)])
    three = [write_csv(tmp_path / f"{name}.csv", [(0, "I", 5, 1, 9.0)]) for name in "abc"]
    cases: list[tuple[Any, str]] = [
        (one, "Give a second trace"),
        (path, "Give two files"),
        (recorded([A, B]), "Name two: `--prompt A --prompt B`"),  # neither a pair nor two classes
        ([one, one, one], "3 traces"),
        ([one, path], "a trace and a CSV file"),
        (three, "there are 3 files"),
    ]
    for inputs, words in cases:
        with pytest.raises(StratoscopeError) as caught:
            stratoscope.comparison(inputs)
        assert words in str(caught.value)
    assert stratoscope.comparison(three, prompt=["a", "c"]).attrs["summary"]["others"] is None  # nothing differs


def test_spans_and_layers_leave_out_what_is_not_asked_for() -> None:
    trace = recorded([A, B])
    trace["span"].values[:2] = trace["span"].values[6:8] = 1  # template
    whole = stratoscope.comparison(trace, prompt=[0, 1])
    some = stratoscope.comparison(trace, prompt=[0, 1], span="user", layers="0,2")
    expected = whole["tokens/mlp_out_norm"]["difference"].values[2:][:, [0, 2]]
    np.testing.assert_array_equal(some["tokens/mlp_out_norm"]["difference"], expected)
    assert some["tokens/mlp_out_norm"]["layer"].values.tolist() == [0, 2]
    assert set(some["one_list_only"]["layer"].values.tolist()) <= {0, 2}


def test_infinite_and_missing_values_are_no_differences() -> None:
    trace = recorded([A, B])
    trace["mlp_out_norm"].values[4] = np.inf
    trace["mlp_out_norm"].values[len(A) + 3] = np.nan
    summary = stratoscope.comparison(trace, prompt=[0, 1]).attrs["summary"]
    assert summary["difference"]["cells"] == 3  # of three equal tokens behind the edit one is left
    assert all(np.isfinite(one["difference"]) for one in summary["difference"]["largest"])


def test_hostile_texts_and_ids_stay_texts(tmp_path: Path) -> None:
    trace = recorded([A, B], classes=["\u202ea", "<b>"])
    trace["text"].values[:] = np.array(["\udce4\x1b[31m"] * 13, object)
    trace["token_id"].values[:] = -1  # only texts tell them apart
    result = stratoscope.comparison(trace)
    figure = stratoscope.compare(result, tmp_path / "x.svg", table=tmp_path / "x.csv")
    text = (tmp_path / "x.csv").read_text("utf-8") + (tmp_path / "x.svg").read_text("utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(figure.axes) == 3


def test_a_mixture_is_told_by_expert_and_neuron() -> None:
    trace = recorded([A, B])
    trace["peak_neuron"].values[:] = np.arange(PEAKS)
    expert = np.zeros(trace["peak_neuron"].shape, "int32")
    expert[len(A) + 4, 1, 2] = 5  # at one token of B the same number in another expert
    result = stratoscope.comparison(trace.assign(peak_expert=(trace["peak_neuron"].dims, expert)), prompt=[0, 1])
    listed = result["one_list_only"].to_dataset().to_dataframe()
    assert sorted(zip(listed["in_b"], listed["layer"], listed["neuron"], listed["expert"], strict=True)) == [
        (False, 1, 2, 0),
        (True, 1, 2, 5),
    ]


def test_a_picture_of_something_else_is_refused() -> None:
    result = stratoscope.comparison(recorded([A, B]), prompt=[0, 1])
    with pytest.raises(StratoscopeError, match="made already"):
        stratoscope.compare(result, prompt=[0, 1])
    other = stratoscope.lint(stratoscope.simulate(prompts=2, layers=2, tokens=4))
    with pytest.raises(StratoscopeError, match="no comparison"):
        stratoscope.compare(other)
    assert isinstance(result, xr.DataTree)


def _of_vocabulary(prompts: list[list[int]], words: list[str], tokenizer: str, texts: bool = True) -> xr.Dataset:
    """A recording in which token id k is spelled `words[k]`."""
    found = recorded(prompts, tokenizer={"sha256": tokenizer} if tokenizer else {})
    text = np.array([words[token] for token in found["token_id"].values.tolist()], object)
    return found.assign_coords(text=("token", text)) if texts else found.drop_vars("text")


@pytest.mark.parametrize("tokenizers", [("x", ""), ("", "y"), ("x", "y"), ("", "")])
def test_the_same_id_of_two_vocabularies_is_not_called_an_equal_token(tokenizers: tuple[str, str]) -> None:
    words = ["<s>", "the", "cat", "sat", "on"]
    a = _of_vocabulary([[0, 1, 2, 3], [0, 4]], words, tokenizers[0])
    b = _of_vocabulary([[0, 4, 3, 2, 1], [0, 1]], [words[0], *words[:0:-1]], tokenizers[1])
    found = [stratoscope.comparison([a, b])["tokens"], stratoscope.diff(a, b)["tokens"]]
    for tokens in found:
        equal = tokens["equal"].values
        texts = [tokens[f"text_{side}"].values[equal].tolist() for side in "ab"]
        assert texts[0] == texts[1]
        assert texts[0][:4] == ["<s>", "the", "cat", "sat"]


def test_ids_of_one_vocabulary_are_enough() -> None:
    for tokenizers, texts in ((("x", "x"), True), (("", ""), False)):
        a, b = (_of_vocabulary([[0, 1, 2]], ["<s>", "a", "b"], one, texts) for one in tokenizers)
        assert stratoscope.comparison([a, b]).attrs["summary"]["columns"]["equal"] == 3
    with pytest.raises(StratoscopeError, match="cannot be told apart"):
        stratoscope.comparison([_of_vocabulary([[0, 1]], ["<s>", "a"], one, False) for one in ("x", "")])


def test_a_token_without_a_value_is_not_said_to_be_equal() -> None:
    found = recorded([[0, 1, 2, 3], [0, 1, 2, 4]])
    found["mlp_out_norm"].values[[0, 4]] = np.nan  # as attention entropy has none at the first token
    summary = stratoscope.comparison(found, prompt=[0, 1]).attrs["summary"]
    assert cautions.before(summary).startswith("The 2 tokens before the first edit with a value are exactly")
    same = stratoscope.comparison(recorded([[0, 1, 2], [0, 1, 2]]), prompt=[0, 1]).attrs["summary"]
    assert cautions.before(same).startswith("All 3 tokens are exactly equal")


def test_a_value_that_is_missing_is_not_taken_for_a_token_that_is() -> None:
    found = recorded([[0, 1, 2, 3], [0, 4, 2, 3]])
    found["mlp_out_norm"].values[[2, 3]] = np.nan
    summary = stratoscope.comparison(found, prompt=[0, 1]).attrs["summary"]
    assert cautions.yardstick(summary).startswith("No value of the equal tokens behind the first edit")
    edited = stratoscope.comparison(recorded([[0, 1, 2], [0, 1, 3]]), prompt=[0, 1]).attrs["summary"]
    assert cautions.yardstick(edited).startswith("No equal token stands behind the first edit")
