"""What a contrast must find, counted where the truth is known: `make truth` prints it beside `truth.py`.

- Planted neurons: 20 of 46,080 shifted by d, all units tested and half of them; how many are found, how many others
  are, and how often the intervals of what was selected hold the truth.
- The smallest effect that a null result names: how often it really is found.
- The chance number: of independent noise beside theory, and of real prompts.
- The direction: how often its line leaves the band of random labels where nothing is true.
- The demo: its two discoveries beside scipy and statsmodels.

The statistics are computed by the code that `contrast` runs. A small part of this runs in the tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from truth import design_of, recorded_means, units_of

from stratoscope import defaults
from stratoscope.analysis.classes.chance import LargestByChance
from stratoscope.analysis.classes.design import make_design
from stratoscope.analysis.classes.units import CLASSES, PAIRS
from stratoscope.analysis.contrast.baseline import linear_baseline
from stratoscope.analysis.contrast.column_tests import compare_columns
from stratoscope.analysis.contrast.neurons import intervals
from stratoscope.analysis.contrast.power import POWER, smallest_effect
from stratoscope.analysis.statistics.effects import selected_level
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.names import Unequal

NEURONS, PLANTED = 46_080, 20
EFFECTS = (1.5, 2.0, 3.0)  # d: in standard deviations of a class
SIZES = ((PAIRS, 16), (PAIRS, 30), (CLASSES, 16), (CLASSES, 30))
SEEDS = 8
NAMED: tuple[tuple[str, int, int, Unequal], ...] = (
    (PAIRS, 8, 8, "subsample"),
    (PAIRS, 16, 16, "subsample"),
    (PAIRS, 30, 30, "subsample"),
    (CLASSES, 8, 8, "subsample"),
    (CLASSES, 16, 16, "subsample"),
    (CLASSES, 20, 40, "subsample"),
    (CLASSES, 8, 80, "subsample"),
    (CLASSES, 8, 80, "rank-sum"),
)
CHANCES = (
    (CLASSES, 8, 460_000),
    (CLASSES, 8, NEURONS),
    (CLASSES, 16, NEURONS),
    (PAIRS, 8, NEURONS),
    (PAIRS, 16, NEURONS),
)
DEMO = {(22, 1276): (7.4e-9, 3.4e-4, -1.60), (1, 616): (8.2e-7, 0.019, -0.50)}  # p, q, g
_LEVEL = defaults.ALPHA


# --- planted neurons --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Of one way to test, over seeds.

    Attributes
    ----------
    planted, others
        Planted neurons that are found, and others; on average.
    found, covered
        Planted neurons found, and those whose interval holds the truth; in all.
    missing
        Of each run the share of intervals, false discoveries' among them, that miss the truth.
    """

    planted: float
    others: float
    found: int
    covered: int
    missing: tuple[float, ...]


def planted(kind: str, size: int, d: float, held_out: float, seeds: int, real: np.ndarray | None = None) -> Found:
    """Shift some neurons of class a, and test.

    Parameters
    ----------
    real
        Prompts of one kind, [prompt, neuron], of which so many are drawn; without it independent normal values.
    """
    hits, others, covered, missing = [], [], 0, []
    for seed in range(seeds):
        random = np.random.default_rng([seed, size, int(10 * d)])
        if real is None:
            values, spread = random.normal(size=(2 * size, NEURONS)), np.ones(NEURONS)
        else:
            values, spread = real[random.permutation(len(real))[: 2 * size]].astype(np.float64), real.std(axis=0)
        truth = np.zeros(values.shape[1])
        truth[random.permutation(len(truth))[:PLANTED]] = d
        values[:size] += truth * spread
        units = units_of(kind, size, size)
        design = make_design(units, unequal="subsample", held_out=held_out, alpha=_LEVEL, seed=seed)
        found = compare_columns(design, design.tested, *units.average(values.astype(np.float32)))
        (chosen,) = np.nonzero(q_values(found.p) <= _LEVEL)
        true = truth[chosen] > 0
        hits.append(int(true.sum()))
        others.append(int((~true).sum()))
        columns = {name: value[None] for name, value in vars(found).items()}
        level = selected_level(_LEVEL, len(chosen), len(truth))
        low, high = intervals(columns, design, np.zeros(len(chosen), np.int64), chosen, level)
        inside = (low <= truth[chosen]) & (truth[chosen] <= high)
        covered += int((inside & true).sum())
        missing.append(float((~inside).mean()) if len(chosen) else 0.0)
    return Found(float(np.mean(hits)), float(np.mean(others)), sum(hits), covered, tuple(missing))


def print_planted(seeds: int, real: np.ndarray | None, tell: Callable[[str], None] = print) -> bool:
    """The table; whether all units find no less than half of them, and intervals of normal values hold the truth."""
    what = "real prompts of one kind" if real is not None else "independent normal values"
    tell(f"Planted: {PLANTED} of {NEURONS:,} neurons shifted by d, {what}; {seeds} seeds, q ≤ {_LEVEL:g}")
    tell(f"{'units':<14}{'d':>5}{'half tests':>12}{'all test':>10}{'others':>8}{'intervals that hold d':>23}")
    holds, missing, covered, total = True, [], 0, 0
    for kind, size in SIZES:
        for d in EFFECTS:
            half, every = (planted(kind, size, d, held_out, seeds, real) for held_out in (0.5, 0.0))
            missing += every.missing
            covered, total = covered + every.covered, total + every.found
            holds &= every.planted >= half.planted and every.others <= 3
            tell(
                f"{f'{size} {kind}':<14}{d:>5g}{half.planted:>12.1f}{every.planted:>10.1f}{every.others:>8.1f}"
                f"{f'{every.covered} of {every.found}':>23}"
            )
    error = float(np.std(missing, ddof=1) / np.sqrt(len(missing)))
    tell(
        f"Of planted neurons found, {covered} of {total} intervals hold d; with false discoveries, which no interval "
        f"holds, {np.mean(missing):.3f} ± {error:.3f} of a run's miss ({_LEVEL:g} are allowed)"
    )
    return bool(holds and (real is not None or np.mean(missing) <= _LEVEL + 3 * error))


# --- what a null result names -----------------------------------------------------------------------------------------


def share_found(kind: str, of_a: int, of_b: int, unequal: Unequal, studies: int, tests: int) -> tuple[float, float]:
    """The effect that is named, and in which share of studies of normal values it has p ≤ α / tests."""
    design = design_of(kind, of_a, of_b, unequal, 0)
    effect = smallest_effect(design.test, *design.tested.sizes, tests, _LEVEL)
    values = np.random.default_rng([of_a, of_b]).normal(size=(of_a + of_b, studies)).astype(np.float32)
    values[:of_a] += np.float32(effect * (np.sqrt(2) if kind == PAIRS else 1))  # twins are independent: s_d = √2
    units = design.units
    found = compare_columns(design, design.tested, *units.average(values[units.prompts]))
    return effect, float((found.p <= _LEVEL / tests).mean())


def print_named(studies: int, tell: Callable[[str], None] = print) -> bool:
    """The table; whether each named effect is found in 8 of 10 studies."""
    tell(
        f"Named by a null result of {NEURONS:,} neurons: the effect found in 8 of 10 studies; {studies:,} studies each"
    )
    tell(f"{'design':<10}{'sizes':>10}  {'test':<20}{'effect':>8}  {'in':<5}{'found':>8}")
    holds = True
    for kind, of_a, of_b, unequal in NAMED:
        effect, share = share_found(kind, of_a, of_b, unequal, studies, NEURONS)
        error = np.sqrt(POWER * (1 - POWER) / studies) + (
            0.0063 if unequal == "rank-sum" else 0
        )  # of its own simulation
        holds &= abs(share - POWER) <= 3 * error + 0.005
        test = design_of(kind, of_a, of_b, unequal, 0).test
        tell(
            f"{kind:<10}{f'{of_a} v. {of_b}':>10}  {test:<20}{effect:>8.2f}  {'d_z' if kind == PAIRS else 'g':<5}"
            f"{share:>8.3f}"
        )
    return holds


# --- chance -----------------------------------------------------------------------------------------------------------


def chance_of(kind: str, size: int, values: np.ndarray) -> tuple[float, float]:
    """Middle and 95 % of the largest |g| by chance, of the code that `contrast` and `lint` run."""
    design = design_of(kind, size, size, "subsample", 0)
    largest = LargestByChance(design, design.tested)
    largest.add(*design.units.average(values))
    return largest.chance().middle, largest.chance().most


def theory(kind: str, size: int, neurons: int) -> float:
    """The median of the largest |g| of independent normal values."""
    from scipy.special import stdtrit

    df = size - 1 if kind == PAIRS else 2 * size - 2
    t = stdtrit(df, 1 - (1 - 0.5 ** (1 / neurons)) / 2)
    return float((1 - 3 / (4 * df - 1)) * t * np.sqrt(2 / size))


def print_chances(real: np.ndarray, tell: Callable[[str], None] = print) -> bool:
    """The table; whether the number of independent classes is that of theory (g_av of pairs is no t: no theory)."""
    tell("The largest |g| by chance: median over exchanges of labels, and what 95 % stay below")
    tell(f"{'units':<14}{'neurons':>9}  {'values':<14}{'median':>8}{'95 %':>8}{'theory':>8}")
    holds = True
    for kind, size, neurons in CHANCES:
        values = np.random.default_rng(size).normal(size=(2 * size, neurons)).astype(np.float32)
        middle, most = chance_of(kind, size, values)
        expected = theory(kind, size, neurons)
        holds &= kind == PAIRS or abs(middle - expected) <= 0.07 * expected
        said = f"{expected:>8.2f}" if kind == CLASSES else f"{'':>8}"
        tell(f"{f'{size} {kind}':<14}{neurons:>9,}  {'normal':<14}{middle:>8.2f}{most:>8.2f}{said}")
        if neurons == NEURONS:
            middle, most = chance_of(kind, size, real[: 2 * size])
            tell(f"{f'{size} {kind}':<14}{neurons:>9,}  {'real prompts':<14}{middle:>8.2f}{most:>8.2f}")
    return holds


# --- the direction ----------------------------------------------------------------------------------------------------


def print_direction(real: np.ndarray, splits: int, tell: Callable[[str], None] = print) -> bool:
    """How often the line leaves its band where nothing is true; real is [prompt, layer, neuron]."""
    tell(f"The difference of means, tried on the other half: {splits} random divisions, layer by layer")
    tell(f"{'units':<14}{'outside the 95 % band':>23}{'any layer above all of chance':>31}")
    holds = True
    layers = range(0, real.shape[1], 5)
    for kind, size in SIZES[::2]:
        outside, above = [], []
        for seed in range(splits):
            chosen = real[np.random.default_rng([seed, size]).permutation(len(real))[: 2 * size]]
            found = [
                linear_baseline(chosen[:size, layer], chosen[size:, layer], paired=kind == PAIRS, seed=seed)
                for layer in layers
            ]
            auc, controls = np.array([one for one, _ in found]), np.stack([other for _, other in found])
            low, high = np.quantile(controls, (0.025, 0.975), axis=1)
            outside += ((auc < low) | (auc > high)).tolist()
            above.append((controls.max(axis=0) >= auc.max()).sum() + 1 <= _LEVEL * (controls.shape[1] + 1))
        error = np.sqrt(_LEVEL * (1 - _LEVEL) / splits)
        holds &= np.mean(above) <= _LEVEL + 3 * error and abs(np.mean(outside) - _LEVEL) <= 3 * error
        tell(f"{f'{size} {kind}':<14}{np.mean(outside):>23.3f}{np.mean(above):>31.3f}")
    return bool(holds)


# --- the demo ---------------------------------------------------------------------------------------------------------


def print_demo(tell: Callable[[str], None] = print) -> bool:
    """The demo's discoveries beside scipy and statsmodels; whether they are those that there are."""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    import stratoscope
    from stratoscope.doors.demo import PROMPTS, find_model

    with tempfile.TemporaryDirectory() as folder:
        trace = stratoscope.capture(
            str(find_model()), str(PROMPTS), Path(folder) / "demo.trace", record=("norms", "prompts")
        )
        found = stratoscope.contrast(trace)
        values = trace["prompt_mean"].values.astype(np.float64)
        critical = trace["prompt_class"].values == "critical"
    a, b = (values[side].reshape(int(side.sum()), -1) for side in (critical, ~critical))
    p = stats.ttest_rel(a, b).pvalue
    q = multipletests(p, method="fdr_bh")[1]
    width, pairs = values.shape[2], len(a)
    tell(f"The demo, {found.attrs['summary']['units']}: {found.attrs['summary']['neurons']['discoveries']} discoveries")
    tell(
        f"{'neuron':<12}{'p':>10}{'scipy':>10}{'q':>10}{'statsmodels':>13}{'g':>8}{'by hand':>9}{'family p':>10}"
        f"{'flips':>8}"
    )
    same = {divmod(int(place), width) for place in np.flatnonzero(q <= _LEVEL)} == set(DEMO)
    same &= found.attrs["summary"]["neurons"]["discoveries"] == len(DEMO)
    for (layer, neuron), expected in DEMO.items():
        place = layer * width + neuron
        one = found.sel(layer=layer).isel(neuron=neuron)
        spread = np.sqrt((a[:, place].var(ddof=1) + b[:, place].var(ddof=1)) / 2)
        g = (a[:, place] - b[:, place]).mean() / spread * (1 - 3 / (4 * (pairs - 1) - 1))
        family = _family_p(a - b, place)
        tell(
            f"{f'L{layer} n{neuron}':<12}{float(one['p']):>10.2g}{p[place]:>10.2g}{float(one['q']):>10.2g}"
            f"{q[place]:>13.2g}"
            f"{float(one['g']):>8.2f}{g:>9.2f}{float(one['p_family']):>10.2g}{family:>8.2g}"
        )
        told = [float(one[name]) for name in ("p", "q", "g")]
        same &= bool(np.allclose(told, [p[place], q[place], g], rtol=1e-5) and np.allclose(told, expected, rtol=0.02))
        same &= family <= 0.025 and float(one["p_family"]) <= 0.025
    return same


def _family_p(differences: np.ndarray, place: int, flips: int = 999) -> float:
    """Family-wise p by sign flips, in plain NumPy with other random signs than `contrast` draws."""
    random = np.random.default_rng(12345)
    t = np.abs(differences.sum(axis=0)) / np.sqrt((differences**2).sum(axis=0))
    signs = random.choice((-1.0, 1.0), (flips, len(differences)))
    largest = [np.abs(row @ differences / np.sqrt((differences**2).sum(axis=0))).max() for row in signs]
    return float((1 + (np.array(largest) >= t[place] * (1 - 1e-9)).sum()) / (1 + flips))


def main() -> int:
    """Print the tables; 0 when all hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--splits", type=int, default=60)
    options = parser.parse_args()
    from stratoscope.doors.demo import find_model

    holds = print_named(options.studies)
    print()
    holds &= print_planted(options.seeds, None)
    print()
    real = recorded_means(find_model(), 176)
    flat = real.reshape(len(real), -1)
    holds &= print_planted(options.seeds, flat)
    print()
    holds &= print_chances(flat)
    print()
    holds &= print_direction(real, options.splits)
    print()
    holds &= print_demo()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
