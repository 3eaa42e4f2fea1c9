"""docs/format.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from stratoscope import names
from stratoscope.trace import array_document, document, schema

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| `")]
ARRAYS = {name: (dims, dtype) for name, dims, dtype, *_ in (row for row in ROWS if len(row) == 4)}


def test_every_plain_array_stands_on_the_page_with_its_dimension_and_type() -> None:
    for name in (
        *schema.TOKEN_COORDS,
        *schema.MAYBE_TOKEN_COORDS,
        *schema.ROW_ARRAYS,
        *schema.AXIS_COORDS,
        "imported_norm",
    ):
        layout = schema.known_layout(name)
        assert layout is not None
        assert ARRAYS[f"`{name}`"] == (", ".join(layout.dims), layout.dtype)


def test_every_text_column_stands_on_the_page_with_its_types() -> None:
    told = {
        re.sub(r"_(bytes|\*|<n>_\*)$", "", name): row
        for cell, row in ARRAYS.items()
        for name in cell.replace("`", "").split(", ")
    }
    for column, dim in {**schema.TEXTS, "column": names.ROW}.items():
        dims, dtypes = told[column]
        assert dims.endswith(f"; {dim}")
        assert dtypes == "; ".join(layout.dtype for layout in schema.text_layouts(column, dim))


def test_the_version_the_limits_and_the_spans_are_those_of_the_code() -> None:
    assert f"version {schema.FORMAT_VERSION}" in PAGE.splitlines()[0]
    assert f'"{schema.FORMAT}"' in PAGE
    assert ", ".join(names.SPANS) in PAGE
    assert f"at most {array_document.MAX_CHUNK_BYTES // 2**20} MiB" in PAGE
    assert f"at most {document.MAX_DOCUMENT_BYTES // 2**20} MiB and {document.MAX_NESTING}" in PAGE.replace("\n  ", " ")
    assert set(array_document.MAX_LENGTH.values()) == {10_000, 10_001, 10_000_000}
    assert "10,000 layers, heads, ranks and openers, 10,000,000 neurons and 10¹² tokens" in PAGE


def test_every_checked_attribute_stands_on_the_page() -> None:
    told = {name for row in ROWS if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])}
    assert set(document._ATTRIBUTES) <= told
