"""The checks look at a Dataset once, however often it is drawn, unless something is assigned to it."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from diff_traces import simulated

from stratoscope.analysis.lint import remembered
from stratoscope.analysis.lint.check import Check
from stratoscope.analysis.lint.lint import applicable
from stratoscope.trace.notes import Note
from stratoscope.trace.opened import opened
from stratoscope.view.maps.heatmap import heatmap_spec


@pytest.fixture
def trace() -> xr.Dataset:
    return simulated().copy()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each check looks at a Dataset."""
    counts: Counter[str] = Counter()
    look = Check.note

    def counted(self: Check, dataset: xr.Dataset) -> Note | None:
        counts[self.name] += 1
        return look(self, dataset)

    monkeypatch.setattr(Check, "note", counted)
    return counts


def test_a_second_picture_of_a_dataset_runs_no_check(trace: xr.Dataset, runs: Counter[str]) -> None:
    first = heatmap_spec(opened(trace))
    before = runs.total()
    assert before
    assert heatmap_spec(opened(trace)).notes == first.notes
    assert runs.total() == before
    heatmap_spec(opened(trace), quantity="resid_norm")
    assert max(runs.values()) == 1  # those that concern another quantity, and none again


def test_a_dataset_to_which_something_was_assigned_is_checked_again(trace: xr.Dataset, runs: Counter[str]) -> None:
    applicable(trace)
    for count, change in enumerate(
        (
            lambda: trace.update({"mlp_out_norm": trace["mlp_out_norm"] * 2}),
            lambda: trace.attrs.update(state="recording"),
            lambda: trace.attrs["model"].update(name="another"),
            lambda: trace["mlp_out_norm"].attrs.update(units="m"),
            lambda: trace.coords.update({"extra": ("token", np.zeros(trace.sizes["token"]))}),
        ),
        start=2,
    ):
        change()
        applicable(trace)
        applicable(trace)
        assert max(runs.values()) == count


def test_a_copy_is_checked_and_the_notes_are_those_of_its_values(trace: xr.Dataset, runs: Counter[str]) -> None:
    applicable(trace)
    changed = trace.copy(deep=True)
    assert applicable(changed) == applicable(trace)
    assert max(runs.values()) == 2


def test_nothing_is_kept_alive_and_nothing_is_left_behind() -> None:
    trace = simulated().copy(deep=True)
    before = len(remembered._FOUND)
    applicable(trace)
    values, whole = weakref.ref(trace["mlp_out_norm"].values), weakref.ref(trace)
    assert len(remembered._FOUND) == before + 1
    del trace
    gc.collect()
    assert whole() is None
    assert values() is None
    assert len(remembered._FOUND) == before
