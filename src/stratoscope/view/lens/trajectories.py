"""Charts beside the cells: log-probability, rank and logit of targets or of the model's answer, on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from stratoscope.analysis.lens.finding import Found, Trajectory, answer_trajectory, lens_in_words, target_trajectory
from stratoscope.analysis.lens.lenses import Lenses
from stratoscope.trace.arrays import Floats
from stratoscope.trace.targets import Targets
from stratoscope.view.spec.charts import Axis, Band, ChartPanel, Horizontal, Line, Mark, Points, Side, Style
from stratoscope.words import agreeing, counted, readable

if TYPE_CHECKING:
    import xarray as xr

_SIDES: tuple[Side, ...] = get_args(Side)
LOGPROB = "log-probability (nat)"
_FAR = 1.25  # times what nine in ten are below
MOST_TARGETS = 4  # side by side in one chart
_MOST_POINTS = 24  # depths of which each has a point of its own


@dataclass(frozen=True, eq=False)
class Drawn:
    """A token whose trajectories are drawn: in the lens of the picture, and in the one beside it."""

    name: str
    style: Style
    here: Trajectory
    beside: Trajectory | None = None


def trajectories(
    dataset: xr.Dataset, lenses: Lenses, found: Found, token: int, targets: Sequence[int], depths: Sequence[int]
) -> tuple[ChartPanel, ...]:
    """The charts of a token, by its place on the dimension `token`; rows are these depths."""
    drawn = [*_drawn(dataset, lenses, found, token, targets)]
    marks = [*_where(found, {depth: float(row) for row, depth in enumerate(depths)})]
    y = Axis("", -0.5, len(depths) - 0.5)
    beside = _beside(lenses, found)
    panels = [
        ChartPanel("", _logprob_axis(drawn), y, (*_lines(drawn, "logprob", beside), *marks)),
        ChartPanel("", Axis("rank (1 = likeliest)", 0.8, _highest(drawn), log=True), y,
                   _unnamed((*_lines(drawn, "rank", beside), *marks))),
    ]  # fmt: skip
    with_logit = [one for one in drawn if np.isfinite(one.here.logit).any()]
    if with_logit:
        axis = Axis(_logit_axis(dataset, targets))
        panels.append(ChartPanel("", axis, y, _unnamed((*_lines(with_logit, "logit", beside), *marks))))
    return tuple(panels)


def _beside(lenses: Lenses, found: Found) -> str:
    """What dashed lines are: the lens that is not in the cells."""
    other = lenses.other(found.lens)
    return f"dashed: {lens_in_words(other).removeprefix('the ')}" if other else ""


def _drawn(dataset: xr.Dataset, lenses: Lenses, found: Found, token: int, targets: Sequence[int]) -> Iterator[Drawn]:
    """The targets in their colours, and the model's answer, which the marks are of, unless it is one of them."""
    other, texts = lenses.other(found.lens), Targets(dataset).texts
    both = [found.lens, *([other] if other else [])]
    answer, *beside = (answer_trajectory(dataset, lenses, lens, token) for lens in both)
    named = [
        ([target_trajectory(dataset, lenses, lens, token, place) for lens in both], texts[place])
        for place in targets[:MOST_TARGETS]
    ]
    if not any(_is_same(answer, one) for (one, *_), _ in named):
        yield Drawn(f"answer {readable(found.answer)}", "plain", answer, *beside)
    for style, (here, text) in zip(_SIDES, named, strict=False):
        if _is_same(answer, here[0]):
            yield Drawn(f"answer {readable(found.answer)}", "plain", *here)
        else:
            yield Drawn(f"target {readable(text)}", style, *here)


def _is_same(one: Trajectory, other: Trajectory) -> bool:
    """Whether two trajectories are of the same token."""
    same = (np.array_equal(a, b, equal_nan=True) for a, b in ((one.rank, other.rank), (one.logprob, other.logprob)))
    return all(same)


def _lines(drawn: Sequence[Drawn], what: str, beside: str) -> Iterator[Mark]:
    """One line for each token and lens; the parts of the corpus as a band around the first."""
    y = np.arange(len(getattr(drawn[0].here, what)), dtype=float)
    for one in drawn:
        x: Floats = getattr(one.here, what)
        yield Line(x, y, one.style, one.name)
        if len(x) <= _MOST_POINTS:
            yield Points(x, y, one.style)
    for one in drawn:
        if one.beside is not None and len(there := getattr(one.beside, what)):
            yield Line(there, y, one.style, beside if one is drawn[0] else "", dashed=True)
    low, high = (getattr(drawn[0].here, f"{end}_{what}", np.empty(0)) for end in ("low", "high"))
    if len(low):
        yield Band(y, low, high, drawn[0].style, f"{drawn[0].name}: parts of the corpus")


def _where(found: Found, places: dict[int, float]) -> Iterator[Mark]:
    """Where the model's answer first leads, and where it begins to stay: the lower edge of that row."""
    if found.first_leads is not None and found.first_leads != found.stays_from:
        yield Horizontal(places[found.first_leads] - 0.5, "muted", f"first leads at D{found.first_leads}")
    if found.stays_from is not None:
        yield Horizontal(places[found.stays_from] - 0.5, "accent", _stays(found))


def _stays(found: Found) -> str:
    """From where the model's answer leads to the end; of the last depth, where it must, that it does so only there."""
    if found.stays_from != found.last_depth:
        return f"leads from D{found.stays_from} to the end"
    begun = found.first_leads != found.stays_from
    return f"{'then again' if begun else 'leads'} only in the model's own output"


def _unnamed(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """The same marks without names, which the key has already."""
    return tuple(replace(mark, label="") for mark in marks)


def _highest(drawn: Sequence[Drawn]) -> float:
    """The end of the axis of ranks."""
    ranks = [one.rank for each in drawn for one in (each.here, each.beside) if one is not None]
    return float(max(np.nanmax(np.concatenate(ranks), initial=10.0), 10.0) * 1.3)


def _logprob_axis(drawn: Sequence[Drawn]) -> Axis:
    """The axis of log-probabilities, whose low end a few far ones do not set: it says how many lie beyond."""
    lines = [one.logprob for each in drawn for one in (each.here, each.beside) if one is not None]
    known = np.concatenate(lines)[np.isfinite(np.concatenate(lines))]
    if not known.size:
        return Axis(LOGPROB)
    own = [line[np.isfinite(line)].min(initial=0.0) for line in (one.here.logprob for one in drawn)]
    low = _FAR * min(float(np.quantile(known, 0.1)), *map(float, own))  # only of the other lens lines leave the chart
    beyond = int((known < low).sum())
    if not beyond or float(known.min()) > 2 * low:
        return Axis(LOGPROB)
    farther = f"{counted(beyond, 'value')} {agreeing(beyond, 'is', 'are')} farther left"
    return Axis(f"{LOGPROB}; {farther}", low, -0.04 * low)


def _logit_axis(dataset: xr.Dataset, targets: Sequence[int]) -> str:
    against = {Targets(dataset).against[place] for place in targets[:MOST_TARGETS]}
    if len(against) == 1 and (one := against.pop()):
        return f"logit − that of {readable(one)}"
    return "logit − mean of the vocabulary" if not against else "logit − what it is held against"
