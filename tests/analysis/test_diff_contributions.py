"""Contributions of two models whose MLPs differ in one layer: the answer is known, the final norm has its own row."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from contribution_traces import CHANGED, PLAN, model

import stratoscope
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.errors import InputError
from stratoscope.view.report.diff import contents

Both = tuple[xr.Dataset, xr.Dataset]
MLP = 2 + 2 * CHANGED  # its row: the embedding stands first, then attention and MLP of each layer


@pytest.fixture(scope="module")
def both() -> Both:
    return model(tuned=False), model(tuned=True)


@pytest.fixture(scope="module")
def result(both: Both) -> xr.DataTree:
    return stratoscope.diff(*both)


def test_rows_before_the_changed_mlp_are_exactly_zero_and_the_rest_sums_to_the_logit(result: xr.DataTree) -> None:
    table = table_in(result, "contributions")
    difference = table["difference"].values[:, 0]
    assert not difference[:, :MLP].any()
    assert (difference[:, MLP] != 0).all()
    assert (difference[:, MLP + 1 : -3] != 0).all()  # later layers read what the changed one wrote
    assert [str(one) for one in table["part_text"].values[[0, MLP, -1]]] == ["embedding", "MLP", "final norm"]
    assert table["part_layer"].values[MLP] == CHANGED
    np.testing.assert_allclose(difference.sum(axis=1), table["total"].values[:, 0], atol=1e-6)
    assert np.abs(table["unexplained"].values).max() < 1e-6


def test_the_final_norm_takes_what_plain_differences_blame_unchanged_layers_for(result: xr.DataTree) -> None:
    table = table_in(result, "contributions")
    plain = (table["b"] - table["a"]).values[:, 0]
    assert (np.abs(plain[:, :MLP]) > 1e-3).mean() > 0.9
    scales = [table[f"final_scale_{side}"].values for side in "ab"]
    parts = [table[side].values[:, 0, :-3] / scale[:, None] for side, scale in zip("ab", scales, strict=True)]
    norm = (0.5 * (parts[0] + parts[1])).sum(axis=1) * (scales[1] - scales[0])
    np.testing.assert_allclose(table["difference"].values[:, 0, -1], norm, rtol=1e-6)
    assert not table["difference"].values[:, 0, -3:-1].any()  # both have the same bias behind the norm


def test_the_same_model_twice_has_no_row_that_differs_not_even_the_norms(both: Both) -> None:
    table = table_in(stratoscope.diff(both[0], both[0].copy(deep=True)), "contributions")
    assert not table["difference"].values.any()


def test_the_page_draws_it_with_the_final_norm_and_says_how_far_effects_are_calibrated(result: xr.DataTree) -> None:
    report = contents(result)
    (section,) = [one for one in report.sections if "directly" in one.title]
    figure = section.figures[0].spec
    assert "“Sorry” against “Sure”" in figure.title
    labels = [label for _, label in figure.content.panels[0].y.ticks]
    assert labels[-1] == "final norm"
    assert {note.id for note in figure.notes} >= {"L28", "L29"}
    assert section.tables[0].rows[-2][0] == "final norm"
    (effects,) = [one for one in report.sections if "total effects" in one.title]
    assert effects.figures[0].spec.title.endswith("not calibrated")
    said = [note.text for note in notes_in(result) if note.id == "L28"]
    assert [text[:2] for text in said if "calibrated" in text] == ["A:", "B:"]


def test_effects_are_summed_over_the_tokens_of_each_prompt_but_its_first(result: xr.DataTree, both: Both) -> None:
    table = table_in(result, "effects")
    lengths = np.bincount(both[0]["prompt"].values)
    np.testing.assert_array_equal(table["mlp_a"].values[:, 0, 0], 2.0 * (lengths - 1))
    assert not table["attention_difference"].values.any()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: one.drop_vars("final_scale"), "B without final_scale"),
        (lambda one: one.assign_attrs(plan={"targets": [{**PLAN["targets"][0], "text": "No"}]}), "“No” against “Sure”"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name_and_nothing_else_is(both: Both, change, why: str) -> None:
    found = stratoscope.diff(both[0], change(both[1]))
    assert "contributions" not in found
    assert why in found.attrs["summary"]["explained"]["refused"]
    assert any(note.id == "L29" and why in note.text for note in notes_in(found))
    assert "mlp_out_norm" in found["tokens"]


def test_own_targets_that_are_other_tokens_are_refused(both: Both) -> None:
    ids = np.arange(4, dtype="int32")[:, None]
    own = [
        one.assign(target_token=(("prompt", "target"), ids + shift), against_token=(("prompt", "target"), ids + 9))
        for one, shift in zip(both, (0, np.array([[0], [0], [0], [1]])), strict=True)
    ]
    own = [one.assign_attrs(plan={"targets": "top"}) for one in own]
    assert "1 of 4 prompts" in stratoscope.diff(*own).attrs["summary"]["explained"]["refused"]


def test_contributions_are_not_compared_token_by_token(both: Both) -> None:
    with pytest.raises(InputError, match="mlp_logit"):
        stratoscope.diff(*both, quantity="mlp_logit")
