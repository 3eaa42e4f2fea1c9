"""Which cheap number ranks neurons, MLPs and heads as really ablating them does, on SmolLM2 and on planted models.

Rankings: the direct contribution; a·∂y/∂a; the same with frozen norms; and the rules of RelP (arXiv 2508.21258), which
also freeze attention weights and the slope of the activation, and give each factor of a gated product half. Ablations:
set to zero, and to the mean over all prompts without their first tokens. One place at one token at a time; y is the
logit of the likeliest next token less that of the second. Written with hooks of torch alone, so that it is a check of
`--record effects` too. Neurons are drawn half from the ten that write most of their layer and token, half from all: by
none of the rankings.

The last line is the cost of one forward and backward over that of the forward.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import smollm2
from _timing import interleaved, parser, report
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import DynamicCache

from stratoscope.doors.demo import PROMPTS

BATCH, DRAWS, DEPTHS = 48, 1000, 4
PER_LAYER = 2  # neurons of either half, at each of a prompt's chosen tokens
RANKINGS = ("direct", "a·∂y/∂a", "norms frozen", "RelP")
KINDS, BASELINES, PLACES = ("neuron", "MLP", "head"), ("zero", "mean"), ("answer", "earlier", "first")
CHAT, OF_ORGANISM = "SmolLM2-135M", 16  # prompts of a planted model
GOAL = 3.5


@dataclass(frozen=True)
class Subject:
    """A Llama, the ids of its prompts, and its name."""

    name: str
    model: Any
    prompts: Sequence[Tensor]


@dataclass
class Found:
    """One number an item: where it is, what each ranking says, and what ablating it changes."""

    kind: list[str] = field(default_factory=list)
    baseline: list[str] = field(default_factory=list)
    place: list[str] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    layer: list[int] = field(default_factory=list)
    ranked: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in RANKINGS})
    measured: list[float] = field(default_factory=list)


# --- what the model computes ------------------------------------------------------------------------------------------


def layers_of(model: Any) -> Any:
    return model.model.layers


def maps_of(model: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Of each layer the linear maps whose inputs are the neurons, and what the heads give."""
    return [(layer.mlp.down_proj, layer.self_attn.o_proj) for layer in layers_of(model)]


def logit_difference(logits: Tensor, pair: tuple[int, int]) -> Tensor:
    return logits[:, -1, pair[0]].double() - logits[:, -1, pair[1]].double()


def likeliest_two(model: Any, ids: Tensor) -> tuple[int, int]:
    with torch.no_grad():
        first, second = model(input_ids=ids[None], use_cache=False).logits[0, -1].topk(2).indices.tolist()
    return first, second


@dataclass(frozen=True)
class Seen:
    """Of each layer, the neurons and what the heads give, [token, width]; the last residual; with their gradients."""

    values: list[tuple[Tensor, Tensor]]
    gradients: list[tuple[Tensor, Tensor]]
    residual: Tensor
    y: float


def differentiated(model: Any, ids: Tensor, pair: tuple[int, int]) -> Seen:
    """One forward and one backward."""
    kept: dict[tuple[int, int], Tensor] = {}
    last: list[Tensor] = []

    def keep(layer: int, which: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            args[0].retain_grad()
            kept[layer, which] = args[0]

        return hook

    handles = [
        module.register_forward_pre_hook(keep(layer, which))
        for layer, both in enumerate(maps_of(model))
        for which, module in enumerate(both)
    ]
    handles.append(model.model.norm.register_forward_pre_hook(lambda _, args: last.append(args[0])))
    try:
        embedded = model.get_input_embeddings()(ids[None]).detach().requires_grad_(True)
        y = logit_difference(model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits, pair)[0]
        y.backward()
    finally:
        for handle in handles:
            handle.remove()
    count = len(layers_of(model))
    values = [(kept[layer, 0][0].detach(), kept[layer, 1][0].detach()) for layer in range(count)]
    gradients = [(kept[layer, 0].grad[0], kept[layer, 1].grad[0]) for layer in range(count)]
    return Seen(values, gradients, last[0][0, -1].detach(), y.item())


@contextmanager
def linearised(model: Any, *, half: bool) -> Iterator[None]:
    """While open, norms divide by what is no variable; with `half`, the other rules of RelP hold too."""

    def norm(self: Any, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).detach())

    def mlp(self: Any, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        slope = torch.where(gate == 0, 0.5, self.act_fn(gate) / gate).detach()
        product = gate * slope * self.up_proj(x)
        return self.down_proj(0.5 * product + 0.5 * product.detach())

    def softmax(*args: Any, **kwargs: Any) -> Tensor:
        return original(*args, **kwargs).detach()

    kinds: dict[type, Any] = {type(model.model.norm): norm}
    if half:
        kinds[type(layers_of(model)[0].mlp)] = mlp
    forwards = {kind: kind.forward for kind in kinds}
    original, implementation = nn.functional.softmax, model.config._attn_implementation
    try:
        for kind, forward in kinds.items():
            kind.forward = forward
        if half:
            model.set_attn_implementation("eager")
            nn.functional.softmax = softmax
        yield
    finally:
        for kind, forward in forwards.items():
            kind.forward = forward
        nn.functional.softmax = original
        model.set_attn_implementation(implementation)


# --- items, and what really removing them changes ---------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """Some columns of the input of one linear map of a layer, at one token."""

    kind: str
    layer: int
    which: int  # 0 = neurons, 1 = what the heads give
    token: int
    first: int
    last: int

    @property
    def columns(self) -> slice:  # noqa: D102
        return slice(self.first, self.last)


def items_of(model: Any, seen: Seen, random: np.random.Generator) -> list[Item]:
    """A draw of a prompt's neurons and heads, and all its MLPs, at its first token, an earlier one and the last."""
    length = len(seen.values[0][0])
    found = []
    for token in (0, int(random.integers(1, length - 1)), length - 1):
        for layer, (module, _) in enumerate(maps_of(model)):
            neurons = seen.values[layer][0][token].abs() * module.weight.detach().norm(dim=0)
            strongest = neurons.topk(10).indices.tolist()
            chosen = [*random.choice(strongest, PER_LAYER, replace=False), *random.integers(0, len(neurons), PER_LAYER)]
            found += [Item("neuron", layer, 0, token, one, one + 1) for one in dict.fromkeys(map(int, chosen))]
            found.append(Item("MLP", layer, 0, token, 0, len(neurons)))
            width, heads = model.config.head_dim, model.config.num_attention_heads
            chosen = random.choice(heads, min(2, heads), replace=False)
            found += [Item("head", layer, 1, token, one * width, (one + 1) * width) for one in map(int, chosen)]
    return found


def removed(model: Any, ids: Tensor, pair: tuple[int, int], items: Sequence[Item], means: Any) -> list[float]:
    """y with each item set to its mean (zero without means): rows of batches that begin at the token of their items."""
    found: dict[Item, float] = {}
    for token in {item.token for item in items}:
        here = [item for item in items if item.token == token]
        for start in range(0, len(here), BATCH):
            some = here[start : start + BATCH]
            with torch.no_grad():
                before = _before(model, ids[:token], len(some))
                with _setting(model, some, means):
                    rest = ids[token:].expand(len(some), -1)
                    logits = model(input_ids=rest, past_key_values=before, logits_to_keep=1).logits
            found |= zip(some, logit_difference(logits, pair).tolist(), strict=True)
    return [found[item] for item in items]


def _before(model: Any, ids: Tensor, rows: int) -> DynamicCache:
    """Keys and values of what stands before an item, which it cannot change."""
    cache = DynamicCache(config=model.config)
    if len(ids):
        model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(rows)
    return cache


@contextmanager
def _setting(model: Any, items: Sequence[Item], means: Any) -> Iterator[None]:
    """While open, row by row an item is set at the first token."""

    def hook(rows: list[tuple[int, Item]], mean: Tensor | None) -> Callable[..., tuple[Tensor]]:
        def set_rows(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            other = args[0].clone()
            for row, item in rows:
                other[row, 0, item.columns] = 0.0 if mean is None else mean[item.columns]
            return (other,)

        return set_rows

    handles = []
    for layer, both in enumerate(maps_of(model)):
        for which, module in enumerate(both):
            rows = [(row, item) for row, item in enumerate(items) if (item.layer, item.which) == (layer, which)]
            if rows:
                mean = None if means is None else means[layer][which]
                handles.append(module.register_forward_pre_hook(hook(rows, mean)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def means_of(model: Any, prompts: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The mean of each map's input over all tokens but first ones."""
    sums: dict[tuple[int, int], Tensor] = {}
    handles = []

    def add(key: tuple[int, int]) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            sums[key] = sums.get(key, torch.zeros(())) + args[0][0, 1:].sum(0)

        return hook

    for layer, both in enumerate(maps_of(model)):
        handles += [module.register_forward_pre_hook(add((layer, which))) for which, module in enumerate(both)]
    try:
        for ids in prompts:
            with torch.no_grad():
                model(input_ids=ids[None], use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    count = sum(len(ids) - 1 for ids in prompts)
    return [(sums[layer, 0] / count, sums[layer, 1] / count) for layer in range(len(layers_of(model)))]


# --- rankings ---------------------------------------------------------------------------------------------------------


def rankings(model: Any, ids: Tensor, pair: tuple[int, int]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Of each ranking and layer what one unit at each place is worth, [token, width]."""
    seen = differentiated(model, ids, pair)
    with linearised(model, half=False):
        frozen = differentiated(model, ids, pair)
    with linearised(model, half=True):
        relp = differentiated(model, ids, pair)
    for other in (frozen, relp):  # the rules change gradients, and no value
        assert abs(other.y - seen.y) < 1e-3 * max(1.0, abs(seen.y)), (other.y, seen.y)
    norm, unembedding = model.model.norm, model.get_output_embeddings().weight.detach()
    scale = torch.rsqrt(seen.residual.pow(2).mean() + norm.variance_epsilon)
    direction = (unembedding[pair[0]] - unembedding[pair[1]]) * norm.weight.detach() * scale
    direct = []
    for both in maps_of(model):
        along = [torch.zeros(len(ids), module.weight.shape[1]) for module in both]
        for one, module in zip(along, both, strict=True):
            one[-1] = direction @ module.weight.detach()
        direct.append((along[0], along[1]))
    by_gradient = {"a·∂y/∂a": seen.gradients, "norms frozen": frozen.gradients, "RelP": relp.gradients}
    return {"direct": direct, **by_gradient}


def measure(subject: Subject, prompts: int, seed: int) -> Found:
    """Everything about one model."""
    model, found, random = subject.model, Found(), np.random.default_rng(seed)
    means = means_of(model, subject.prompts)
    for number in range(min(prompts, len(subject.prompts))):
        ids = subject.prompts[number]
        pair = likeliest_two(model, ids)
        seen, worth = differentiated(model, ids, pair), rankings(model, ids, pair)
        items = items_of(model, seen, random)
        places = {0: "first", len(ids) - 1: "answer"}
        for baseline in BASELINES:
            base = None if baseline == "zero" else means
            changed = removed(model, ids, pair, items, base)
            for item, y in zip(items, changed, strict=True):
                value = seen.values[item.layer][item.which][item.token, item.columns]
                apart = value if base is None else value - base[item.layer][item.which][item.columns]
                found.kind.append(item.kind)
                found.baseline.append(baseline)
                found.place.append(places.get(item.token, "earlier"))
                found.prompt.append(number)
                found.layer.append(item.layer)
                found.measured.append(seen.y - y)
                for name in RANKINGS:
                    unit = worth[name][item.layer][item.which][item.token, item.columns]
                    found.ranked[name].append(float((apart.double() * unit.double()).sum()))
    return found


# --- the table --------------------------------------------------------------------------------------------------------


def agreement(predicted: np.ndarray, measured: np.ndarray, prompt: np.ndarray, floor: float) -> str:
    """Spearman's ρ and the share of equal signs, each with a bootstrap interval over prompts and items."""

    def both(of: np.ndarray) -> tuple[float, float]:
        x, y = predicted[of], measured[of]
        decided = np.abs(y) > floor
        same = (np.sign(x) == np.sign(y))[decided].mean() if decided.any() else np.nan
        with np.errstate(all="ignore"):
            rho = spearmanr(x, y).statistic if len(set(x)) > 1 and len(set(y)) > 1 else np.nan
        return float(rho), float(same)

    everyone, random = np.arange(len(measured)), np.random.default_rng(0)
    of = {one: np.flatnonzero(prompt == one) for one in np.unique(prompt)}
    draws = []
    for _ in range(DRAWS // 5):
        chosen = random.choice(list(of), len(of))
        draws.append(both(np.concatenate([random.choice(of[one], len(of[one])) for one in chosen])))
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    rho, same = both(everyone)
    return f"{rho:.2f} [{low[0]:.2f}, {high[0]:.2f}] {100 * same:.0f} % [{100 * low[1]:.0f}, {100 * high[1]:.0f}]"


def table(subject: Subject, found: Found) -> list[str]:
    """Rows of Markdown: kinds and places by baseline, then neurons by depth; ranking by ranking."""
    arrays = {
        name: np.array(getattr(found, name)) for name in ("kind", "baseline", "place", "prompt", "layer", "measured")
    }
    ranked = {name: np.array(values) for name, values in found.ranked.items()}
    count = len(layers_of(subject.model))
    rows = []

    def row(name: str, of: np.ndarray, baseline: str) -> None:
        mine = of & (arrays["baseline"] == baseline)
        if mine.sum() < 8:
            return
        cells = []
        for ranking in RANKINGS:
            x = ranked[ranking][mine]
            known = bool(np.any(x))
            cells.append(agreement(x, arrays["measured"][mine], arrays["prompt"][mine], 1e-5) if known else "0")
        rows.append(f"| {subject.name} | {name} | {baseline} | {mine.sum():,} | {' | '.join(cells)} |")

    for kind in KINDS:
        for place in PLACES:
            for baseline in BASELINES:
                row(f"{kind}s, {place} token", (arrays["kind"] == kind) & (arrays["place"] == place), baseline)
    for depth in range(DEPTHS if count >= 2 * DEPTHS else 0):
        first, last = depth * count // DEPTHS, (depth + 1) * count // DEPTHS - 1
        inside = (arrays["layer"] >= first) & (arrays["layer"] <= last) & (arrays["place"] == "answer")
        for baseline in BASELINES:
            row(f"neurons, answer token, layers {first}–{last}", inside & (arrays["kind"] == "neuron"), baseline)
    return rows


def chat_model(seed: int) -> Subject:
    """SmolLM2 and the demo's prompts in its chat template."""
    loaded = smollm2()
    texts = [json.loads(line)["messages"] for line in PROMPTS.read_text("utf-8").splitlines()]
    encode = loaded.tokenizer.apply_chat_template
    encoded = [torch.tensor(encode(text, add_generation_prompt=True)["input_ids"]) for text in texts]
    order = np.random.default_rng(seed).permutation(len(encoded)).tolist()
    return Subject(CHAT, loaded.model, [encoded[one] for one in order])


def planted_models(folder: Path, seed: int) -> Iterator[Subject]:
    """Two of the tests' organisms, and prompts with their trigger."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "organisms"))
    import planted

    for kind in (planted.ONE_MLP, planted.ONE_HEAD):
        path = planted.organism(folder, kind, seed)
        model = planted.hf.LlamaForCausalLM.from_pretrained(path).eval()
        prompts, _ = planted.drawn_prompts(OF_ORGANISM, 1.0, torch.Generator().manual_seed(seed))
        yield Subject(f"organism, {kind}", model, [*prompts])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=6, help="of SmolLM2, on which items are ablated")
    options.add_argument("--organisms", action="store_true", help="the planted models alone")
    options.add_argument("--out", type=Path, default=None, help="where all numbers go, as JSON")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        subjects = [*planted_models(Path(folder), arguments.seed)]
    if not arguments.organisms:
        subjects.insert(0, chat_model(arguments.seed))
    print("| model | what | set to | n | " + " | ".join(RANKINGS) + " |")
    print("|---|---|---|---:|" + "---|" * len(RANKINGS))
    everything = {}
    for subject in subjects:
        subject.model.requires_grad_(requires_grad=False)
        found = measure(subject, arguments.prompts if subject.name == CHAT else OF_ORGANISM, arguments.seed)
        everything[subject.name] = vars(found)
        print("\n".join(table(subject, found)), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(everything))
    model, ids = subjects[0].model, subjects[0].prompts[0]
    pair = likeliest_two(model, ids)

    def plain() -> None:
        with torch.no_grad():
            model(input_ids=ids[None], use_cache=False, logits_to_keep=1)

    times = interleaved(lambda: differentiated(model, ids, pair), plain, pairs=arguments.pairs)
    report(times, ours="forward and backward", theirs="forward", goal=GOAL)


if __name__ == "__main__":
    main()
