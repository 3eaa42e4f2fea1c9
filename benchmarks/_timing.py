"""Fair timing of two ways to do the same work: interleaved pairs, medians, a bootstrap interval of the ratio."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping

import numpy as np

PAIRS = 15  # a figure that is reported needs at least as many
RESAMPLES = 10_000


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, with the garbage of the call before it already collected."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int = PAIRS) -> np.ndarray:
    """Time A B A B …, so that a slow minute of a shared machine falls on both.

    One pair is run first and thrown away (imports, page cache).

    Returns
    -------
    ndarray, shape (pairs, 2)
        Seconds of `ours` and `theirs`.
    """
    seconds(ours), seconds(theirs)
    return np.array([(seconds(ours), seconds(theirs)) for _ in range(pairs)])


def rounds(work: Mapping[str, Callable[[], object]], *, pairs: int = PAIRS) -> dict[str, np.ndarray]:
    """Time several ways A B C A B C …; each round begins with another one. One round is run first and thrown away.

    Returns
    -------
    dict
        Seconds of each, shape (pairs,).
    """
    names = list(work)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, pairs):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = seconds(work[name])
            if number >= 0:
                times[name].append(taken)
    return {name: np.array(found) for name, found in times.items()}


def ratio_interval(times: np.ndarray) -> tuple[float, float, float]:
    """Median over pairs of ours / theirs, and its bootstrap interval."""
    return interval(times[:, 0] / times[:, 1])


def interval(ratios: np.ndarray, *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Median of paired ratios, and its percentile bootstrap interval over the pairs."""
    draws = np.random.default_rng(seed).choice(ratios, size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(ratios)), float(low), float(high)


def report(times: np.ndarray, *, ours: str, theirs: str, goal: float) -> float:
    """Print both medians and, as the last line, `ratio: <median> [low, high] goal <=x`; return the ratio."""
    for name, column in ((ours, times[:, 0]), (theirs, times[:, 1])):
        quartiles = np.quantile(column, [0.25, 0.5, 0.75])
        print(f"{name:<40} median {quartiles[1]:8.4f} s   quartiles {quartiles[0]:.4f} .. {quartiles[2]:.4f}")
    ratio, low, high = ratio_interval(times)
    print(f"pairs: {len(times)}")
    print(f"ratio: {ratio:.3f} [{low:.3f}, {high:.3f}] goal <={goal:g}")
    return ratio


def parser(description: str | None, *, pairs: int = PAIRS) -> argparse.ArgumentParser:
    """The options every benchmark has; add your own before parsing."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--pairs", type=int, default=pairs, help=f"interleaved pairs (default {pairs})")
    options.add_argument("--folder", default=None, help="where what is written goes (default: the temporary folder)")
    return options
