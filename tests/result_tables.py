"""What docs/results.md says of the tables of results, held against results that were really made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import xarray as xr

from stratoscope import names

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
Variables = set[tuple[str, str, tuple[str, ...]]]  # table, name, dimensions


@cache
def documented(kind: str) -> Variables:
    """The variables of a kind of result, as the page has them."""
    section = re.split(r"\n##+ ", PAGE.read_text("utf-8").split(f"\n### {kind}\n")[1])[0]
    found, table = set(), ""
    for row in re.findall(r"^\| (.*) \|$", section, re.MULTILINE)[1:]:
        named, dims, words = re.split(r" ?\| ", row.replace(r"\|", "¦"), maxsplit=2)
        table = named.strip("` |") or table
        names_in_it = re.findall(r"`([a-z]\w*)`", words)
        found |= {(table, name, tuple(re.findall(r"\w+", dims))) for name in names_in_it}
    return found


def made(results: Iterable[xr.DataTree]) -> Variables:
    """The variables of results; the numbers that a dimension has are none."""
    found = set()
    for node in (node for result in results for node in result.subtree):
        table, _, quantity = node.path.strip("/").partition("/")
        path = f"{table}/<quantity>" if quantity in names.QUANTITIES else node.path.strip("/")
        for name, variable in node.to_dataset(inherit=False).variables.items():
            dims = tuple("row" if quantity and dim in (names.LAYER, names.DEPTH) else str(dim) for dim in variable.dims)
            if variable.dims != (name,):
                found.add((path, str(name), dims))
    return found
