"""Charts of what `ablate` found: effects beside random ones, and curves of ablating one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.spec.charts import (
    Axis,
    ChartPanel,
    Charts,
    Horizontal,
    Intervals,
    Line,
    Mark,
    Points,
    Span,
    Vertical,
)
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.viewspec import Provenance, ViewSpec, public_name
from stratoscope.words import counted, listed

if TYPE_CHECKING:
    import xarray as xr

_MOST_TARGETS = 2  # side by side
_SET_TO = {
    names.MEAN: "set to the mean of all tokens but first ones",
    names.RESAMPLE: "set to values of other prompts",
    names.ZERO: "set to zero",
}
_AT = {names.ALL_POSITIONS: "at all tokens", names.ANSWER_POSITION: "at the last token"}
_BUT_FIRST = " but the first"
_BESIDE = {"matched": 0.2, "direction": 0.34}  # how far below the row of a set random ones stand


def ablation_spec(found: xr.Dataset, look: Look = PLAIN) -> ViewSpec:
    """The picture of a Dataset that `ablate` returned: the curves, where it has some, else the effects."""
    curves = "completeness" in found
    targets = range(min(found.sizes["target"], _MOST_TARGETS))
    panels = [panel for target in targets for panel in (_curve_panels if curves else _effect_panels)(found, target)]
    height = 2.7 if curves else 0.7 + 0.62 * found.sizes["set"]
    prompts = counted(found.sizes["prompt"], "prompt")
    but = _BUT_FIRST if found.attrs["positions"] == names.ALL_POSITIONS and not found.attrs["first_token"] else ""
    how = f"{_SET_TO[found.attrs['how']]}, {_AT[found.attrs['positions']]}{but} · {prompts}"
    parameters = {name: found.attrs[name] for name in ("how", "positions", "seed", "draws")}
    return ViewSpec(
        _title(found, curves=curves),
        how,
        Charts(tuple(panels), height),
        look,
        selected=Selected(tuple(found["prompt"].values.tolist()), of_trace=_left_out(found)),
        notes=tuple(_notes(found, curves=curves)),
        provenance=Provenance(source=names.REAL, model=public_name(str(found.attrs["model"]["name"]))),
        parameters=parameters,
        drawn_by=DrawnBy("ablate", parameters, traces=0),
    )


def _title(found: xr.Dataset, *, curves: bool) -> str:
    if not curves:
        return "What ablating takes away from the target"
    return f"The {found['step'].values[-1]} strongest, ablated one after the other"


def _left_out(found: xr.Dataset) -> str:
    there = found.sizes["target"]
    return f"{_MOST_TARGETS} of {there} targets" if there > _MOST_TARGETS else ""


def _notes(found: xr.Dataset, *, curves: bool) -> Iterator[Note]:
    yield Note("L31", INFO, found.attrs["found"])
    if curves:
        said = "Strongest: by first-order effect on the first target. Shares are of differences of means over prompts."
        yield Note("L28", INFO, f"{said} In order: {listed(found['taken'].values[0], 12)}.")
        return
    said = (
        "First order and direct are no measurements. Bars: 95 % t intervals of means over prompts; points of random "
        "ones: single draws, mean over prompts; grey ground: what another batch size changes."
    )
    yield Note("L28", INFO, said)


# --- effects ----------------------------------------------------------------------------------------------------------


def _effect_panels(found: xr.Dataset, target: int) -> Iterator[ChartPanel]:
    one = found.isel(target=target)
    rows = np.arange(found.sizes["set"], dtype=float)[::-1]  # the first at the top
    floor = float(one["floor"])
    marks: list[Mark] = [Span(-floor, floor, "muted"), Vertical(0.0, "muted")]
    by_prompt = one["measured"].values
    marks.append(Points(by_prompt.ravel(), np.repeat(rows, by_prompt.shape[1]), "muted", "each prompt"))
    for control, style, words in (("matched", "b", _matched_words(found)), ("direction", "c", "random directions")):
        means = one["control"].sel(control_kind=control).mean("prompt", skipna=False).values
        at = np.repeat(rows - _BESIDE[control], means.shape[1])
        known = np.isfinite(means.ravel())
        if known.any():
            marks.append(Points(means.ravel()[known], at[known], style, words))  # type: ignore[arg-type]
    marks.append(Points(one["first_order_mean"].values, rows + 0.16, "plain", "first order"))
    direct = one["direct_mean"].values
    known = np.isfinite(direct)
    marks.append(Points(direct[known], rows[known] + 0.32, "d", "direct"))
    mean = one["measured_mean"].values
    low, high = (
        np.where(np.isfinite(one[end].values), one[end].values, mean) for end in ("measured_low", "measured_high")
    )
    marks.append(Intervals(mean, rows, low, high, "accent", "measured"))
    ticks = tuple((float(row), str(label)) for row, label in zip(rows, found["set"].values, strict=True))
    name = str(one["target"].values)
    yield ChartPanel(
        name, Axis("what ablating takes away (logit)"), Axis("", -0.7, len(rows) - 0.3, ticks), tuple(marks), width=1.5
    )


def _matched_words(found: xr.Dataset) -> str:
    members = " ".join(found["members"].values.tolist())
    kinds = [kind for kind, there in (("neurons", " n" in members), ("heads", "head" in members)) if there]
    return f"random {' and '.join(kinds)}"


# --- curves -----------------------------------------------------------------------------------------------------------


def _curve_panels(found: xr.Dataset, target: int) -> Iterator[ChartPanel]:
    one = found.isel(target=target)
    steps = one["step"].values.astype(float)
    name = str(one["target"].values)
    for what, title, label in (
        ("completeness", "without the strongest", "ablated"),
        ("faithfulness", "with the strongest alone", "not ablated"),
    ):
        values = one[what].values
        marks: list[Mark] = [Horizontal(0.0, "muted"), Horizontal(1.0, "muted")]
        for number, row in enumerate(values[1:]):
            words = counted(len(values) - 1, "random order") if number == 0 else ""
            marks.append(Line(steps, row, "muted", words))
        marks += [Line(steps, values[0], "accent", "strongest first"), Points(steps, values[0], "accent")]
        axis = Axis(f"{label}, of {int(steps[-1])}", ticks=_ticks(steps))
        yield ChartPanel(f"{name}: {title}", axis, Axis(f"{what} (share)"), tuple(marks), width=1.2)


def _ticks(steps: Any) -> tuple[tuple[float, str], ...]:
    """A few steps, none too near to the one before it."""
    kept: list[float] = []
    for step in steps:
        if not kept or step - kept[-1] >= steps[-1] / 8 or step == steps[-1]:
            kept.append(float(step))
    return tuple((step, f"{int(step)}") for step in kept)
