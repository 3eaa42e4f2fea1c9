"""Direct contributions: every part of the model by itself, and together the model's own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny, tiny_model

from stratoscope import capture, names, simulate
from stratoscope.errors import CaptureError, InputError
from stratoscope.model.sites import unit_roundoff
from stratoscope.recorder.recording import Recording
from stratoscope.recorder.reduce.passages import Fixed
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.trace.format.receipt import merged_receipt

K = 3
GENERATED = names.SPANS.index("generated")


def run(out: Path, model: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": ("norms", "logits"), "top_k": K, "batch_size": 3, "targets": ("N", "Y")}
    return capture(model, TEXTS, out, tokenizer=byte_tokenizer(), **{**settings, **options}).load()


def answers(trace: Any) -> list[int]:
    """The token of each prompt where its answer begins."""
    own = trace.span.values != GENERATED
    return [int(np.flatnonzero((trace.prompt.values == number) & own)[-1]) for number in range(trace.sizes["prompt"])]


def at(trace: Any, name: str) -> Any:
    return trace[name].values[answers(trace)].astype(float) if name in trace else 0.0


# --- by hand ----------------------------------------------------------------------------------------------------------


def keeping(model: Any, ids: Any, paths: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """What went into some modules and came out, at the last token, float64, by plain hooks; and the logits."""
    kept: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def keep(_: Any, given: Any, output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            kept[f"{name} in"] = given[0].reshape(-1, given[0].shape[-1])[-1].double() if given else None
            kept[f"{name} out"] = out.reshape(-1, out.shape[-1])[-1].double()

        return keep

    handles = [model.get_submodule(path).register_forward_hook(hook(name)) for name, path in paths.items()]
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0, -1].double()
    for handle in handles:
        handle.remove()
    return kept, logits


@torch.no_grad()
def by_hand(family: str, model: Any, text: str, token: int, against: int) -> dict[str, Any]:
    """Contributions of one prompt at its last token, as a person would write them for this architecture."""
    ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
    gpt, post = family == "GPT2", family == "Gemma2"
    blocks = model.transformer.h if gpt else model.model.layers
    root = "transformer.h" if gpt else "model.layers"
    attn, mlp = ("attn.c_proj", "mlp.c_proj") if gpt else ("self_attn.o_proj", "mlp.down_proj")
    paths = {"norm": "transformer.ln_f" if gpt else "model.norm", "first": f"{root}.0"}
    for n in range(len(blocks)):
        paths |= {f"attn{n}": f"{root}.{n}.{attn}", f"mlp{n}": f"{root}.{n}.{mlp}"}
        if post:
            paths |= {f"post attn{n}": f"{root}.{n}.post_attention_layernorm"}
            paths |= {f"post mlp{n}": f"{root}.{n}.post_feedforward_layernorm"}
    kept, _ = keeping(model, ids, paths)
    norm = model.get_submodule(paths["norm"])
    gamma = norm.weight.double() + (1 if post else 0)
    scale = 0.0625 if family == "Cohere" else 1 / 3 if family == "Granite" else 1.0
    u = model.get_output_embeddings().weight.double()
    d = scale * gamma * (u[token] - u[against])
    x = kept["norm in"]
    centred = gpt or family == "Cohere"
    if centred:
        d, x = d - d.mean(), x - x.mean()
    s = 1 / (x.square().mean() + (1e-5 if centred else 1e-6)).sqrt()
    write = 0.22 if family == "Granite" else 1.0
    found: dict[str, Any] = {"embed": s * d @ kept["first in"], "attn": [], "mlp": [], "neurons": [], "heads": []}
    for n, block in enumerate(blocks):
        for name, path in (("attn", attn), ("mlp", mlp)):
            module = block.get_submodule(path)
            weight = module.weight.double() if gpt else module.weight.double().T  # [in, out]
            z, v = kept[f"{name}{n} in"], write * d
            out = kept[f"{name}{n} out"]
            if post:
                after = block.post_attention_layernorm if name == "attn" else block.post_feedforward_layernorm
                v = v * (1 + after.weight.double()) / (out.square().mean() + 1e-6).sqrt()
                out = kept[f"post {name}{n} out"]
            found[name].append(s * write * d @ out)
            each = s * z * (weight @ v)
            found["neurons" if name == "mlp" else "heads"].append(each if name == "mlp" else each.view(4, -1).sum(1))
    return found


def granite() -> Any:
    more = {"residual_multiplier": 0.22, "logits_scaling": 3.0, "embedding_multiplier": 2.0}
    return tiny_model("GraniteConfig", {**ALL_FAMILIES["Granite"].options, **more})


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "Cohere", "Granite"])
def test_contributions_are_what_plain_hooks_and_float64_give(tmp_path: Path, family: str) -> None:
    """1 + weight and post-norms with a soft-cap, β and biases, a logit scale, and a residual multiplier among them."""
    model = granite() if family == "Granite" else tiny(family)
    trace = run(tmp_path / "t", model, targets=("N",), against="x")
    token, against = (byte_tokenizer()(letter)["input_ids"][0] for letter in "Nx")
    for number, text in enumerate(TEXTS):
        row, wanted = answers(trace)[number], by_hand(family, model, text, token, against)
        assert trace.embed_logit.values[row, 0] == pytest.approx(float(wanted["embed"]), abs=2e-6)
        for name in ("attn", "mlp"):
            assert np.allclose(trace[f"{name}_logit"].values[row, :, 0], torch.stack(wanted[name]), atol=2e-6)
        for layer in range(3):
            assert np.allclose(trace.head_logit.values[row, layer, :, 0], wanted["heads"][layer], atol=2e-6)
            every = wanted["neurons"][layer].numpy()
            order = np.argsort(every)
            kept = trace.logit_neuron.values[row, layer, 0]
            assert kept.tolist() == [*order[::-1][:K], *order[:K]]
            assert np.allclose(trace.neuron_logit.values[row, layer, 0], every[kept], atol=2e-6)
            others = np.delete(every, kept).sum()
            assert trace.other_neurons_logit.values[row, layer, 0] == pytest.approx(others, abs=4e-6)


# --- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Phi", {}),  # parallel, biases everywhere, also of the head
        ("Qwen2-MoE", {"positions": "all"}),  # a gated shared expert, and a dense block
        ("GPT-OSS", {"targets": None}),  # experts with biases; targets of each prompt's own
        ("Jamba", {"targets": None, "positions": "all", "generate": 2}),
        ("LFM2", {"generate": 2, "answer_prefix": "I"}),
    ],
)
def test_parts_of_parts_add_up_at_every_explained_token(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    trace = run(tmp_path / "t", tiny(family), **options)
    rows = [*range(trace.sizes["token"])] if options.get("positions") else answers(trace)

    def of(name: str) -> Any:
        return trace[name].values[rows].astype(float) if name in trace else 0.0

    attn, mlp, prompt = of("attn_logit"), of("mlp_logit"), trace.prompt.values[rows]
    constants = (trace.norm_bias_logit + trace.head_bias_logit).values[prompt]
    whole = of("embed_logit") + attn.sum(1) + mlp.sum(1) + constants
    size = np.abs(of("embed_logit")) + np.abs(attn).sum(1) + np.abs(mlp).sum(1) + np.abs(constants)
    assert (np.abs(whole - of("target_logit")) <= 1e-5 * size).all()
    assert (np.abs(at(trace, "target_logit") - trace.answer_logit.values) <= 1e-5 * size.max()).all()
    heads = np.nansum(of("head_logit"), 2) + np.nan_to_num(of("attn_bias_logit"))
    split = ~np.isnan(of("head_logit")).all((0, 2, 3))
    assert split.tolist() == [family not in ("Jamba", "LFM2") or n == 1 for n in range(len(split))]
    assert (np.abs(heads - attn)[:, split] <= 1e-5 * size[:, None]).all()
    neurons = np.nansum(of("neuron_logit"), 3) + of("other_neurons_logit") + of("mlp_bias_logit")
    assert (np.abs(neurons - mlp) <= 1e-5 * size[:, None]).all()
    model = trace.attrs["model"]
    shapes = model.get("mlps") or [{"experts": 0, "expert_width": 0, "dense_width": model["d_ff"]}]
    assert of("logit_neuron").max() < max(one["experts"] * one["expert_width"] + one["dense_width"] for one in shapes)
    receipt = trace.attrs["receipt"]
    assert 0 < receipt["contributions"]["error"] < receipt["contributions"]["limit"] == 1e-5
    assert any("add up to the model's own logits" in check for check in receipt["checks"])


def test_a_model_without_attention_and_mlps_is_explained_too(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Mamba"))
    assert not {"mlp_logit", "head_logit", "neuron_logit", "attn_bias_logit"} & {*trace.data_vars}
    total = at(trace, "embed_logit") + at(trace, "attn_logit").sum(1)
    assert np.allclose(total, trace.answer_logit.values, atol=1e-5)


def test_heads_and_neurons_are_explained_where_the_answer_begins_and_block_rows_everywhere(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("GPT2"), generate=2)
    here = np.zeros(trace.sizes["token"], bool)
    here[answers(trace)] = True
    for one in names.quantities_of([names.LOGITS]):
        if one.dims[0] == names.TOKEN and one.name in trace:
            values = trace[one.name].values
            missing = values == -1 if values.dtype.kind == "i" else np.isnan(values)
            known = ~missing.reshape(len(values), -1).all(1)
            everywhere = trace.span.values != GENERATED if one.name in names.BY_SOURCE else np.ones_like(here)
            assert known.tolist() == (here if one.at_answer else everywhere).tolist(), one.name


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether everything is proved and recording has begun: what changes only then, no replay of a sample finds."""
    begun: list[bool] = []
    own = Recording.run

    def recording(self: Recording, *given: Any, **named: Any) -> None:
        begun.append(True)
        own(self, *given, **named)

    monkeypatch.setattr(Recording, "run", recording)
    return begun


@pytest.mark.parametrize(("part", "words"), [("neurons", "neurons of layer 1"), ("heads", "heads of layer 1")])
@pytest.mark.parametrize("column", [0, 17])
def test_a_changed_row_of_the_vectors_makes_the_sum_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proved: list[bool], part: str, words: str, column: int
) -> None:
    """So no term is the remainder of the others."""
    get = Fixed.get

    def changed(self: Fixed, key: Any, make: Any) -> Any:
        found = get(self, key, make)
        if proved and key == (part, 1):
            found = found.clone()
            found[..., column] *= 1.5
        return found

    monkeypatch.setattr(Fixed, "get", changed)
    with pytest.raises(CaptureError, match=f"{words} do not add up"):
        run(tmp_path / "t", tiny("Llama"))


def constant(monkeypatch: pytest.MonkeyPatch, proved: list[bool], more: float) -> None:
    """Once everything is proved, the final norm's β adds more than it does."""
    own = BatchTargets.constants

    def constants(self: BatchTargets) -> Any:
        norm, head = own(self)
        return norm + (more if proved else 0), head

    monkeypatch.setattr(BatchTargets, "constants", constants)


def test_a_changed_constant_makes_the_sum_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proved: list[bool]
) -> None:
    constant(monkeypatch, proved, 0.01)
    with pytest.raises(CaptureError, match=r"target 0 do not add up to it: they are off by .* 1e-05 is rounding"):
        run(tmp_path / "t", tiny("Llama"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_error_is_stored_and_a_large_one_is_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proved: list[bool], dtype: torch.dtype
) -> None:
    receipt = run(tmp_path / "t", tiny("Gemma2", dtype)).attrs["receipt"]
    found = receipt["contributions"]
    assert found["limit"] == 4 * unit_roundoff(dtype)
    assert found["error"] > 1e-6
    said = [one for one in receipt["limits"] if one.startswith("Contributions to logits add up less exactly")]
    assert bool(said) == (max(found[name] for name in found if name.endswith("error")) > found["limit"])
    proved.clear()
    constant(monkeypatch, proved, 5.0)
    limits = run(tmp_path / "u", tiny("Gemma2", dtype)).attrs["receipt"]["limits"]
    assert [one for one in limits if one.startswith("Contributions to logits add up less exactly")]


def test_resuming_and_merging_keep_the_largest_error() -> None:
    parts = [{"contributions": {"error": error, "limit": 1e-5}} for error in (1e-7, 3e-7)]
    common = {"limits": [], "logits_bit_identical": True, "residual_replay": "x", "batches": 1}
    replays = [{"replay": "r", "tolerance": 1.0, "median": False, "attention": ["eager"], "prompts": [], "tokens": 0}]
    common["replays"] = [{**replays[0], "largest_differences": {}}]
    assert merged_receipt([{**common, **part} for part in parts])["contributions"]["error"] == 3e-7


# --- what is refused --------------------------------------------------------------------------------------------------


def test_more_neurons_of_either_sign_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the top-k is 40 of either sign, but at a token 72 neurons"):
        run(tmp_path / "t", tiny("Llama"), top_k=40)


def test_a_simulation_obeys_its_sums_exactly() -> None:
    trace = simulate(prompts=3, tokens=9, layers=3, d_ff=64, heads=2, record=names.LOGITS, targets=["Sorry", "Sure"])
    last = np.cumsum(np.bincount(trace["prompt"].values)) - 1
    heads, attn, mlp = (trace[name].values for name in ("head_logit", "attn_logit", "mlp_logit"))
    np.testing.assert_array_equal(heads.sum(axis=2), attn)
    whole = trace["embed_logit"].values + attn.sum(axis=1) + mlp.sum(axis=1)
    np.testing.assert_array_equal(whole, trace["target_logit"].values)
    np.testing.assert_array_equal(whole[last], trace["answer_logit"].values)
    neurons = np.nansum(trace["neuron_logit"].values, axis=-1) + trace["other_neurons_logit"].values
    np.testing.assert_array_equal(neurons[last], mlp[last])
    assert (trace["logit_neuron"].values[np.setdiff1d(np.arange(len(mlp)), last)] == -1).all()
