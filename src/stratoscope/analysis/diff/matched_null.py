"""The real change among changes that random patches of the same size make: `probe.null` measures those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.diff.cells import rows_of
from stratoscope.analysis.diff.claims import Claim
from stratoscope.analysis.diff.prompts import Columns, Pair
from stratoscope.analysis.results.result import is_result, table_in, table_of
from stratoscope.analysis.statistics.known import columnwise
from stratoscope.analysis.values.tables import table
from stratoscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

KIND = "patch-null"


def check_null(null: xr.DataTree, a: xr.Dataset, claims: Sequence[Claim]) -> None:
    """Raise `InputError` unless `null` was measured on trace A and for these claims."""
    if not is_result(null, KIND):
        raise InputError("this is not what patch_null gives", where="null", fix="Give what patch_null returned.")
    if null.attrs["sources"][0]["uuid"] != str(a.attrs.get("uuid", "")):
        raise InputError("it was measured on another trace than A", where="null", fix="Measure it on trace A.")
    wanted = [[claim.layer, claim.neuron, claim.old, claim.new] for claim in claims]
    if null.attrs["parameters"]["claims"] != wanted:
        raise InputError("it was measured for other claims", where="null", fix="Measure it for the same claims.")


def in_null(
    null: xr.DataTree, a: xr.Dataset, b: xr.Dataset, pairs: list[Pair], columns: Columns
) -> tuple[dict[str, Mapping[str, Any]], dict[str, Any]]:
    """Tables and facts: mean |B − A| of each layer among the same of the random patches.

    Only prompts whose tokens are all the same in both traces count, first tokens left out.
    """
    whole = columns.whole(len(pairs))
    place = {pair.a: number for number, pair in enumerate(pairs)}
    run = table_in(null, "prompts")
    runs = run["prompt"].values.tolist()
    used = [number for number, prompt in enumerate(runs) if prompt in place and whole[place[prompt]]]
    if not used:
        raise InputError(
            "no prompt that the null was measured on has the same tokens in both traces",
            where="null",
            fix="Record both over the same prompts.",
        )
    prompts = [place[runs[number]] for number in used]
    counted = columns.of(np.array(prompts)) & columns.compared
    tokens = float(run["tokens"].values[used].sum())
    kl = table_in(null, "kl")
    tables: dict[str, Mapping[str, Any]] = {"null": table_of("draw", {"kl": kl["random"].values})}
    facts: dict[str, Any] = {"draws": int(kl.sizes["draw"]), "prompts": len(used), "quantities": {}}
    for quantity in null.attrs["summary"]["quantities"]:
        change, kind = table_in(null, f"change/{quantity}"), names.QUANTITIES[quantity].row_kind
        rows = rows_of(a, b, kind, change[kind].values.tolist())
        real = _on(b, quantity, columns.b[counted], rows.b) - _on(a, quantity, columns.a[counted], rows.a)
        mean_real = columnwise(np.nanmean, np.abs(real))
        draws = change["random"].values[:, used].sum(axis=1) / tokens
        ranks = rank(draws, mean_real)
        tables[f"null/{quantity}"] = {
            kind: rows.numbers,
            "random": (("draw", kind), draws),
            **table_of(kind, {"real": mean_real, "rank": ranks}),
        }
        claimed = change["claimed"].values
        where = np.searchsorted(table_in(null, "tokens")["token"].values, columns.a[counted])
        left = float(np.nansum(np.abs(real - claimed[where])))
        total = float(np.nansum(np.abs(real)))
        facts["quantities"][quantity] = {
            "real": float(mean_real.mean()),
            "null_median": float(np.median(draws.mean(axis=1))),
            "larger_or_equal": int((draws.mean(axis=1) >= mean_real.mean()).sum()),
            "p": float(rank(draws.mean(axis=1)[:, None], mean_real.mean(keepdims=True))[0]),
            "explained_by_claims": 1 - left / total if total > 0 else None,
        }
    random, of_claims = kl["random"].values, float(kl["claimed"])
    facts["kl"] = {
        "claimed": of_claims,
        "null_median": float(np.median(random)),
        "p": float(rank(random[:, None], np.array([of_claims]))[0]),
    }
    return tables, facts


def rank(draws: NDArray[np.floating[Any]], real: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(r + 1) / (draws + 1), r = how many draws are at least as large; of each column."""
    larger = (draws >= real).sum(axis=0)
    ranks: NDArray[np.float64] = (larger + 1) / (len(draws) + 1)
    return ranks


def _on(dataset: xr.Dataset, quantity: str, tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> Any:
    every = table(dataset, quantity, np.arange(dataset.sizes["token"]), rows)
    return np.asarray(every, np.float64)[tokens]
