"""Quantities as tables of tokens × layers: nothing merged, nothing made up, and what was done is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from view_traces import Factory

from stratoscope.errors import InputError
from stratoscope.view.choose import quantities


def everything(dataset, name: str):  # type: ignore[no-untyped-def]
    kind, numbers = quantities.row_numbers(dataset, name)
    return np.arange(dataset.sizes["token"]), np.arange(len(numbers)), kind


@pytest.mark.parametrize("name", ["mlp_out_norm", "resid_norm", "mlp_write_cos"])
def test_a_plain_quantity_is_drawn_value_by_value(trace_of: Factory, name: str) -> None:
    dataset = trace_of(quantities=(name,))
    tokens, rows, _ = everything(dataset, name)
    np.testing.assert_array_equal(quantities.table(dataset, name, tokens, rows), dataset[name])


def test_tokens_and_layers_are_picked_in_the_order_given(trace_of: Factory) -> None:
    dataset = trace_of()
    picked = quantities.table(dataset, "mlp_out_norm", np.array([5, 2, 20]), np.array([0, 4]))
    np.testing.assert_array_equal(picked, dataset["mlp_out_norm"].values[[5, 2, 20]][:, [0, 4]])


def test_a_transposed_dataset_gives_the_same_table(trace_of: Factory) -> None:
    dataset = trace_of(quantities=("attn_entropy",))
    tokens, rows, _ = everything(dataset, "attn_entropy")
    turned = dataset.transpose("head", "layer", "token", ...)
    for head in ("mean", 1):
        np.testing.assert_array_equal(
            quantities.table(turned, "attn_entropy", tokens, rows, head=head),
            quantities.table(dataset, "attn_entropy", tokens, rows, head=head),
        )


def test_heads_are_averaged_maximised_or_picked(trace_of: Factory) -> None:
    dataset = trace_of(quantities=("attn_first",))
    tokens, rows, _ = everything(dataset, "attn_first")
    stored = dataset["attn_first"].values
    for head, expected in (("mean", stored.mean(axis=2)), ("max", stored.max(axis=2)), (2, stored[:, :, 2])):
        np.testing.assert_allclose(
            quantities.table(dataset, "attn_first", tokens, rows, head=head), expected, rtol=1e-6
        )
    assert quantities.describe(dataset, "attn_first", rows).said == "mean over 3 heads"
    assert quantities.describe(dataset, "attn_first", rows, head="max").said == "maximum over 3 heads"
    assert quantities.describe(dataset, "attn_first", rows, head=2).said == "head 2 of 3"


def test_a_head_without_a_value_does_not_hide_the_others() -> None:
    heads = np.array([[[1.0, np.nan, 3.0]], [[np.nan] * 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(quantities.over_heads(heads, "mean"), [[2.0], [np.nan]])
        np.testing.assert_array_equal(quantities.over_heads(heads, "max"), [[3.0], [np.nan]])


@pytest.mark.parametrize("head", [3, -1, "7", "all"])
def test_a_head_that_does_not_exist_is_refused(trace_of: Factory, head: str | int) -> None:
    with pytest.raises(InputError, match='"mean", "sum", "max" or 0 to 2'):
        quantities.check_head(head, 3)


def test_of_the_peaks_the_strongest_is_drawn_with_its_sign(trace_of: Factory) -> None:
    dataset = trace_of(quantities=("peak_value", "peak_write"))
    tokens, rows, _ = everything(dataset, "peak_value")
    np.testing.assert_array_equal(quantities.table(dataset, "peak_value", tokens, rows), dataset["peak_value"][:, :, 0])
    said = quantities.describe(dataset, "peak_value", rows)
    assert said.signed
    assert "strongest of 2" in said.said


def test_an_import_is_averaged_over_its_own_rows_only(import_of: Factory) -> None:
    dataset = import_of(lengths=(3, 2), layers=(22, 31), k=4)
    tokens, rows, _ = everything(dataset, "imported_norm")
    table = quantities.table(dataset, "imported_norm", tokens, rows)
    for token in tokens:
        for place, layer in enumerate((22, 31)):
            mine = (dataset["row_token"].values == token) & (dataset["row_layer"].values == layer)
            assert table[token, place] == pytest.approx(dataset["imported_norm"].values[mine].mean())


def test_a_cell_without_rows_is_missing_and_not_zero(import_of: Factory) -> None:
    dataset = import_of(lengths=(3,), layers=(22, 23), k=2)
    dataset = dataset.isel(row=dataset["row_token"].values != 1)
    table = quantities.table(dataset, "imported_norm", np.arange(3), np.arange(2))
    assert np.isnan(table[1]).all()
    assert np.isfinite(table[[0, 2]]).all()


def test_repeated_tokens_stay_apart(import_of: Factory) -> None:
    dataset = import_of(lengths=(4,), layers=(22,), k=1, texts=["a", "b", "a", "a"])
    table = quantities.table(dataset, "imported_norm", np.arange(4), np.arange(1))
    np.testing.assert_array_equal(table[:, 0], dataset["imported_norm"])


def test_layers_of_an_import_can_be_picked(import_of: Factory) -> None:
    dataset = import_of(lengths=(3,), layers=(22, 23, 24), k=2)
    tokens, rows, _ = everything(dataset, "imported_norm")
    whole = quantities.table(dataset, "imported_norm", tokens, rows)
    np.testing.assert_array_equal(
        quantities.table(dataset, "imported_norm", np.array([2, 0]), np.array([1])), whole[[2, 0]][:, [1]]
    )


def test_the_default_is_the_mlp_output_else_what_there_is(trace_of: Factory, import_of: Factory) -> None:
    assert quantities.default_quantity(trace_of(quantities=("resid_norm", "mlp_out_norm"))) == "mlp_out_norm"
    assert quantities.default_quantity(import_of()) == "imported_norm"
    assert quantities.default_quantity(trace_of(quantities=("peak_share",))) == "peak_share"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp_norm", "no quantity called 'mlp_norm'.*has: mlp_out_norm"),
        ("attention", "no size for each token.*attention_matrix"),
        ("blocks.3.attn.hook_pattern", "no size for each token.*attention_matrix"),
        ("opener_log_odds", "no size for each token"),
        ("MLP_OUT_NORM", "Did you mean mlp_out_norm"),
        ("blocks.3.hook_resid_post", "resid_norm at depth 4"),
        ("", "no quantity called ''"),
        ("logit_lens", "recorded by `capture --record lens`.*has: mlp_out_norm"),
        ("mlp_out_nor", "Install the newer Stratoscope"),
        ("attn_first", "not in this input.*--record norms,residual,peaks,prompts,attention"),
        ("peak_neuron", "no size for each token and layer"),
    ],
)
def test_a_quantity_that_cannot_be_drawn_is_answered_with_what_can(trace_of: Factory, name: str, words: str) -> None:
    dataset = trace_of(quantities=("mlp_out_norm",))
    dataset["peak_neuron"] = (("token", "layer", "peak"), np.zeros((24, 6, 2), "int32"))
    dataset.attrs["unknown_arrays"] = ["mlp_out_nor"]
    with pytest.raises(InputError, match=words):
        quantities.checked_quantity(dataset, name)


def test_an_input_with_nothing_to_draw_is_refused_with_a_command(trace_of: Factory) -> None:
    with pytest.raises(InputError, match="stratoscope capture"):
        quantities.default_quantity(trace_of(quantities=()))
