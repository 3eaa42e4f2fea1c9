"""What the product says of organisms, whose truth is known: `make truth` prints this table of three seeds.

A behaviour is planted in six neurons of one MLP, in one head of the last block, or in two MLPs (planted.py). What
`suppression`, `diff` and `ablate` say of it is held against where it was planted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from planted import (
    ANSWER,
    BACKUP,
    BASE,
    KINDS,
    LAYERS,
    NEURONS,
    ONE_HEAD,
    ONE_MLP,
    PLANTED,
    SORRY,
    TRIGGER,
    TWO_MLPS,
    Plant,
    made_once,
    organism,
    plant_of,
    twins,
)

import stratoscope
from stratoscope import Prompt

PAIRS = 10
STEPS = 64  # of an integration
RANDOM_SETS = 20
AHEAD = 5.0  # how many times the next a place that is named is
DIRECT, TOTAL = "direct", "total"

Row = tuple[str, int]  # what it is, and its layer; −1 where it has none


class Lab:
    """The organisms of one seed, their recordings, and what is said of them."""

    def __init__(self, folder: Path, seed: int, pairs: int = PAIRS, steps: int = STEPS, calibration: int = 0) -> None:
        self.folder, self.seed, self.steps, self.calibration = folder, seed, steps, calibration
        self.prompts = twins(pairs, seed + 1000)

    def model(self, kind: str) -> Path:
        """The folder of an organism, or of the base model."""
        return organism(self.folder, kind, self.seed)

    def plant(self, kind: str) -> Plant:
        """Where its behaviour is."""
        return plant_of(kind, self.seed)

    def trace(self, kind: str, *, integrated: bool = False) -> xr.Dataset:
        """A recording of contributions and effects; or of effects alone, which are then integrated."""
        steps = self.steps if integrated else 1
        name = f"{kind.replace(' ', '-')}-{self.seed}-{steps}-steps"
        with made_once(self.folder / "traces" / name) as making:
            if making is not None:
                record = "effects" if integrated else "logits,effects"
                stratoscope.capture(
                    str(self.model(kind)), self.prompts, making / "of.trace", record=f"norms,residual,{record}",
                    targets=[ANSWER], against=TRIGGER, effect_steps=steps, batch_size=len(self.prompts),
                    calibration=self.calibration,
                )  # fmt: skip
        return stratoscope.open_trace(self.folder / "traces" / name / "of.trace")

    def triggered(self) -> list[Prompt]:
        """The prompts that hold the trigger."""
        return [one for one in self.prompts if one.prompt_class == "trigger"]


# --- what is named ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """What stands first of some rows, and how many times the next one it is."""

    first: Row
    ahead: float


def named(rows: Mapping[Row, float]) -> Named:
    """The row of the largest size."""
    order = sorted(rows, key=lambda row: -abs(rows[row]))
    return Named(order[0], abs(rows[order[0]]) / max(abs(rows[order[1]]), 1e-12))


def depth(trace: xr.Dataset, measure: str) -> dict[Row, float]:
    """What `suppression` says of attention and MLP of each layer: means over the prompts with the trigger."""
    table = stratoscope.suppression(trace, prompt_class="trigger")["depth"]
    return {
        (part, int(layer)): float(values.mean())
        for part, name in (("MLP", "mlp"), ("attention", "attn"))
        for layer, values in zip(table["layer"].values, table[f"{name}_{measure}"].values.T, strict=True)
    }


def differences(base: xr.Dataset, tuned: xr.Dataset) -> tuple[dict[Row, float], xr.Dataset]:
    """What `diff` says that a tuned model adds, row by row: means over prompts with the trigger; and the table."""
    table = stratoscope.diff(base, tuned)["contributions"].to_dataset()
    mean = table["difference"].values[np.array(of_trigger(tuned)), 0].mean(axis=0)
    parts = zip(table["part_text"].values, table["part_layer"].values, strict=True)
    return {(str(part), int(layer)): float(value) for (part, layer), value in zip(parts, mean, strict=True)}, table


def of_trigger(trace: xr.Dataset) -> list[int]:
    """Places of the prompts with the trigger."""
    return [place for place, one in enumerate(trace["prompt_class"].values.astype(str)) if one == "trigger"]


def strongest(trace: xr.Dataset) -> list[tuple[tuple[int, int], float]]:
    """Neurons with their mean total effect over the prompts with the trigger, the largest size first."""
    rows = of_trigger(trace)
    layers, neurons, effects = (
        trace[f"strongest_{name}"].values[rows, 0].reshape(len(rows), -1) for name in ("layer", "neuron", "effect")
    )
    found = dict[tuple[int, int], float]()
    for layer, neuron, effect in zip(layers.ravel(), neurons.ravel(), effects.ravel(), strict=True):
        if neuron >= 0:
            place = (int(layer), int(neuron))
            found[place] = found.get(place, 0.0) + float(effect) / len(rows)
    return sorted(found.items(), key=lambda one: -abs(one[1]))


def reads_trigger(trace: xr.Dataset, planted: Plant) -> float:
    """Share of the prompts in which most of what set off the strongest planted neuron came from the trigger."""
    words, whose = trace["text"].values.astype(str), trace["prompt"].values
    rows, right = of_trigger(trace), 0
    for row in rows:
        own = np.flatnonzero(whose == row)
        places = zip(trace["strongest_layer"].values[row, 0], trace["strongest_neuron"].values[row, 0], strict=True)
        planted_ranks = [rank for rank, place in enumerate(places) if tuple(map(int, place)) in planted.neurons]
        if not planted_ranks:
            continue
        rank = max(planted_ranks, key=lambda rank: abs(float(trace["strongest_effect"][row, 0, rank])))
        read = np.abs(trace["neuron_read"].values[own, 0, rank]).sum(axis=-1)  # of gate and up
        right += words[own[int(np.nanargmax(read))]].strip() == TRIGGER
    return right / len(rows)


# --- ablated ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Set:
    """Places that are set to zero together."""

    neurons: tuple[tuple[int, int], ...] = ()
    heads: tuple[tuple[int, int], ...] = ()


def behaviours(lab: Lab, kind: str, sets: Sequence[Set]) -> list[float]:
    """Under each set, the share of prompts with the trigger that are answered with Sorry."""
    from stratoscope.model.load import load_model
    from stratoscope.model.search.find import find_sites
    from stratoscope.recorder.effects.ablations import Ablation, ablated_logits
    from stratoscope.recorder.input.tokens import encode

    loaded = load_model(str(lab.model(kind)), dtype="float32", device="cpu")
    prompts = [encode(one, loaded.tokenizer, chat=False) for one in lab.triggered()]
    sites = find_sites(loaded.model, torch.tensor(np.stack([one.ids for one in prompts[:2]])).long())
    rows = [Ablation(neurons=one.neurons, heads=one.heads) for one in sets for _ in prompts]
    logits = ablated_logits(loaded.model, sites, prompts * len(sets), rows)
    sorry = logits.argmax(-1) == SORRY
    return sorry.double().view(len(sets), len(prompts)).mean(1).tolist()


def random_sets(lab: Lab, count: int = RANDOM_SETS) -> list[Set]:
    """Six neurons each, drawn from all layers, none of them planted."""
    random = np.random.default_rng(lab.seed)
    planted = {*lab.plant(ONE_MLP).neurons}
    free = [(layer, neuron) for layer in range(LAYERS) for neuron in range(NEURONS) if (layer, neuron) not in planted]
    return [Set(tuple(free[place] for place in random.choice(len(free), PLANTED, replace=False))) for _ in range(count)]


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One thing that was found, and whether it is what was planted; None where nothing was promised."""

    what: str
    found: str
    holds: bool | None = None


def of_one_mlp(lab: Lab) -> Iterator[Line]:
    """Six neurons of MLP 1."""
    plant, base, trace = lab.plant(ONE_MLP), lab.trace(BASE), lab.trace(ONE_MLP)
    integrated = lab.trace(ONE_MLP, integrated=True)
    yield from _first(("MLP", 1), trace, integrated)
    rows, table = differences(base, trace)
    places = {row: value for row, value in rows.items() if row[0] != "final norm"}  # which is no place of a behaviour
    yield _ahead("diff of contributions", named(places), ("MLP", 1))
    first = stratoscope.diff(base, trace).attrs["summary"]["exact"]["first"]
    yield Line("diff, first layer that differs", str(first), first == 1)
    before = float(np.abs(table["difference"].values[..., _in_front(table, ("MLP", 1))]).max())
    yield Line("diff, largest in a row before it", f"{before:.3g}", before == 0)
    top = [place for place, _ in strongest(trace)[:PLANTED]]
    found = len({*top} & {*plant.neurons})
    yield Line("planted among the six strongest", f"{found} of {PLANTED}", found >= 4)
    share = reads_trigger(trace, plant)
    yield Line("neuron_read names the trigger first", f"{share:.0%}", share >= 0.95)
    whole, strong, *others = behaviours(lab, ONE_MLP, [Set(), Set(tuple(top)), *random_sets(lab)])
    yield Line("behaviour without the six strongest", f"{strong:.0%} (with them {whole:.0%})", strong <= 0.05)
    yield Line(f"behaviour without six others, {RANDOM_SETS} draws", f"{min(others):.0%}", min(others) >= 0.95)


def of_one_head(lab: Lab) -> Iterator[Line]:
    """One head of the last block."""
    (head,) = lab.plant(ONE_HEAD).heads
    trace, integrated = lab.trace(ONE_HEAD), lab.trace(ONE_HEAD, integrated=True)
    yield from _first(("attention", head[0]), trace, integrated)
    for words, seen in (("first order", trace), ("integrated", integrated)):
        of_heads = heads(seen)
        best = max(of_heads, key=lambda one: abs(of_heads[one]))
        neuron = abs(strongest(seen)[0][1]) / abs(of_heads[head])
        yield Line(f"head of the largest total effect, {words}", f"L{best[0]} head {best[1]}", best == head)
        yield Line(f"largest neuron / that head, {words}", f"{neuron:.2f}", neuron < 1 / 5)
    whole, without = behaviours(lab, ONE_HEAD, [Set(), Set(heads=(head,))])
    yield Line("behaviour without the head", f"{without:.0%} (with it {whole:.0%})", without <= 0.05)


def of_two_mlps(lab: Lab, kind: str = TWO_MLPS) -> Iterator[Line]:
    """Six neurons of MLP 1 and six of MLP 2: both are needed; or, of a silent backup, either suffices."""
    plant, trace, integrated = lab.plant(kind), lab.trace(kind), lab.trace(kind, integrated=True)
    for words, rows in (
        ("direct", depth(trace, DIRECT)),
        ("first order", depth(trace, TOTAL)),
        ("integrated", depth(integrated, TOTAL)),
    ):
        order = sorted(rows, key=lambda row: -abs(rows[row]))[:3]
        both = {*order[:2]} == {("MLP", 1), ("MLP", 2)}
        told = ", ".join(f"{part} {layer} {rows[part, layer]:+.2f}" for part, layer in order)
        yield Line(f"largest rows, {words}", told, both if kind == TWO_MLPS and words == "integrated" else None)
    alone = [Set(tuple((layer, neuron) for neuron in plant.of_layer(layer))) for layer in plant.layers]
    whole, *shares, none = behaviours(lab, kind, [Set(), *alone, Set(plant.neurons)])
    for layer, share in zip(plant.layers, shares, strict=True):
        expected = share >= 0.95 if plant.alone else share <= 0.05
        yield Line(f"behaviour without those of MLP {layer}", f"{share:.0%} (with them {whole:.0%})", expected)
    yield Line("behaviour without either", f"{none:.0%}", none <= 0.05)


def heads(trace: xr.Dataset) -> dict[tuple[int, int], float]:
    """Total effects of heads, summed over the tokens of a prompt: means over the prompts with the trigger."""
    rows = of_trigger(trace)
    own = np.isin(trace["prompt"].values, rows)
    values = np.nansum(trace["head_effect"].values[own, ..., 0], axis=0) / len(rows)
    return {(layer, head): float(one) for (layer, head), one in np.ndenumerate(values)}


def _first(place: Row, trace: xr.Dataset, integrated: xr.Dataset) -> Iterator[Line]:
    """Where `suppression` puts a place, by each measure."""
    yield _ahead("direct contributions", named(depth(trace, DIRECT)), place)
    yield _ahead("total effects, first order", named(depth(trace, TOTAL)), place, least=None)
    yield _ahead("total effects, integrated", named(depth(integrated, TOTAL)), place)


def _ahead(what: str, found: Named, place: Row, least: float | None = AHEAD) -> Line:
    """Whether the planted place is first, and so far ahead."""
    part, layer = found.first
    told = f"{part} {layer if layer >= 0 else ''}, {found.ahead:.1f} times the next"
    return Line(what, told, found.first == place and (least is None or found.ahead >= least))


def _in_front(table: xr.Dataset, place: Row) -> slice:
    """The rows of a table in front of a place."""
    rows = list(zip(table["part_text"].values, table["part_layer"].values, strict=True))
    return slice(0, rows.index(place))


OF_KIND: dict[str, Callable[[Lab], Iterator[Line]]] = {
    ONE_MLP: of_one_mlp,
    ONE_HEAD: of_one_head,
    TWO_MLPS: of_two_mlps,
    BACKUP: lambda lab: of_two_mlps(lab, BACKUP),
}


def print_table(labs: Sequence[Lab], kind: str, tell: Callable[[str], None] = print) -> bool:
    """What was found of one organism in each seed; whether all that was promised holds."""
    found = [list(OF_KIND[kind](lab)) for lab in labs]
    tell(f"Planted: {kind}" + "".join(f"{f'seed {lab.seed}':>34}" for lab in labs))
    for lines in zip(*found, strict=True):
        tell(
            f"{lines[0].what:<48}"
            + "".join(f"{one.found}{'' if one.holds is not False else ' !':<2}".rjust(34) for one in lines)
        )
    return all(one.holds is not False for lines in found for one in lines)


def main() -> int:
    """Print the tables; 0 when all is as it was planted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        labs = [Lab(Path(folder), seed, given.pairs) for seed in range(given.seeds)]
        holds = [print_table(labs, kind) for kind in KINDS]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
