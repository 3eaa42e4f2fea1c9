"""The page of private class profiles shows how much noise there is, and promises its numbers."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope.publish.private.private import private_profiles
from stratoscope.view.report.save import contents_of
from stratoscope.view.spec.charts import Intervals

pytest.importorskip("opendp")


@pytest.fixture(scope="module")
def published(simulated: xr.Dataset) -> xr.DataTree:
    return private_profiles(simulated, quantities=["mlp_write_ratio", "mlp_write_cos"], bands=2)


def test_every_interval_holds_95_percent_of_the_noise(published: xr.DataTree) -> None:
    panels = [panel for figure in contents_of(published).figures() for panel in figure.spec.content.panels]
    marks = [[mark for mark in panel.marks if isinstance(mark, Intervals)] for panel in panels]
    table = published["profiles/mlp_write_ratio"].to_dataset()
    for place, mark in enumerate(marks[0]):
        reach = np.log2([mark.x / mark.low, mark.high / mark.x])
        np.testing.assert_allclose(reach, 1.96 * table["noise"].values[place])
        np.testing.assert_allclose(mark.x, np.exp2(table["mean"].values[place]))
    difference = marks[1][0]  # of the only quantity of its figure
    np.testing.assert_allclose(difference.high - difference.x, 1.96 * np.hypot(*table["noise"].values))


def test_the_page_and_the_table_say_how_many_prompts_exactly_and_of_no_tokens(
    published: xr.DataTree, tmp_path: Path
) -> None:
    folder = stratoscope.save_result(published, tmp_path / "private")
    page = (folder / "report.html").read_text("utf-8")
    assert ">(ε = 1,</span>" in page
    assert ">δ = 1e−5)</span> per prompt." in page
    assert "predicted signal-to-noise" in page
    assert "critical (60 prompts)" in page
    assert not re.search(r"\d tokens", page)
    assert "each a run of neighbouring layers" in page
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 2 * 2
    assert all(float(row["noise from"]) < float(row["mean"]) < float(row["noise to"]) for row in rows)
    assert {row["prompts"] for row in rows} == {"60"}
    again = stratoscope.open_result(folder)
    assert again["profiles/mlp_write_ratio"].to_dataset().identical(published["profiles/mlp_write_ratio"].to_dataset())
