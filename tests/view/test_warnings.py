"""What a picture must say, or must not do, when its input is unusual."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sheets import said, words
from view_traces import make_import, make_trace

from drawn_maps import colouring, high, low, maps_of, sheet_of
from stratoscope import engagement, heatmap, names, peaks3d
from stratoscope.errors import InputError
from stratoscope.replacing import cannot_write
from stratoscope.trace.export.output import check_place
from stratoscope.trace.opened import opened
from stratoscope.view.choose.selection import MOST_PANELS
from stratoscope.view.maps.engagement import QUANTITIES, engagement_spec
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of

HEAD = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
PEAKS = ("mlp_out_norm", "peak_neuron", "peak_value", "peak_write")


def csv_of(folder: Path, rows: str) -> Path:
    file = folder / "a.csv"
    file.write_text(HEAD + rows)
    return file


@pytest.mark.parametrize("spec_of", [heatmap_spec, engagement_spec, peaks_spec])
def test_a_picture_of_an_unfinished_trace_says_so(spec_of: Callable[[xr.Dataset], ViewSpec]) -> None:
    trace = make_trace(quantities=PEAKS)
    assert not any("NOT COMPLETE" in note.text for note in spec_of(trace).notes)
    trace.attrs |= {"state": "recording", "plan": {"prompts": 1500}}
    spec = spec_of(trace)
    assert "NOT COMPLETE" in spec.metadata_json()
    (note,) = (note for note in spec.notes if "NOT COMPLETE" in note.text)
    assert note.severity == "warning"
    assert note.text.endswith(f"{trace.sizes['prompt']} of 1,500 planned prompts.")


@pytest.mark.parametrize("verb", [heatmap, engagement])
@pytest.mark.parametrize("scale", ["robust", "per-layer", "linear", "log"])
def test_an_import_with_negative_values_does_not_fail(tmp_path: Path, verb: Callable[..., object], scale: str) -> None:
    verb(csv_of(tmp_path, "0,a,1,3,-3\n0,a,1,4,1.0\n1,b,1,4,2.0\n"), tmp_path / "a.png", scale=scale)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_negative_values_never_vanish_below_a_logarithmic_scale_unsaid(tmp_path: Path) -> None:
    dataset = opened(csv_of(tmp_path, "0,a,1,3,1\n1,b,1,4,2.0\n2,c,1,4,-1\n"))
    usual, asked = heatmap_spec(dataset), heatmap_spec(dataset, look=Look("log"))
    assert colouring(usual).limits.kind == "linear"
    assert low(usual) < 0
    assert "Some values are negative, so the scale is linear." in said(usual)
    assert colouring(asked).limits.kind == "log"
    assert "1 cell of zero or less has no logarithm" in said(asked)


def test_only_negative_values_are_not_called_unrecorded(tmp_path: Path) -> None:
    dataset = opened(csv_of(tmp_path, "0,a,1,3,-1\n1,b,1,4,-2.0\n2,c,1,4,-1\n"))
    text = words(sheet_of(heatmap_spec(dataset, look=Look("log"))))
    assert "Nothing above zero" in text
    assert "Nothing recorded" not in text


def test_a_constant_is_not_claimed_for_cells_that_set_no_limit(tmp_path: Path) -> None:
    rows = "1,b,1,4,3\n2,c,1,4,3\n"
    hot = words(sheet_of(heatmap_spec(opened(csv_of(tmp_path, "0,a,1,3,90\n" + rows)))))
    flat = words(sheet_of(heatmap_spec(opened(csv_of(tmp_path, "0,a,1,3,3\n" + rows)))))
    assert "Every cell that sets the limits is 3" in hot
    assert "Every cell is 3" in flat


def test_layers_with_constants_of_their_own_are_not_given_a_mean() -> None:
    trace = make_trace(lengths=(6,), layers=2)
    trace["mlp_out_norm"][:] = [3, 5]
    text = words(sheet_of(heatmap_spec(trace, look=Look("per-layer"))))
    assert "like the others of its layer" in text
    assert " is 4" not in text


def rule_of(spec: ViewSpec, quantity: int = 0) -> str:
    """How the limits of a quantity were found, as the metadata have it."""
    return str(json.loads(spec.metadata_json())["shown"]["quantities"][quantity]["limits"])


@pytest.mark.parametrize("quantity", ["mlp_out_norm", "mlp_write_cos"])
@pytest.mark.parametrize("scale", ["robust", "per-layer"])
def test_a_picture_promises_no_share_of_clipped_cells(quantity: str, scale: names.Scale) -> None:
    spec = heatmap_spec(make_trace(lengths=(3,), layers=1, quantities=(quantity,)), look=Look(scale))
    assert "%" not in said(spec)
    rule = rule_of(spec)
    assert set(re.findall(r"[\d–]+ %", rule)) <= {"1–10 %", "90–99 %"}  # of quantiles, as docs and scale.py say


@pytest.mark.parametrize(("quantity", "spread"), [("mlp_out_norm", "lognormal"), ("mlp_write_cos", "normal"),
                                                  ("peak_share", "normal")])  # fmt: skip
def test_the_limits_are_those_that_the_metadata_describe(quantity: str, spread: str) -> None:
    trace = make_trace(lengths=(40,), layers=5, quantities=(quantity,))
    values = getattr(np.random.default_rng(3), spread)(size=(40, 5)).astype("float32")
    spec = heatmap_spec(trace.assign({quantity: (("token", "layer"), values)}))
    kind, text = colouring(spec).limits.kind, rule_of(spec)
    counted = values[1:].ravel().astype(float)  # without the first token
    told = {"diverging": "of |value|", "log": "of the logarithms", "linear": "beyond the quartiles, kept"}
    assert told[kind] in text
    along = np.log10(counted) if kind == "log" else np.abs(counted) if kind == "diverging" else counted
    lower, upper = np.quantile(along, [0.25, 0.75])
    reach = 1.5 * (upper - lower)
    highest = np.clip(upper + reach, *np.quantile(along, [0.9, 0.99]))
    lowest = -highest if kind == "diverging" else np.clip(lower - reach, *np.quantile(along, [0.01, 0.1]))
    found = np.log10([low(spec), high(spec)]) if kind == "log" else [low(spec), high(spec)]
    np.testing.assert_allclose(found, [lowest, highest], rtol=1e-6)


def test_limits_that_are_extremes_because_quantiles_fall_together_are_said_to_be() -> None:
    trace = make_trace(lengths=(40,), layers=5, quantities=("mlp_write_cos",))
    values = np.zeros((40, 5), "float32")
    values[7, 2] = -0.5
    spec = heatmap_spec(trace.assign(mlp_write_cos=(("token", "layer"), values)))
    assert high(spec) == 0.5
    assert "the limits are the extremes" in said(spec)
    assert "the limits are the extremes" not in said(heatmap_spec(trace))


def test_hatching_and_simulation_are_different_pitfalls() -> None:
    trace = make_trace(source="simulated")
    trace["mlp_out_norm"][3, 2] = float("nan")
    of = {note.text.split(":")[0]: note.id for note in heatmap_spec(trace).notes}
    assert of["Grey hatching"] == "L08"
    assert of["Simulated data"] == "L16"


def test_a_picture_of_a_csv_is_not_titled_as_layers_engaging(tmp_path: Path) -> None:
    spec = engagement_spec(opened(csv_of(tmp_path, "0,a,1,3,1\n1,b,1,4,2.0\n")))
    assert spec.title == "Mean imported Activation_Norm by token and layer"
    assert engagement_spec(make_trace(quantities=QUANTITIES[:1])).title == "Which layers engage with which tokens"


def test_every_named_csv_file_is_drawn_even_of_one_class(tmp_path: Path) -> None:
    files = [tmp_path / folder / "run.csv" for folder in "ab"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(HEAD + f"0,a,1,3,{number + 1}\n1,b,1,4,2.0\n")
    spec = heatmap_spec(opened(files))
    assert len(maps_of(spec).panels) == 2


def test_of_too_many_csv_files_as_many_as_fit_are_drawn_and_the_rest_is_counted() -> None:
    count = MOST_PANELS + 2
    spec = heatmap_spec(make_import(lengths=(3,) * count, classes=("critical",) * (count - 1) + ("neutral",)))
    assert [panel.title for panel in maps_of(spec).panels] == ["critical"] * (MOST_PANELS - 1) + ["neutral"]
    assert f"{MOST_PANELS} of {count} prompts shown" in spec.subtitle


def test_a_picture_is_never_written_into_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "t.zarr"
    (trace / "inner").mkdir(parents=True)
    (trace / "zarr.json").write_text('{"attributes": {"format": "stratoscope-trace"}}')
    (tmp_path / "link").symlink_to(trace / "inner")
    for verb, name in ((heatmap, "a.png"), (engagement, "a.svg"), (peaks3d, "a.html")):
        for folder in (trace, trace / "inner", tmp_path / "link"):
            with pytest.raises(InputError, match="is inside a trace"):
                verb(make_trace(quantities=PEAKS), folder / name)


def test_a_folder_of_another_kind_of_zarr_is_not_called_a_trace(tmp_path: Path) -> None:
    for document in ("{}", "[]", "not JSON", '{"attributes": {"format": "other"}}'):
        (tmp_path / "zarr.json").write_text(document)
        check_place(tmp_path / "a.png", overwrite=False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_not_called_a_matter_of_permission(code: int) -> None:
    error = cannot_write(Path("a.png"), OSError(code, "full"))
    assert error.fix.startswith("Free some space")
    assert "may write" in cannot_write(Path("a.png"), OSError(errno.EACCES, "denied")).fix


def test_a_page_of_data_without_a_source_does_not_call_them_recorded(tmp_path: Path) -> None:
    trace = make_trace(quantities=PEAKS)
    del trace.attrs["source"]
    peaks3d(trace, tmp_path / "a.html")
    assert "SOURCE UNKNOWN" in (tmp_path / "a.html").read_text()


def test_a_strangers_receipt_cannot_fill_the_footer_or_steer_its_reader() -> None:
    line = provenance_of(make_trace().assign_attrs(receipt={"receipt_line": "\x1b[31m\u202e" + "x" * 100_000})).receipt
    assert len(line) < 500
    assert line.isprintable()


def test_a_picture_of_linear_and_logarithmic_scales_says_of_each_whether_it_has_logarithms() -> None:
    spec = engagement_spec(make_trace(quantities=("mlp_write_ratio", "attn_write_ratio", "attn_first")))
    kinds = [one.colouring(spec.look).limits.kind for one in maps_of(spec).quantities]
    assert set(kinds) == {"linear", "log"}
    text = words(sheet_of(spec))
    assert (text.count("log scale"), text.count("linear scale")) == (kinds.count("log"), kinds.count("linear"))
    for place, kind in enumerate(kinds):
        assert ("of the logarithms" in rule_of(spec, place)) == (kind == "log")
