"""The page, the figures and the table of published class profiles, and what the commands say of their folder."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from class_traces import different, trace_of
from typer.testing import CliRunner

import stratoscope
from stratoscope import names
from stratoscope.doors import cli
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.levels import PROMISES
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.view.report.profiles_charts import OTHERS, grouped, means_in
from stratoscope.view.report.save import contents_of
from stratoscope.view.spec.charts import Line

CLASSES = ["calm"] * 20 + ["stormy"] * 26


@pytest.fixture(scope="module")
def published() -> xr.DataTree:
    return class_profiles(trace_of(different(46), CLASSES), quantities=["mlp_write_ratio", "mlp_write_cos"])


@pytest.fixture(scope="module")
def folder(published: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stratoscope.save_result(published, tmp_path_factory.mktemp("published") / "profiles")


def test_every_line_is_the_mean_that_was_published_in_its_own_unit(published: xr.DataTree) -> None:
    panels = [panel for figure in contents_of(published).figures() for panel in figure.spec.content.panels]
    lines = {(panel.title, mark.label): mark.x for panel in panels for mark in panel.marks if isinstance(mark, Line)}
    ratio, cosine = (published[f"profiles/{name}/mean"].values for name in ("mlp_write_ratio", "mlp_write_cos"))
    np.testing.assert_allclose(lines["MLP write / residual", "calm (about 20 prompts)"], np.exp2(ratio[0]))
    np.testing.assert_allclose(lines["cos(MLP write, residual)", "stormy (about 30 prompts)"], cosine[1])
    np.testing.assert_allclose(lines["calm − stormy", "MLP write / residual"], ratio[0] - ratio[1])


def test_every_figure_and_the_page_carry_the_promise(published: xr.DataTree, folder: Path) -> None:
    promise = PROMISES[names.AGGREGATE]
    figures = contents_of(published).figures()
    assert all(any(promise in note.text for note in figure.spec.notes_now()) for figure in figures)
    assert promise in (folder / "report.html").read_text("utf-8")
    assert all(promise in (folder / f"figures/{figure.name}.svg").read_text("utf-8") for figure in figures)


def test_the_table_has_every_mean_in_the_unit_of_its_quantity(published: xr.DataTree, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    first = next(row for row in rows if row["class"] == "stormy")
    mean = published["profiles/mlp_write_ratio/mean"].sel(prompt_class="stormy", layer=0).item()
    assert float(first["mean"]) == pytest.approx(2**mean, rel=1e-6)
    assert (first["of"], first["prompts, about"], len(rows)) == ("geometric mean", "30", 2 * 2 * 3)


def test_all_quantities_are_drawn_once_and_never_layers_beside_depths() -> None:
    rows = {name: names.QUANTITIES[name].row_kind for name in PROFILED}
    trace = stratoscope.simulate(prompts=90, layers=2, d_ff=16, d_model=8, heads=2)
    result = class_profiles(trace, quantities=[name for name in PROFILED if name in trace])
    figures = [[one.quantity for one in some] for of in grouped(means_in(result)).values() for some in of]
    drawn = [quantity for some in figures for quantity in some]
    assert sorted(drawn) == sorted(result.attrs["parameters"]["quantity"])
    assert all(len({rows[name] for name in some}) == 1 for some in figures)
    assert OTHERS in grouped(means_in(result))


def test_a_trace_without_classes_is_one_line_and_more_classes_than_colours_are_told() -> None:
    alone = contents_of(class_profiles(trace_of(different(20), [""] * 20)))
    assert "all prompts" in alone.title
    assert len(alone.figures()[0].spec.content.panels) == 1
    many = class_profiles(trace_of(different(140), [f"class {number % 7}" for number in range(140)]))
    assert "drawn are the first 6 of 7 classes" in contents_of(many).figures()[0].spec.subtitle
    assert {row[2] for row in contents_of(many).table.rows} == {f"class {number}" for number in range(7)}


def test_info_tells_what_was_published_and_pictures_of_tokens_are_refused(folder: Path) -> None:
    run = CliRunner()
    told = run.invoke(cli.app, ["info", str(folder)])
    assert told.exit_code == 0
    assert "calm (about 20 prompts) and stormy (about 30 prompts)" in told.output
    refused = run.invoke(cli.app, ["heatmap", str(folder)])
    assert refused.exit_code == 1
    assert re.search(r"is a result, not a trace.*stratoscope info", refused.output.replace("\n", " "))


def test_a_published_folder_opens_again_and_says_how_it_is_made_again(folder: Path, published: xr.DataTree) -> None:
    again = stratoscope.open_result(folder)
    xr.testing.assert_identical(again.load(), published)
