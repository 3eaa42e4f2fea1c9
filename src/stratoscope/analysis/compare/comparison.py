"""`comparison`: what differs between two prompts, token by aligned token, as numbers; `compare` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.values.quantities import checked_quantity, default_quantity, drawable_quantities
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent
from stratoscope.trace.arguments import span_names

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.compare.prompts import TwoInputs
    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.numbers import LayerChoice
    from stratoscope.trace.prompts import PromptChoice
    from stratoscope.trace.targets import TargetChoice

KIND = "compare"
_LONG = 8_000  # tokens of both from which on it takes so long that progress is told


def comparison(
    inputs: TwoInputs,
    *,
    columns: Columns = None,
    quantity: str | None = None,
    target: TargetChoice = None,
    prompt: PromptChoice = None,
    layers: LayerChoice = None,
    span: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Compare two prompts token by aligned token; `compare` draws the same.

    It describes two prompts and tests nothing: `contrast` tests classes of prompts, `diff` compares two models over the
    same prompts.

    Parameters
    ----------
    inputs
        A trace or a Dataset, of which two prompts are compared; two traces in a list, of which one prompt each; or two
        CSV or Parquet files in a list.
    columns
        Which column of CSV files is which, as in `import_csv`.
    quantity
        A name of `names.QUANTITIES` that both have; by default as in `heatmap`.
    target
        Of a quantity that explains logits: the target, by its text or its number; by default the first. B − A of direct
        contributions stands where both have their final norm's factor: at the answer position, and where the prompts
        are still the same.
    prompt
        Two prompts by id or index, A first. By default the first minimal pair, else the first prompt of each of two
        classes. Of two traces one that both have (by default the first such), or one of each.
    layers
        Only these: "22-31,0" or numbers; of `resid_norm` depths.
    span
        Only tokens of these spans.
    progress
        Is told what is being done, of long prompts.

    Returns
    -------
    xarray.DataTree
        A Result of kind "compare"; docs/results.md describes its tables. Differences are B − A.

    Raises
    ------
    InputError
        These are not two prompts, or something asked for is not there.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=6, layers=3)
    >>> result = stratoscope.comparison(trace, prompt=["critical-1", "neutral-1"])
    >>> result.attrs["summary"]["called"]
    ['critical', 'neutral']
    >>> difference = result["tokens/mlp_out_norm"]["difference"]
    >>> difference.dims
    ('column', 'layer')
    """
    from stratoscope.analysis.compare import assemble
    from stratoscope.analysis.compare.cells import aligned, compared, refuse_without_common_rows, strongest_from
    from stratoscope.analysis.compare.others import measure_others
    from stratoscope.analysis.compare.peaks import has_lists, one_sided
    from stratoscope.analysis.compare.prompts import of_one_target, two_prompts
    from stratoscope.analysis.diff.cells import rows_of

    two = two_prompts(inputs, columns, prompt)
    is_long = sum(side.lengths[one] for side, one in zip(two.sides, two.prompts, strict=True)) > _LONG
    report = progress if progress and is_long else silent
    spans = span_names(span)
    name = _quantity(two.traces, quantity)
    two = of_one_target(two, name, target)
    a, b = (side.dataset for side in two.sides)
    rows = rows_of(a, b, names.QUANTITIES[name].row_kind, layers)
    report("aligning the prompts", 0, None)
    tokens = aligned(two, spans)
    if not len(tokens.a):
        raise InputError(
            "no token of these prompts is in that span", where="span", fix="Leave it out, or name another."
        )
    cells = compared(two, name, rows, tokens)
    refuse_without_common_rows(two, rows, cells)
    strong = strongest_from(cells.counted)
    others = measure_others(two, name, rows, spans, strong, report) if np.isfinite(strong) else None
    lists = None
    if has_lists(two):
        on_layers = names.QUANTITIES[name].row_kind == names.LAYER
        lists = one_sided(two, tokens, rows_of(a, b, names.LAYER, layers if on_layers else None))
    parameters: dict[str, Any] = {
        "prompt": list(two.ids),
        "quantity": name,
        "target": target,
        "layers": layers if layers is None or isinstance(layers, str) else np.atleast_1d(layers).tolist(),
        "span": spans,
    }
    return assemble.result(assemble.Parts(two, name, rows, cells, strong, others, lists), parameters)


def _quantity(traces: Sequence[xr.Dataset], asked: str | None) -> str:
    """The quantity that all of them have: the one that is asked for, else the first that is usually drawn."""
    if asked is not None:
        (name,) = {checked_quantity(trace, asked, by_layer=True) for trace in traces}
        return name
    every = [drawable_quantities(trace, by_layer=True) for trace in traces]
    shared = [name for name in every[0] if all(name in other for other in every)]
    if not shared and len(traces) > 1:
        there = " and ".join(", ".join(held[:4]) or "nothing" for held in every)
        raise InputError("the two traces have no quantity in common", where="quantity", fix=f"They have: {there}.")
    usual = default_quantity(traces[0], by_layer=True)
    return usual if usual in shared or not shared else shared[0]
