"""Pictures of quantities that have a target: of one only, which the title names; they say where they predict."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from target_traces import OWN, explained_trace

import stratoscope
from drawn_maps import maps_of, sheet_of
from stratoscope import names
from stratoscope.analysis.values.quantities import drawable_quantities
from stratoscope.analysis.values.tables import table
from stratoscope.errors import InputError
from stratoscope.trace.targets import one_target
from stratoscope.view.charts.profile import layer_profile
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.page import PLAIN_PAGE

ANSWERS = [11, 23]  # the last tokens of two prompts of twelve
ONE = Selection(prompt=0)


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return explained_trace()


@pytest.mark.parametrize(
    ("target", "place", "title"),
    [(None, 0, "“Sorry” against “Sure”"), (" No", 1, "“·No”"), ("1", 1, "“·No”"), (1, 1, "“·No”")],
)
def test_a_picture_is_of_one_target_which_its_title_and_legend_name(
    trace: xr.Dataset, target: str | int | None, place: int, title: str
) -> None:
    spec = heatmap_spec(trace, ONE, quantity="mlp_logit", target=target)
    assert spec.title == f"Direct contribution of the MLP to the logit of {title} by token and layer"
    (shown,) = maps_of(spec).quantities
    assert "orange promotes it, blue suppresses it" in shown.quantity.said
    np.testing.assert_array_equal(maps_of(spec).maps[0].cells["with_first"], trace["mlp_logit"].values[:12, :, place])
    others = [note.text for note in spec.notes if "--target" in note.text]
    assert others == (["The first of 2 targets; others by --target: “·No”."] if target is None else [])


def test_the_column_from_which_the_model_answers_is_marked_and_named(trace: xr.Dataset) -> None:
    spec = heatmap_spec(trace, quantity="attn_logit")
    assert [panel.predicting for panel in maps_of(spec).panels] == [(11,), (11,)]
    assert [text.text for text in sheet_of(spec).texts()].count("predicts") == 2
    assert {"L24", "L28"} <= {note.id for note in spec.notes}
    plain = heatmap_spec(explained_trace("mlp_out_norm"))
    assert [panel.predicting for panel in maps_of(plain).panels] == [(), ()]


def test_a_logit_without_layers_is_one_row_without_a_label(trace: xr.Dataset) -> None:
    spec = heatmap_spec(trace, ONE, quantity="target_logit")
    assert spec.title == "Logit of “Sorry” against “Sure” by token"
    (map_,) = sheet_of(spec).maps()
    assert map_.rows == ()
    assert maps_of(spec).maps[0].cells["with_first"].shape == (12, 1)
    with pytest.raises(InputError, match="no layers"):
        heatmap_spec(trace, Selection(layers="0"), quantity="target_logit")
    with pytest.raises(InputError, match="target_logit"):
        layer_profile(trace, quantity="target_logit")


def test_each_prompts_own_target_is_named_where_it_is_shown_and_warned_of_where_there_are_several() -> None:
    ids = {"target_token": [[3], [4]], "against_token": [[4], [-1]]}
    trace = explained_trace(plan=OWN, token_texts={"3": "Sure", "4": "I"})
    trace = trace.assign({name: (("prompt", "target"), np.array(of, "int32")) for name, of in ids.items()})
    both = heatmap_spec(trace, quantity="mlp_logit")
    assert "each prompt's likeliest token against its second" in both.title
    assert [panel.detail for panel in maps_of(both).panels] == ["p0 · “Sure” against “I”", "p1 · “I”"]
    assert [note.severity for note in both.notes if "not the same tokens" in note.text] == ["warning"]
    one = heatmap_spec(trace, ONE, quantity="mlp_logit")
    assert "logit of “Sure” against “I”" in one.title
    assert not any("not the same tokens" in note.text for note in one.notes)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"quantity": "mlp_logit", "target": "Bogus"}, "no target 'Bogus'"),
        ({"quantity": "mlp_logit", "target": 2}, "no target number 2"),
        ({"quantity": "mlp_logit", "target": True}, "names no target"),
        ({"target": 0, "quantity": "mlp_out_norm"}, "mlp_out_norm has no target"),
        ({"quantity": "logit_neuron"}, "logit_neuron has no size"),
    ],
)
def test_what_is_no_target_is_refused_with_what_there_is(asked: dict[str, object], why: str) -> None:
    trace = explained_trace("mlp_out_norm", "mlp_logit", "logit_neuron")
    with pytest.raises(InputError, match=why):
        stratoscope.heatmap(trace, **asked)


def test_heads_of_a_sum_are_added_and_those_of_attention_averaged(trace: xr.Dataset) -> None:
    heads, rows = trace["head_logit"].values[ANSWERS, :, :, 0], np.arange(6)
    one = one_target(trace, ["head_logit"])
    np.testing.assert_allclose(table(one, "head_logit", np.array(ANSWERS), rows), heads.sum(axis=2), rtol=1e-5)
    largest = np.take_along_axis(heads, np.abs(heads).argmax(axis=2)[..., None], axis=2)[..., 0]
    np.testing.assert_array_equal(table(one, "head_logit", np.array(ANSWERS), rows, head="max"), largest)
    np.testing.assert_array_equal(table(one, "head_logit", np.array(ANSWERS), rows, head=1), heads[:, :, 1])
    said = maps_of(heatmap_spec(trace, quantity="head_logit")).quantities[0].quantity.said
    assert said.startswith("sum over 3 heads")
    attention = explained_trace("attn_first")
    assert maps_of(heatmap_spec(attention)).quantities[0].quantity.said == "mean over 3 heads"


def test_of_neurons_ranked_by_sign_the_larger_of_both_is_drawn_and_none_is_nan() -> None:
    trace = explained_trace("neuron_logit", "logit_neuron", layers=2)
    values = np.zeros((24, 2, 2, 20), "float32")
    values[:, 0, 0, 0], values[:, 0, 0, 10] = 2.0, -3.0
    values[:, 1, 0, 0], values[:, 1, 0, 10] = 4.0, np.nan
    values[5] = np.nan
    trace = trace.assign(neuron_logit=(trace["neuron_logit"].dims, values))
    found = table(one_target(trace, ["neuron_logit"]), "neuron_logit", np.array([4, 5]), np.arange(2))
    np.testing.assert_array_equal(found, [[-3.0, 4.0], [np.nan, np.nan]])


def test_a_profile_takes_contributions_where_the_model_answers_and_nowhere_else() -> None:
    trace = explained_trace("mlp_logit", "attn_logit", lengths=(12, 12, 12, 12))
    found = layer_profile(trace, EVERYTHING, Look(), quantity="mlp_logit")
    for spread, prompts in zip(found.classes, ([11, 35], [23, 47]), strict=True):
        np.testing.assert_allclose(spread.middle, trace["mlp_logit"].values[prompts, :, 0].mean(axis=0), rtol=1e-6)


def test_a_difference_of_classes_does_not_blame_layers_for_the_final_norm() -> None:
    trace = explained_trace("mlp_logit", lengths=(12,) * 4, pairs=("x", "x", "y", "y"))
    parts, factors = trace["mlp_logit"].values[11], np.array([0.5, 1.0, 0.7, 0.3], "float32")
    values = np.zeros_like(trace["mlp_logit"].values)
    values[[11, 23, 35, 47]] = parts * factors[:, None, None]
    trace = trace.assign(mlp_logit=(trace["mlp_logit"].dims, values), final_scale=("prompt", factors))
    selection = Selection(prompt_class=["critical", "neutral"])
    found = layer_profile(trace, selection, quantity="mlp_logit", difference=True)
    assert found.difference is not None
    np.testing.assert_allclose(found.difference.middle, 0, atol=1e-6)
    assert np.abs(found.classes[0].middle - found.classes[1].middle).max() > 0.01
    with pytest.raises(InputError, match="final_scale"):
        layer_profile(trace.drop_vars("final_scale"), selection, quantity="mlp_logit", difference=True)


def test_every_quantity_that_can_be_drawn_is_drawn(trace: xr.Dataset) -> None:
    explained = [name for name in drawable_quantities(trace) if names.TARGET in names.QUANTITIES[name].dims]
    assert {"target_logit", "mlp_logit", "head_logit", "neuron_logit"} <= set(explained)
    for name in explained:
        spec = heatmap_spec(trace, ONE, quantity=name, page=PLAIN_PAGE)
        assert "“Sorry” against “Sure”" in spec.title, name
        assert sheet_of(spec).maps(), name


def test_rows_of_prompts_are_of_one_target_too(trace: xr.Dataset) -> None:
    spec = heatmap_spec(trace, quantity="mlp_logit", target=1, rows="prompts")
    assert "“·No”" in spec.title
    assert any(note.id == "L28" for note in spec.notes)
