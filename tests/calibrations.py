"""Receipts with the calibration of total effects, made up: of numbers that agree, that do not, and of too few."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stratoscope.analysis.statistics.agreement import agreement
from stratoscope.trace.calibration import Samples

AGREE, DISAGREE = 0.2, 20.0  # how far measured effects are from those to first order, relative to their size
FLOOR = 1e-5


def samples(
    noise: Mapping[str, float], *, items: int = 64, prompts: int = 16, targets: int = 1, seed: int = 0
) -> Samples:
    """Items of each kind in `noise`, whose measured effects are so far from those to first order."""
    random = np.random.default_rng(seed)
    count = items * len(noise)
    kinds = [kind for kind in noise for _ in range(items)]
    keys = [(baseline, target) for baseline in ("zero", "mean") for target in range(targets)]
    first = {key: random.choice([-1, 1], count) * 10 ** random.uniform(-4, 1, count) for key in keys}
    spread = np.array([noise[kind] for kind in kinds])
    measured = {key: some * (1 + spread * random.normal(size=count)) for key, some in first.items()}
    return Samples(
        kind=tuple(kinds),
        prompt=tuple(f"p{number % prompts}" for number in range(count)),
        position=random.integers(1, 20, count),
        layer=random.integers(0, 8, count),
        index=np.where(np.array(kinds) == "mlp", -1, random.integers(0, 64, count)),
        first_order=first,
        direct={target: np.full(count, np.nan) for target in range(targets)},
        measured=measured,
    )


def stored(found: Samples, *, baseline: str = "zero", kinds: Iterable[str] | None = None) -> dict[str, Any]:
    """`receipt["calibration"]` of these samples."""
    agreements = []
    prompts = list(dict.fromkeys(found.prompt))
    for kind in kinds or dict.fromkeys(found.kind):
        mine = np.array([one == kind for one in found.kind])
        cluster = np.array([prompts.index(one) for one in found.prompt])[mine]
        for (how, target), measured in found.measured.items():
            one = agreement(found.first_order[how, target][mine], measured[mine], cluster, floor=FLOOR, seed=0)
            agreements.append({"kind": kind, "baseline": how, "target": target, **one.to_json()})
    return {
        "asked": 64,
        "seed": 0,
        "baseline": baseline,
        "prompts": prompts,
        "floor": FLOOR,
        "agreement": agreements,
        "samples": found.to_json(),
    }


def receipt(**noise: float) -> dict[str, Any]:
    """A receipt whose calibration agrees as `noise` says, by kind: `receipt(neuron=AGREE, mlp=DISAGREE)`."""
    return {"calibration": stored(samples(noise))}
