"""How often a contrast is wrong, counted where the truth is known: `make truth` prints these tables.

- False discoveries: simulated classes of four kinds, some neurons truly different, 200 seeds; the mean share of false
  discoveries must not exceed q by more than three standard errors.
- Null contrasts: a real recording of prompts of one kind, divided at random 200 times; nothing is true.

The statistics are computed by the code that `contrast` runs. A small part of both runs in the tests. What must be found
is in `truth_power.py`.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stratoscope import defaults
from stratoscope.analysis.classes.design import Design, make_design
from stratoscope.analysis.classes.units import CLASSES, PAIRS, Units
from stratoscope.analysis.contrast.column_tests import compare_columns
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.names import Unequal

SEEDS = 200
NEURONS, TRUE_SHARE, EFFECT = 2_000, 0.05, 1.2
KINDS = ("independent", "block-correlated", "skewed", "unequal variance")
SIZES = ((20, 20), (8, 80))
SPLITS: tuple[tuple[str, int, int], ...] = ((CLASSES, 20, 20), (CLASSES, 8, 80), (PAIRS, 20, 20))
_BLOCK = 50  # neurons that share half of their variance
_Q = defaults.ALPHA


def units_of(design: str, of_a: int, of_b: int) -> Units:
    """Prompts 0 … of_a + of_b − 1, class a first; of pairs row i of both classes is one unit."""
    prompts = np.arange(of_a + of_b)
    in_a = prompts < of_a
    unit = prompts % of_a if design == PAIRS else prompts
    pair = unit if design == PAIRS else np.full(len(prompts), -1)
    return Units("a", "b", design, prompts, unit, in_a, tuple(f"unit {number}" for number in np.unique(unit)), pair)


def design_of(kind: str, of_a: int, of_b: int, unequal: Unequal, seed: int) -> Design:
    """What `contrast` would do with so many prompts, all of them tested."""
    return make_design(units_of(kind, of_a, of_b), unequal=unequal, held_out=0.0, alpha=_Q, seed=seed)


def p_values(design: Design, values: np.ndarray) -> np.ndarray:
    """P-value of each column of values [prompt, column], in the order of `units_of`."""
    a, b = design.units.average(values[design.units.prompts])
    return compare_columns(design, design.tested, a, b).p


# --- false discoveries ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Over seeds: mean share of false discoveries with its standard error, power, and the power of an oracle."""

    fdp: float
    error: float
    power: float
    oracle: float

    @property
    def holds(self) -> bool:
        """Whether it is within three standard errors of q, or below."""
        return self.fdp <= _Q + 3 * self.error


def simulated(
    kind: str, of_a: int, of_b: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values [prompt, neuron] of both classes, where they truly differ, and an oracle's z of each neuron.

    The oracle knows the variance of every class, and of skewed values the logarithm under which they are normal.
    """
    rows = of_a + of_b
    noise = random.normal(size=(rows, NEURONS))
    if kind == "block-correlated":
        shared = random.normal(size=(rows, -(-NEURONS // _BLOCK)))
        noise = np.sqrt(0.5) * noise + np.sqrt(0.5) * np.repeat(shared, _BLOCK, axis=1)[:, :NEURONS]
    spread = np.where(np.arange(rows) < of_a, 2.0, 1.0) if kind == "unequal variance" else np.ones(rows)
    true = random.random(NEURONS) < TRUE_SHARE
    effect = np.where(true, random.choice((-1, 1), NEURONS) * EFFECT, 0.0)
    values = noise * spread[:, None]
    values[:of_a] += effect * np.sqrt((spread[0] ** 2 + spread[-1] ** 2) / 2)
    error = np.sqrt(spread[0] ** 2 / of_a + spread[-1] ** 2 / of_b)
    oracle = (values[:of_a].mean(axis=0) - values[of_a:].mean(axis=0)) / error
    return (np.exp(values) if kind == "skewed" else values), true, oracle


def false_discoveries(kind: str, sizes: tuple[int, int], unequal: Unequal, seeds: int) -> Rates:
    """Rates of one kind of data and one pair of class sizes."""
    from scipy.special import ndtr

    shares, power, of_oracle = [], [], []
    for seed in range(seeds):
        random = np.random.default_rng([seed, KINDS.index(kind), *sizes])
        values, true, oracle = simulated(kind, *sizes, random)
        found = q_values(p_values(design_of(CLASSES, *sizes, unequal, seed), values)) <= _Q
        shares.append((found & ~true).sum() / max(found.sum(), 1))
        power.append((found & true).sum() / true.sum())
        of_oracle.append(((q_values(2 * ndtr(-np.abs(oracle))) <= _Q) & true).sum() / true.sum())
    error = float(np.std(shares, ddof=1) / np.sqrt(seeds))
    return Rates(float(np.mean(shares)), error, float(np.mean(power)), float(np.mean(of_oracle)))


# --- nothing is true --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Null:
    """Over random splits: share of p < 0.05 with its standard error, and share of splits with any discovery."""

    share: float
    error: float
    any_discovery: float
    splits: int

    @property
    def controlled(self) -> bool:
        """Whether neither is larger than it should be, by more than three standard errors."""
        any_error = np.sqrt(_Q * (1 - _Q) / self.splits)
        return self.share <= _Q + 3 * self.error and self.any_discovery <= _Q + 3 * any_error

    @property
    def holds(self) -> bool:
        """Whether, besides, the share of small p-values is not smaller than it should be."""
        return self.controlled and self.share >= _Q - 3 * self.error


def null_splits(values: np.ndarray, kind: str, of_a: int, of_b: int, unequal: Unequal, splits: int) -> Null:
    """Contrasts of prompts of one kind, [prompt, column], divided at random."""
    shares, found = [], []
    for seed in range(splits):
        chosen = np.random.default_rng([seed, of_a, of_b]).permutation(len(values))[: of_a + of_b]
        p = p_values(design_of(kind, of_a, of_b, unequal, seed), values[chosen])
        shares.append(float((p[np.isfinite(p)] < _Q).mean()))
        found.append(bool((q_values(p) <= _Q).any()))
    return Null(float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(splits)), float(np.mean(found)), splits)


def docstrings(least: int, most: int) -> Iterator[str]:
    """First paragraphs of the docstrings of Python's own library: texts of one kind that every machine has."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text("utf-8", errors="replace"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
        for text in filter(None, map(ast.get_docstring, nodes[:12])):
            paragraph = " ".join(text.split())[:most]
            if len(paragraph) >= least:
                yield paragraph


def recorded_means(model: Path, prompts: int, *, least: int = 120, most: int = 400) -> np.ndarray:
    """`prompt_mean` of so many docstrings, [prompt, layer, neuron]."""
    import stratoscope

    texts = list(dict.fromkeys(docstrings(least, most)))
    chosen = np.random.default_rng(0).permutation(len(texts))[:prompts]
    given = [stratoscope.Prompt(f"p{place}", text=texts[place]) for place in chosen]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "null.trace"
        trace = stratoscope.capture(str(model), given, out, record=("prompts",), batch_size=16)
        return trace["prompt_mean"].values


# --- tables -----------------------------------------------------------------------------------------------------------


def print_false_discoveries(seeds: int, tell: Callable[[str], None] = print) -> bool:
    """The table of rates; whether all hold."""
    tell(f"False discoveries at q = {_Q:g}: {seeds} seeds, {NEURONS:,} neurons, {TRUE_SHARE:.0%} with d = {EFFECT}")
    tell(f"{'data':<18}{'classes':>10}  {'test':<22}{'mean FDP':>9}{'SE':>8}{'bound':>8}{'power':>8}{'oracle':>8}")
    holds = True
    for sizes in SIZES:
        ways: tuple[Unequal, ...] = ("subsample",) if sizes[0] == sizes[1] else ("subsample", "rank-sum")
        for unequal in ways:
            for kind in KINDS:
                rates = false_discoveries(kind, sizes, unequal, seeds)
                expected = unequal == "subsample" or kind != "unequal variance"  # ranks answer to spread as well
                holds &= rates.holds or not expected
                test = "Welch" if sizes[0] == sizes[1] else {"subsample": "Welch, subsampled"}.get(unequal, unequal)
                verdict = "" if rates.holds else "  ABOVE" + ("" if expected else " (another null hypothesis)")
                tell(
                    f"{kind:<18}{f'{sizes[0]} v. {sizes[1]}':>10}  {test:<22}{rates.fdp:>9.4f}{rates.error:>8.4f}"
                    f"{_Q + 3 * rates.error:>8.4f}{rates.power:>8.2f}{rates.oracle:>8.2f}{verdict}"
                )
    return holds


def print_null(values: np.ndarray, splits: int, tell: Callable[[str], None] = print) -> bool:
    """The table of null contrasts; whether all hold."""
    tell(
        f"Null contrasts: {splits} random splits of {len(values)} real prompts of one kind, {values.shape[1]:,} neurons"
    )
    tell(f"{'design':<10}{'sizes':>10}  {'test':<22}{'p < 0.05':>9}{'SE':>8}{'any q ≤ 0.05':>14}")
    holds = True
    for kind, of_a, of_b in SPLITS:
        ways: tuple[Unequal, ...] = ("subsample",) if of_a == of_b else ("subsample", "rank-sum")
        for unequal in ways:
            null = null_splits(values, kind, of_a, of_b, unequal, splits)
            holds &= null.controlled
            test = {PAIRS: "paired t"}.get(kind, "Welch" if of_a == of_b else unequal)
            verdict = "" if null.holds else "  BELOW" if null.controlled else "  ABOVE"
            tell(
                f"{kind:<10}{f'{of_a} v. {of_b}':>10}  {test:<22}{null.share:>9.4f}{null.error:>8.4f}"
                f"{null.any_discovery:>14.3f}{verdict}"
            )
    return holds


def main() -> int:
    """Print the tables; 0 when all hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--model", type=Path, help="a model to record; without it the installed SmolLM2")
    options = parser.parse_args()
    holds = print_false_discoveries(options.seeds)
    print()
    if options.model is None:
        from stratoscope.doors.demo import find_model

        options.model = find_model()
    holds &= print_null(recorded_means(options.model, 176).reshape(176, -1), options.seeds)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
