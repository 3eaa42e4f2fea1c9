"""What a trace may hold, however odd, is drawn, compared, exported and described, or refused in words; in silence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_traces import Odd, odd
from verbs import VERBS, Verb, ask, silence

import stratoscope
from drawn_maps import colouring, maps_of
from stratoscope import names
from stratoscope.analysis.results.result import notes_in
from stratoscope.errors import StratoscopeError
from stratoscope.trace.write.from_dataset import write_dataset
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.peaks3d.caption import peaks_in
from stratoscope.view.spec.viewspec import ViewSpec

TOLD = (
    "Values that are infinite or too large to compute with (2 of prompt_mean): left out of every statistic, as if they "
    "were missing."
)
CHANGES: dict[str, Any] = {
    "duplicate layer": lambda one: one.assign_coords(layer=("layer", np.array([0, 1, 1], "int32"))),
    "negative layer": lambda one: one.assign_coords(layer=("layer", np.array([-1, 0, 1], "int32"))),
    "layers not ascending": lambda one: one.isel(layer=[2, 0, 1]),
    "no layer": lambda one: one.isel(layer=[]),
    "prompts not contiguous": lambda one: one.isel(token=[0, 4, 1, 5, 2, 3]),
    "no prompts": lambda one: one.isel(prompt=[], token=[]),
    "tokens of no prompt": lambda one: one.isel(prompt=[0]),
    "negative prompt": lambda one: one.assign_coords(prompt=one["prompt"] - 1),
    "prompts that are fractions": lambda one: one.assign_coords(prompt=one["prompt"] + 0.5),
    "unknown span": lambda one: one.assign_coords(span=one["span"] * 0 + 9),
    "no texts, numbers": lambda one: one.assign_coords(prompt_id=("prompt", np.arange(2.0))),
    "no positions": lambda one: one.drop_vars("position"),
    "a dimension less": lambda one: one.isel(head=0, peak=0),
    "dimensions turned round": lambda one: one.transpose(..., "token"),
    "objects": lambda one: one.assign(mlp_out_norm=one["mlp_out_norm"].astype(object)),
    "model is a list": lambda one: one.assign_attrs(model=[1]),
    "notes are texts": lambda one: one.assign_attrs(notes=["x"]),
}  # fmt: skip


@settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(odd(), st.integers(0, 2**32), st.sampled_from(VERBS))
def test_every_verb_answers_or_refuses_without_a_warning(made_of: Odd, number: int, verb: Verb) -> None:
    assert ask(made_of, random.Random(number), verb).startswith(verb.__name__)


@pytest.fixture(scope="module")
def usual() -> xr.Dataset:
    groups = {*names.SUMMARIES}
    quantities = frozenset(row.name for row in names.QUANTITIES.values() if row.group in groups)
    return Odd((3, 3), (0, 1, 2), quantities, ("usual",), 2, 4, 2, names.REAL, 0, 0).dataset()


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_no_trace_may_hold_is_refused_by_everyone_who_takes_one(
    usual: xr.Dataset, change: str, tmp_path: Path
) -> None:
    wrong = CHANGES[change](usual)
    for take in (
        stratoscope.heatmap,
        stratoscope.engagement,
        stratoscope.peaks3d,
        stratoscope.anomalies,
        stratoscope.contrast,
        stratoscope.lint,
        lambda one: stratoscope.diff(one, usual),
        lambda one: stratoscope.diff(usual, one),
        lambda one: stratoscope.export_csv(one, tmp_path / "a.csv"),
        lambda one: write_dataset(one, tmp_path / "t"),
    ):
        with pytest.raises(StratoscopeError) as caught, silence():
            take(wrong)
        assert caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_trace_on_disk_cannot_hold_a_layer_twice_or_prompts_in_pieces(usual: xr.Dataset, tmp_path: Path) -> None:
    import zarr

    for name, place, value in (("layer", 1, 0), ("prompt", 1, 1)):
        write_dataset(usual, tmp_path / name)
        zarr.open_array(tmp_path / name / name, mode="r+")[place] = value
        with pytest.raises(StratoscopeError, match=r"there twice|not contiguous|damaged|digest"):
            stratoscope.heatmap(tmp_path / name)


def told(spec: ViewSpec) -> str:
    return " ".join(note.text for note in spec.notes)


def test_infinite_cells_are_called_infinite_and_not_missing(usual: xr.Dataset) -> None:
    some, every = usual.copy(deep=True), usual.copy(deep=True)
    some["mlp_out_norm"][1:3, 0] = [np.inf, -np.inf]
    every["mlp_out_norm"][:] = np.inf
    assert "2 cells are infinite" in told(heatmap_spec(some))
    assert colouring(heatmap_spec(some)).limits.state == "ok"
    assert "18 cells are infinite" in told(heatmap_spec(every))
    assert colouring(heatmap_spec(every)).limits.state == "infinite"
    assert "infinite" not in told(heatmap_spec(usual))


def test_a_mean_over_heads_of_which_one_is_infinite_is_not_the_mean_of_the_others(usual: xr.Dataset) -> None:
    usual = usual.copy(deep=True)
    usual["attn_first"][2, 1, 0] = np.inf
    table = maps_of(heatmap_spec(usual, quantity="attn_first")).maps[0].cells["without_first"]
    assert np.isposinf(table).sum() == 1


def test_infinite_peaks_are_counted_and_have_no_height(usual: xr.Dataset) -> None:
    usual = usual.copy(deep=True)
    usual["peak_write"][1, 0, 0] = np.inf
    spec = peaks_spec(usual, Selection(all_prompts=True))
    assert np.isfinite(peaks_in(spec).height).all()
    assert peaks_in(spec).total == usual["peak_write"].size - 1
    assert "1 peak is infinite or too large to compute with: not drawn" in told(spec)
    usual["peak_write"][:] = np.inf
    with pytest.raises(StratoscopeError, match="36 peaks are infinite"):
        peaks_spec(usual, Selection(all_prompts=True))


@pytest.mark.parametrize("lazily", [False, True])
def test_a_statistic_leaves_infinite_values_out_and_counts_them(lazily: bool, tmp_path: Path) -> None:
    shape: dict[str, Any] = {"prompts": 16, "tokens": 6, "layers": 3, "d_model": 8, "d_ff": 12, "heads": 2, "top_k": 2}
    trace = stratoscope.simulate(**shape)
    holes, infinite = trace.copy(deep=True), trace.copy(deep=True)
    for one, value in ((holes, np.nan), (infinite, np.inf)):
        one["prompt_mean"][3, 1, 4:6] = value
    if lazily:
        write_dataset(infinite, tmp_path / "t")
        infinite = stratoscope.open_trace(tmp_path / "t")
    options: dict[str, Any] = {"permutations": 99, "groups": False}
    without, found = stratoscope.contrast(holes, **options), stratoscope.contrast(infinite, **options)
    xr.testing.assert_equal(without, found)
    told = [note.text for note in notes_in(found) if "infinite" in note.text]
    assert told == [TOLD]
    assert not [note for note in notes_in(without) if "infinite" in note.text]
    (line,) = [str(text) for text in stratoscope.lint(infinite)["findings/text"].values if "infinite" in str(text)]
    assert "2 of prompt_mean" in line
