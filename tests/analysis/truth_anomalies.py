"""How often `anomalies` finds what is not there, and what is: `make truth` prints these tables.

- Simulated traces of 24 prompts, half of them with a second sink, nothing planted: at most 5 % of 200 may have a
  finding.
- One anomaly of a stated size at a random place of such a trace: at least 95 % of each kind must be found.
- Real captures of SmolLM2, where it is installed, of text on which nothing was tuned: random choices of 3 to 60
  prompts, of which at most 5 % may have a finding; and one cell that is not massive set to 10, 30, 100, 300 times the
  median of its layer, of which at least 95 % must be found at 30. Then eight such cells at once, and cells at the ends.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope import defaults, names
from stratoscope.analysis.anomalies.anomalies import anomalies, findings_in

SEEDS, REAL_SEEDS = 200, 24
SHAPE: dict[str, Any] = {"prompts": 24, "tokens": (20, 32), "layers": 16, "d_ff": 256, "heads": 8}
SMALL: dict[str, Any] = {"prompts": 16, "tokens": (16, 20), "layers": 16, "d_ff": 64, "heads": 4}
EXPERTS = 8
CELLS = (  # what may be massive at one token in one layer
    "mlp_out_norm",
    "neuron_norm",
    "mlp_write_norm",
    "mlp_write_ratio",
    "resid_norm",
    "attn_write_norm",
    "attn_write_ratio",
    "peak_write",
    "attn_value_norm",
)
TIMES = (10, 30, 100, 300)  # the median of the layer
MUST = 30  # from which a cell must be found
ALREADY = 6  # times the median: such a cell is massive already
HALF = defaults.FALSE_FINDINGS / 2  # half of the looks at a whole trace are those at norms
PROMPTS = (3, 8, 16, 60)  # of a trace of real text
Plant = Callable[[xr.Dataset, np.random.Generator], None]
Cell = tuple[int, ...]  # token, layer or depth (, head)


# --- simulated traces -------------------------------------------------------------------------------------------------


def clean(seed: int, shape: dict[str, Any]) -> xr.Dataset:
    """A simulated trace without an anomaly, with second sinks; a router is drawn beside it."""
    trace = stratoscope.simulate(**shape, seed=seed, anomaly=False)
    random = np.random.default_rng([seed, 1])
    chosen = np.argsort(random.random((trace.sizes["token"], trace.sizes["layer"], EXPERTS)), axis=2)[..., :2]
    trace = trace.assign(router_expert=(("token", "layer", "choice"), chosen.astype("int32")))
    for prompt in random.permutation(trace.sizes["prompt"])[::2]:
        second_sink(trace, int(prompt), random)
    return trace


def second_sink(trace: xr.Dataset, prompt: int, random: np.random.Generator) -> None:
    """Another token of a prompt becomes as massive as its first one, as real models have it, give or take a third."""
    tokens = np.flatnonzero(trace["prompt"].values == prompt)
    token, strength = int(random.choice(tokens[1:])), random.uniform(0.7, 1.3)
    for lead, names_like_it in (
        ("mlp_out_norm", ("mlp_out_norm", "mlp_write_norm", "neuron_norm", "peak_write")),
        ("resid_norm", ("resid_norm",)),
    ):
        others = np.median(trace[lead].values[trace["position"].values > 0], axis=0)
        massive = trace[lead].values[tokens[0]] > 3 * others
        for name in names_like_it:
            trace[name].values[token, massive] = trace[name].values[tokens[0], massive] * strength


def _token(trace: xr.Dataset, random: np.random.Generator) -> int:
    return int(random.choice(np.flatnonzero(trace["position"].values > 0)))


def _layer(trace: xr.Dataset, random: np.random.Generator, ends: int = 0) -> int:
    return int(random.integers(ends, trace.sizes["layer"] - ends))


def _prompt(trace: xr.Dataset, random: np.random.Generator) -> np.ndarray:
    """Tokens of one prompt."""
    return np.flatnonzero(trace["prompt"].values == random.integers(trace.sizes["prompt"]))


def _massive(quantity: str) -> Plant:
    def plant(trace: xr.Dataset, random: np.random.Generator) -> None:
        plant_cell(trace, quantity, unseen(trace, quantity, random), MUST)

    return plant


def moved_sink(trace: xr.Dataset, random: np.random.Generator) -> None:
    head = int(random.integers(trace.sizes["head"]))
    trace["attn_first"].values[_prompt(trace, random), _layer(trace, random), head] *= 0.15


def unusual_route(trace: xr.Dataset, random: np.random.Generator) -> None:
    head = int(random.integers(trace.sizes["head"]))
    trace["attn_entropy_nosink"].values[_prompt(trace, random), _layer(trace, random), head] *= 0.1


def broken_rows(trace: xr.Dataset, random: np.random.Generator) -> None:
    head = int(random.integers(trace.sizes["head"]))
    trace["attn_first"].values[_token(trace, random), _layer(trace, random), head] = 1.01


def dead_neuron(trace: xr.Dataset, random: np.random.Generator) -> None:
    layer, neuron = _layer(trace, random), random.integers(trace.sizes["neuron"])
    for name in ("prompt_max", "prompt_min"):
        trace[name].values[:, layer, neuron] *= 1e-3
    of = trace["peak_neuron"].values[:, layer] == neuron
    trace["peak_value"].values[:, layer][of] *= 1e-3


def always_on_neuron(trace: xr.Dataset, random: np.random.Generator) -> None:
    place = np.s_[:, _layer(trace, random), random.integers(trace.sizes["neuron"])]
    trace["prompt_mean"].values[place] = 1 + 0.003 * random.normal(size=trace.sizes["prompt"])


def layer_off_the_trend(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["mlp_write_ratio"].values[:, _layer(trace, random, ends=4)] *= 5


def expert_that_takes_all(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["router_expert"].values[:, _layer(trace, random), 0] = random.integers(EXPERTS)


PLANTS: dict[str, tuple[Plant, str]] = {
    "massive activation": (_massive("mlp_out_norm"), f"one mlp_out_norm {MUST} times the median of its layer"),
    "massive residual": (_massive("resid_norm"), f"one resid_norm {MUST} times the median of its depth"),
    "massive attention write": (_massive("attn_write_norm"), f"one attn_write_norm {MUST} times the median"),
    "massive neuron": (_massive("peak_write"), f"one strongest peak_write {MUST} times the median of its layer"),
    "massive head": (_massive("attn_value_norm"), f"one attn_value_norm {MUST} times the median of its head"),
    "moved sink": (moved_sink, "attn_first of one head in one prompt × 0.15"),
    "unusual route": (unusual_route, "entropy of one head in one prompt × 0.1"),
    "broken attention rows": (broken_rows, "one attn_first of 1.01"),
    "dead neuron": (dead_neuron, "extremes of one neuron × 0.001"),
    "always-on neuron": (always_on_neuron, "prompt means of one neuron 1 ± 0.003"),
    "layer off the trend": (layer_off_the_trend, "one layer's mlp_write_ratio × 5"),
    "expert that takes all": (expert_that_takes_all, "all tokens of a layer to one of 8 experts"),
}


@cache
def _clean_once(seed: int, small: bool) -> xr.Dataset:
    return clean(seed, SMALL if small else SHAPE)


def false_findings(seeds: int, *, small: bool = False) -> dict[str, int]:
    """Clean traces with any finding, in all ("any") and by detector."""
    counts = dict.fromkeys(("any", *PLANTS), 0)
    for seed in range(seeds):
        found = anomalies(_clean_once(seed, small)).attrs["summary"]
        counts["any"] += found["findings"] + found["of_model"] > 0
        for name, number in found["by_detector"].items():
            counts[name] += number > 0
    return counts


def recall(detector: str, plants: int, *, small: bool = False) -> float:
    """Share of planted anomalies of one kind that its detector finds."""
    found = 0
    for seed in range(plants):
        trace = _clean_once(seed, small).copy(deep=True)
        PLANTS[detector][0](trace, np.random.default_rng([seed, 2]))
        found += anomalies(trace).attrs["summary"]["by_detector"][detector] > 0
    return found / plants


# --- one cell ---------------------------------------------------------------------------------------------------------


def _strongest(trace: xr.Dataset, quantity: str) -> np.ndarray:
    """The values themselves, of ranked ones the strongest; a view."""
    values: np.ndarray = trace[quantity].values
    return values[..., 0] if names.PEAK in trace[quantity].dims else values


def unseen(
    trace: xr.Dataset, quantity: str, random: np.random.Generator, tokens: np.ndarray | None = None,
    rows: tuple[int, ...] | None = None,
) -> Cell:  # fmt: skip
    """A random cell that is not massive already."""
    values = _strongest(trace, quantity)
    median = np.nanmedian(values, axis=0)
    while True:
        token = int(random.choice(np.arange(len(values)) if tokens is None else tokens))
        row = int(random.choice(np.arange(values.shape[1]) if rows is None else rows))
        cell = (token, row, *(int(random.integers(size)) for size in values.shape[2:]))
        if 0 < values[cell] < ALREADY * median[cell[1:]]:
            return cell


def plant_cell(trace: xr.Dataset, quantity: str, cell: Cell, times: float) -> None:
    """Set a cell to so many times the median of its layer."""
    values = _strongest(trace, quantity)
    values[cell] = times * np.nanmedian(values, axis=0)[cell[1:]]


def is_found(result: xr.DataTree, trace: xr.Dataset, quantity: str, cell: Cell) -> bool:
    """Whether a cell is a member of a finding."""
    row = trace[trace[quantity].dims[1]].values[cell[1]]
    wanted = {
        "quantity": quantity,
        "prompt": int(trace["prompt"].values[cell[0]]),
        "position": int(trace["position"].values[cell[0]]),
        "layer": int(row),
        **({"head": cell[2]} if len(cell) > 2 else {}),
    }
    same = [result[f"members/{name}"].values == value for name, value in wanted.items()]
    return bool(np.all(same, axis=0).any())


# --- real captures ----------------------------------------------------------------------------------------------------


def docstrings() -> list[str]:
    """First paragraphs of the docstrings of Python's own modules from n to z; those from a to m were tuned on."""
    found: set[str] = set()
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[n-z]*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8", "replace"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                words = re.sub(r"\s+", " ", text.split("\n\n")[0]).split()
                if len(words) >= 8:
                    found.add(" ".join(words[:60]))
    return sorted(found)[::9][:120]


def code() -> list[str]:
    """Some lines of each of Python's own modules from n to z."""
    found = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[n-z]*.py")):
        lines = file.read_text("utf-8", "replace").splitlines()
        found += ["\n".join(lines[at : at + 8]).strip("\n")[:400] for at in range(60, len(lines) - 8, 240)]
    return [one for one in found if len(one) > 60][:80]


def languages() -> list[str]:
    """Short texts in other languages."""
    return [
        "Der Zug nach Hamburg fährt heute eine halbe Stunde später, weil auf der Strecke gebaut wird.",
        "Wie viele Planeten hat unser Sonnensystem, und welcher davon ist der größte?",
        "Le marché ouvre à huit heures du matin et les meilleurs légumes partent très vite.",
        "Pourquoi le ciel est-il bleu pendant la journée et rouge au coucher du soleil ?",
        "El perro de mi vecino ladra cada vez que pasa el cartero por la calle.",
        "Il treno per Firenze parte dal binario quattro tra dieci minuti.",
        "O café da manhã é servido das sete às dez no terraço do hotel.",
        "Сегодня утром выпал первый снег, и дети сразу побежали во двор.",
        "今天早上下雨了，所以我们决定在家里看书。",
        "明日の会議は午後三時から始まりますので、資料を準備してください。",
        "오늘은 날씨가 맑아서 공원에서 산책하기에 좋습니다.",
        "Ο ήλιος ανατέλλει από την ανατολή και δύει στη δύση κάθε μέρα.",
    ]


def questions() -> list[dict[str, Any]]:
    """Questions in the chat template."""
    asks = ("How do I", "Can you explain how to", "What is the best way to", "Please tell me briefly how to")
    things = (
        "water tomatoes in summer",
        "sort a list of names",
        "clean a cast iron pan",
        "write a polite reminder",
        "choose a bicycle for a child",
        "read a weather map",
    )
    return [{"messages": [{"role": "user", "content": f"{ask} {thing}?"}]} for ask in asks for thing in things]


def captures(folder: Path, record: tuple[str, ...] = names.SUMMARIES) -> Iterator[tuple[str, xr.Dataset]]:
    """Captures of SmolLM2 on text that nothing was tuned on; none where the model is not installed."""
    from stratoscope.doors.demo import find_model
    from stratoscope.errors import InputError

    try:
        model = str(find_model())
    except InputError as error:
        print(f"No real captures: {error}")
        return
    families: dict[str, list[Any]] = {
        "docstrings": docstrings(), "code": code(), "languages": languages(), "chat": questions(),
        "500 tokens": [" ".join(docstrings()[at : at + 12]) for at in range(0, 96, 12)],
    }  # fmt: skip
    for name, prompts in families.items():
        out = folder / f"{name}.trace"
        stratoscope.capture(model, prompts, out, record=record)
        yield name, stratoscope.open_trace(out).load()


def some_prompts(trace: xr.Dataset, prompts: np.ndarray) -> xr.Dataset:
    """Some prompts of a trace, as a trace."""
    edges = np.searchsorted(trace["prompt"].values, np.arange(trace.sizes["prompt"] + 1))
    tokens = np.concatenate([np.arange(edges[one], edges[one + 1]) for one in prompts])
    part = trace.isel(token=tokens, prompt=prompts).copy(deep=True)
    numbers = np.repeat(np.arange(len(prompts)), edges[prompts + 1] - edges[prompts])
    return part.assign_coords(prompt=("token", numbers.astype("int32")))


def draws(trace: xr.Dataset, seeds: int) -> Iterator[tuple[int, xr.Dataset, np.random.Generator]]:
    """Random choices of its prompts."""
    sizes = [size for size in PROMPTS if size <= trace.sizes["prompt"]]
    for seed in range(seeds):
        random = np.random.default_rng([seed, 3])
        chosen = np.sort(random.choice(trace.sizes["prompt"], sizes[seed % len(sizes)], replace=False))
        yield seed, some_prompts(trace, chosen), random


def _without_heads(trace: xr.Dataset, quantity: str = "") -> xr.Dataset:
    """What a planted cell is looked for in, and what decides what is usual."""
    held = [name for name in CELLS if name in trace and (quantity == name or "head" not in trace[name].dims)]
    return trace[held].assign_coords(trace.coords)


def real_clean(trace: xr.Dataset, seeds: int) -> tuple[int, int, set[str]]:
    """Choices of prompts with a finding, all choices, and what is said of the model in them."""
    found, of_model = 0, set()
    for _, part, _ in draws(trace, seeds):
        result = anomalies(part)
        found += result.attrs["summary"]["findings"] > 0
        for one in findings_in(result):
            if one["of_model"]:
                member = one["members"][0]
                of_model.add(f"{one['members'][0]['found_by']} L{member['layer']}")
            else:
                print(f"    finding: {one['words']}")
    return found, seeds, of_model


def real_recall(trace: xr.Dataset, seeds: int, quantity: str, times: float) -> tuple[int, int]:
    """Cells found, and planted, one a trace."""
    found = 0
    for _, part, random in draws(_without_heads(trace, quantity), seeds):
        cell = unseen(part, quantity, random)
        plant_cell(part, quantity, cell, times)
        found += is_found(anomalies(part, false_findings=HALF), part, quantity, cell)
    return found, seeds


def real_many(trace: xr.Dataset, seeds: int) -> dict[str, tuple[int, int]]:
    """Cells found, and planted: eight in one trace; at last tokens; in the first and the last layer."""
    counts = {"eight at once": [0, 0], "at last tokens": [0, 0], "in the first and last layer": [0, 0]}
    for _, part, random in draws(_without_heads(trace), seeds):
        last = np.flatnonzero(np.append(np.diff(part["prompt"].values), 1))
        for what, count in (("eight at once", 8), ("at last tokens", 1), ("in the first and last layer", 1)):
            changed = part.copy(deep=True)
            cells = []
            for _ in range(count):
                quantity = str(random.choice(["mlp_out_norm", "resid_norm", "attn_write_norm"]))
                rows = (0, _strongest(part, quantity).shape[1] - 1) if "layer" in what else None
                cell = unseen(part, quantity, random, last if "last tokens" in what else None, rows)
                plant_cell(changed, quantity, cell, MUST)
                cells.append((quantity, cell))
            result = anomalies(changed, false_findings=HALF)
            counts[what][0] += sum(is_found(result, part, quantity, cell) for quantity, cell in cells)
            counts[what][1] += count
    return {what: (found, planted) for what, (found, planted) in counts.items()}


def real_heads(trace: xr.Dataset, seeds: int) -> dict[str, tuple[int, int]]:
    """One head of one prompt changed: cases found, and all."""
    counts = {"moved sink": [0, 0], "unusual route": [0, 0]}
    for _, part, random in draws(trace, seeds):
        for detector, quantity, factor, least in (
            ("moved sink", "attn_first", 0.15, 0.5),
            ("unusual route", "attn_entropy_nosink", 0.1, 0.0),
        ):
            changed = part.copy(deep=True)
            later = part["position"].values >= 4
            layer, head = random.choice(np.argwhere(np.nanmedian(part[quantity].values[later], axis=0) >= least))
            prompt = int(random.integers(part.sizes["prompt"]))
            changed[quantity].values[part["prompt"].values == prompt, layer, head] *= factor
            result = anomalies(changed)
            found = (result["members/found_by"].values == detector) & (result["members/prompt"].values == prompt)
            same = (result["members/layer"].values == layer) & (result["members/head"].values == head)
            counts[detector][0] += bool((found & same).any())
            counts[detector][1] += 1
    return {what: (found, planted) for what, (found, planted) in counts.items()}


# --- tables -----------------------------------------------------------------------------------------------------------


def simulated_tables(seeds: int) -> bool:
    """Print what happens on simulated traces; whether both goals hold."""
    counts = false_findings(seeds)
    holds = counts["any"] <= 0.05 * seeds
    print(f"Simulated, clean traces with any finding: {counts['any']} of {seeds} (at most {0.05 * seeds:.0f})")
    print(f"{'detector':<24}{'clean':>8}{'recall':>9}  planted ({seeds} each)")
    for detector, (_, size) in PLANTS.items():
        share = recall(detector, seeds)
        holds &= share >= 0.95
        print(f"{detector:<24}{counts[detector]:>8}{share:>9.3f}  {size}{'' if share >= 0.95 else '  MISSED'}")
    return bool(holds)


def real_tables(seeds: int) -> bool:
    """Print what happens on real captures; whether both goals hold."""
    with tempfile.TemporaryDirectory() as folder:
        traces = dict(captures(Path(folder)))
    if not traces:
        return True
    clean_counts, of_model = np.zeros(2, int), set()
    for name, trace in traces.items():
        found, draws, said = real_clean(trace, seeds)
        clean_counts += (found, draws)
        of_model |= said
        print(f"Real, clean choices of {name} with a finding: {found} of {draws}")
    holds = bool(clean_counts[0] <= 0.05 * clean_counts[1])
    print(f"Real, clean, together: {clean_counts[0]} of {clean_counts[1]} (at most 5 %)")
    print(f"Of the model, in all prompts alike: {', '.join(sorted(of_model)) or 'nothing'}")
    print(f"{'one cell of':<20}" + "".join(f"{f'× {times}':>9}" for times in TIMES) + "  found, of so many planted")
    must = np.zeros(2, int)
    for quantity in CELLS:
        rows = []
        for times in TIMES:
            counts = np.sum([real_recall(trace, max(seeds // 4, 1), quantity, times) for trace in traces.values()], 0)
            rows.append(counts[0] / counts[1])
            must += counts if times == MUST else 0
        print(f"{quantity:<20}" + "".join(f"{share:>9.3f}" for share in rows) + f"  {counts[1]}")
    print(f"All of these × {MUST}: {must[0]} of {must[1]} (at least 95 %)")
    holds &= bool(must[0] >= 0.95 * must[1])
    many = [real_many(trace, max(seeds // 4, 1)) for trace in traces.values()]
    for what in many[0]:
        found, planted = np.sum([one[what] for one in many], axis=0)
        holds &= bool(found >= 0.95 * planted)
        print(f"× {MUST} {what}: {found} of {planted}")
    heads = [real_heads(trace, max(seeds // 4, 1)) for trace in traces.values()]
    for what in heads[0]:  # no goal: heads differ much from prompt to prompt
        found, planted = np.sum([one[what] for one in heads], axis=0)
        print(f"{what} (planted as above): {found} of {planted}")
    return holds


def main() -> int:
    """Print the tables; 0 when the goals hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--real-seeds", type=int, default=REAL_SEEDS)
    given = parser.parse_args()
    simulated = simulated_tables(given.seeds)
    return 0 if real_tables(given.real_seeds) and simulated else 1


if __name__ == "__main__":
    sys.exit(main())
