"""Every recorded quantity computed again, plainly: one prompt at a time, whole tensors kept, float64."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tiny import Family

Arrays = dict[str, Any]


@dataclass
class Neurons:
    """What is active at one token of one block: (expert or −1, i), a, its factor, and its column of W."""

    expert: np.ndarray
    index: np.ndarray
    a: np.ndarray
    factor: np.ndarray
    column: np.ndarray


def forward_tensors(model: Any, family: Family, ids: list[int]) -> Arrays:
    """Float64 tensors [token, width] per layer, None where a block has none, from a forward of one unpadded prompt."""
    kept: defaultdict[str, dict[int, Any]] = defaultdict(dict)

    def keep(name: str, layer: int, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        kept[name][layer] = value.detach().double().reshape(len(ids), -1).numpy().copy()

    handles = []
    blocks = model.get_submodule(family.blocks)
    handles.append(blocks[0].register_forward_pre_hook(lambda _m, x: keep("before", 0, x[0])))
    for layer, block in enumerate(blocks):
        places = {"after": block, "attn": inside(block, family.attention), "mlp": inside(block, family.mlp)}
        places |= {"gate": inside(block, family.gate), "out": output_of(block, family)}
        for name, module in places.items():
            if module is not None:
                hook = lambda _m, _i, output, name=name, layer=layer: keep(name, layer, output)  # noqa: E731
                handles.append(module.register_forward_hook(hook))
        last, experts = inside(block, family.last), inside(block, family.experts)
        if last is not None:
            handles.append(last.register_forward_pre_hook(lambda _m, x, layer=layer: keep("a", layer, x[0])))
        if experts is not None:
            handles.append(
                experts.register_forward_pre_hook(lambda _m, x, layer=layer: kept["call"].__setitem__(layer, x))
            )
    with torch.no_grad():
        output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    # hidden_states ends after the final norm, so the last depth is the last block's own output; Mamba's begin late
    states = [state[0].double().numpy() for state in output.hidden_states]
    for layer in range(len(blocks) - 1):
        assert any(np.array_equal(kept["after"][layer], state) for state in states)
    depths = [kept["before"][0], *(kept["after"][layer] for layer in range(len(blocks)))]
    return {"attn": {}, "mlp": {}, "gate": {}, **kept, "x": depths}


def inside(block: Any, names: str) -> Any:
    """The first of the named modules that a block has."""
    modules = dict(block.named_modules())
    return next((modules[name] for name in names.split("|") if name and name in modules), None)


def output_of(block: Any, family: Family) -> Any:
    """The module that gives the MLP's output before any norm."""
    mixture = inside(block, family.experts) is not None
    return inside(block, family.out if mixture else family.last)


def active(block: Any, family: Family, kept: Arrays, layer: int, t: int) -> Neurons:
    """The neurons of one token: those of the chosen experts with the router's weights, and the dense or shared ones."""
    found = []
    experts, last = inside(block, family.experts), inside(block, family.last)
    if experts is not None:
        hidden, ids, weights = kept["call"][layer]
        for expert, weight in zip(ids[t].tolist(), weights[t].double().tolist(), strict=True):
            a, columns = one_expert(experts, expert, hidden.reshape(-1, hidden.shape[-1])[t])
            found.append(Neurons(np.full(len(a), expert), np.arange(len(a)), a, np.full(len(a), weight), columns))
    if last is not None:
        matrix = last.weight.detach().double().numpy()
        a = kept["a"][layer][t]
        gate = 1 / (1 + np.exp(-kept["gate"][layer][t])) if family.gate and layer in kept["gate"] else 1.0
        columns = matrix if family.transposed else matrix.T
        found.append(Neurons(np.full(len(a), -1), np.arange(len(a)), a, np.ones(len(a)) * gate, columns))
    names = ("expert", "index", "a", "factor", "column")
    return Neurons(*(np.concatenate([getattr(part, name) for part in found]) for name in names))


def one_expert(experts: Any, expert: int, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """a of one expert and its columns of W, [neuron, residual], from the stacked weights."""
    up, down = (weight[expert].detach() for weight in (experts.gate_up_proj, experts.down_proj))
    with torch.no_grad():
        if experts.is_transposed:
            a = experts._apply_gate((x @ up + experts.gate_up_proj_bias[expert])[None])[0]
        else:
            gate, value = (up @ x).chunk(2)
            a = experts.act_fn(gate) * value
    return a.double().numpy(), (down if experts.is_transposed else down.T).double().numpy()


def expected(model: Any, family: Family, ids: list[int], user: list[int], top_k: int) -> Arrays:
    """What a trace must hold of one prompt.

    `user` are the positions of the prompt's own words. float64, dims as in the trace, without the prompt axis.
    """
    kept = forward_tensors(model, family, ids)
    blocks = model.get_submodule(family.blocks)
    layers, tokens = len(blocks), len(ids)
    found: defaultdict[str, Any] = defaultdict(lambda: np.full((tokens, layers), np.nan))
    peaks = {name: np.full((tokens, layers, top_k), np.nan) for name in ("peak_value", "peak_write")}
    peaks |= {name: np.full((tokens, layers, top_k), -1.0) for name in ("peak_neuron", "peak_expert")}
    found["resid_norm"] = np.array([[np.linalg.norm(x[t]) for x in kept["x"]] for t in range(tokens)])
    activity: dict[tuple[int, int], Neurons] = {}
    for layer, block in enumerate(blocks):
        for t in range(tokens):
            at, x = (t, layer), kept["x"][layer][t]
            after = kept["x"][layer + 1][t]
            found["resid_cos"][at] = x @ after / np.linalg.norm(x) / np.linalg.norm(after)
            attn = family.scale * kept["attn"][layer][t] if layer in kept["attn"] else None
            writes(found, "attn", at, attn, x)
            if layer not in kept["mlp"]:
                continue
            middle = x if family.parallel or attn is None else x + attn
            writes(found, "mlp", at, family.scale * kept["mlp"][layer][t], middle)
            neurons = activity[at] = active(block, family, kept, layer, t)
            found["neuron_norm"][at] = np.linalg.norm(neurons.a)
            found["mlp_out_norm"][at] = np.linalg.norm(kept["out"][layer][t])
            size = np.abs(neurons.a * neurons.factor) * np.linalg.norm(neurons.column, axis=1)
            top = np.argsort(-size)[:top_k]
            for name, values in (("neuron", neurons.index), ("value", neurons.a), ("write", size)):
                peaks[f"peak_{name}"][at] = values[top]
            peaks["peak_expert"][at] = neurons.expert[top]
            found["peak_share"][at] = (size[top] ** 2).sum() / (size**2).sum()
            written = (neurons.a * neurons.factor)[:, None] * neurons.column
            whole = written.sum(0)
            found["peak_explained"][at] = written[top].sum(0) @ whole / np.linalg.norm(whole) ** 2
    own = [t for t in user if t > 0]
    found |= summaries(blocks, family, activity, own) if activity else {}
    if family.experts:
        found |= routing(kept, layers, tokens)
    else:
        del peaks["peak_expert"]
    return {**found, **(peaks if activity else {})}


def writes(found: Arrays, name: str, at: tuple[int, int], write: Any, base: np.ndarray) -> None:
    if write is not None:
        found[f"{name}_write_norm"][at] = np.linalg.norm(write)
        found[f"{name}_write_ratio"][at] = np.linalg.norm(write) / np.linalg.norm(base)
        found[f"{name}_write_cos"][at] = write @ base / np.linalg.norm(write) / np.linalg.norm(base)


def routing(kept: Arrays, layers: int, tokens: int) -> Arrays:
    """The router's choices; −1 and NaN in blocks without experts."""
    choices = next(iter(kept["call"].values()))[1].shape[1]
    experts, weights = np.full((tokens, layers, choices), -1), np.full((tokens, layers, choices), np.nan)
    for layer, (_, ids, weight) in kept["call"].items():
        experts[:, layer], weights[:, layer] = ids.numpy(), weight.float().numpy()
    return {"router_expert": experts, "router_weight": weights}


def summaries(blocks: Any, family: Family, activity: dict[tuple[int, int], Neurons], own: list[int]) -> Arrays:
    """`prompt_*`: experts one after the other, then the dense or shared neurons; NaN where no token gave a value."""
    flat: list[list[dict[int, float]]] = []
    sizes = []
    for layer, block in enumerate(blocks):
        experts, last = inside(block, family.experts), inside(block, family.last)
        count, _, width = (0, 0, 0) if experts is None else experts.down_proj.shape
        if experts is not None and experts.is_transposed:
            width = experts.down_proj.shape[1]
        dense = 0 if last is None else last.weight.shape[0 if family.transposed else 1]
        sizes.append(count * width + dense)
        flat.append([])
        for t in own:
            neurons = activity[t, layer]
            place = np.where(neurons.expert < 0, count * width + neurons.index, neurons.expert * width + neurons.index)
            flat[-1].append(dict(zip(place.tolist(), neurons.a.tolist(), strict=True)))
    found = {}
    for name, reduce in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        values = np.full((len(sizes), max(sizes)), np.nan)
        for layer, at_tokens in enumerate(flat):
            for neuron in range(sizes[layer]):
                seen = [at_token[neuron] for at_token in at_tokens if neuron in at_token]
                if seen:
                    values[layer, neuron] = reduce(seen)
        found[f"prompt_{name}"] = values
    return found
