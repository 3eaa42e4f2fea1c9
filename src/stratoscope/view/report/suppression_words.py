"""What a suppression found, in sentences: each measured, none of them about what a model means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.results.result import Row, table_in
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.calibration import NOT_CALIBRATED
from stratoscope.view.report.report import Facts
from stratoscope.words import agreeing, capital, counted, listed, neuron_name, number, readable

if TYPE_CHECKING:
    import xarray as xr

SIMULATED = "simulated: no calibration"
_LEAST_SHARE = 0.005  # that is not written as 0 %
_SMALL = 0.05  # share of what was read: less is not worth a word beside more
PARTS = {"attn": "attention", "mlp": "MLP"}
MEASURES = {"total": "total effect", "direct": "direct contribution"}
_RECORD = "record it with `stratoscope capture … --record logits,effects --targets …`"


def mark_of(summary: Facts, *kinds: str) -> str:
    """What a title says of the calibration of effects of these kinds; "" where there is nothing to say."""
    if not summary["total"] or not set(kinds) & set(summary["not_calibrated"]):
        return ""
    return SIMULATED if summary["simulated"] else NOT_CALIBRATED


def marked(title: str, mark: str) -> str:
    """A title with what it says of the calibration."""
    return f"{title} ({mark})" if mark else title


def calibrations(summary: Facts, *kinds: str) -> list[str]:
    """What a figure says of how far effects of these kinds are to be believed."""
    if not summary["total"]:
        return []
    if summary["simulated"]:
        return [f"{capital(SIMULATED)}."]
    return [summary["calibration"][kind] for kind in kinds if kind in summary["calibration"]]


def belief(summary: Facts) -> str:
    """What is said beside each of several figures, whose sentences on the calibration stand at the first."""
    if not summary["total"]:
        return ""
    return f" Total effects: {mark_of(summary, *drawn_kinds(summary)) or 'calibrated'} (see Calibration)."


def drawn_kinds(summary: Facts) -> tuple[str, ...]:
    """Kinds of parts of the figure along the depth: attention blocks, or where none was ablated their heads."""
    return ("mlp", "attn" if "attn" in summary.get("calibration", {}) else "head")


def lacking(summary: Facts) -> list[str]:
    """What the trace does not hold, and the command that records it."""
    if not summary["total"]:
        return [f"This trace holds no total effects: {_RECORD}."]
    if not summary["direct"]:
        return [f"This trace holds no direct contributions: {_RECORD}."]
    return []


def subject(summary: Facts) -> str:
    """What is explained, of which prompts: “Sorry” against “Sure”, prompt opener-3."""
    if summary["prompt"]:
        return f"{summary['target']}, {summary['prompt']}"
    if "units" in summary:
        return f"{summary['target']}, {summary['a']} − {summary['b']}"
    classes = [name for name in summary["classes"] if name]
    of = f" of {listed(classes)}" if classes else ""
    return f"{summary['target']}, mean of {counted(summary['prompts'], 'prompt')}{of}"


def headline(result: xr.DataTree) -> str:
    """What differs, of two classes; else the strongest block of either sign, by total effect where it was recorded."""
    summary = result.attrs["summary"]
    if summary.get("test"):
        return _differing(result)
    measure = "total" if summary["total"] else "direct"
    found = strongest_blocks(result, measure)
    if not found:
        return f"Nothing promotes or suppresses {summary['target']}: {_nothing(result, measure)}"
    says = [f"{name} {verb} it most" for verb, name, _ in found]
    return f"{summary['target']}: {listed(says)}"


def _differing(result: xr.DataTree) -> str:
    """How much is found to differ, by total effects where they were recorded."""
    summary = result.attrs["summary"]
    name = "total" if "total_compared" in summary["compared"] else "direct"
    found = summary["compared"][f"{name}_compared"]
    what = "none" if not found["discoveries"] else f"{found['discoveries']:,}"
    verb = agreeing(found["discoveries"], "differs", "differ")
    said = f"{what} of {found['tested']} {MEASURES[name]}s {verb} between {summary['a']} and {summary['b']}"
    return f"{summary['target']}: {said}"


def strongest_blocks(result: xr.DataTree, measure: str) -> list[tuple[str, str, float]]:
    """The block that promotes and the one that suppresses most: verb, name, value; none where there is none."""
    layers, values = mean_blocks(result, measure)
    names = [f"L{layer} {PARTS[part]}" for part in PARTS for layer in layers.tolist()]
    flat = np.concatenate([values[part] for part in PARTS])
    found = []
    for verb, place, sign in (("promotes", _place(flat, 1), 1), ("suppresses", _place(flat, -1), -1)):
        if place is not None and sign * flat[place] > 0:
            found.append((verb, names[place], float(flat[place])))
    return found


def mean_blocks(result: xr.DataTree, measure: str) -> tuple[Ints, dict[str, Floats]]:
    """Numbers of the layers, and means over the prompts of what their attention and MLP do."""
    depth = table_in(result, "depth")
    found = {}
    for part in PARTS:
        values = depth[f"{part}_{measure}"].values
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            found[part] = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    return np.asarray(depth["layer"].values, np.int64), found


def _nothing(result: xr.DataTree, measure: str) -> str:
    """Why no block is strongest: a value that is not known is not zero."""
    known = any(np.isfinite(values).any() for values in mean_blocks(result, measure)[1].values())
    return f"every {MEASURES[measure]} is zero" if known else f"no {MEASURES[measure]} is known"


def _place(values: Floats, sign: int) -> int | None:
    known = np.isfinite(values)
    return int(np.argmax(np.where(known, sign * values, -np.inf))) if known.any() else None


def lead(result: xr.DataTree) -> list[str]:
    """The first lines: the strongest parts, the sum, how far it can be believed, what is lacking."""
    summary = result.attrs["summary"]
    several = "" if summary["prompt"] else ", mean over the prompts"
    lines = [*_prompt(summary)]
    for measure in (one for one in MEASURES if summary[one]):
        said = [f"{name} {verb} it most ({signed(value)})" for verb, name, value in strongest_blocks(result, measure)]
        by = marked(MEASURES[measure], _mark_of_depth(summary, measure)) + several
        lines.append(f"By {by}, {listed(said)}." if said else capital(f"{_nothing(result, measure)}."))
    lines += strongest_neurons(result)
    lines += _compared(result)
    lines += _sum(result)
    return [*lines, *lacking(summary)]


def _prompt(summary: Facts) -> list[str]:
    """What was asked, and the target's logit there; nothing of several prompts."""
    if not summary.get("asked"):
        return []
    logit = summary["logit"]
    said = f"“{summary['asked']}” ({summary['prompt']})"
    return [f"{said}: {summary['target']} has the logit {signed(logit)}." if logit is not None else f"{said}."]


def _mark_of_depth(summary: Facts, measure: str) -> str:
    """What is said of the calibration of attention and MLPs; contributions are exact and need none."""
    return mark_of(summary, *drawn_kinds(summary)) if measure == "total" else ""


def strongest_neurons(result: xr.DataTree) -> list[str]:
    """The strongest neuron of either sign, where it acts and what set it off, in a sentence each."""
    if "neurons" not in result:
        return []
    table, summary = table_in(result, "neurons"), result.attrs["summary"]
    lines = []
    for verb, sign in (("promotes", 1), ("suppresses", -1)):
        some = np.flatnonzero(np.sign(table["total"].values) == sign)
        if len(some):
            strongest = table.isel(listed=int(some[0]))
            lines.append(_strongest_neuron(strongest, verb, mark_of(summary, "neuron"), single=bool(summary["prompt"])))
    return lines


def _strongest_neuron(one: xr.Dataset, verb: str, mark: str, *, single: bool) -> str:
    name = neuron_name(int(one["layer"]), int(one["neuron"]))
    among = f"{marked('Of the neurons recorded', mark)},"
    at = f"“{readable(str(one['token'].item()))}” (position {int(one['position'])})"
    if single:
        line = f"{among} {name} at {at} {verb} it most ({signed(float(one['total']))})"
    else:
        line = f"{among} {name} {verb} it most: in {one['prompt_id'].item()} at {at}"
        line += f" ({signed(float(one['total']))})"
    read = sources(one, 0)
    if not read:
        return f"{line}."
    raised = float(one["source_share"].values[0, 0]) >= 0
    return f"{line}; its gate was {'set off' if raised else 'held back'} most by {read[0]}."


def sources(neuron: xr.Dataset, part: int) -> list[str]:
    """The tokens that most of a neuron's gate (part 0) or up came from: “·fire” 23 +58 % (L3 attention)."""
    if "source_token" not in neuron or part >= neuron.sizes["part"]:
        return []
    return _sources(neuron.isel(part=part), own=int(neuron["position"]))


def head_sources(head: xr.Dataset) -> list[str]:
    """The tokens that most of a head's direct contribution comes from, each with its share by size."""
    return _sources(head)


def _sources(row: xr.Dataset, own: int | None = None) -> list[str]:
    """Source tokens with their positions, shares and through what they came; `own` is the position of the reader.

    Small ones only where there is no larger one.
    """
    through = row["source_through"].values if "source_through" in row else [""] * row.sizes["source"]
    columns = (row[f"source_{name}"].values for name in ("token", "share", "position"))
    found: list[str] = []
    for token, share, position, by in zip(*columns, through, strict=True):
        if position >= 0 and np.isfinite(share) and (not found or abs(share) >= _SMALL):
            name = "its own token" if position == own else f"“{readable(str(token))}” {position}"
            found.append(f"{name} {_share(share)}" + (f" ({by})" if by else ""))
    return found


def row_name(row: Row) -> str:
    """What a row of a comparison is called: L3 MLP, L3 h2, final norm."""
    if "head" in row:
        return f"L{row['layer']} h{row['head']}"
    part = {"mlp": "MLP"}.get(row["part"], row["part"])
    return f"L{row['layer']} {part}" if row["layer"] >= 0 else str(part)


def _share(share: float) -> str:
    size = f"{abs(100 * share):.0f} %" if abs(share) >= _LEAST_SHARE else "<1 %"
    return f"+{size}" if share >= 0 else f"−{size}"


def signed(value: float) -> str:
    """A number with its sign, also where it is positive."""
    return f"+{number(value)}" if value > 0 else number(value)


def _compared(result: xr.DataTree) -> list[str]:
    summary, lines = result.attrs["summary"], []
    alpha = result.attrs["parameters"]["alpha"]
    for name, what in (("total_compared", "total effects"), ("direct_compared", "direct contributions")):
        found = summary.get("compared", {}).get(name)
        if found and found["tested"]:
            lines.append(
                f"Between {summary['a']} and {summary['b']} {found['discoveries']} of {found['tested']} "
                f"{marked(what, _mark_of_depth(summary, name.split('_')[0]))} "
                f"{agreeing(found['discoveries'], 'differs', 'differ')} (q ≤ {alpha:g}, {summary['test']}, "
                f"{summary['units']}); {found['family_wise']} with a family-wise p ≤ {alpha:g}."
            )
    return lines


def _sum(result: xr.DataTree) -> list[str]:
    if "sum" not in result:
        return []
    table = table_in(result, "sum")
    error, sizes = np.abs(table["error"].values), table["sizes"].values
    known = np.isfinite(error)
    if not known.any():
        return ["The sum of the contributions or the model's own logit is not known: they are not compared."]
    share = float((error[known] / np.where(sizes[known] > 0, sizes[known], 1.0)).max())
    if table.sizes["prompt"] == 1:
        sums, model = float(table["sum"][0]), float(table["model"][0])
        of = f"Together the direct contributions are {signed(sums)}; the model's own logit is {signed(model)}"
        return [f"{of} (error {number(error[0])}, {number(share)} of the sum of their sizes)."]
    return [f"The direct contributions sum to the model's own logit; the largest error is {number(share)} of the sum "
            "of their sizes."]  # fmt: skip


def texts(values: Sequence[str]) -> str:
    """Token texts in a cell."""
    return "  ".join(readable(str(text)) for text in values if str(text))
