"""A picture says how it was drawn: with that, the same can be drawn again, and no path is in it."""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import stratoscope
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.file import from_bytes

OF_FILES = {"inputs", "trace", "out", "columns", "ax", "table", "peaks_table", "overwrite"}
TRACE = {"prompts": 4, "tokens": 8, "layers": 3, "d_model": 16, "d_ff": 32}
ASKED: Mapping[str, Mapping[str, Any]] = {
    "heatmap": {"prompt": [np.int64(1)], "layers": range(2), "title": "Two layers", "width": "85mm"},
    "engagement": {"span": "user", "first_token": True},
    "lens": {"prompt": "critical-1", "most_tokens": 3},
    "routes": {"edges": 20, "theme": "dark"},
    "compare": {"prompt": ["critical-1", "neutral-1"], "quantity": "neuron_norm"},
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "secret-stem.trace"
    stratoscope.simulate(path, record="norms,residual,peaks,attention,lens,routes", **TRACE)
    return path


def said_by(picture: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Image.open(picture).text["stratoscope"])
    return found


@pytest.mark.parametrize("verb", ASKED)
def test_what_a_picture_says_draws_the_same_again(verb: str, trace: Path, tmp_path: Path) -> None:
    draw = getattr(stratoscope, verb)
    draw(trace, tmp_path / "one.png", **ASKED[verb])
    said = said_by(tmp_path / "one.png")["drawn_by"]
    assert (said["verb"], said["figure"], said["traces"]) == (verb, "", 1)
    assert set(said["options"]) <= set(inspect.signature(draw).parameters) - OF_FILES
    assert "secret-stem" not in json.dumps(said)
    getattr(stratoscope, said["verb"])(trace, tmp_path / "again.png", **said["options"])
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_classes_compared_and_a_given_comparison_say_so_too(trace: Path, tmp_path: Path) -> None:
    stratoscope.compare(trace, tmp_path / "classes.png", prompt_class=["critical", "neutral"])
    assert said_by(tmp_path / "classes.png")["drawn_by"]["options"]["prompt_class"] == ["critical", "neutral"]
    stratoscope.compare(stratoscope.comparison(trace, layers="1-2"), tmp_path / "given.png")
    options = said_by(tmp_path / "given.png")["drawn_by"]["options"]
    assert (options["prompt"], options["layers"]) == (["critical-1", "neutral-1"], "1-2")


def test_a_page_says_it_in_its_view_too(trace: Path, tmp_path: Path) -> None:
    for verb in ("peaks3d", "routes"):
        getattr(stratoscope, verb)(trace, tmp_path / f"{verb}.html", prompt=0)
        page = (tmp_path / f"{verb}.html").read_text("utf-8")
        view = re.search(r'id="stratoscope-view">([^<]*)<', page)
        assert view is not None
        spec = from_bytes(base64.b64decode(view[1]))
        assert (spec.drawn_by.verb, spec.drawn_by.options["prompt"]) == (verb, 0)


def test_figures_of_a_report_say_which_they_are(trace: Path, tmp_path: Path) -> None:
    folder = stratoscope.save_result(stratoscope.anomalies(trace, false_findings=0.5), tmp_path / "report")
    for picture in sorted((folder / "figures").glob("*.png")):
        said = said_by(picture)["drawn_by"]
        assert (said["verb"], said["figure"]) == ("anomalies", picture.stem)
        assert said["options"]["false_findings"] == 0.5


def test_what_can_be_read_only_once_is_not_used_up(trace: Path) -> None:
    assert drawn_by("heatmap", {"inputs": trace, "prompt": iter([0])}).verb == ""
    assert isinstance(stratoscope.open_trace(trace), xr.Dataset)
