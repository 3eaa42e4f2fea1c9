"""The parts of a contrast as one Result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.classes.design import RANK_SUM, Design
from stratoscope.analysis.classes.units import Units, counted_tokens
from stratoscope.analysis.contrast import cautions
from stratoscope.analysis.contrast.aligned import Aligned, Twins, twin_tables
from stratoscope.analysis.contrast.baseline import MOST_UNITS, Baseline
from stratoscope.analysis.contrast.column_tests import NAMES
from stratoscope.analysis.contrast.context import SHOWN, contexts, source_of_context
from stratoscope.analysis.contrast.family import BAND
from stratoscope.analysis.contrast.neurons import Listed, NeuronTests
from stratoscope.analysis.contrast.power import POWER, smallest_effect
from stratoscope.analysis.contrast.profiles import Profiles, on_scale, token_counts
from stratoscope.analysis.lint.lint import applicable
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.analysis.statistics.effects import correction
from stratoscope.analysis.values.align import GAP
from stratoscope.analysis.values.explained import about_explained
from stratoscope.analysis.values.final_norm import ONE_SCALE_OF_CLASSES, is_under_final_norm
from stratoscope.analysis.values.quantities import label_in
from stratoscope.trace.labels import object_array
from stratoscope.trace.notes import INFO, Note, notes_of
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

_KEPT = dict.fromkeys(NAMES, "float32") | {"p": "float64", "q": "float64", "p_family": "float64"}
_WORDS = {
    "mean_a": "mean over the units of class a",
    "mean_b": "mean over the units of class b",
    "difference": "mean difference a − b",
    "t": "t of the test",
    "df": "degrees of freedom",
    "p": "two-sided p-value",
    "q": "Benjamini and Hochberg's q over all neurons tested",
    "p_family": "family-wise p-value from the largest statistic of each arrangement",
    "g": "Hedges' g (of pairs g_av), a − b",
    "d_z": "of pairs: mean difference / standard deviation of the differences",
    "auc": "chance that a unit of class a is above one of class b, ties counting half",
    "count_a": "units of class a that have a value",
    "count_b": "units of class b that have a value",
}


@dataclass(frozen=True)
class Contrasted:
    """Everything that was compared; None where the trace does not hold it."""

    dataset: xr.Dataset
    asked: Units
    held_out: float
    unequal: names.Unequal
    design: Design
    of_tokens: Design
    layers: NDArray[np.int64]
    counted: NDArray[np.bool_]
    neurons: NeuronTests | None
    listed: Listed | None
    profiles: Profiles | None
    aligned: Aligned | None
    twins: list[Twins]


def result(parts: Contrasted, parameters: Mapping[str, Any]) -> xr.DataTree:
    """The Result of a contrast."""
    tables: dict[str, Mapping[str, Any]] = {}
    for add in (_add_neurons, _add_listed, _add_profiles, _add_aligned, _add_first_pair):
        add(parts, tables)
    return make_result("contrast", tables, sources=[parts.dataset], parameters=parameters, notes=_notes(parts),
                       summary=_summary(parts))  # fmt: skip


def _add_neurons(parts: Contrasted, tables: dict[str, Mapping[str, Any]]) -> None:
    if parts.neurons is None:
        return
    design, layers = parts.design, {names.LAYER: _numbers(parts, names.LAYER)}
    for table, values_of, units in (
        ("neurons", parts.neurons.values, design.tested),
        ("held_out", parts.neurons.held_out, design.held_out),
    ):
        if units is None:
            continue
        of: dict[str, Any] = dict(layers)
        for name, values in values_of.items():
            attrs = {"long_name": _WORDS[name], "units_compared": units.in_words()}
            with np.errstate(over="ignore"):  # beyond float32 it is infinite, and is told as such
                of[name] = ((names.LAYER, names.NEURON), values.astype(_KEPT[name]), attrs)
        tables[table] = of
    of_layers = parts.neurons.baseline
    low, high = of_layers.band
    found = {"auc": of_layers.auc, "low": low, "high": high, "p_family": of_layers.p_family}
    tables["direction"] = layers | table_of(names.LAYER, found)
    tables["chance"] = table_of("arrangement", {"largest_g": parts.neurons.chance.largest})


def _add_listed(parts: Contrasted, tables: dict[str, Mapping[str, Any]]) -> None:
    listed = parts.listed
    if listed is None:
        return
    found = {name: getattr(listed, name) for name in ("g", "low", "high")}
    layers = _numbers(parts, names.LAYER)[listed.row]
    tables["listed"] = table_of("listed", {"layer": layers, "neuron": listed.neuron.astype(np.int64), **found})
    if not source_of_context(parts.dataset):
        return
    of_neurons = counted_tokens(parts.dataset, defaults.SPAN)  # over which neurons were averaged, whatever is asked
    blank = {"before": "", "token": "", "after": "", "prompt_id": "", "value": np.nan, "position": -1}
    shape = (len(listed.g), 2, SHOWN)
    of = {name: np.full(shape, none, dtype=object if none == "" else None) for name, none in blank.items()}
    ids = Prompts(parts.dataset).ids
    for number, (row, neuron) in enumerate(zip(listed.row.tolist(), listed.neuron.tolist(), strict=True)):
        sides = contexts(parts.dataset, parts.design.tested, of_neurons, int(parts.layers[row]), neuron)
        for side, places in enumerate(sides):
            for rank, place in enumerate(places):
                for name, value in {**vars(place), "prompt_id": str(ids[place.prompt])}.items():
                    if name in of:
                        of[name][number, side, rank] = value
    tables["contexts"] = table_of(("listed", "side", "rank"), of)


def _add_profiles(parts: Contrasted, tables: dict[str, Mapping[str, Any]]) -> None:
    profiles = parts.profiles
    if profiles is None:
        return
    of_found = ("mean_a", "mean_b", "difference", "g", "auc", "t", "p", "count_a", "count_b")
    cells = {name: getattr(profiles.found, name) for name in of_found}
    cells |= {name: getattr(profiles, name) for name in ("band_a", "band_b", "band", "p_exchange", "p_family", "q")}
    for number, quantity in enumerate(profiles.quantities):
        here, kind = profiles.of == number, names.QUANTITIES[quantity].row_kind
        own = {name: values[here] for name, values in cells.items()}
        tables[f"profiles/{quantity}"] = table_of(kind, {kind: profiles.rows[here], **own})


def _add_aligned(parts: Contrasted, tables: dict[str, Mapping[str, Any]]) -> None:
    aligned = parts.aligned
    if aligned is None:
        return
    kind = names.QUANTITIES[aligned.quantity].row_kind
    tables[f"aligned/{aligned.quantity}"] = {
        kind: _numbers(parts, kind),
        "place": np.arange(1, len(aligned.units) + 1),
        "units": ("place", aligned.units),
        **table_of((kind, "place"), {name: getattr(aligned, name) for name in ("difference", "t", "p", "q")}),
    }


def _add_first_pair(parts: Contrasted, tables: dict[str, Mapping[str, Any]]) -> None:
    if parts.aligned is None or not parts.twins:
        return
    twins, quantity, dataset = parts.twins[0], parts.aligned.quantity, parts.dataset
    kind = names.QUANTITIES[quantity].row_kind
    rows = parts.layers if kind == names.LAYER else np.arange(dataset.sizes[names.DEPTH])
    a, b = twin_tables(dataset, quantity, twins, rows)
    difference = on_scale(a, quantity) - on_scale(b, quantity)
    difference[~twins.columns.equal] = np.nan
    tables[f"tokens/{quantity}"] = {
        kind: _numbers(parts, kind),
        **table_of(("column", kind), {"a": a, "b": b, "difference": difference}),
    }
    of: dict[str, Any] = {
        "before": np.arange(len(difference)) < twins.columns.before,
        "equal": twins.columns.equal,
        "first": np.zeros(len(difference), bool),
    }
    prompts = Prompts(dataset)
    for side, start, places in (("a", twins.tokens_a, twins.columns.a), ("b", twins.tokens_b, twins.columns.b)):
        there = places != GAP
        tokens = np.where(there, start + places, 0)
        of["first"] |= there & prompts.first[tokens]
        of[f"position_{side}"] = np.where(there, prompts.position[tokens], GAP)
        of[f"text_{side}"] = np.where(there, object_array(prompts.words(tokens)), "").tolist()
    tables["tokens"] = table_of("column", of)


def _confirmed(listed: Listed, neurons: NeuronTests) -> int:
    """How many listed neurons have an interval on the side of zero on which they were found."""
    sign = np.sign(neurons.values["g"][listed.row, listed.neuron])
    return int(np.where(sign > 0, listed.low > 0, listed.high < 0).sum())


def _numbers(parts: Contrasted, kind: str) -> NDArray[np.int64]:
    """The numbers of the layers, or depths, that were compared."""
    numbers = np.asarray(parts.dataset[kind].values, np.int64)
    return numbers if kind == names.DEPTH else numbers[parts.layers]


def _notes(parts: Contrasted) -> list[Note]:
    design, dataset = parts.design, parts.dataset
    notes = [*notes_of(dataset), *cautions.about_design(design, parts.asked, parts.held_out, parts.unequal)]
    notes += cautions.about_tokens(design.units, parts.of_tokens.units, compared=parts.profiles is not None)
    notes += cautions.about_lengths(design.units, token_counts(dataset, design.units, parts.counted))
    notes += cautions.about_templates(dataset, design.units)
    if parts.neurons is not None and parts.listed is not None:
        untested = parts.neurons.values["p"].size - parts.neurons.tested
        notes += cautions.about_neurons(parts.neurons, parts.listed, design, untested)
        if not parts.listed.discoveries:
            notes += cautions.about_nothing(_would_find(design, parts.neurons.tested, parts.neurons.values))
    alone = len(design.units.prompts) - 2 * len(parts.twins)
    notes += cautions.about_twins(dataset, parts.aligned, alone)
    if (Prompts(dataset).spans[parts.counted] < 0).all():
        notes.append(Note("L17", INFO, "It is not known which tokens are the user's: all but the first count."))
    notes.append(Note("L05", INFO, "First tokens are left out of every mean."))
    if parts.profiles is not None:
        prompts, of = parts.profiles.units.prompts.tolist(), parts.profiles.quantities
        notes += about_explained(dataset, of, prompts, by_token=False)
        if any(map(is_under_final_norm, of)):
            notes.append(Note("L29", INFO, ONE_SCALE_OF_CLASSES))
    said = {note.id for note in notes}
    compared = [*(parts.profiles.quantities if parts.profiles else ()), "prompt_mean"]
    # what lint says of comparisons is about all prompts of the trace; of those compared here it was said above
    return [*notes, *(note for note in applicable(dataset, compared) if note.id not in said)]


def _summary(parts: Contrasted) -> dict[str, Any]:
    design, neurons, listed, profiles = parts.design, parts.neurons, parts.listed, parts.profiles
    summary: dict[str, Any] = {
        "labels": {name: label_in(parts.dataset, name) for name in (profiles.quantities if profiles else ())},
        "a": design.units.a,
        "b": design.units.b,
        "design": design.units.design,
        "test": design.test,
        "unequal": _done_about_unequal(parts),
        "units": design.units.in_words(),
        "units_tested": design.tested.in_words(),
        "units_held_out": "" if design.held_out is None else design.held_out.in_words(),
    }
    if neurons is not None and listed is not None:
        p = neurons.values["p"]
        summary["neurons"] = {
            "tested": neurons.tested,
            "discoveries": listed.discoveries,
            "family_wise": int((neurons.values["p_family"][np.isfinite(p)] <= design.alpha).sum()),
            "share_p_below_alpha": float(np.mean(p[np.isfinite(p)] < design.alpha)) if neurons.tested else 0.0,
            "would_find": _would_find(design, neurons.tested, neurons.values),
            "estimates": listed.estimates,
            "measured": listed.measured,
            "confirmed": _confirmed(listed, neurons) if listed.measured else 0,
            "listed": len(listed.g),
            "interval_level": listed.level,
            "chance": {
                "largest_g": neurons.chance.middle,
                "largest_g_95": neurons.chance.most,
                "neurons": neurons.chance.neurons,
                "units": neurons.chance.units,
                "sentence": neurons.chance.sentence() if neurons.chance else "",
            },
            "arrangements": neurons.arrangements,
            "all_arrangements": neurons.exact,
            "context": source_of_context(parts.dataset),
        }
        summary["direction"] = _direction(neurons.baseline, design)
    if profiles is not None:
        found = vars(profiles.found)
        known = np.isfinite(profiles.found.p)
        tested = int(known.sum())
        counts = np.minimum(profiles.found.count_a, profiles.found.count_b)[known]
        summary["profiles"] = {
            "quantities": list(profiles.quantities),
            "units": profiles.units.in_words(),
            "fewest_units": int(counts.min(initial=min(profiles.units.sizes))),
            "tested": tested,
            "discoveries": int((profiles.q <= design.alpha).sum()),
            "family_wise": int((profiles.p_family[known] <= design.alpha).sum()),
            "would_find": _would_find(parts.of_tokens, tested, found),
            "band": BAND,
        }
    if parts.aligned is not None:
        of = parts.aligned
        tested = int(np.isfinite(of.p).sum())
        summary["aligned"] = {
            "quantity": of.quantity,
            "noun": design.units.noun,
            "units": design.units.in_words(),
            "fewest_units": of.fewest,
            "most_units": of.most,
            "tested": tested,
            "discoveries": int((of.q <= design.alpha).sum()),
            "would_find_d_z": smallest_effect(design.test, of.most, of.most, tested, design.alpha),
            "would_find_d_z_fewest": smallest_effect(design.test, of.fewest, of.fewest, tested, design.alpha),
            "largest_before_edit": of.before,
            "first_pair": parts.twins[0].name if parts.twins else "",
        }
    return summary


def _done_about_unequal(parts: Contrasted) -> str:
    """What was done about classes of unequal size; "" where nothing was."""
    if parts.design.test == RANK_SUM:
        return "rank-sum"
    return "subsample" if parts.asked.sizes != parts.design.units.sizes else ""


def _would_find(design: Design, tests: int, found: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The smallest effect that would be found, in g; None where no effect, however large, would be.

    Of pairs g_av = d_z √(2 (1 − r)), r the correlation of twins of equal spread: its middle over what was tested.
    """
    effect = smallest_effect(design.test, *design.tested.sizes, tests, design.alpha)
    power: dict[str, Any] = {"power": POWER, "tests": tests, "p": design.alpha / max(tests, 1), "g": effect}
    known = np.isfinite(found["p"])
    power["units_vary"] = bool((found["count_a"][known] < design.tested.sizes[0]).any())
    power["units_vary"] |= bool((found["count_b"][known] < design.tested.sizes[1]).any())
    if design.paired:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(found["g"] / found["d_z"] / correction(found["count_a"] - 1))
        middle = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else np.nan
        power |= {"g": effect * middle, "d_z": effect, "correlation": 1 - middle**2 / 2}
    return power


def _direction(baseline: Baseline, design: Design) -> dict[str, Any]:
    """How many layers one direction tells apart beyond chance, and from which AUC on it would."""
    largest = baseline.largest
    if not len(largest) or not np.isfinite(baseline.auc).any():
        return {}
    limit = float(np.quantile(largest, 1 - design.alpha, method="higher"))
    return {
        "layers": int(np.isfinite(baseline.auc).sum()),
        "beyond_chance": int((baseline.p_family <= design.alpha).sum()),
        "largest_auc": float(np.nanmax(baseline.auc)),
        "needed_auc": limit,
        "labellings": len(largest),
        "units": [min(size, MOST_UNITS) for size in design.units.sizes],
    }
