"""Quantities by what other tools call them: the same tensors, hooked here without any of the recorder's code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_capture import run
from tiny import TEXTS, byte_tokenizer, tiny

from drawn_maps import maps_of
from stratoscope import diff, names, open_trace, to_frame
from stratoscope.analysis.contrast.contrast import profiled
from stratoscope.errors import InputError
from stratoscope.trace.quantity_names import quantity_named
from stratoscope.view.maps.heatmap import heatmap_spec

RECORD = (names.NORMS, names.RESIDUAL, names.NEURONS)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("gemma") / "t"
    run(path, model=tiny("Gemma2"), prompts=TEXTS, record=RECORD, batch_size=1)
    return open_trace(path)


def hooked(path: str) -> np.ndarray:
    """Norms of what a module of each block of a tiny Gemma 2 gives, [token, layer]; of its input with "<"."""
    model, found = tiny("Gemma2"), dict[int, list[torch.Tensor]]()
    for number, block in enumerate(model.model.layers):
        module = block.get_submodule(path.removeprefix("<")) if path else block

        def keep(_: Any, args: Any, output: Any, number: int = number) -> None:
            found.setdefault(number, []).append((args[0] if path.startswith("<") else output)[0].norm(dim=-1))

        module.register_forward_hook(keep)
    for text in TEXTS:
        with torch.no_grad():
            model(torch.tensor([byte_tokenizer()(text)["input_ids"]]), use_cache=False)
    return torch.stack([torch.cat(parts) for parts in found.values()], 1).numpy()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("blocks.L.hook_mlp_out", "post_feedforward_layernorm"),
        ("mlp_out_post.1", "post_feedforward_layernorm"),
        ("blocks.2.mlp.hook_out", "mlp"),
        ("mlp_out.L", "mlp"),
    ],
)
def test_the_mlps_output_in_front_of_its_norm_and_behind_it_are_not_mixed_up(trace: Any, name: str, path: str) -> None:
    quantity = quantity_named(name, map(str, trace.data_vars))
    found = to_frame(trace, name)[quantity].to_numpy().reshape(trace[quantity].shape)
    np.testing.assert_allclose(found, hooked(path), rtol=1e-4)
    other = {"mlp_out_norm": "mlp_write_norm", "mlp_write_norm": "mlp_out_norm"}[quantity]
    assert (np.abs(np.log(found / trace[other].values)) > np.log(1.5)).mean() > 0.5, "here it makes no difference"


def test_every_verb_takes_another_tools_name_with_any_layer(trace: Any) -> None:
    (drawn,) = maps_of(heatmap_spec(trace, quantity="blocks.1.mlp.hook_post")).quantities
    assert drawn.quantity.name == "neuron_norm"
    assert "resid_norm" in diff(trace, trace, quantity="hidden_states[7]").attrs["summary"]["quantities"]
    assert trace["neurons"].attrs["elsewhere"].startswith("TransformerLens: blocks.L.mlp.hook_post; ")
    np.testing.assert_allclose(to_frame(trace, "resid_pre.0")["resid_norm"], trace["resid_norm"].values.ravel())
    np.testing.assert_allclose(trace["neuron_norm"].values, hooked("<mlp.down_proj"), rtol=1e-4)
    assert profiled(trace, ["blocks.L.hook_mlp_out", "mlp_out.2"]) == ("mlp_write_norm", "mlp_out_norm")


def test_a_name_of_two_quantities_and_a_mistyped_one_are_refused_with_those_that_are_meant(trace: Any) -> None:
    with pytest.raises(InputError, match=r"may be neuron_norm and neurons.*neuron_norm, neurons"):
        to_frame(trace, "mlp_act.3")
    with pytest.raises(InputError, match=r"called 'blocks.2.hook_mlp_outt'.*Did you mean blocks.L.hook_mlp_out"):
        heatmap_spec(trace, quantity="blocks.2.hook_mlp_outt")
    with pytest.raises(InputError, match="Did you mean mlp_out_norm"):
        diff(trace, trace, quantity="mlp_out_nrm")


def test_a_name_of_another_tool_belongs_to_one_tensor() -> None:
    """The size of a tensor may share it, and nothing else."""
    for tool in names.TOOLS:
        called: dict[str, set[str]] = {}
        for name, row in names.QUANTITIES.items():
            if tool in row.elsewhere:
                called.setdefault(row.elsewhere[tool], set()).add(name)
        assert [owners for owners in called.values() if len(owners) > 1] in ([], [{"neurons", "neuron_norm"}])
