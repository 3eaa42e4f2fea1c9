"""Markers that are found where they are left in are in nothing that is published, whatever the input and the level."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import xarray as xr

import stratoscope
from stratoscope.errors import UsageError
from stratoscope.names import LEVELS, NO_TEXT, PROVENANCE, Level
from stratoscope.progress import silent
from stratoscope.publish.audit.audit import CANARIES, audit
from stratoscope.publish.audit.canary import canary, inputs
from stratoscope.publish.audit.canary.markers import OF_A_KIND, Canaries

TWENTY = {"prompts": 120, "layers": 2, "d_model": 16, "d_ff": 32, "heads": 2, "record": "norms,peaks"}


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    return stratoscope.simulate(prompts=12, layers=2, d_model=16, d_ff=32, heads=2, record="norms,peaks")


def tried(dataset: xr.Dataset, level: Level, kinds: Sequence[str]) -> None:
    outcomes = list(canary.canaries(dataset, level, silent))
    assert {one.kind for one in outcomes} == {*kinds}
    for one in outcomes:
        assert (one.kind, one.planted, one.found, one.left) == (one.kind, 10 * OF_A_KIND, 10 * OF_A_KIND, ())
        assert level == PROVENANCE or one.kept == 0


@pytest.mark.parametrize("level", [PROVENANCE, NO_TEXT])
def test_no_marker_comes_through_in_a_trace_a_table_or_a_picture(
    small: xr.Dataset, monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    files = [one for one in inputs._FILES if one[0] in ("CSV", "PNG")]
    monkeypatch.setattr(inputs, "_FILES", files)
    monkeypatch.setattr(inputs, "_FOLDERS", ())
    tried(small, level, ["trace", "CSV", "PNG"])


@pytest.mark.long
@pytest.mark.parametrize("level", LEVELS)
def test_no_marker_comes_through_in_any_input(level: Level) -> None:
    tried(stratoscope.simulate(**TWENTY), level, ["trace", "CSV", "PNG", "SVG", "PDF", "page", "result"])


def test_a_marker_that_comes_through_is_told(
    small: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if publishing copied a file as it is."""
    from stratoscope.trace.write.from_dataset import write_dataset

    def copied(path: Path, out: Path, *_: object) -> Path:
        shutil.copytree(path, out)
        return out

    monkeypatch.setattr(canary, "_published", copied)
    monkeypatch.setattr(inputs, "_FILES", ())
    monkeypatch.setattr(inputs, "_FOLDERS", ())
    write_dataset(small, tmp_path / "a.trace")
    found = audit(tmp_path / "a.trace", original=tmp_path / "a.trace", canary=True, level=NO_TEXT)
    (one,) = [one for one in found.findings if one.kind == CANARIES]
    assert one.what.startswith("100 markers came through")


def test_markers_stand_nowhere_else_and_need_an_original(tmp_path: Path) -> None:
    markers = Canaries.drawn(0).all
    assert len({*markers}) == 100
    assert not {*markers} & {*Canaries.drawn(1).all}
    with pytest.raises(UsageError, match="needs the original"):
        audit(tmp_path, canary=True)
