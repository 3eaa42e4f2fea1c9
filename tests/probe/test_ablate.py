"""`ablate` against plain hooks written here: what is set to what, where, beside what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import TEXTS, byte_tokenizer, tiny  # noqa: E402

from stratoscope import ablate  # noqa: E402
from stratoscope.errors import CaptureError, StratoscopeError  # noqa: E402
from stratoscope.probe.ablation.cumulative import steps_of  # noqa: E402
from stratoscope.probe.ablation.members import Member, named_members  # noqa: E402
from stratoscope.probe.ablation.table import rows_of  # noqa: E402

pytestmark = pytest.mark.model
TEXT = list(TEXTS[:3])
IDS = [byte_tokenizer()(text)["input_ids"] for text in TEXT]
A, B = (byte_tokenizer()(letter)["input_ids"][0] for letter in "ab")
Change = Callable[[Any], None]


def run(model: Any, **asked: Any) -> Any:
    given = {"targets": ["a"], "against": "b", "draws": 2, "batch_size": 3} | asked
    return ablate(model, TEXT, tokenizer=byte_tokenizer(), **given)


def plain(model: Any, ids: list[int], changes: dict[Any, Change] | None = None) -> Any:
    """Logits at the last token, with plain hooks that change a copy of what goes into modules."""

    def hook(change: Change) -> Any:
        def changed(_: Any, args: Any) -> Any:
            x = args[0].clone()
            change(x)
            return (x, *args[1:])

        return changed

    handles = [module.register_forward_pre_hook(hook(change)) for module, change in (changes or {}).items()]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    for handle in handles:
        handle.remove()
    return logits


def difference(logits: Any) -> float:
    return float(logits[A] - logits[B])


def inputs(model: Any, module: Any) -> list[Any]:
    """What goes into a module, [token, width], prompt by prompt."""
    seen: list[Any] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].detach().clone()))
    for ids in IDS:
        plain(model, ids)
    handle.remove()
    return seen


@pytest.mark.parametrize(("how", "positions"), [("mean", "all"), ("zero", "answer"), ("mean", "answer")])
def test_what_ablating_takes_away_is_what_plain_hooks_take_away(how: str, positions: str) -> None:
    model = tiny("Llama")
    down, out = model.model.layers[1].mlp.down_proj, model.model.layers[0].self_attn.o_proj
    a, z = inputs(model, down), inputs(model, out)
    mean_a, mean_z = (torch.cat([one[1:] for one in seen]).mean(0) * (how == "mean") for seen in (a, z))
    where = slice(1, None) if positions == "all" else slice(-1, None)

    def neuron(x: Any) -> None:
        x[:, where, 3] = mean_a[3]

    def head(x: Any) -> None:
        x[:, where, 16:24] = mean_z[16:24]

    found = run(model, neurons=[(1, 3)], heads=[(0, 2)], how=how, positions=positions)
    assert found["set"].values.tolist() == ["L1 n3", "head 2 of L0", "all of them"]
    for place, changes in enumerate(({down: neuron}, {out: head}, {down: neuron, out: head})):
        wanted = [difference(plain(model, ids)) - difference(plain(model, ids, changes)) for ids in IDS]
        np.testing.assert_allclose(found["measured"].values[place, :, 0], wanted, atol=1e-5)
    np.testing.assert_allclose(
        found["unablated"].values[:, 0], [difference(plain(model, ids)) for ids in IDS], atol=1e-5
    )
    assert 0 <= found["floor"].item() < 1e-5
    mean = found["measured"].mean("prompt").values
    np.testing.assert_allclose(found["measured_mean"].values, mean)
    assert (found["measured_low"] < found["measured_mean"]).all()


def frozen(norm: Any, model: Any, ids: list[int]) -> None:
    """Let a norm go on with the factors that it has for this prompt."""
    seen: list[Any] = []
    handle = norm.register_forward_hook(lambda _, args, out: seen.extend((args[0], out)))
    plain(model, ids)
    handle.remove()
    x, y = seen
    bias = getattr(norm, "bias", None)
    centred = bias is not None

    def centre(one: Any) -> Any:
        return one - one.mean(-1, keepdim=True) if centred else one

    factor = (y - bias if centred else y) / centre(x)
    norm.forward = lambda one: centre(one) * factor + (bias if centred else 0)


@pytest.mark.parametrize(
    ("family", "final", "last", "behind"),
    [
        ("Llama", "model.norm", "mlp.down_proj", ""),
        ("GPT2", "transformer.ln_f", "mlp.c_proj", ""),
        ("Gemma2", "model.norm", "mlp.down_proj", "post_feedforward_layernorm"),
        ("GPTNeoX", "gpt_neox.final_layer_norm", "mlp.dense_4h_to_h", ""),
    ],
)
def test_direct_is_what_is_taken_away_where_norms_go_on_as_they_were(
    family: str, final: str, last: str, behind: str
) -> None:
    """Of a neuron of the last block, at the last token: nothing else stands between it and the logits."""
    found = run(tiny(family), neurons=[(2, 5)], how="zero", positions="answer")
    model = tiny(family).double()
    layer = model.get_submodule(final.rpartition(".")[0])
    layer = (layer.h if family == "GPT2" else layer.layers)[2]

    def zero(x: Any) -> None:
        x[:, -1, 5] = 0

    def uncapped(logits: Any) -> float:
        cap = getattr(model.config, "final_logit_softcapping", None)
        return difference(torch.atanh(logits / cap) * cap if cap else logits)

    for prompt, ids in enumerate(IDS):
        norms = [model.get_submodule(final), *([layer.get_submodule(behind)] if behind else [])]
        for norm in norms:
            frozen(norm, model, ids)
        taken = uncapped(plain(model, ids)) - uncapped(plain(model, ids, {layer.get_submodule(last): zero}))
        for norm in norms:
            del norm.forward
        assert found["direct"].values[0, prompt, 0] == pytest.approx(taken, rel=1e-4, abs=1e-6)


def test_first_order_is_the_slope_of_the_way_to_the_ablation() -> None:
    found = run(tiny("Llama"), neurons=[(1, 3)], heads=[(0, 2)])
    model = tiny("Llama").double()
    down, out = model.model.layers[1].mlp.down_proj, model.model.layers[0].self_attn.o_proj
    mean = torch.cat([one[1:] for one in inputs(model, down)]).mean(0)[3]
    mean_z = torch.cat([one[1:] for one in inputs(model, out)]).mean(0)[16:24]
    step = 0.005  # norms compute in float32

    def neuron(x: Any, part: float) -> None:
        x[:, 1:, 3] += part * (mean - x[:, 1:, 3])

    def head(x: Any, part: float) -> None:
        x[:, 1:, 16:24] += part * (mean_z - x[:, 1:, 16:24])

    for place, (module, change) in enumerate(((down, neuron), (out, head))):
        for prompt, ids in enumerate(IDS):
            there, back = (
                difference(plain(model, ids, {module: partial(change, part=part)})) for part in (step, -step)
            )
            assert found["first_order"].values[place, prompt, 0] == pytest.approx(
                (back - there) / (2 * step), rel=2e-3, abs=1e-5
            )


def test_a_resampled_prompt_is_given_the_values_of_the_seeded_donors() -> None:
    model = tiny("Llama")
    down = model.model.layers[1].mlp.down_proj
    a = inputs(model, down)
    found = run(model, neurons="1:3", how="resample", seed=5, draws=3)
    rng = np.random.default_rng(5)
    lengths = [len(ids) for ids in IDS]
    for prompt, length in enumerate(lengths):
        others = [one for one in range(3) if one != prompt]
        reach = min(length, max(lengths[one] for one in others))
        able = [one for one in others if lengths[one] >= reach]
        donors = rng.choice(able, 3, replace=len(able) < 3)
        np.testing.assert_array_equal(found["donor"].values[prompt], donors)
        effects = []
        for donor in donors:

            def given(x: Any, donor: int = donor, reach: int = reach - 1) -> None:  # but for first tokens
                x[:, -reach:, 3] = a[donor][-reach:, 3]

            effects.append(difference(plain(model, IDS[prompt])) - difference(plain(model, IDS[prompt], {down: given})))
        np.testing.assert_allclose(found["measured_draws"].values[0, :, prompt, 0], effects, atol=1e-5)
        np.testing.assert_allclose(found["measured"].values[0, prompt, 0], np.mean(effects), atol=1e-5)
    longest = TEXT[int(np.argmax(lengths))]
    assert any("No other prompt is as long as p0003" in remark for remark in found.attrs["remarks"]), longest


def test_openers_are_read_under_the_ablation_with_all_their_tokens() -> None:
    model = tiny("Llama")
    down = model.model.layers[1].mlp.down_proj
    found = run(model, neurons=[(1, 3)], how="zero", openers=["a", "ba"])

    def zero(x: Any) -> None:
        x[:, 1:, 3] = 0

    def odds(ids: list[int], changes: Any) -> list[float]:
        first = plain(model, ids, changes).log_softmax(-1)
        second = plain(model, [*ids, B], changes).log_softmax(-1)
        p = np.exp([float(first[A]), float(first[B] + second[A])])
        return list(np.log(p) - np.log1p(-p))

    wanted = [np.subtract(odds(ids, None), odds(ids, {down: zero})) for ids in IDS]
    np.testing.assert_allclose(found["opener_measured"].values[0], wanted, atol=1e-5)
    assert found["opener"].values.tolist() == ["a", "ba"]


def test_random_neurons_write_about_as_much_and_none_is_asked_about() -> None:
    model = tiny("Llama")
    found = run(model, neurons=[(1, 3), (1, 8)], draws=4)
    down = model.model.layers[1].mlp.down_proj
    writes = torch.cat([one[1:] for one in inputs(model, down)]).abs().mean(0) * down.weight.detach().norm(dim=0)
    for number, wanted in enumerate((3, 8)):
        for draw in range(4):
            (match,) = named_members(
                found["matched_members"].values[number, draw].removeprefix("L").replace(" n", ":"), "neuron"
            )
            assert match.layer == 1
            assert match.number not in (3, 8)
            ratio = float(min(writes[match.number], writes[wanted]) / max(writes[match.number], writes[wanted]))
            assert found["match_ratio"].values[number, draw] == pytest.approx(ratio, rel=1e-4)
            assert ratio >= 0.5
    with torch.no_grad():
        down.weight[:, 3] *= 1e4
    alone = run(model, neurons=[(1, 3)])
    assert np.isnan(alone["control"].sel(control_kind="matched")).all()
    assert np.isfinite(alone["control"].sel(control_kind="direction")).all()
    assert alone["best_ratio"].item() < 0.01
    assert "no match exists" in alone.attrs["found"].lower()


def test_curves_end_where_they_must_and_begin_with_the_strongest() -> None:
    model = tiny("GPT2")
    named = run(model, neurons=[(1, 3), (2, 5), (0, 1)], heads=[(1, 1)], cumulative=4)
    assert named["step"].values.tolist() == [0, 1, 2, 3, 4]
    for what, first, last in (("completeness", 1, 0), ("faithfulness", 0, 1)):
        np.testing.assert_allclose(named[what].values[:, 0], first, atol=1e-4)
        np.testing.assert_allclose(named[what].values[:, -1], last, atol=1e-4)
    np.testing.assert_allclose(
        named["removed"].values[0, -1], named["unablated"] - named["measured"].values[-1], atol=1e-5
    )
    singles = run(model, neurons=[(1, 3), (2, 5), (0, 1)], heads=[(1, 1)])
    order = np.argsort(-np.abs(singles["first_order_mean"].values[:-1, 0]), kind="stable")
    assert named["members"].values[-1].split(", ") == singles["set"].values[order].tolist()
    assert named["members"].values[:-1].tolist() == singles["set"].values[order].tolist()
    found = run(model, cumulative=3, how="zero")
    assert found["members"].item().count(" n") == 3
    columns, rows = rows_of(found)
    assert len(list(rows)) == 3 * 4
    assert columns[:4] == ("order", "taken", "added", "target")
    assert sorted(found["taken"].values[1]) == sorted(found["members"].item().split(", "))
    assert steps_of(100)[:2] == (0, 1)
    assert steps_of(100)[-1] == 100
    assert len(steps_of(100)) <= 13


def test_neurons_are_named_as_other_tools_name_them() -> None:
    named = named_members("22:394, blocks.23.mlp.hook_post:4036,mlp_act.2:7", "neuron")
    assert named == (Member("neuron", 22, 394), Member("neuron", 23, 4036), Member("neuron", 2, 7))
    assert named_members(["blocks.5.attn.hook_z:3", (np.int64(6), 4)], "head") == (
        Member("head", 5, 3),
        Member("head", 6, 4),
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"neurons": "22-394"}, r"neurons: '22-394' is no neuron. Write LAYER:NEURON"),
        ({"neurons": [(1, 3), "1:3"]}, "neuron 1:3 stands there twice"),
        ({"heads": [5]}, "5 is no head"),
        ({"neurons": [(7, 3)]}, r"neuron 7:3: the model has no layer 7. Its layers are 0-2"),
        ({"neurons": [(1, 72)]}, r"layer 1 has 72 neurons. They are 0-71"),
        ({"heads": [(1, 4)]}, r"layer 1 has 4 heads. They are 0-3"),
        ({"neurons": [(1, 3)], "how": "average"}, "no way to ablate called 'average'"),
        ({"neurons": [(1, 3)], "positions": "last"}, "no positions called 'last'"),
        ({}, "there is no neuron and no head to ablate"),
        ({"neurons": [(1, 3)], "cumulative": 2}, "2 are to be ablated one after the other, and 1 are named"),
        ({"neurons": [(1, 3)], "how": "zero", "mean_of": "x"}, "how is not mean"),
        ({"neurons": [(1, 3)], "targets": ["ab"]}, "is 2 tokens"),
    ],
)
def test_what_cannot_be_ablated_is_refused_in_a_line(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(StratoscopeError, match=said):
        run(tiny("Llama"), **asked)


def test_a_number_within_an_expert_is_told_what_it_is_in_all() -> None:
    with pytest.raises(StratoscopeError, match=r"Write 1:51, which is 2 × 24 \+ 3"):
        run(tiny("Qwen2-MoE"), neurons="1:2:3")
    with pytest.raises(StratoscopeError, match=r"They are 0-95, neuron i of expert e at e × 24 \+ i; 96-135"):
        run(tiny("Qwen2-MoE"), neurons=[(1, 136)])
    with pytest.raises(StratoscopeError, match="layer 1 has no MLP, so no neurons"):
        run(tiny("Mamba"), neurons=[(1, 0)])
    with pytest.raises(StratoscopeError, match="layer 0 has no attention heads"):
        run(tiny("Jamba"), heads=[(0, 0)])


def test_one_prompt_is_resampled_from_none_and_has_no_interval() -> None:
    model = tiny("Llama")
    how: dict[str, Any] = {"tokenizer": byte_tokenizer(), "neurons": [(1, 3)], "targets": ["a"], "draws": 2}
    with pytest.raises(StratoscopeError, match="prompt p0001: there is no other prompt"):
        ablate(model, TEXT[:1], how="resample", **how)
    found = ablate(model, TEXT[:1], how="zero", **how)
    assert np.isnan(found["measured_low"]).all()
    assert "one prompt says nothing of others" in found.attrs["found"]


def test_logits_that_are_not_finite_under_an_ablation_are_refused_and_no_hook_is_left() -> None:
    model = tiny("Llama")

    def broken(_: Any, args: Any, out: Any) -> Any:
        return out * torch.nan if bool((args[0][:, 1:, 3] == 0).all(1).any()) else None

    handle = model.model.layers[1].mlp.down_proj.register_forward_hook(broken)
    with pytest.raises(CaptureError, match="prompt p0001: the logits are not finite under an ablation"):
        run(model, neurons=[(1, 3)], how="zero")
    handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_means_of_another_trace_are_what_neurons_are_set_to(tmp_path: Path) -> None:
    from stratoscope import capture

    model = tiny("Llama")
    other = ["Another text, to be averaged.", "And one more of these."]
    capture(model, other, tmp_path / "t", tokenizer=byte_tokenizer(), record=("prompts",))
    found = run(model, neurons=[(1, 3)], mean_of=tmp_path / "t")
    down, ids = model.model.layers[1].mlp.down_proj, [byte_tokenizer()(text)["input_ids"] for text in other]
    seen: list[Any] = []
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, 1:, 3].detach().clone()))
    for one in ids:
        plain(model, one)
    handle.remove()
    mean = torch.cat(seen).mean()

    def neuron(x: Any) -> None:
        x[:, 1:, 3] = mean

    wanted = [difference(plain(model, one)) - difference(plain(model, one, {down: neuron})) for one in IDS]
    np.testing.assert_allclose(found["measured"].values[0, :, 0], wanted, atol=1e-5)
    with pytest.raises(StratoscopeError, match="the weights differ"):
        run(tiny("Qwen2"), neurons=[(1, 3)], mean_of=tmp_path / "t")


def test_the_first_token_is_ablated_only_where_that_is_asked_for() -> None:
    model = tiny("Llama")
    down = model.model.layers[1].mlp.down_proj

    def everywhere(x: Any) -> None:
        x[:, :, 3] = 0

    found = run(model, neurons=[(1, 3)], how="zero", first_token=True)
    wanted = [difference(plain(model, ids)) - difference(plain(model, ids, {down: everywhere})) for ids in IDS]
    np.testing.assert_allclose(found["measured"].values[0, :, 0], wanted, atol=1e-5)
    assert "at all tokens lowers" in found.attrs["found"] or "at all tokens raises" in found.attrs["found"]


def test_a_mean_of_nothing_is_refused_and_not_taken_for_zero() -> None:
    with pytest.raises(StratoscopeError, match="there is no mean to set"):
        ablate(tiny("Llama"), ["S"], tokenizer=byte_tokenizer(), neurons=[(1, 3)], targets=["a"], how="mean")
