"""docs/viewspec.md says all that a reader in another language needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import viewspec_classes as schema
from matplotlib.colors import ListedColormap, to_hex
from view_traces import make_trace

from stratoscope import names
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.spec import palette
from stratoscope.view.spec.file import to_bytes
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import Maps

PAGE = (Path(__file__).parents[2] / "docs" / "viewspec.md").read_text("utf-8")
(READER,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def read_view" in block)


@pytest.mark.parametrize(
    ("quantity", "lengths", "look"),
    [
        ("mlp_out_norm", (12, 12), Look("robust")),
        ("mlp_out_norm", (7, 1600), Look("log", first_token=True)),
        ("resid_cos", (12,), Look("linear")),
        ("mlp_out_norm", (12,), Look("per-layer")),
    ],
)
def test_its_reader_finds_the_largest_cell_and_its_colour(
    quantity: str,
    lengths: tuple[int, ...],
    look: Look,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = make_trace(lengths=lengths, quantities=(quantity,), sink=0.5)
    spec = heatmap_spec(trace, look=look)
    file = tmp_path / "heatmap.view"
    file.write_bytes(to_bytes(spec))
    monkeypatch.setattr(sys, "argv", ["reader", str(file)])
    exec(compile(READER, "docs/viewspec.md", "exec"), {})
    told, _, colour = capsys.readouterr().out.strip().rpartition(", ")
    values = trace[quantity].values
    token, row = np.unravel_index(np.nanargmax(values), values.shape)
    drawn = names.QUANTITIES[quantity]
    assert told.startswith(f"{drawn.label}: {values[token, row]:.4g} at ")
    assert told.endswith(f" in {drawn.dims[1]} {row}")
    assert spec.tokens.text[token] in told
    assert isinstance(spec.content, Maps)
    unit = spec.content.quantities[0].colouring(look).limits.unit(values)[token, row]
    painted = ListedColormap(palette.COLOURS.of(signed=drawn.signed))(float(np.clip(unit, 0, 1)))
    assert colour == to_hex(painted)


def test_every_field_of_every_class_is_described() -> None:
    silent = [
        f"{kind.__name__}.{one.name}" for kind in schema.classes() for one in schema.described(kind) if not one.words
    ]
    assert not silent
    assert all(f"### {kind.__name__}\n" in PAGE for kind in schema.classes())


def test_the_spans_are_those_of_a_trace() -> None:
    assert f"Index into {', '.join(names.SPANS)};" in PAGE
