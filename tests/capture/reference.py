"""Every recorded quantity computed again, plainly: one prompt at a time, whole tensors kept, float64."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from tiny import Family


def forward_tensors(model: Any, family: Family, ids: list[int]) -> dict[str, list[np.ndarray]]:
    """Float64 tensors [token, width] per layer from an ordinary forward of one unpadded prompt."""
    kept: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def keep(name: str, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        kept[name].append(value.detach().double().reshape(len(ids), -1).numpy().copy())

    handles = []
    for block in model.get_submodule(family.blocks):
        last = block.get_submodule(family.last)
        handles += [
            block.register_forward_hook(lambda _m, _i, output: keep("after", output)),
            block.get_submodule(family.attention).register_forward_hook(lambda _m, _i, output: keep("attn", output)),
            block.get_submodule(family.mlp).register_forward_hook(lambda _m, _i, output: keep("mlp", output)),
            last.register_forward_hook(lambda _m, _i, output: keep("out", output)),
            last.register_forward_pre_hook(lambda _m, inputs: keep("a", inputs[0])),
        ]
    with torch.no_grad():
        output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    # hidden_states ends after the final norm, so the last depth is the last block's own output
    kept["x"] = [state[0].double().numpy() for state in output.hidden_states[:-1]] + [kept["after"][-1]]
    for layer, block in enumerate(model.get_submodule(family.blocks)):
        weight = block.get_submodule(family.last).weight.detach().double().numpy()
        kept["weight"].append(weight.T if family.transposed else weight)
        assert np.array_equal(kept["after"][layer], kept["x"][layer + 1])
    return kept


def expected(model: Any, family: Family, ids: list[int], user: list[int], top_k: int) -> dict[str, np.ndarray]:
    """What a trace must hold of one prompt.

    `user` are the positions of the prompt's own words. float64, dims as in the trace, without the prompt axis.
    """
    kept = forward_tensors(model, family, ids)
    layers, tokens = len(kept["a"]), len(ids)
    found: defaultdict[str, Any] = defaultdict(lambda: np.zeros((tokens, layers)))
    peaks = {name: np.zeros((tokens, layers, top_k)) for name in ("peak_neuron", "peak_value", "peak_write")}
    found["resid_norm"] = np.array([[np.linalg.norm(x[t]) for x in kept["x"]] for t in range(tokens)])
    for layer in range(layers):
        weight = kept["weight"][layer]
        column = np.array([np.linalg.norm(weight[:, i]) for i in range(weight.shape[1])])
        for t in range(tokens):
            x, a, out = (kept[name][layer][t] for name in ("x", "a", "out"))
            attn, mlp = kept["attn"][layer][t], kept["mlp"][layer][t]
            at = (t, layer)
            found["neuron_norm"][at], found["mlp_out_norm"][at] = np.linalg.norm(a), np.linalg.norm(out)
            for name, write, base in (("attn", attn, x), ("mlp", mlp, x if family.parallel else x + attn)):
                found[f"{name}_write_norm"][at] = np.linalg.norm(write)
                found[f"{name}_write_ratio"][at] = np.linalg.norm(write) / np.linalg.norm(base)
                found[f"{name}_write_cos"][at] = write @ base / np.linalg.norm(write) / np.linalg.norm(base)
            writes = np.abs(a) * column
            top = np.argsort(-writes)[:top_k]
            for name, values in (("neuron", top), ("value", a[top]), ("write", writes[top])):
                peaks[f"peak_{name}"][at] = values
            found["peak_share"][at] = (writes[top] ** 2).sum() / (writes**2).sum()
            found["peak_explained"][at] = (weight[:, top] @ a[top]) @ (weight @ a) / np.linalg.norm(weight @ a) ** 2
    own = [t for t in user if t > 0]
    activity = np.stack([a[own] for a in kept["a"]])
    for name, reduce in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        nothing = np.full((layers, activity.shape[2]), np.nan)
        found[f"prompt_{name}"] = reduce(activity, axis=1) if own else nothing
    return {**found, **peaks}
