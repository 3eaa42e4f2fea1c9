"""A patch in memory: undone bit for bit, seen in the next recording, and placed among random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import byte_tokenizer, tiny  # noqa: E402

from result_tables import documented, made  # noqa: E402
from stratoscope.analysis.diff.claims import Claim  # noqa: E402
from stratoscope.analysis.diff.diff import diff  # noqa: E402
from stratoscope.analysis.results.result import notes_in  # noqa: E402
from stratoscope.errors import InputError, ModelError  # noqa: E402
from stratoscope.model.search.find import find_sites  # noqa: E402
from stratoscope.probe.columns import Scaled, column_norms, columns, scaled_columns  # noqa: E402
from stratoscope.probe.null import patch_null  # noqa: E402
from stratoscope.view.report import contents_of  # noqa: E402

pytestmark = pytest.mark.model
LAYER, NEURONS, FACTOR = 1, (3, 10, 40), 3.0
QUANTITIES = ("mlp_out_norm", "mlp_write_ratio", "attn_write_cos", "resid_norm")
Record = Callable[..., Any]


def sites_of(model: Any) -> Any:
    return find_sites(model, torch.arange(2, 8)[None])


def patch(factor: float = FACTOR) -> list[Scaled]:
    return [Scaled(LAYER, neuron, factor) for neuron in NEURONS]


def claims_of(model: Any, factor: float = FACTOR) -> list[Claim]:
    norms = column_norms(model, sites_of(model), LAYER).tolist()
    return [Claim(LAYER, neuron, norms[neuron], factor * norms[neuron]) for neuron in NEURONS]


def state_of(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(model: Any, before: dict[str, Any]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "GPTNeoX"])
def test_columns_are_scaled_inside_and_every_bit_is_back_after_an_exception(family: str, dtype: Any) -> None:
    model = tiny(family, dtype)
    sites, before = sites_of(model), state_of(model)
    old = columns(model, sites, LAYER)[:, 3].clone()
    outside = columns(model, sites, LAYER)[:, 4].clone()

    def interrupted() -> None:
        with scaled_columns(model, sites, [*patch(0.1), Scaled(2, 0, 7.0), Scaled(LAYER, 3, 5.0)]):
            torch.testing.assert_close(columns(model, sites, LAYER)[:, 3], old * 0.1 * 5.0)
            assert torch.equal(columns(model, sites, LAYER)[:, 4], outside)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert same_state(model, before)


def test_a_column_is_what_its_neuron_writes() -> None:
    model = tiny("GPT2")  # whose weight is stored the other way round
    weight = columns(model, sites_of(model), LAYER)
    assert tuple(weight.shape) == (32, 128)
    assert weight.data_ptr() == model.transformer.h[LAYER].mlp.c_proj.weight.data_ptr()


def test_experts_have_no_column_to_patch() -> None:
    model = tiny("Mixtral")
    with pytest.raises(ModelError, match="no dense MLP"):
        columns(model, sites_of(model), 0)


# --- before and after a patch -----------------------------------------------------------------------------------------


@pytest.fixture
def patched(record: Record) -> tuple[Any, Any, Any]:
    """A model, its trace, and the trace of it with the patch."""
    model = tiny("Llama")
    before = record(model, "a")
    with scaled_columns(model, sites_of(model), patch()):
        after = record(model, "b")
    return model, before, after


def test_a_patch_changes_nothing_before_its_layer_and_its_claims_are_confirmed(patched: tuple[Any, Any, Any]) -> None:
    model, before, after = patched
    result = diff(before, after, claims=claims_of(model))
    assert float(result["profiles/mlp_out_norm/size_largest"][0]) == 0
    assert float(result["profiles/resid_norm/size_largest"][LAYER]) == 0
    assert float(result["profiles/mlp_out_norm/times_largest"][LAYER]) > 1
    assert result["claims/verdict"].values.tolist() == ["changed as claimed"] * 3
    np.testing.assert_allclose(result["claims/column_norm_b"] / result["claims/column_norm_a"], FACTOR, rtol=1e-4)
    facts = result.attrs["summary"]["claims"]
    assert facts["elsewhere"]["columns_changed"] == 0
    assert facts["elsewhere"]["share_of_column_change"] == pytest.approx(1, rel=1e-4)
    causality = facts["causality"]
    assert (causality["first_claimed_layer"], causality["changed"], causality["largest"]) == (LAYER, 0, 0.0)
    assert causality["numbers"] > causality["cells"] > 0  # first tokens are numbers, and have no floor
    assert result["neurons/same"].all()


def test_a_wrong_claim_is_not_confirmed(patched: tuple[Any, Any, Any]) -> None:
    model, before, after = patched
    norms = column_norms(model, sites_of(model), LAYER).tolist()
    wrong = [Claim(LAYER, 3, norms[3], 2 * norms[3]), Claim(LAYER, 5, norms[5], 3 * norms[5])]
    result = diff(before, after, claims=wrong)
    assert result["claims/verdict"].values.tolist() == ["changed otherwise", "not at all"]
    assert result.attrs["summary"]["claims"]["elsewhere"]["columns_changed"] == 2


def test_the_claimed_patch_in_memory_reproduces_what_the_recording_changed(
    patched: tuple[Any, Any, Any],
) -> None:
    model, before, after = patched
    null = patch_null(model, before, claims_of(model), draws=3, tokenizer=byte_tokenizer())
    assert max(null.attrs["summary"]["rerun"].values()) < 1e-5
    for name in QUANTITIES:
        wanted = after[name].values.astype(float) - before[name].values
        np.testing.assert_allclose(
            null[f"change/{name}/claimed"], wanted, atol=2e-5 * np.abs(before[name].values).max()
        )
    result = diff(before, after, claims=claims_of(model), null=null)
    for name, facts in result.attrs["summary"]["null"]["quantities"].items():
        assert facts["explained_by_claims"] > 0.99, name
    assert float(result["null/resid_norm/rank"][LAYER]) == 1  # nothing changes before its block, in no patch
    assert any("random patches" in line for line in contents_of(result).lead)
    assert made([null]) == documented("patch-null")
    assert {one for one in made([result]) if one[0].startswith("null")} == {
        one for one in documented("diff") if one[0].startswith("null")
    }
    assert {figure.name for figure in contents_of(result).figures()} >= {"null", "null-depths"}


def test_random_patches_change_as_much_in_other_columns_of_the_same_layers(patched: tuple[Any, Any, Any]) -> None:
    model, before, _ = patched
    state = state_of(model)
    null = patch_null(model, before, claims_of(model), draws=20, tokenizer=byte_tokenizer())
    assert same_state(model, state)
    norms = column_norms(model, sites_of(model), LAYER).numpy()
    patches = null.attrs["summary"]["patches"]
    assert len(patches) == 20
    assert len({str(one) for one in patches}) == 20
    for one in patches:
        layers, neurons, factors = (np.array(column) for column in zip(*one, strict=True))
        neurons = neurons.astype(int)
        assert (layers == LAYER).all()
        assert not set(neurons.tolist()) & set(NEURONS)
        assert len(set(neurons.tolist())) == len(NEURONS)
        np.testing.assert_allclose((factors - 1) * norms[neurons], (FACTOR - 1) * norms[list(NEURONS)], rtol=1e-5)
    again = patch_null(model, before, claims_of(model), draws=20, tokenizer=byte_tokenizer())
    np.testing.assert_array_equal(null["change/resid_norm/random"], again["change/resid_norm/random"])
    assert (null["kl/random"] > 0).all()
    assert float(null["change/resid_norm/random"][:, :, : LAYER + 1].max()) == 0


def test_a_huge_patch_ranks_first_and_no_patch_ranks_last(record: Record) -> None:
    model = tiny("Llama")
    before = record(model, "a")
    nothing = patch_null(model, before, claims_of(model, 1.0), draws=5, tokenizer=byte_tokenizer())
    assert float(nothing["kl/claimed"]) == pytest.approx(0, abs=1e-6)
    small = claims_of(model, 1.001)
    null = patch_null(model, before, small, draws=5, tokenizer=byte_tokenizer())
    with scaled_columns(model, sites_of(model), patch(50.0)):
        after = record(model, "b")
    found = diff(before, after, claims=small, null=null).attrs["summary"]["null"]["quantities"]
    assert found["resid_norm"]["p"] == pytest.approx(1 / 6)
    unchanged = diff(before, before, claims=small, null=null).attrs["summary"]["null"]["quantities"]
    assert unchanged["resid_norm"]["p"] == 1


def test_norms_that_are_no_columns_are_carried_over_as_a_ratio(record: Record) -> None:
    model = tiny("Llama")
    null = patch_null(model, record(model, "a"), [Claim(LAYER, 3, 500.0, 250.0)], draws=2, tokenizer=byte_tokenizer())
    assert null.attrs["summary"]["how"] == ["ratio of norms"]
    assert {one[0][2] for one in null.attrs["summary"]["patches"]} == {0.5}


def test_the_null_is_refused_for_another_model_other_claims_or_another_trace(
    patched: tuple[Any, Any, Any],
) -> None:
    model, before, after = patched
    claims = claims_of(model)
    with pytest.raises(InputError, match="not the model that the trace was recorded of"):
        patch_null(model, after, claims, draws=1, tokenizer=byte_tokenizer())
    for cut, why in (
        (before.isel(token=before["position"].values > 0), "runs over whole prompts"),
        (before.assign_attrs(source="imported"), "recorded of no model"),
    ):
        with pytest.raises(InputError, match=why):
            patch_null(model, cut, claims, draws=1, tokenizer=byte_tokenizer())
    null = patch_null(model, before, claims, draws=1, tokenizer=byte_tokenizer())
    with pytest.raises(InputError, match="for other claims"):
        diff(before, after, claims=claims[:2], null=null)
    with pytest.raises(InputError, match="on another trace"):
        diff(after, before, claims=claims, null=null)
    with pytest.raises(InputError, match="not what patch_null gives"):
        diff(before, after, claims=claims, null=diff(before, after))


# --- one model in two precisions --------------------------------------------------------------------------------------


def test_one_model_in_two_precisions_stays_near_the_floor(record: Record) -> None:
    model = tiny("Llama", torch.bfloat16)
    coarse = record(model, "b")
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    fine = record(model, "a")
    result = diff(fine, coarse)
    for name in QUANTITIES:
        facts = result.attrs["summary"]["quantities"][name]
        assert facts["median_times_floor"] < 1, name
        assert facts["share_above_floor"] < 0.05, name
        assert facts["largest_times_floor"] < 5, name
        assert 0 < facts["share_above_by_chance"] < 0.05
    assert result["neurons/same"].all()  # the hashes differ: it was measured
    assert result.attrs["summary"]["neurons"]["columns_changed"] == 0


def test_an_inserted_system_prompt_is_a_gap_and_the_rest_is_compared_with_itself(record: Record) -> None:
    from stratoscope import Prompt

    def prompts(*, system: bool) -> list[Prompt]:
        more = [{"role": "system", "content": "Be brief."}] if system else []
        user = {"role": "user", "content": "Tell me how a clock works"}
        return [Prompt("clock", messages=[*more, user])]

    model = tiny("Llama")
    result = diff(*(record(model, name, texts=prompts(system=one)) for name, one in (("a", False), ("b", True))))
    assert (result["tokens/position_a"].values == -1).sum() == len("system:Be brief.\n<s>") - 2  # <s> is one token
    assert not (result["tokens/position_b"].values == -1).any()
    assert "Tell me how a clock works" in "".join(result["tokens/text"].values[result["tokens/equal"].values].tolist())
    first = result["tokens/position_a"].values == 0
    assert result["tokens/position_b"].values[first].tolist() == [0]  # the sink is compared with the sink
    assert not result["tokens/resid_norm/difference"].values[first].any()


def test_what_a_model_has_seen_before_an_edit_it_treats_alike(record: Record) -> None:
    model = tiny("Llama")
    traces = (record(model, "a", texts=["The river is deep."]), record(model, "b", texts=["The river was deep."]))
    result = diff(*traces)
    early = result["tokens/before"].values
    assert early.sum() == len("The river ")
    assert np.nan_to_num(result["tokens/resid_norm/times_floor"].values[early]).max() < 1
    assert any("as they must" in note.text for note in notes_in(result) if note.id == "L14")
    assert result["tokens/resid_norm/difference"].values[-3:].any()


# --- nothing but a nuisance changed -----------------------------------------------------------------------------------


def test_the_layer_of_a_patch_is_the_headline_and_its_columns_are_proved_first(patched: tuple[Any, Any, Any]) -> None:
    _, before, after = patched
    result = diff(before, after)
    contents = contents_of(result)
    assert contents.title.startswith(f"Layer 0 is exactly equal; layer {LAYER} is the first that changed")
    listed = list(zip(result["listed/layer"].values[:3], result["listed/neuron"].values[:3], strict=True))
    assert sorted(listed) == [(LAYER, neuron) for neuron in NEURONS]
    assert contents.lead[0].startswith("Proved: 3 columns have another norm, in layer 1: ")
    assert contents.sections[0].title == "Neurons"


def test_a_rerun_differs_in_nothing_and_one_in_other_batches_in_nothing_but_noise(record: Record) -> None:
    model = tiny("Llama")
    before = record(model, "a")
    again = diff(before, record(model, "b", floor=False))
    assert contents_of(again).title.startswith("Nothing differs, exactly")
    assert again.attrs["summary"]["alike"]
    batches = diff(before, record(model, "c", floor=False, batch_size=3))
    summary = batches.attrs["summary"]
    assert list(summary["unlike"]) == ["batch size"]
    assert summary["exact"]["changed"] > 0
    assert summary["neurons"]["columns_changed"] == 0
    assert summary["beyond"] is None
    assert contents_of(batches).title.endswith(("than noise alone would make", "by no more than noise does"))
