"""The statistics of `contrast` against the tools people use, on the same numbers in memory, in one run.

2,000 prompts × 4,608 neurons in float32 (rank tests of the peers on a tenth of them), everything scaled linearly to
2,000 × 460,000 and printed so:

- Welch's t, p and Hedges' g: Stratoscope, compiled and with NumPy alone; scipy `ttest_ind` in float64 (in float32 its
  variances lose digits) and in float32; scanpy's t test where scanpy is installed (`pip install scanpy`);
- exact AUC with its p-value: Stratoscope, compiled and with NumPy alone; scipy `mannwhitneyu`;
- family-wise p-values of 1,000 exchanges of labels, against one pass of Welch's test with NumPy.

The last line is the time of Welch and g over that of scipy in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from _timing import interval, parser, rounds
from scipy.stats import mannwhitneyu, ttest_ind

from stratoscope import kernels
from stratoscope.analysis.statistics.effects import hedges_g
from stratoscope.analysis.statistics.moments import Moments, welch
from stratoscope.analysis.statistics.permutation import LargestStatistic, label_permutations
from stratoscope.analysis.statistics.ranks import ranks

PROMPTS, NEURONS, FULL, RANKED = 2_000, 4_608, 460_000, 460
EXCHANGES = 999
GOALS = {  # (ours, theirs): how many times as fast ours should be
    ("Welch and g, compiled", "scipy ttest_ind, float64"): 15.0,
    ("Welch and g, NumPy", "scipy ttest_ind, float64"): 15.0,
    ("Welch and g, NumPy", "scanpy t-test"): 1.0,
    ("AUC, NumPy", "scipy mannwhitneyu"): 2.3,
    ("AUC, compiled", "scipy mannwhitneyu"): 7.0,
    ("1,000 exchanges, largest t", "Welch and g, NumPy"): 0.1,
}


@contextmanager
def without_kernels() -> Iterator[None]:
    with (
        patch("stratoscope.analysis.statistics.moments.kernel", lambda _: None),
        patch("stratoscope.analysis.statistics.ranks.kernel", lambda _: None),
    ):
        yield


def scanpy_test(values: np.ndarray, in_a: np.ndarray) -> Callable[[], object] | None:
    try:
        import anndata
        import scanpy
    except ImportError:
        return None
    table = anndata.AnnData(values)
    table.obs["side"] = np.where(in_a, "a", "b")
    table.obs["side"] = table.obs["side"].astype("category")
    options: dict[str, Any] = {"groups": ["a"], "reference": "b", "method": "t-test", "n_genes": values.shape[1]}
    return lambda: scanpy.tl.rank_genes_groups(table, "side", **options)


def main() -> None:
    options = parser(__doc__, pairs=9).parse_args()
    random = np.random.default_rng(0)
    values = random.lognormal(size=(PROMPTS, NEURONS)).astype(np.float32)
    in_a = np.arange(PROMPTS) % 2 == 0
    few, exchanges = values[:, :RANKED].copy(), label_permutations(in_a, EXCHANGES, 0)

    def welch_and_g() -> None:
        a, b = (Moments(NEURONS).add(values, np.flatnonzero(side)) for side in (in_a, ~in_a))
        welch(a, b), hedges_g(a, b)

    def plainly(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with without_kernels():
                work()

        return run

    work: dict[str, tuple[int, Callable[[], object]]] = {
        "Welch and g, NumPy": (NEURONS, plainly(welch_and_g)),
        "scipy ttest_ind, float64": (
            NEURONS,
            lambda: ttest_ind(values[in_a].astype(np.float64), values[~in_a].astype(np.float64), equal_var=False),
        ),
        "scipy ttest_ind, float32": (NEURONS, lambda: ttest_ind(values[in_a], values[~in_a], equal_var=False)),
        "AUC, NumPy": (RANKED, plainly(lambda: ranks(few, in_a).p)),
        "scipy mannwhitneyu": (RANKED, lambda: mannwhitneyu(few[in_a], few[~in_a], method="asymptotic")),
        "1,000 exchanges, largest t": (NEURONS, lambda: LargestStatistic(exchanges).add(values)),
    }
    if kernels.kernel("ranks_f32") is not None:
        work["Welch and g, compiled"] = (NEURONS, welch_and_g)
        work["AUC, compiled"] = (RANKED, lambda: ranks(few, in_a).p)
    if (scanpy := scanpy_test(values, in_a)) is not None:
        work["scanpy t-test"] = (NEURONS, scanpy)
    times = rounds({name: run for name, (_, run) in work.items()}, pairs=options.pairs)
    scaled = {name: found * FULL / work[name][0] for name, found in times.items()}
    print(f"{options.pairs} rounds; seconds for {PROMPTS:,} prompts × {FULL:,} neurons")
    for name, found in scaled.items():
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
        print(f"{name:<28}{middle:9.2f} s   quartiles {low:.2f} .. {high:.2f}")
    for (ours, theirs), goal in GOALS.items():
        if ours in scaled and theirs in scaled:
            faster, low, high = interval(scaled[theirs] / scaled[ours])
            print(f"{ours} v. {theirs}: {faster:.2f} times as fast [{low:.2f}, {high:.2f}], goal {goal:g}")
    best = "Welch and g, compiled" if "Welch and g, compiled" in scaled else "Welch and g, NumPy"
    ratio, low, high = interval(scaled[best] / scaled["scipy ttest_ind, float64"])
    print(f"ratio: {ratio:.3f} [{low:.3f}, {high:.3f}] goal <={1 / 15:.3f}")


if __name__ == "__main__":
    main()
