"""The real model: every quantity against a plain forward, and the receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stratoscope import capture, names

pytestmark = pytest.mark.model

PROMPTS = [
    "The capital of France is Paris, and the river that runs through it is the",
    "def largest(numbers):\n    return max(numbers)\n",
    "Hi",
    "Ein Öl-Gemälde kostet 12345 €.",
]
COMPARED = (0, 2)  # by number, value by value: the longest, and one that is nearly all padding
TOP_K = 10


@pytest.fixture(scope="module")
def loaded(smollm2: Path) -> Any:
    from stratoscope.model.load import load_model

    return load_model(str(smollm2), device="cpu")


@pytest.fixture(scope="module")
def trace(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("real") / "smollm2.trace"
    return capture(str(smollm2), [*PROMPTS], out, batch_size=3, device="cpu", top_k=TOP_K)


def test_the_head_and_the_gates_of_a_real_model_are_its_weights(loaded: Any, trace: Any) -> None:
    import torch

    receipt, model = trace.attrs["receipt"], loaded.model
    assert receipt["head"]["logits"] == "bit-equal"
    assert receipt["gates"] == {"SiLUActivation(g)·u": 30}
    assert receipt["block_norms"]["proved"] == 30
    assert receipt["block_norms"]["largest_error"] < 1e-6
    kept: dict[str, Any] = {}
    mlp = model.model.layers[17].mlp
    watched = {"x": model.model.norm, "read": mlp.gate_proj, "a": mlp.down_proj}
    handles = [
        module.register_forward_pre_hook(lambda _m, args, name=name: kept.__setitem__(name, args[0][0].double()))
        for name, module in watched.items()
    ]
    with torch.no_grad():
        logits = model(torch.tensor([loaded.tokenizer(PROMPTS[0])["input_ids"]])).logits[0]
    for handle in handles:
        handle.remove()
    normed = kept["x"] / (kept["x"].square().mean(-1, keepdim=True) + 1e-5).sqrt() * model.model.norm.weight.double()
    last = normed[-1] @ model.lm_head.weight.double().T
    assert float((last - logits[-1]).abs().max()) < 1e-4
    g, u = (kept["read"] @ part.weight.double().T for part in (mlp.gate_proj, mlp.up_proj))
    assert float((torch.nn.functional.silu(g) * u - kept["a"]).abs().max()) < 1e-4


def test_every_quantity_equals_a_plain_forward(loaded: Any, trace: Any) -> None:
    from reference import expected
    from tiny import FAMILIES

    worst: dict[str, float] = {}
    for number in range(len(PROMPTS)):
        tokens = np.flatnonzero(trace.prompt == number)
        ids = trace.token_id.values[tokens].tolist()
        assert ids == loaded.tokenizer(PROMPTS[number])["input_ids"]
        if number not in COMPARED:
            continue
        wanted = expected(loaded.model, FAMILIES["Llama"], ids, list(range(len(ids))), TOP_K)
        for name in trace.data_vars:
            dims = names.QUANTITIES[name].dims
            again = wanted[name]
            values = trace[name].values[number] if dims[0] == names.PROMPT else trace[name].values[tokens]
            assert np.array_equal(np.isnan(values), np.isnan(again)), name
            if np.isfinite(again).any() and name != "peak_neuron":
                difference = np.abs(values - again) / np.maximum(1, np.abs(again))
                worst[name] = max(worst.get(name, 0.0), float(np.nanmax(difference)))
    recorded = {quantity.name for quantity in names.quantities_of(names.RECORD_GROUPS[:4])}
    assert set(worst) == recorded - {"peak_neuron", *names.OF_SOME_MODELS}
    assert max(worst.values()) < 1e-4, f"largest differences: {worst}"


def test_peaks_name_the_neurons_they_come_from(loaded: Any, trace: Any) -> None:
    from reference import forward_tensors
    from tiny import FAMILIES

    tokens = np.flatnonzero(trace.prompt == 0)
    kept = forward_tensors(loaded.model, FAMILIES["Llama"], trace.token_id.values[tokens].tolist())
    for layer in range(30):
        neurons = trace.peak_neuron.values[tokens, layer]
        value = np.take_along_axis(kept["a"][layer], neurons, axis=1)
        worst = (np.abs(trace.peak_value.values[tokens, layer] - value) / np.maximum(1, np.abs(value))).max()
        assert worst < 1e-3, f"layer {layer}: peak values differ by up to {worst:.1e} of their size"


def test_the_receipt_proves_the_real_model(trace: Any) -> None:
    receipt = trace.attrs["receipt"]
    assert receipt["logits_bit_identical"] is True
    assert receipt["residual_replay"] == "bit-equal in 30/30 layers"
    assert receipt["sites_per_forward"] == 30 * 7
    assert (trace.attrs["model"]["d_ff"], trace.sizes["layer"], trace.sizes["depth"]) == (1536, 30, 31)
