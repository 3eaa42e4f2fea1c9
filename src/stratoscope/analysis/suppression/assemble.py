"""The parts of a suppression as one Result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.contrast.family import BAND, half_width
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.analysis.suppression import cautions, heads, neurons
from stratoscope.analysis.suppression.compared import Compared
from stratoscope.analysis.suppression.explained import Comparison, Explained
from stratoscope.analysis.values.around import asked_words
from stratoscope.trace.arrays import Floats
from stratoscope.trace.calibration import Calibration
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr


_OF_FAMILY = ("q", "p_family", "p_exchange")
_OF_TEST = ("t", "p")
_OF_EFFECT = ("mean_a", "mean_b", "difference", "g", "auc", "count_a", "count_b")
_CALIBRATED = ("spearman", "sign", "slope")


def result(parts: Explained, compared: Comparison | None, parameters: Mapping[str, Any]) -> xr.DataTree:
    """The Result of a suppression."""
    tables: dict[str, Mapping[str, Any]] = {}
    for add in (_add_prompts, _add_depth, _add_means, _add_neurons, _add_direct_neurons, _add_heads, _add_calibration):
        add(parts, tables)
    for name, family in (compared.families if compared else {}).items():
        tables[name] = _compared(family, heads_are=name == "heads_compared")
    return make_result(
        "suppression",
        tables,
        sources=[parts.dataset],
        parameters=parameters,
        notes=cautions.notes(parts, compared),
        summary=_summary(parts, compared, parameters["alpha"]),
    )


def _add_prompts(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    of, chosen, rows = Prompts(parts.dataset), parts.chosen, parts.prompts.prompts
    against = ["" if one < 0 else chosen.text(one) for one in chosen.against[rows].tolist()]
    found: dict[str, Any] = {
        "prompt_id": [of.labels[one] for one in rows.tolist()],
        "prompt_class": [of.classes[one] for one in rows.tolist()],
        "target": [chosen.text(one) for one in chosen.tokens[rows].tolist()],
        "against": against,
    }
    if parts.direct is None:
        tables["prompts"] = table_of("prompt", found)
        return
    tables["prompts"] = table_of("prompt", found | {"final_scale": parts.direct.scale})
    terms = parts.direct.terms
    whole = np.sum(list(terms.values()), axis=0)
    model = parts.direct.model
    tables["sum"] = table_of(
        "prompt", {**terms, "sum": whole, "model": model, "error": whole - model, "sizes": parts.direct.sizes}
    )


def _add_depth(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    tables["depth"] = {names.LAYER: parts.layers, **table_of((names.PROMPT, names.LAYER), _blocks(parts))}


def _blocks(parts: Explained) -> dict[str, Floats]:
    """Attention and MLP of each layer, of each prompt, by both measures."""
    found: dict[str, Floats] = {}
    if parts.direct is not None:
        found |= {"attn_direct": parts.direct.attn, "mlp_direct": parts.direct.mlp}
    if parts.total is not None:
        found |= {"attn_total": parts.total.attn, "mlp_total": parts.total.mlp}
    return found


def _add_means(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    """Means of each class over its prompts, and half the width of their intervals."""
    if parts.prompts.single:
        return
    members = [parts.prompts.of == number for number in range(len(parts.prompts.classes))]
    found: dict[str, Any] = {}
    for name, values in _blocks(parts).items():
        found[name] = np.stack([_mean(values[own]) for own in members])
        found[f"{name}_band"] = np.stack([half_width(values[own]) for own in members])
    tables["means"] = {
        names.LAYER: parts.layers,
        **table_of(("class", names.LAYER), found),
        **table_of("class", {
            "prompt_class": list(parts.prompts.classes), "prompts": np.array([int(own.sum()) for own in members])
        }),
    }  # fmt: skip


def _mean(values: Floats) -> Floats:
    """Means over prompts, those without a value left out."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


def _add_neurons(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    if not set(neurons.STRONGEST) <= set(parts.dataset.data_vars):
        return
    of = parts.prompts
    places = neurons.strongest(parts.dataset, parts.chosen.index, of.prompts, of.of, len(of.classes))
    found = neurons.described(parts.dataset, parts.chosen, places)
    table: dict[str, Any] = dict(table_of("listed", found["listed"]))
    if not of.single:
        counts = np.array([place.in_prompts for place in places], np.int64).reshape(len(places), len(of.classes))
        means = np.array([place.mean for place in places], float).reshape(counts.shape)
        table |= table_of(("listed", "class"), {"in_prompts": counts, "mean": means})
    for key, dims, prefix in (
        ("written", ("listed", "written"), "write_"),
        ("part", ("listed", "part"), ""),
        ("source", ("listed", "part", "source"), "source_"),
    ):
        if key in found:
            table |= table_of(dims, {f"{prefix}{name}": values for name, values in found[key].items()})
    tables["neurons"] = table


def _add_direct_neurons(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    if parts.prompts.single and {"logit_neuron", "neuron_logit"} <= set(parts.dataset.data_vars):
        found = neurons.by_direct(parts.dataset, parts.chosen, int(parts.prompts.prompts[0]))
        tables["direct_neurons"] = table_of("listed", found)


def _add_heads(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    """The strongest heads by total effect, where it was recorded, else by direct contribution."""
    values = {
        name: _mean(of.heads)
        for name, of in (("total", parts.total), ("direct", parts.direct))
        if of is not None and np.isfinite(of.heads).any()
    }
    if not values:
        return
    places = heads.strongest(next(iter(values.values())))
    found: dict[str, Any] = dict(heads.head_numbers(parts.dataset, places))
    rows, columns = (np.array([place[axis] for place in places], np.int64) for axis in (0, 1))
    table: dict[str, Any] = dict(table_of("listed", found | {name: of[rows, columns] for name, of in values.items()}))
    if parts.prompts.single:
        sources = heads.sources(parts.dataset, parts.chosen.index, int(parts.prompts.prompts[0]), places)
        of_sources = {f"source_{name}": of for name, of in (sources or {}).items()}
        table |= table_of(("listed", "source"), of_sources)
    tables["heads"] = table


def _add_calibration(parts: Explained, tables: dict[str, Mapping[str, Any]]) -> None:
    found = parts.calibration
    own = [(key, one) for key, one in found.agreements.items() if key[2] == parts.chosen.index]
    if not own:
        return
    columns: dict[str, Any] = {
        "kind": [str(kind) for (kind, _, _), _ in own],
        "baseline": [str(baseline) for (_, baseline, _), _ in own],
        "count": np.array([one.count for _, one in own]),
        "decided": np.array([one.decided for _, one in own]),
        "calibrated": np.array([one.calibrated for _, one in own]),
    }
    for name in _CALIBRATED:
        bounded = [getattr(one, name) for _, one in own]
        columns[name] = np.array([one.value for one in bounded], float)
        columns[f"{name}_low"] = np.array([one.low for one in bounded], float)
        columns[f"{name}_high"] = np.array([one.high for one in bounded], float)
    tables["calibration"] = table_of("ablated", columns)


def _compared(of: Compared, *, heads_are: bool) -> Mapping[str, Any]:
    family = of.family
    found = {name: getattr(family.found, name) for name in _OF_EFFECT}
    found |= {name: getattr(family, name) for name in ("band_a", "band_b")}
    found["band"] = half_width_of(of)
    tests = {name: getattr(family.found, name) for name in _OF_TEST}
    tests |= {name: getattr(family, name) for name in _OF_FAMILY}
    untold = np.full(len(of.part), np.nan)
    found |= tests if of.tested else dict.fromkeys(tests, untold)
    where: dict[str, Any] = {"layer": of.layer}
    where |= {"head": np.array([int(one) for one in of.part])} if heads_are else {"part": list(of.part)}
    return table_of("compared", where | found)


def half_width_of(of: Compared) -> Floats:
    """Half the width of the interval of each difference: of pairs over the pairs, of classes by Welch's test."""
    from scipy.special import stdtrit

    if np.isfinite(of.family.band).any():
        return of.family.band
    found = of.family.found
    with np.errstate(divide="ignore", invalid="ignore"):
        width: Floats = np.abs(found.difference / found.t) * stdtrit(found.df, (1 + BAND) / 2)
    return np.where(np.isfinite(width), width, np.nan)


def _summary(parts: Explained, compared: Comparison | None, alpha: float) -> dict[str, Any]:
    of, calibration, target = parts.prompts, parts.calibration, parts.chosen.index
    summary: dict[str, Any] = {
        "target": parts.chosen.name(of.prompts),
        "prompts": len(of.prompts),
        "prompt": Prompts(parts.dataset).labels[int(of.prompts[0])] if of.single else "",
        **(_of_prompt(parts) if of.single else {}),
        "classes": list(of.classes),
        "direct": parts.direct is not None,
        "total": parts.total is not None,
        "reads": "neuron_read" in parts.dataset,
        "baseline": parts.baseline,
        "steps": parts.steps,
    }
    if parts.total is not None:
        kinds = ("mlp", "attn", "head", "neuron")
        summary["calibration"] = {
            kind: calibration.sentence(kind, target=target) for kind in _kinds(calibration, kinds)
        }
        summary["not_calibrated"] = [
            kind for kind in _kinds(calibration, kinds) if calibration.mark(kind, target=target)
        ]
        summary["simulated"] = parts.dataset.attrs.get("source") == names.SIMULATED
    if compared is not None:
        units = compared.design.units
        summary |= {
            "a": units.a,
            "b": units.b,
            "design": units.design,
            "units": units.in_words(),
            "test": compared.design.test if compared.tested else "",
            "compared": {name: _counts(one, alpha) for name, one in compared.families.items()},
        }
    return summary


def _of_prompt(parts: Explained) -> dict[str, Any]:
    """What a person wrote in the only prompt, and the target's logit there; None where that is not known."""
    prompt = int(parts.prompts.prompts[0])
    logit = np.nan
    if "answer_logit" in parts.dataset:
        logit = float(parts.dataset["answer_logit"].isel(prompt=prompt, target=parts.chosen.index))
    return {"asked": asked_words(Prompts(parts.dataset), prompt), "logit": logit if np.isfinite(logit) else None}


def _kinds(calibration: Calibration, kinds: Sequence[Any]) -> list[Any]:
    """The kinds of parts of which something is said: attention blocks only where some were ablated."""
    return [kind for kind in kinds if kind != "attn" or calibration.of("attn").count]


def _counts(of: Compared, alpha: float) -> dict[str, Any]:
    known = np.isfinite(of.family.found.p) if of.tested else np.zeros(len(of.part), bool)
    q, p_family = of.family.q, of.family.p_family
    return {
        "tested": int(known.sum()),
        "discoveries": int((q[known] <= alpha).sum()),
        "family_wise": int((p_family[known] <= alpha).sum()),
    }
