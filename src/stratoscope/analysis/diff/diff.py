"""`diff`: the same prompts through two models, or one model twice: what differs, where, and whether that is more than noise."""  # noqa: E501

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.diff.comparison import Comparison
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent
from stratoscope.trace.arguments import several

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.diff.claims import Claim
    from stratoscope.trace.csv.columns import Columns as CsvColumns
    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.prompts import PromptChoice

MOST_SHOWN, MOST_OF_EACH = 12, 4096  # prompts that are kept token by token, and their columns where nobody chose


def diff(
    trace_a: Inputs,
    trace_b: Inputs,
    *,
    columns: CsvColumns = None,
    prompt: PromptChoice = None,
    quantity: str | Sequence[str] | None = None,
    layers: str | int | Sequence[int] | None = None,
    claims: str | os.PathLike[str] | Sequence[Claim] | None = None,
    null: xr.DataTree | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Compare two traces of the same prompts: B − A.

    Prompts are matched by id, else by equal tokens, and aligned on equal tokens; gaps stay gaps. Where numbers are
    exactly equal nothing differs, whatever the noise. Every other difference is also given as times the noise floor
    that `capture --floor` measured under what was not the same in both, so that what exceeds noise can be told. Neurons
    are compared only where both models have the same ones. `save_result` writes the report.

    Parameters
    ----------
    trace_a, trace_b
        Traces, CSV or Parquet files (one prompt each) or Datasets: base and tuned, before and after a patch, one dtype
        and another.
    columns
        Which column of CSV files is which, as in `import_csv`.
    prompt
        Prompts to keep token by token, by id or index in A; without it the first, at most 12. Summaries are of all.
    quantity
        Quantities to compare; without it every one with a value for each token and layer that both hold. What explains
        the logits of targets is compared row by row, not token by token, and left out where quantities are named.
    layers
        "22-31,0" or numbers; all without it.
    claims
        What a patch claims to change: a CSV file of `Layer,Neuron_ID,Old_Norm,New_Norm`, or `Claim`s.
    null
        What `patch_null` measured for the same claims: the change is placed among those of random patches.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "diff", a node a table (docs/results.md lists all variables). `tokens/<quantity>`, of the
        prompts kept: `a`, `b`, `difference` (B − A), `ratio` (B / A) and `times_floor`, of the columns that `tokens`
        describes. `profiles/<quantity>`, of all prompts: `size_median` and other summaries of |B − A| over the layers.
        `neurons`: `difference`, `largest`, `times_floor`, `column_norm_a`, `column_norm_b`, `column_changed`; `listed`:
        those that changed most. `claims`: what was claimed, measured, and the verdict. `null`, `null/<quantity>`: the
        change among random patches.

    Raises
    ------
    InputError
        The traces have no prompt or no layer in common, or a claim cannot be read or is about a neuron that is not
        there.

    Examples
    --------
    >>> import stratoscope
    >>> before = stratoscope.simulate(prompts=4, layers=3)
    >>> after = before.copy(deep=True)
    >>> after["mlp_out_norm"][:, 2] *= 1.5  # as if the last block wrote half as much again
    >>> result = stratoscope.diff(before, after)
    >>> result["tokens/mlp_out_norm"]["ratio"].median("column").values
    array([1. , 1. , 1.5], dtype=float32)
    """
    from stratoscope.analysis.diff import assemble
    from stratoscope.analysis.diff.ancestry import ancestry
    from stratoscope.analysis.diff.cells import compare_cells, quantities_in_both, rows_of
    from stratoscope.analysis.diff.conditions import conditions
    from stratoscope.analysis.diff.contributions import compare_explained
    from stratoscope.analysis.diff.exact import exactness
    from stratoscope.analysis.diff.floor import Noise
    from stratoscope.analysis.diff.matched_null import check_null
    from stratoscope.analysis.diff.neurons import compare_neurons
    from stratoscope.analysis.diff.prompts import choose_pairs, columns_of, match, same_user_tokens, sides
    from stratoscope.analysis.values.finite import finite_trace
    from stratoscope.analysis.values.quantities import drawn_elsewhere
    from stratoscope.trace.opened import opened_each

    report = progress or silent
    seen = [finite_trace(one) for one in opened_each([trace_a, trace_b], columns)]
    a, b = (one.dataset for one in seen)
    claimed, where = _claims(claims, a, b)
    if null is not None:
        check_null(null, a, claimed)
    report("matching prompts", 0, None)
    side_a, side_b = sides(a, b)
    pairs = match(side_a, side_b)
    aligned = columns_of(pairs, side_a, side_b)
    shown = choose_pairs(pairs, side_a, prompt, aligned, MOST_SHOWN, MOST_OF_EACH)
    recorded = conditions(a, b)
    noise = Noise(a, b, recorded.alike)
    kept, compared = aligned.of(shown), []
    quantities = quantities_in_both(a, b, quantity)
    for number, name in enumerate(quantities):
        report("comparing tokens", number, len(quantities))
        kind = names.QUANTITIES[name].row_kind
        rows = rows_of(a, b, kind, layers)
        compared.append(compare_cells(a, b, name, rows, aligned, kept, noise))
    same, context = same_user_tokens(pairs, side_a, side_b)
    known = ancestry(a, b, int(same.sum()))
    explained = compare_explained(a, b, pairs) if quantity is None else None
    if not quantities and known.refused and explained is None:
        raise InputError(
            "the two traces hold nothing that can be compared",
            where="trace",
            fix=f"{drawn_elsewhere(a)}Record both: `stratoscope capture MODEL --prompts FILE --record norms,prompts "
            "-o TRACE`.",
        )
    of_layers, neurons = rows_of(a, b, names.LAYER, layers), None
    if not known.refused:
        chosen = [pairs[number] for number in np.flatnonzero(same)]
        prompts = np.array([pair.a for pair in chosen]), np.array([pair.b for pair in chosen])
        tokens = aligned.a[aligned.before], aligned.b[aligned.before]
        neurons = compare_neurons(a, b, prompts, tokens, of_layers, known, noise, defaults.SEED, report)
    exact = exactness(compared, neurons if context.sum() == same.sum() else None, of_layers)
    parts = Comparison(a, b, (side_a, side_b), pairs, aligned, shown, noise, recorded, compared, exact, of_layers,
                  known, neurons, int(same.sum()), int((same & ~context).sum()), claimed, null, explained)  # fmt: skip
    result = assemble.result(
        parts,
        {
            "prompt": None if prompt is None else several(prompt, "prompt", "[0, 1]"),
            "quantity": quantities,
            "layers": layers if layers is None or isinstance(layers, str) else np.atleast_1d(layers).tolist(),
            "claims": where,
            "null": null is not None,
            "seed": defaults.SEED,
        },
    )
    return seen[1].with_note(seen[0].with_note(result, "A"), "B")


def _claims(
    claims: str | os.PathLike[str] | Sequence[Claim] | None, a: xr.Dataset, b: xr.Dataset
) -> tuple[list[Claim], str | None]:
    """The claims, checked against both models, and what they are called in the parameters: no path."""
    from stratoscope.analysis.diff.claims import check_claims, read_claims

    if claims is None:
        return [], None
    of_file = isinstance(claims, str | os.PathLike)
    found = read_claims(claims) if isinstance(claims, str | os.PathLike) else list(claims)
    if not found:
        raise InputError("there is no claim", where="claims", fix="Give at least one, or leave them out.")
    where = os.fspath(claims) if isinstance(claims, str | os.PathLike) else "claims"
    for dataset in (a, b):
        check_claims(found, dataset, where)
    return found, Path(where).name if of_file else f"{len(found)} given"
