"""`lint`: in which of the known ways this trace can mislead, and what pictures and reports of it say about that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stratoscope.analysis.lint.check import CHECKS, COMPARISONS, EVERYTHING, Check
from stratoscope.analysis.lint.remembered import notes_found
from stratoscope.trace.notes import WARNING, Note, notes_of

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.opened import Inputs


def lint(trace: Inputs, *, columns: Columns = None) -> xr.DataTree:
    """Check a trace against the known ways in which pictures and numbers of a model's inside mislead.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    columns
        Which column of CSV files is which, as in `import_csv`.

    Returns
    -------
    xarray.DataTree
        A Result of kind "lint". In the table `findings`: `id` (a line of docs/pitfalls.md), `check`, `severity`
        ("warning" where a reader would conclude something false, else "info"), `text`, `why` and `page`; warnings
        first.

    Raises
    ------
    InputError, TraceError
        It cannot be opened, or is damaged.

    Examples
    --------
    >>> import stratoscope
    >>> result = stratoscope.lint(stratoscope.simulate(prompts=4, layers=3))
    >>> findings = result["findings"]
    >>> for line, text in zip(findings["id"].values[:2], findings["text"].values):
    ...     print(line, text)
    L12 2 prompts of critical: no test between prompts gives p below 0.5, and tokens of a prompt are no samples.
    L05 The largest first token is 25.4 times the 99 % quantile of all other cells of mlp_out_norm.
    """
    from stratoscope.analysis.results.result import make_result, table_of
    from stratoscope.trace.opened import opened

    dataset = opened(trace, columns)
    found = [(one, note) for one in all_checks() if (note := one.note(dataset)) is not None]
    found.sort(key=lambda pair: (pair[1].severity != WARNING, pair[0].id))
    table = {
        "id": [one.id for one, _ in found],
        "check": [one.name for one, _ in found],
        "severity": [note.severity for _, note in found],
        "text": [note.text for _, note in found],
        "why": [one.why for one, _ in found],
        "page": [one.page for one, _ in found],
    }
    return make_result(
        "lint",
        {"findings": table_of("finding", table)},
        sources=[dataset],
        parameters={},
        notes=[*notes_of(dataset), *(note for _, note in found)],
        summary={"checks": len(all_checks()), "warnings": table["severity"].count(WARNING), "findings": len(found)},
    )


def applicable(dataset: xr.Dataset, quantities: Iterable[str] = (), *, comparing: bool = False) -> tuple[Note, ...]:
    """The warnings that a picture or a report of these quantities carries.

    Parameters
    ----------
    dataset
        A trace.
    quantities
        What is drawn.
    comparing
        Whether prompts or classes are set against each other.
    """
    about = {*EVERYTHING, *quantities, *(COMPARISONS if comparing else ())}
    found = notes_found(dataset)
    asked = [one for one in all_checks() if one.severity == WARNING and one.concerns & about]
    found.update({one.name: one.note(dataset) for one in asked if one.name not in found})
    return tuple(note for one in asked if (note := found[one.name]) is not None)


def all_checks() -> list[Check]:
    """Every check, by line."""
    from stratoscope.analysis.lint import explained, lenses, prompts, record, values  # noqa: F401 (they add their checks)

    return sorted(CHECKS, key=lambda one: (one.id, one.name))
