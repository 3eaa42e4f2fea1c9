"""`contrast`: which differences between two classes of prompts are real, how large they are, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.values.quantities import drawn_by
from stratoscope.analysis.values.tables import has_cells
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.progress import Progress, silent
from stratoscope.trace.quantity_names import quantity_named
from stratoscope.trace.targets import TargetChoice, has_targets, one_target
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.classes.design import Design
    from stratoscope.analysis.contrast.aligned import Aligned, Twins
    from stratoscope.analysis.contrast.neurons import Listed, NeuronTests
    from stratoscope.analysis.contrast.profiles import Profiles
    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.opened import Inputs

KIND = "contrast"
PROFILED = ("mlp_write_ratio", "attn_write_ratio", "mlp_write_cos", "attn_write_cos", "attn_entropy_nosink")
_OTHERWISE = ("mlp_out_norm", "resid_norm", "imported_norm")


def contrast(
    trace: Inputs,
    *,
    columns: Columns = None,
    a: str | None = None,
    b: str | None = None,
    statistic: names.Statistic = defaults.STATISTIC,
    quantity: str | Sequence[str] | None = None,
    target: TargetChoice = None,
    layers: str | int | Sequence[int] | None = None,
    span: str = defaults.SPAN,
    groups: bool = defaults.AVERAGE_GROUPS,
    unequal: names.Unequal = defaults.UNEQUAL,
    held_out: float = defaults.HELD_OUT,
    alpha: float = defaults.ALPHA,
    permutations: int = defaults.PERMUTATIONS,
    seed: int = defaults.SEED,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Compare two classes of prompts, neuron by neuron, layer by layer and token by aligned token.

    One prompt, or one pair, is one observation; prompts of a group are averaged first. Pairs are compared by a paired
    t test, classes by Welch's. Discoveries are neurons with q ≤ `alpha` (Benjamini and Hochberg over all of them). How
    large a discovery looks in the units that chose it is likely too large; `held_out` measures it in others. A result
    without discoveries says which effect would have been found. `save_result` writes the report.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    columns
        Which column of CSV files is which, as in `import_csv`.
    a, b
        The classes, a − b; without them the two that there are.
    statistic
        What is compared of each neuron: "prompt_mean", or "prompt_max" or "prompt_min", which need pairs of equally
        many tokens.
    quantity
        Quantities whose profiles over the layers are compared; the first is also compared token by token. Without it
        the write ratios and cosines and the attention entropy that the trace holds. Direct contributions are compared
        at the answer position and at one factor of the final norm, total effects as their sums over all tokens but
        the first of each prompt.
    target
        Of quantities that explain logits: the target, by its text or its number; by default the first.
    layers
        "22-31,0" or numbers; all without it.
    span
        The part of a prompt whose tokens count in profiles (`names.SPANS`), but in those of total effects; neurons were
        averaged over the user's tokens when the trace was recorded.
    groups
        Whether prompts of one `group` are one observation.
    unequal
        Of classes of more than 2 : 1: "subsample" compares as many of either, "rank-sum" all of them by ranks. Pairs
        and other classes are compared as ever; a note says so.
    held_out
        Share of the units that takes no part in finding and measures how large the listed neurons' effects are; 0
        tests all units.
    alpha
        Level of discoveries and of intervals.
    permutations
        Random sign flips or exchanges of labels for family-wise p-values; all there are where they are few.
    seed
        Of the halves, subsamples and permutations.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "contrast", a node a table (docs/results.md lists all variables). `neurons`: every neuron in
        the tested units, its `difference`, `t`, `p`, `q`, `g` (of pairs g_av), …; with `held_out` the same of those in
        `held_out`. `listed`: the strongest neurons and their intervals; `contexts`: the words around their strongest
        tokens. `profiles/<quantity>`: over the layers. `aligned/<quantity>`: pairs on the k-th equal token after the
        first edit. `tokens`, `tokens/<quantity>`: the first pair, token by token. `direction`: how well the difference
        of means of one half tells the other half apart, and the band of random labels. `attrs["summary"]` says of
        which units each is, and what would have been found.

    Raises
    ------
    InputError
        There are no such classes, too few prompts for any p-value to reach `alpha`, or nothing to compare.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=32, layers=3, d_ff=256)
    >>> result = stratoscope.contrast(trace)
    >>> int((result["neurons"]["q"] <= 0.05).sum()), result["neurons"]["q"].size
    (1, 768)
    >>> listed = result["listed"]  # the strongest; this one was planted by the simulation
    >>> int(listed["layer"][0]), int(listed["neuron"][0]), round(float(listed["g"][0]), 1)
    (1, 208, 11.9)
    """
    from stratoscope.analysis.classes.design import make_design, testable
    from stratoscope.analysis.classes.units import choose_classes, counted_tokens, make_units, with_values
    from stratoscope.analysis.contrast import assemble
    from stratoscope.analysis.contrast.aligned import compare_aligned, find_twins
    from stratoscope.analysis.contrast.neurons import compare_neurons, strongest
    from stratoscope.analysis.contrast.profiles import compare_profiles, with_tokens
    from stratoscope.analysis.values.finite import finite_trace
    from stratoscope.trace.numbers import choose_layers
    from stratoscope.trace.opened import opened

    given = opened(trace, columns)
    quantities = profiled(given, quantity)
    seen = finite_trace(one_target(given, quantities, target))
    dataset = seen.dataset
    _check(held_out, alpha, permutations)
    refuse_unknown(statistic, get_args(names.Statistic), "statistic")
    refuse_unknown(unequal, names.UNEQUAL, "way with unequal classes", "unequal")
    report = progress or silent
    first, second = choose_classes(dataset, a, b)
    asked = make_units(dataset, first, second, groups=groups)
    has_neurons = statistic in dataset
    if has_neurons:
        valued = with_values(dataset, statistic, asked)
        has_neurons = len(valued) > 0
        asked = valued if has_neurons else replace(asked, left_out=(*asked.left_out, f"No prompt has a {statistic}."))
    design = make_design(asked, unequal=unequal, held_out=held_out, alpha=alpha, seed=seed)
    chosen = choose_layers(dataset[names.LAYER].values, layers)
    counted = counted_tokens(dataset, span)
    if not quantities and not has_neurons:
        raise InputError(
            "there is nothing to compare in it",
            where="trace",
            fix="Record it: `stratoscope capture MODEL --prompts FILE --record norms,prompts -o TRACE`.",
        )
    neurons: NeuronTests | None = None
    listed: Listed | None = None
    if has_neurons:
        _check_statistic(dataset, statistic, design, counted)
        options: dict[str, Any] = {"permutations": permutations, "seed": seed, "progress": report}
        neurons = compare_neurons(dataset, statistic, design, chosen.tolist(), **options)
        listed = strongest(neurons, design)
    profiles: Profiles | None = None
    aligned: Aligned | None = None
    twins: list[Twins] = []
    of_tokens = with_tokens(dataset, design, counted)
    if quantities and testable(of_tokens.units, alpha):
        report("comparing profiles", 0, None)
        exchange = {"permutations": permutations, "seed": seed}
        profiles = compare_profiles(dataset, quantities, of_tokens, counted, chosen, **exchange)
    by_token = [name for name in quantities if not has_targets(name)]  # at aligned tokens a target is not predicted
    if by_token and design.paired and "imported_norm" not in quantities:
        report("comparing aligned tokens", 0, None)
        twins = find_twins(dataset, design.units)
        rows = chosen if names.LAYER in names.QUANTITIES[by_token[0]].dims else np.arange(dataset.sizes[names.DEPTH])
        aligned = compare_aligned(dataset, by_token[0], design.units, twins, rows, counted, alpha)
    parts = assemble.Contrasted(
        dataset, asked, held_out, unequal, design, of_tokens, chosen, counted, neurons, listed, profiles, aligned, twins
    )
    found = assemble.result(
        parts,
        {
            "a": first,
            "b": second,
            "statistic": statistic if neurons else "",
            "quantity": list(quantities),
            "target": target,
            "layers": layers if layers is None or isinstance(layers, str) else np.atleast_1d(layers).tolist(),
            "span": span,
            "groups": groups,
            "unequal": unequal,
            "held_out": held_out,
            "alpha": alpha,
            "permutations": permutations,
            "seed": seed,
        },
    )
    return seen.with_note(found)


def profiled(dataset: xr.Dataset, quantity: str | Sequence[str] | None) -> tuple[str, ...]:
    """The quantities whose profiles are compared."""
    per_token = [name for name, row in names.QUANTITIES.items() if name in dataset and has_cells(row)]
    if quantity is None:
        usual = tuple(name for name in PROFILED if name in per_token)
        return usual or tuple(name for name in _OTHERWISE if name in per_token)[:1]
    asked = (quantity,) if isinstance(quantity, str) else quantity
    wanted = tuple(dict.fromkeys(quantity_named(name, per_token) for name in asked))
    for name in wanted:
        if name not in per_token:
            there = ", ".join(per_token) or "nothing"
            raise InputError(
                f"no profile of {name!r} here", where="quantity", fix=f"{drawn_by(name)}There is: {there}."
            )
    return wanted


def _check(held_out: float, alpha: float, permutations: int) -> None:
    for name, value, low, high in (("held_out", held_out, 0, 0.8), ("alpha", alpha, 1e-6, 0.5)):
        if not low <= value <= high:
            raise UsageError(
                f"{value} is out of range", where=name, fix=f"Give a number from {number(low)} to {number(high)}."
            )
    if permutations < 99:
        raise UsageError(f"{permutations} are too few", where="permutations", fix="Give 99 or more.")


def _check_statistic(dataset: xr.Dataset, statistic: str, design: Design, counted: NDArray[np.bool_]) -> None:
    """Extremes grow with the number of tokens: they are compared only where twins have equally many."""
    from stratoscope.analysis.contrast.profiles import token_counts

    if statistic == "prompt_mean":
        return
    counts = token_counts(dataset, design.units, counted)
    sides = [np.zeros(len(design.units), np.int64) for _ in range(2)]
    for side, which in zip(sides, (design.units.in_a, ~design.units.in_a), strict=True):
        np.add.at(side, design.units.unit[which], counts[which])
    if not design.paired or (sides[0] != sides[1]).any():
        raise InputError(
            f"{statistic} grows with the length of a prompt, and the lengths of the classes differ",
            where="statistic",
            fix="Compare prompt_mean, or pairs of equally many tokens.",
        )
