"""How often a lens reads the model's final answer, depth by depth: the logit lens against a fitted Jacobian lens.

    python benchmarks/lens_corpus.py texts/
    stratoscope fit-lens MODEL --prompts texts/science.jsonl --prompts texts/software.jsonl --max-tokens 64 -o a.lens
    python benchmarks/lens_agreement.py --lens a.lens --texts texts/ --figure docs/lenses/agreement-by-depth.svg

Held-out texts (docstrings that the lens was not fitted on), some positions of each, none of the first 16. At every
depth: the share of positions where what the lens finds likeliest is what the model finds likeliest at the end, at all
and where that is a word of three letters or more (a lens that says "." everywhere is right now and then); how many
different tokens the lens finds likeliest; and the share where the lenses of both halves of the texts find the same
token likeliest. Intervals are 95 %, by drawing texts anew. Written with hooks of torch alone, but for the lens itself.

The last line is the cost of the fit in plain forwards of the same texts, by some of its directions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import smollm2
from _timing import parser
from torch import Tensor

from stratoscope.model.load import LoadedModel
from stratoscope.model.search.find import find_sites
from stratoscope.probe.lens.jacobian import Jacobians
from stratoscope.recorder.lens.fitted import FittedLens, open_lens

TOKENS, SKIPPED, PER_TEXT = 64, 16, 6
RESAMPLES, TIMED, TIMED_TEXTS = 2000, 32, 3
LOGIT, WHOLE, HALVES = "logit lens", "Jacobian lens", ("half 1", "half 2")
LETTERS = 3  # of an answer that is a word
BOTH = "both halves of the Jacobian lens read the same token"


def streams(loaded: LoadedModel, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """The residual stream at every depth, [token, width], and the logits."""
    found: list[Tensor] = []
    layers = loaded.model.model.layers

    def keep(module: Any, given: Any, output: Any) -> None:
        found.append((output if isinstance(output, Tensor) else output[0])[0])

    hooks = [layers[0].register_forward_pre_hook(lambda module, given: found.append(given[0][0]))]
    hooks += [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            logits: Tensor = loaded.model(ids[None], use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    return found, logits


def read(loaded: LoadedModel, lens: FittedLens, texts: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """By lens the likeliest token and the rank of the answer, [position, depth, 2]; whose text each position is."""
    names = {LOGIT: -1, WHOLE: 0, **{half: lens.parts.index(f"jacobian, {half}") for half in HALVES}}
    found, owners = [], []
    for number, text in enumerate(texts):
        ids = torch.tensor(loaded.tokenizer(text)["input_ids"][:TOKENS])
        places = np.linspace(SKIPPED, len(ids) - 2, PER_TEXT).round().astype(int)
        states, logits = streams(loaded, ids)
        answer = logits[places].argmax(-1)
        x = [
            (state[places] if part < 0 else lens.apply(part, depth, state[places]))[None]
            for part in names.values()
            for depth, state in enumerate(states[:-1])
        ]
        with torch.no_grad():
            y = loaded.model.lm_head(loaded.model.model.norm(torch.cat(x)))
        rank = (y > y.gather(2, answer.expand(len(y), -1)[..., None])).sum(-1) + 1
        both = torch.stack([y.argmax(-1), rank], -1).view(len(names), -1, len(places), 2)
        last = torch.stack([answer, torch.ones_like(answer)], -1).expand(len(names), 1, -1, -1)  # the model itself
        found.append(torch.cat([both, last], 1).transpose(1, 2).numpy())
        owners += [number] * len(places)
    return dict(zip(names, np.concatenate(found, 1), strict=True)), np.array(owners)


def intervals(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Mean over positions and its 95 % interval over texts, [depth, 3]."""
    sums = np.stack([values[owners == owner].sum(0) for owner in np.unique(owners)])
    counts = np.bincount(owners)
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)[:, None]
    return np.column_stack([values.mean(0), *np.quantile(means, [0.025, 0.975], axis=0)])


def draw(shares: dict[str, np.ndarray], title: str, path: Path) -> None:
    """The curves of the shares by depth, with their intervals."""
    import matplotlib.pyplot as plt

    from stratoscope.view.spec.palette import THEMES

    theme = THEMES["light"]
    colours = {LOGIT: theme.muted, WHOLE: theme.accent, BOTH: theme.accent}
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for name, values in shares.items():
        depth, line = np.arange(len(values)), {"ls": ":", "lw": 1.2} if name == BOTH else {"lw": 2}
        axes.plot(depth, values[:, 0], color=colours[name], label=name, **line)
        if name != BOTH:
            axes.fill_between(depth, values[:, 1], values[:, 2], color=colours[name], alpha=0.2, lw=0)
    axes.xaxis.set_major_formatter("D{x:.0f}")
    axes.set(xlabel="depth", ylabel="share of positions", ylim=(0, 1.02), xlim=(0, len(depth) - 1), title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def cost(loaded: LoadedModel, texts: Sequence[str]) -> float:
    """The fit's forwards for each text, by some of the directions: medians over texts."""
    ids = [np.array(loaded.tokenizer(text)["input_ids"][:TOKENS]) for text in texts]
    sites = find_sites(loaded.model, torch.tensor(ids[0][None]))
    jacobians, ratios = Jacobians(loaded.model, sites), []
    for one in ids:
        start = time.process_time()
        with torch.no_grad():
            loaded.model(torch.tensor(one[None]), use_cache=False)
        plain = time.process_time() - start
        half, whole = (_seconds(jacobians, one, sites.d_model, count) for count in (TIMED // 2, TIMED))
        ratios.append((whole - half) / plain * sites.d_model / (TIMED - TIMED // 2))  # the forward with rows left out
    return float(np.median(ratios[1:]))  # the first warms up


def _seconds(jacobians: Jacobians, ids: np.ndarray, width: int, directions: int) -> float:
    start = time.process_time()
    jacobians.run(ids, torch.eye(width)[:directions], lambda which, rows: None)
    return time.process_time() - start


def texts_of(path: Path) -> list[str]:
    """The texts of a file."""
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Read the held-out texts, print the table, draw the figure."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", help="a folder; by default the installed GGUF file")
    arguments.add_argument("--lens", required=True)
    arguments.add_argument("--texts", type=Path, required=True, help="the folder that lens_corpus.py wrote")
    arguments.add_argument("--figure", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    loaded = smollm2(given.model)
    depths = len(loaded.model.model.layers) + 1
    width = loaded.model.config.hidden_size
    lens = open_lens(given.lens, weights_sha256=loaded.identity["weights_sha256"], d_model=width, depths=depths)
    to_fit, held_out = texts_of(given.texts / "science.jsonl"), texts_of(given.texts / "held-out.jsonl")
    found, owners = read(loaded, lens, held_out)
    answer = found[LOGIT][:, -1, :1]
    shares = {name: intervals(found[name][..., 0] == answer, owners) for name in (LOGIT, WHOLE)}
    shares[BOTH] = intervals(found[HALVES[0]][..., 0] == found[HALVES[1]][..., 0], owners)
    words = np.array([_is_word(loaded.tokenizer.decode([one])) for one in answer[:, 0]])
    of_words = {name: (found[name][words][..., 0] == answer[words]).mean(0) for name in (LOGIT, WHOLE)}
    read_at = {name: [len(set(column)) for column in found[name][..., 0].T.tolist()] for name in (LOGIT, WHOLE)}
    print(f"{len(owners)} positions of {len(held_out)} held-out texts; fitted on {lens.facts['prompts']} texts")
    print(f"answers that are words: {words.sum()}")
    print("| depth | logit lens | Jacobian lens | of words | different tokens | both halves read the same token |")
    print("|---|---|---|---|---|---|")
    for depth in [*range(0, depths - 1, 3), depths - 2, depths - 1]:
        cells = [_cell(shares[name][depth]) for name in (LOGIT, WHOLE)]
        cells += [", ".join(f"{100 * of_words[name][depth]:.0f} %" for name in (LOGIT, WHOLE))]
        cells += [", ".join(f"{read_at[name][depth]}" for name in (LOGIT, WHOLE))]
        print(f"| {depth} | {' | '.join(cells)} | {_cell(shares[BOTH][depth])} |")
    if given.figure:
        title = (
            "How often a lens's likeliest token is the model's final answer\n"
            f"{len(owners)} held-out positions, SmolLM2-135M"
        )
        draw(shares, title, given.figure)
    print(f"ratio: {cost(loaded, to_fit[:TIMED_TEXTS]):.0f} plain forwards for each text")


def _is_word(text: str) -> bool:
    return text.strip().isalpha() and len(text.strip()) >= LETTERS


def _cell(values: np.ndarray) -> str:
    mean, low, high = (f"{100 * value:.0f}" for value in values)
    return f"{mean} % ({low}–{high})"


if __name__ == "__main__":
    main()
