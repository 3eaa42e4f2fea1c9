"""One prompt of a trace, as a trace of that prompt alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.opened import Inputs, opened, with_note
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.csv.columns import Columns


def prompt(trace: Inputs, choice: str | int, *, columns: Columns = None) -> xr.Dataset:
    """Take one prompt out of a trace: a Dataset of that prompt alone, on which every verb works.

    Tokens, pairs of tokens, rows of a CSV and values of the prompt are cut together, and what the attributes say of
    single prompts. Values stay lazy. xarray's own `isel(prompt=6)` leaves the tokens of all prompts, and
    `isel(token=…)` leaves the values of all prompts.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    choice
        The prompt: its id, or its index. A text that is an id is that prompt; a text that is none, but a plain number
        ("1", not "01"), and a whole number are an index, counted from 0. Nothing else names a prompt.
    columns
        Which column of CSV files is which, as in `import_csv`.

    Returns
    -------
    xarray.Dataset
        As `open_trace` gives it, with one prompt, and a note that says of how many.

    Raises
    ------
    InputError
        There is no such prompt, or several have that id.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, tokens=6, layers=2, d_model=8, d_ff=24, heads=2)
    >>> one = stratoscope.prompt(trace, "critical-2")
    >>> one["prompt_id"].values.tolist(), one.sizes["token"], one["mlp_out_norm"].shape
    (['critical-2'], 6, (6, 2))
    >>> stratoscope.prompt(trace, 2).identical(one)
    True
    """
    prompts = Prompts(opened(trace, columns))
    index = prompts.find(choice)
    part = prompts.part(index, index + 1)
    attrs, identity = dict(part.attrs), prompts.ids[index]
    if "planted" in attrs:
        attrs["planted"] = _about(attrs["planted"], "prompt", identity)
    if isinstance(plan := attrs.get("plan"), Mapping) and "files" in plan:
        attrs["plan"] = {**plan, "files": _about(plan["files"], "prompt_id", identity)}
    part.attrs = attrs
    if len(prompts) == 1:
        return part
    return with_note(part, f"Only {prompts.labels[index]}, of {len(prompts):,} prompts.")


def _about(entries: Any, key: str, identity: str) -> list[Mapping[str, Any]]:
    """What is said of a prompt, and of all of them."""
    return [one for one in objects_in(entries) if one.get(key, identity) == identity]
