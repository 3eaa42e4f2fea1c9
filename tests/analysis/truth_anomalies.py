"""How often `anomalies` finds what is not there, and what is: `make truth` prints these tables.

- Clean: simulated traces of 24 prompts, nothing planted; at most 5 % of 200 may have any finding.
- Planted: one anomaly of a stated size at a random place of such a trace; at least 95 % of each kind must be found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope.analysis.anomalies.anomalies import anomalies

SEEDS = 200
SHAPE: dict[str, Any] = {"prompts": 24, "tokens": (20, 32), "layers": 16, "d_ff": 256, "heads": 8}
SMALL: dict[str, Any] = {"prompts": 16, "tokens": (16, 20), "layers": 16, "d_ff": 64, "heads": 4}
EXPERTS = 8
Plant = Callable[[xr.Dataset, np.random.Generator], None]


def clean(seed: int, shape: dict[str, Any]) -> xr.Dataset:
    """A simulated trace without an anomaly; a router is drawn beside it."""
    trace = stratoscope.simulate(**shape, seed=seed, anomaly=False)
    random = np.random.default_rng([seed, 1])
    chosen = np.argsort(random.random((trace.sizes["token"], trace.sizes["layer"], EXPERTS)), axis=2)[..., :2]
    return trace.assign(router_expert=(("token", "layer", "choice"), chosen.astype("int32")))


def _token(trace: xr.Dataset, random: np.random.Generator) -> int:
    return int(random.choice(np.flatnonzero(trace["position"].values > 0)))


def _layer(trace: xr.Dataset, random: np.random.Generator, ends: int = 0) -> int:
    return int(random.integers(ends, trace.sizes["layer"] - ends))


def _prompt(trace: xr.Dataset, random: np.random.Generator) -> np.ndarray:
    """Tokens of one prompt."""
    return np.flatnonzero(trace["prompt"].values == random.integers(trace.sizes["prompt"]))


def massive_activation(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["mlp_out_norm"].values[_token(trace, random), _layer(trace, random)] *= 100


def massive_residual(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["resid_norm"].values[_token(trace, random), _layer(trace, random) + 1] *= 100


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
    place = np.s_[:, _layer(trace, random), random.integers(trace.sizes["neuron"])]
    for name in ("prompt_max", "prompt_min"):
        trace[name].values[place] *= 1e-3


def always_on_neuron(trace: xr.Dataset, random: np.random.Generator) -> None:
    place = np.s_[:, _layer(trace, random), random.integers(trace.sizes["neuron"])]
    trace["prompt_mean"].values[place] = 1 + 0.003 * random.normal(size=trace.sizes["prompt"])


def layer_off_the_trend(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["mlp_write_ratio"].values[:, _layer(trace, random, ends=4)] *= 5


def expert_that_takes_all(trace: xr.Dataset, random: np.random.Generator) -> None:
    trace["router_expert"].values[:, _layer(trace, random), 0] = random.integers(EXPERTS)


PLANTS: dict[str, tuple[Plant, str]] = {
    "massive activation": (massive_activation, "one cell of mlp_out_norm × 100"),
    "massive residual": (massive_residual, "one cell of resid_norm × 100"),
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
        counts["any"] += found["findings"] > 0
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


def main() -> int:
    """Print the tables; 0 when both goals hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    counts = false_findings(seeds)
    holds = counts["any"] <= 0.05 * seeds
    print(f"Clean traces with any finding: {counts['any']} of {seeds} (at most {0.05 * seeds:.0f})")
    print(f"{'detector':<24}{'clean':>8}{'recall':>9}  planted ({seeds} each)")
    for detector, (_, size) in PLANTS.items():
        share = recall(detector, seeds)
        holds &= share >= 0.95
        print(f"{detector:<24}{counts[detector]:>8}{share:>9.3f}  {size}{'' if share >= 0.95 else '  MISSED'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
