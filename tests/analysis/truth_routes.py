"""How often `anomalies` finds an unusual route in recorded routes where there is none, and where there is one.

`make truth` prints these tables: of simulated traces without an anomaly at most 5 % may have a finding, and of those in
which one head brings the later tokens of one prompt 40 % of their streams from one token, at least 95 % must be found.
On real captures of SmolLM2, where it is installed, random choices of 8 to 60 prompts, likewise; of these the share that
is found is told, without a goal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from truth_anomalies import SHAPE, captures, draws

import stratoscope
from stratoscope import names
from stratoscope.analysis.anomalies.anomalies import anomalies
from stratoscope.analysis.anomalies.heads import LEAST_QUERIES, LEAST_TOKENS

SEEDS, REAL_SEEDS = 100, 24
SHARES = (0.1, 0.2, 0.3, 0.4)  # of the streams of later tokens
MUST = 0.4
RECORD = (names.NORMS, names.ROUTES)
Place = tuple[int, int, int, int]  # prompt, position, layer, head


def clean(seed: int) -> xr.Dataset:
    """A simulated trace with routes and without an anomaly."""
    return stratoscope.simulate(**SHAPE, seed=seed, anomaly=False, record=RECORD)


def plant_route(trace: xr.Dataset, random: np.random.Generator, share: float) -> Place:
    """Let one head bring the later tokens of one prompt such a share of their streams from one token."""
    lengths = np.bincount(trace["prompt"].values)
    prompt = int(random.choice(np.flatnonzero(lengths >= LEAST_TOKENS)))
    tokens = np.flatnonzero(trace["prompt"].values == prompt)
    known = tokens[(trace["route_source"].values[tokens] >= 0).any(axis=(1, 2))]
    position = int(random.integers(1, max(len(known) - LEAST_QUERIES, 2)))
    layer, head = int(random.integers(trace.sizes["layer"])), int(random.integers(trace["route_head"].values.max() + 1))
    source, heads, weight = (trace[name].values for name in ("route_source", "route_head", "route_weight"))
    for token in known[position + 1 :]:
        same = (source[token, layer] == position) & (heads[token, layer] == head)
        rank = int(same.argmax()) if same.any() else source.shape[-1] - 1  # in the place of the weakest
        source[token, layer, rank], heads[token, layer, rank], weight[token, layer, rank] = position, head, share
    return prompt, position, layer, head


def is_found(trace: xr.Dataset, place: Place) -> bool:
    """Whether `anomalies` finds it at that place."""
    members = anomalies(trace)["members"].to_dataset()
    at = zip(*(members[name].values.tolist() for name in ("prompt", "position", "layer", "head")), strict=True)
    by = members["found_by"].values.tolist()
    return any(one == place and str(of) == "unusual route" for one, of in zip(at, by, strict=True))


def has_finding(trace: xr.Dataset) -> bool:
    """Whether an unusual route is found at all."""
    return bool(anomalies(trace).attrs["summary"]["by_detector"]["unusual route"])


def main() -> int:
    """Print the tables; 0 when the goals hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--real-seeds", type=int, default=REAL_SEEDS)
    given = parser.parse_args()
    traces = [clean(seed) for seed in range(given.seeds)]
    wrong = sum(map(has_finding, traces))
    print(f"Simulated, clean traces with an unusual route: {wrong} of {len(traces)} (at most 5 %)")
    holds = wrong <= 0.05 * len(traces)
    for share in SHARES:
        found = 0
        for seed, trace in enumerate(traces):
            changed = trace.copy(deep=True)
            found += is_found(changed, plant_route(changed, np.random.default_rng([seed, 4]), share))
        holds &= share != MUST or found >= 0.95 * len(traces)
        print(f"Simulated, a route of {share:.0%} in one prompt: {found} of {len(traces)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, trace in captures(Path(folder), RECORD):
            wrong, looked, found = 0, 0, dict.fromkeys(SHARES, 0)
            for seed, part, _ in draws(trace, given.real_seeds):
                wrong, looked = wrong + has_finding(part), looked + 1
                for share in SHARES:
                    changed = part.copy(deep=True)
                    found[share] += is_found(changed, plant_route(changed, np.random.default_rng([seed, 4]), share))
            told = ", ".join(f"{share:.0%} {count}" for share, count in found.items())
            print(f"Real, {name}: {wrong} of {looked} clean choices with a finding; planted and found: {told}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
