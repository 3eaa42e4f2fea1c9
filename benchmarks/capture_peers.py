"""Recording a trace against other ways to see the same tensors, in one run: time over the plain forward.

SmolLM2-135M in float32, one thread, one prompt at a time. Stratoscope records norms, residual, peaks, attention
summaries and all neurons to disk; the others keep the same sites in memory, and write nothing:

- transformers: eager attention, `output_attentions` and `output_hidden_states`;
- TransformerLens: `run_with_cache` of the residual stream, both writes, the neurons and the attention patterns;
- nnsight: a trace that saves the same sites, without the patterns, which sdpa does not show.

Each of them is timed alone and with the same quantities reduced from what it kept, in whole tensors, as one would write
it. Peers that are not installed are left out and named (`pip install transformer-lens nnsight`). Every round runs all
of them on the same prompts; TransformerLens computes the logits of every token, the others those of the last. The last
line is Stratoscope's time over that of the fastest peer that gives as much: kept and reduced.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import plain_forward, smollm2
from _timing import interval, parser, rounds
from capture_overhead import GROUPS, WINDOW, Running
from torch import Tensor

from stratoscope.model.load import LoadedModel

TOP_K = 10


@dataclass
class Kept:
    """One block's tensors of one prompt: [token, width], attention [head, query, key]."""

    x: Tensor
    attn: Tensor | None = None
    neurons: Tensor | None = None
    mlp: Tensor | None = None
    pattern: Tensor | None = None


class Reductions:
    """The recorded quantities from whole tensors."""

    def __init__(self, model: Any) -> None:
        self._weights = [block.mlp.down_proj.weight.detach() for block in model.model.layers]
        self._norms = [weight.norm(dim=0) for weight in self._weights]

    def __call__(self, kept: Iterator[Kept]) -> list[dict[str, Tensor]]:
        """Those of every block."""
        with torch.no_grad():
            return [self._block(number, one) for number, one in enumerate(kept)]

    def _block(self, number: int, kept: Kept) -> dict[str, Tensor]:
        found = {"resid_norm": kept.x.norm(dim=-1)}
        if kept.attn is not None and kept.mlp is not None and kept.neurons is not None:
            middle = kept.x + kept.attn
            for name, write, base in (("attn", kept.attn, kept.x), ("mlp", kept.mlp, middle)):
                size, under = write.norm(dim=-1), base.norm(dim=-1)
                found |= {f"{name}_write_norm": size, f"{name}_write_ratio": size / under}
                found[f"{name}_write_cos"] = (write * base).sum(-1) / (size * under)
            found |= {"neuron_norm": kept.neurons.norm(dim=-1), "mlp_out_norm": kept.mlp.norm(dim=-1)}
            found |= self._peaks(kept.neurons, kept.mlp, self._weights[number], self._norms[number])
        return found if kept.pattern is None else found | attention(kept.pattern)

    @staticmethod
    def _peaks(a: Tensor, out: Tensor, weight: Tensor, norms: Tensor) -> dict[str, Tensor]:
        write = a.abs() * norms
        top = write.topk(TOP_K, dim=-1)
        value = a.gather(1, top.indices)
        written = torch.einsum("tk,tkd->td", value, weight.T[top.indices])
        return {
            "peak_neuron": top.indices,
            "peak_value": value,
            "peak_write": top.values,
            "peak_share": top.values.square().sum(-1) / write.square().sum(-1),
            "peak_explained": (written * out).sum(-1) / out.square().sum(-1),
        }


def attention(pattern: Tensor) -> dict[str, Tensor]:
    """Summaries of causal attention [head, query, key], with the first token and without it."""
    length = pattern.shape[-1]
    place = torch.arange(length)
    found = {"attn_first": pattern[..., 0]}
    rest = pattern[:, 1:, 1:]
    for name, weights in (("", pattern), ("_nosink", rest / rest.sum(-1, keepdim=True))):
        size = weights.shape[-1]
        seen = torch.ones(size, size).tril()
        count = seen.sum(-1)
        others = weights - torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
        even = others.sum(-1) / (count - 1)
        other = seen - torch.eye(size)
        found[f"attn_received{name}"] = others.sum(-2) / (even.nan_to_num()[..., None] * other).sum(-2)
        found[f"attn_entropy{name}"] = -torch.special.xlogy(weights, weights).sum(-1) / count.log()
        distance = (place[:size, None] - place[:size]).clamp(min=0).float()
        found[f"attn_distance{name}"] = (weights * distance).sum(-1)
    return found


def transformers_eager(model: Any) -> Callable[[Tensor], Iterator[Kept]]:
    model.set_attn_implementation("eager")

    def keep(ids: Tensor) -> Iterator[Kept]:
        with torch.no_grad():
            out = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                logits_to_keep=1,
                output_attentions=True,
                output_hidden_states=True,
            )
        return (Kept(x[0], pattern=a[0]) for x, a in zip(out.hidden_states[:-1], out.attentions, strict=True))

    return keep


def transformer_lens(model: Any, tokenizer: Any, path: str) -> Callable[[Tensor], Iterator[Kept]]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        path, hf_model=model, tokenizer=tokenizer, dtype=torch.float32, device="cpu"
    )
    sites = {
        "x": "hook_resid_pre",
        "attn": "hook_attn_out",
        "neurons": "mlp.hook_post",
        "mlp": "hook_mlp_out",
        "pattern": "attn.hook_pattern",
    }
    wanted = {f"blocks.{n}.{hook}" for n in range(bridge.cfg.n_layers) for hook in sites.values()}

    def keep(ids: Tensor) -> Iterator[Kept]:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=lambda name: name in wanted)
        return (
            Kept(**{field: cache[f"blocks.{n}.{hook}"][0] for field, hook in sites.items()})
            for n in range(bridge.cfg.n_layers)
        )

    return keep


def nnsight_trace(model: Any, tokenizer: Any) -> Callable[[Tensor], Iterator[Kept]]:
    import nnsight

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = nnsight.LanguageModel(model, tokenizer=tokenizer)

    def keep(ids: Tensor) -> Iterator[Kept]:
        with torch.no_grad(), traced.trace(ids, logits_to_keep=1, use_cache=False):
            kept = []
            for block in traced.model.layers:  # in the order in which the model computes them
                x, attn = block.input, block.self_attn.o_proj.output
                kept += [(x, attn, block.mlp.down_proj.input, block.mlp.output)]
            nnsight.save(kept)
        return (Kept(*(tensor[0] for tensor in one)) for one in kept)

    return keep


def peers(loaded: LoadedModel, path: str) -> dict[str, Callable[[Tensor], Iterator[Kept]]]:
    """Those that are installed, each with a model of its own."""
    makers: dict[str, Callable[[Any], Callable[[Tensor], Iterator[Kept]]]] = {
        "transformers, eager": transformers_eager,
        "TransformerLens run_with_cache": lambda model: transformer_lens(model, loaded.tokenizer, path),
        "nnsight trace": lambda model: nnsight_trace(model, loaded.tokenizer),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make(copy.deepcopy(loaded.model))
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return found


def main() -> None:
    options = parser(__doc__, pairs=25)
    options.add_argument("--model", default=None, help="folder of SmolLM2 (default: the installed GGUF file)")
    options.add_argument("--tokens", type=int, default=256)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    loaded = smollm2(arguments.model)
    reduce = Reductions(loaded.model)
    folder = Path(tempfile.mkdtemp(prefix="capture_peers-", dir=arguments.folder))
    groups = list(GROUPS.values())[-1]
    ours = Running(loaded, groups, arguments.tokens, arguments.pairs + 1, folder / "t")
    work: dict[str, Callable[[], object]] = {
        "plain": plain_forward(copy.deepcopy(loaded.model), ours.ids),
        "Stratoscope, to disk": ours,
    }
    as_much = []
    for name, keep in peers(loaded, str(arguments.model)).items():
        work[f"{name}: kept"] = lambda keep=keep: [list(keep(one[None])) for one in ours.ids]
        work[f"{name}: kept and reduced"] = lambda keep=keep: [reduce(keep(one[None])) for one in ours.ids]
        as_much += [f"{name}: kept and reduced"] * ("eager" not in name)
    try:
        times = rounds(work, pairs=arguments.pairs)
        ours.finish()
    finally:
        shutil.rmtree(folder)
    print(f"plain forward, {arguments.tokens} tokens: {np.median(times['plain']) / WINDOW * 1e3:.1f} ms")
    for name, taken in times.items():
        ratio, low, high = interval(taken / times["plain"])
        print(f"  {name:<52} {ratio:.3f} [{low:.3f}, {high:.3f}]")
    fastest = min(as_much or [name for name in times if "reduced" in name], key=lambda name: np.median(times[name]))
    ratio, low, high = interval(times["Stratoscope, to disk"] / times[fastest])
    print(f"against {fastest}, {arguments.pairs} rounds")
    print(f"ratio: {ratio:.3f} [{low:.3f}, {high:.3f}] goal <=1")


if __name__ == "__main__":
    main()
