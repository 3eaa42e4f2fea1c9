"""The measured frontier: how well members are told from others, by how true published differences of classes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.view.spec.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float, float]  # value, low, high
ROWS, IMITATED = "provenance, no-text", "look-alike"
_COLOURS = {
    ROWS: LIGHT.ink,
    "aggregate --neurons": LIGHT.side_c,
    "aggregate": LIGHT.side_a,
    "private": LIGHT.side_b,
    "private, public centre": LIGHT.side_d,
    "look-alike of aggregate": LIGHT.side_a,
    "look-alike of private": LIGHT.side_d,
}
_NOTE = (
    "Numbers: prompts of a class. Rings: look-alikes (simulate --like) of the level of that colour.\n"
    "Lines through points: 95 % intervals over prompts."
)


@dataclass(frozen=True)
class Point:
    """A level at one number of prompts of a class, None where that does not matter."""

    level: str
    prompts: int | None
    use: Interval
    auc: Interval


def draw_frontier(points: Sequence[Point], allowed: float, stem: Path) -> None:
    """One line a level, as PNG and SVG; `allowed`: the area that the level private cannot exceed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "frontier"}
    figure, axes = plt.subplots(figsize=(8.4, 5.6), layout="constrained")
    for place, said in (((1.2, 0.494), "a guess"), ((-0.17, allowed - 0.006), "ε = 1, δ = 1e-5 allow no more")):
        height = round(place[1] + 0.006, 6)
        axes.axhline(height, color=LIGHT.muted, lw=1, ls="--" if height > 0.5 else "-", zorder=0)
        axes.text(*place, said, color=LIGHT.muted, fontsize=9, va="top")
    for level, colour in _COLOURS.items():
        mine = [point for point in points if point.level == level]
        if mine:
            _line(axes, mine, colour)
    axes.set(xlim=(-0.18, 1.34), ylim=(0.44, 1.03), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("use: correlation of the published difference of two classes with the original one, over layers")
    axes.set_ylabel("risk: how well members are told from others (area under ROC)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.annotate("better", (0.7, 0.17), (0.61, 0.3), xycoords="axes fraction", color=LIGHT.muted, ha="center",
                  arrowprops={"arrowstyle": "->", "color": LIGHT.muted})  # fmt: skip
    axes.set_title("What is kept, and what is told of who was in it: level by level", loc="left", fontsize=14, pad=14)
    figure.supxlabel(_NOTE, x=0.01, ha="left", fontsize=8.5, color=LIGHT.muted)
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".png"), dpi=160, metadata={"Software": None})
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _line(axes: Axes, points: Sequence[Point], colour: str) -> None:
    """A level: its points with their intervals, the number of prompts at each, its name once."""
    use, auc = np.array([one.use[0] for one in points]), np.array([one.auc for one in points])
    style = {"color": colour, "mfc": "none", "mew": 1.2}
    if points[0].level.startswith(IMITATED):
        axes.plot(use, auc[:, 0], "o", ms=11, zorder=4, **style)
        return
    if points[0].level == ROWS:
        axes.plot(use, auc[:, 0], "s", ms=11, zorder=4, **style)
    else:
        axes.errorbar(use, auc[:, 0], np.abs(auc[:, 1:] - auc[:, :1]).T, fmt="o-", ms=6, color=colour, lw=1.8,
                      elinewidth=0.9, zorder=3)  # fmt: skip
    few = len(points) > 1 and np.ptp(use) < 0.2 and np.ptp(auc[:, 0]) < 0.02  # all at one place
    upright = np.ptp(use) < np.ptp(auc[:, 0]) or len(points) == 1
    if upright:  # its name stands beside the longest way between two points
        gap = int(np.argmax(np.abs(np.diff(auc[:, 0])))) if len(points) > 1 else 0
        name, where = (1.035, auc[gap : gap + 2, 0].mean()), ((-9, 0), "right", "center")
    else:
        name, where = (use.max() + 0.08, auc[-1, 0] - (0.03 if few else 0)), ((0, 9), "center", "bottom")
    said = f"{points[0].level} ({points[0].prompts} to {points[-1].prompts})" if few else points[0].level
    axes.text(*name, said, color=colour, fontsize=10, va="center")
    if few:
        return
    heights = [one.auc[0] for one in points]
    for place, one in enumerate(points):
        if one.prompts:
            crowded = upright and place == 0 and abs(heights[0] - heights[1]) < 0.03
            axes.annotate(f"{one.prompts}", (one.use[0], one.auc[0]), (where[0][0], where[0][1] + 5 * crowded),
                          textcoords="offset points", color=colour, fontsize=9, ha=where[1], va=where[2])  # fmt: skip
