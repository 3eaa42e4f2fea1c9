"""docs/format.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from small_traces import record
from test_streamed_arrays import record as record_streams

from stratoscope import names, open_trace
from stratoscope.trace.format import array_document, bounds, document, schema
from stratoscope.trace.format.shards import DTYPES, as_numbers

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
    limits = (
        f"{bounds.MAX_NESTING} levels, {bounds.MAX_CONTAINERS:,} lists and objects, {bounds.MAX_VALUES:,} values and "
    )
    limits = (
        f"at most {bounds.MAX_DOCUMENT_BYTES // 2**20} MiB, {limits}{bounds.MAX_TEXT_BYTES // 2**20} MiB in one text"
    )
    assert limits in PAGE.replace("\n  ", " ")
    assert f"No text of a column longer than {bounds.LONGEST_TEXT:,} bytes" in PAGE
    assert set(array_document.MAX_LENGTH.values()) == {10_000, 10_001, 10_000_000}
    assert (
        "10,000 layers, heads, openers, targets, lenses and ranks of any kind, 10,000,000 neurons and 10¹² tokens"
        in PAGE
    )


def test_the_fill_values_are_those_of_the_code() -> None:
    told = dict(re.findall(r"^   \| ([^|]+) \| `([^`]+)`", PAGE, re.MULTILINE))
    fills = {dtype: fill for kinds, fill in told.items() for dtype in kinds.partition(":")[0].split(", ")}
    layouts = [layout for name in names.QUANTITIES if not names.is_streamed(name) and (layout := known(name))]
    layouts += [known(name) for name in (*schema.TOKEN_COORDS, *schema.ROW_ARRAYS, *schema.AXIS_COORDS)]
    layouts += [layout for column, dim in schema.TEXTS.items() for layout in schema.text_layouts(column, dim)]
    layouts += [schema.quantity_layout("neurons", "real", dtype) for dtype in DTYPES]
    assert {layout.dtype for layout in layouts} == set(fills)
    for layout in layouts:
        assert str(schema.fill_value(layout)).replace("nan", "NaN") == fills[layout.dtype], layout.name
    bits = np.array([int(fills["uint16"])], np.uint16)
    assert np.isnan(as_numbers(bits)).all()


def known(name: str) -> schema.Layout:
    layout = schema.known_layout(name)
    assert layout is not None
    return layout


def test_the_line_for_dask_selects_and_groups(tmp_path: Path) -> None:
    block = re.search(r"```python\n(trace = open_trace.*?)```", PAGE, re.DOTALL)
    assert block is not None
    known: dict[str, Any] = {"open_trace": lambda _: open_trace(record(tmp_path / "t", 4))}
    exec(block[1], known)
    trace, lazy = known["trace"], known["lazy"]
    assert lazy.mlp_out_norm.chunks is not None
    told = re.findall(r"`(lazy\.[^`]+)`", PAGE)
    assert len(told) == 3
    for expression in told:
        said = expression.replace("neurons", "mlp_out_norm")
        found = eval(said, {"lazy": lazy})
        assert found.chunks is not None
        xr.testing.assert_allclose(found.compute(), eval(said, {"lazy": trace.load()}))


def test_the_lines_for_bits_in_xarray_give_the_numbers(tmp_path: Path) -> None:
    wanted = record_streams(tmp_path / "a.trace", "bfloat16")
    block = re.search(r"```python\n  (bits = .*?)```", PAGE, re.DOTALL)
    assert block is not None
    known: dict[str, Any] = {"xr": xr}
    exec(re.sub(r"^ +", "", block[1], flags=re.MULTILINE).replace("a.trace", str(tmp_path / "a.trace")), known)
    assert np.array_equal(known["neurons"], as_numbers(wanted))
    assert known["bits"].attrs["units"] == "bfloat16 bits"
    assert "bfloat16 bits" in known["bits"].attrs["long_name"]
    opened = open_trace(tmp_path / "a.trace").neurons
    assert opened.attrs["units"] == names.QUANTITIES["neurons"].unit
    assert opened.attrs["long_name"] == names.QUANTITIES["neurons"].label


def test_every_checked_attribute_stands_on_the_page() -> None:
    told = {name for row in ROWS if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])}
    assert set(document._ATTRIBUTES) <= told
