"""What is in a trace, where it comes from and what was proved about it: as JSON-able facts, and as text to read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from stratoscope import names
from stratoscope.names import HEAD, LAYER, NEURON, PEAK, PROMPT, ROW, TOKEN
from stratoscope.trace.format.attributes import to_json
from stratoscope.trace.format.bounds import TEXTS_AT_ONCE
from stratoscope.trace.format.schema import PUBLISHED, UNKNOWN_ARRAYS
from stratoscope.trace.info.explained import explained
from stratoscope.trace.info.fitted_lens import lens_facts, lens_of, lens_text
from stratoscope.trace.info.lenses_and_routes import lenses, routes
from stratoscope.trace.info.text import facts_text
from stratoscope.trace.lenses import JACOBIAN_LENS
from stratoscope.trace.opened import Inputs, dataset_of, opened
from stratoscope.trace.outcome import outcome

if TYPE_CHECKING:
    from stratoscope.trace.csv.columns import Columns

_DATES = ("created", "finished", "resumed", "merged")
_ORIGIN = (PUBLISHED, "source", "axis", "token_spelling", "model", "tokenizer", "plan", "software")
_FINDINGS = ("receipt", "notes", "planted", UNKNOWN_ARRAYS)


def info(trace: Inputs, *, columns: Columns = None) -> dict[str, Any]:
    """What a trace is, or a fitted lens.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset; or a file of `fit_lens`.
    columns
        Which column of CSV files is which, as in `import_csv`.

    Returns
    -------
    dict
        JSON-able facts: `path`, `bytes` (on disk, in bytes; None in memory), `state`, `prompts`, `tokens`, `rows`,
        `layers`, `classes` (class → prompts), `pairs`, `groups`, `top_k`, `heads`, `neurons`, `quantities` (record
        group → list of name, dims, unit, label, formula), `outcome` (`answered`, `open_as_refusal`, `refusal_patterns`,
        `cut`, `openers`, the first `answers`; None where nothing was asked about answers), `explained` (`targets`,
        `own`, `answer_prefix`, `positions`, `error`, `limit`, `groups`; None where no logit is explained), `lenses`
        (`lenses`, `positions`, `file`, `targets`, `error`, `limit`; None where there are none), `routes` (`edges`,
        `not_split`, `effects`, `error`, `limit`; None where there are none), the attributes of docs/format.md and its
        dates. Of a fitted lens: `kind`, `model`, `corpora`, `prompts`,
        `positions`, `rank`, `basis`, `apart` (by depth, how far its halves are apart, relative to the whole), `moved`
        (of each prompt, by how much it still moved the mean, median over depths), …

    Raises
    ------
    InputError, TraceError
        It cannot be opened.

    Examples
    --------
    >>> import stratoscope
    >>> facts = stratoscope.info(stratoscope.simulate(prompts=4, layers=3))
    >>> facts["source"], facts["classes"], facts["layers"]
    ('simulated', {'critical': 2, 'neutral': 2}, [0, 1, 2])
    >>> [quantity["name"] for quantity in facts["quantities"]["residual"]]
    ['resid_norm', 'resid_cos']
    """
    lens = lens_of(trace)
    if lens is not None:
        return lens_facts(lens)
    dataset = dataset_of(trace, columns)
    if (
        dataset is trace
        and "prompt" in dataset.variables
        and dataset.sizes.get(TOKEN, 1)
        and "kind" not in dataset.attrs
    ):  # somebody may have cut it
        dataset = opened(dataset)
    path = dataset.encoding.get("source")
    facts = {
        "path": path,
        "bytes": None if path is None else _bytes_on_disk(Path(path)),
        **{key: dataset.attrs.get(key) for key in ("format_version", "uuid", "state", *_DATES)},
        **_contents(dataset),
        "outcome": outcome(dataset),
        "explained": explained(dataset),
        "lenses": lenses(dataset),
        "routes": routes(dataset),
        **{key: dataset.attrs.get(key) for key in (*_ORIGIN, *_FINDINGS)},
    }
    facts["notes"] = facts["notes"] or []
    return dict(to_json(facts))


def info_text(info: dict[str, Any]) -> str:
    """The facts of `info` as plain text for a terminal, ending without a newline."""
    return lens_text(info) if info.get("kind") == JACOBIAN_LENS else facts_text(info)


def _contents(dataset: xr.Dataset) -> dict[str, Any]:
    sizes = dataset.sizes
    classes = _counted(dataset, "prompt_class")
    return {
        "prompts": sizes.get(PROMPT, 0),
        "tokens": sizes.get(TOKEN, 0),
        "rows": sizes.get(ROW),
        "layers": dataset[LAYER].values.tolist() if LAYER in dataset.coords else [],
        "classes": classes,
        "pairs": len(_counted(dataset, "pair")),
        "groups": len(_counted(dataset, "group")),
        "top_k": sizes.get(PEAK),
        "heads": sizes.get(HEAD),
        "neurons": sizes.get(NEURON),
        "quantities": _quantities(dataset),
    }


def _counted(dataset: xr.Dataset, column: str) -> dict[str, int]:
    """How often each text stands in a column of the prompts, the empty one left out; read in bounded pieces."""
    counts: Counter[str] = Counter()
    if column in dataset.coords:
        for start in range(0, dataset.sizes[PROMPT], TEXTS_AT_ONCE):
            counts.update(dataset[column][start : start + TEXTS_AT_ONCE].values)
    return {text: count for text, count in counts.items() if text}


def _quantities(dataset: xr.Dataset) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for quantity in names.QUANTITIES.values():
        if quantity.name in dataset:
            fact = {"name": quantity.name, "dims": quantity.dims, "unit": quantity.unit}
            fact |= {"label": quantity.label, "formula": quantity.formula_in(dataset)}
            groups.setdefault(quantity.group, []).append(fact)
    return groups


def _bytes_on_disk(folder: Path) -> int:
    """Sum of the sizes of the files of a folder, links not followed."""
    sizes = (
        os.lstat(os.path.join(directory, file)).st_size  # noqa: PTH118 (a trace has many files)
        for directory, _, files in os.walk(folder)
        for file in files
    )
    return sum(sizes)
