"""The page of a suppression: its figure, what its titles say of the calibration, and what it says where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import calibrations
from stratoscope.analysis.suppression.suppression import suppression
from stratoscope.trace.calibration import Calibration
from stratoscope.view.report.report import Report
from stratoscope.view.report.save import contents_of, save_result
from stratoscope.view.report.suppression_charts import depth
from stratoscope.view.report.suppression_words import sources
from stratoscope.view.spec.charts import Bars, ChartPanel, Charts
from suppression_traces import explained

HALVES = {
    "direct": ("effect", "strongest", "read", "write_"),
    "total": ("attn_logit", "mlp_logit", "head_logit", "neuron_logit", "logit_neuron", "embed_logit"),
}


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    """As if it had been recorded."""
    found = explained(prompts=8)
    found.attrs |= {
        "source": "real",
        "receipt": calibrations.receipt(neuron=calibrations.AGREE, mlp=calibrations.AGREE, head=calibrations.AGREE),
    }
    return found


def without(trace: xr.Dataset, half: str) -> xr.Dataset:
    return trace.drop_vars([name for name in trace.data_vars if any(part in str(name) for part in HALVES[half])])


def with_receipt(trace: xr.Dataset, **noise: float) -> xr.Dataset:
    return trace.assign_attrs(receipt=calibrations.receipt(**noise))


def panels(report: Report) -> dict[str, ChartPanel]:
    content = report.sections[0].figures[0].spec.content
    assert isinstance(content, Charts)
    return {panel.title.split(",")[0]: panel for panel in content.panels}


def bars(panel: ChartPanel) -> dict[str, Bars]:
    return {mark.label: mark for mark in panel.marks if isinstance(mark, Bars)}


def said(report: Report) -> str:
    texts = [report.title, *report.lead]
    for section in report.sections:
        texts += [section.title, section.words, *(figure.caption for figure in section.figures)]
        texts += [note.text for figure in section.figures for note in figure.spec.notes]
    return " ".join(texts)


def test_the_first_figure_has_both_measures_on_axes_of_their_own(trace: xr.Dataset) -> None:
    result = suppression(trace, prompt="critical-2")
    found = panels(contents_of(result))
    assert list(found) == ["Direct contribution", "Total effect"]
    for panel, measure in zip(found.values(), ("direct", "total"), strict=True):
        for label, part in (("Attention", "attn"), ("MLP", "mlp")):
            drawn = bars(panel)[label]
            np.testing.assert_array_equal(drawn.x, result["depth"][f"{part}_{measure}"].values[0])
            np.testing.assert_allclose(np.diff(drawn.y), 1)  # L0 at the bottom
    direct, total = (panel.x for panel in found.values())
    assert (direct.low, direct.high) != (total.low, total.high)
    planted = next(one for one in trace.attrs["planted"] if one["kind"] == "suppressor")
    named = [words for words in bars(found["Total effect"])["MLP"].words if words.startswith(f"L{planted['layer']} ")]
    assert len(named) == 1


def test_a_bar_promotes_to_the_right_in_one_colour_and_suppresses_to_the_left_in_the_other(trace: xr.Dataset) -> None:
    from stratoscope.view.matplotlib.charts import draw_charts

    spec = depth(suppression(trace, prompt=0)).spec
    assert isinstance(spec.content, Charts)
    axes = draw_charts(spec, spec.content).axes[1]
    theme = spec.colours.themes["light"]
    red_over_blue = [(patch.get_width(), patch.get_facecolor()[0] > patch.get_facecolor()[2]) for patch in axes.patches]
    assert theme.side_a != theme.side_b
    assert all(warm == (width > 0) for width, warm in red_over_blue if width)


@pytest.mark.parametrize("half", ["direct", "total"])
def test_what_was_not_recorded_is_named_with_the_command_that_records_it(trace: xr.Dataset, half: str) -> None:
    report = contents_of(suppression(without(trace, half), prompt=0))
    assert list(panels(report)) == [{"direct": "Direct contribution", "total": "Total effect"}[half]]
    assert "--record logits,effects --targets" in said(report)


def test_titles_say_not_calibrated_of_that_kind_which_is_not(trace: xr.Dataset) -> None:
    report = contents_of(suppression(trace, prompt=0))
    assert "not calibrated" not in said(report)
    found = Calibration.from_receipt(trace.attrs["receipt"])
    notes = {note.text for note in report.sections[0].figures[0].spec.notes}
    assert {found.sentence("mlp", target=0), found.sentence("head", target=0)} <= notes
    bad = with_receipt(trace, neuron=calibrations.DISAGREE, mlp=calibrations.AGREE, head=calibrations.AGREE)
    report = contents_of(suppression(bad, prompt=0))
    titles = {section.title for section in report.sections}
    assert "Neurons, by total effect (not calibrated)" in titles
    assert "Heads, by total effect" in titles
    assert "not calibrated" not in report.title
    bad = with_receipt(trace, neuron=calibrations.AGREE, mlp=calibrations.DISAGREE, head=calibrations.AGREE)
    report = contents_of(suppression(bad, prompt=0))
    assert "not calibrated" not in report.title + report.sections[0].figures[0].spec.title
    drawn = panels(report)
    assert drawn["Total effect"].title.endswith("(not calibrated)")
    assert "not calibrated" not in drawn["Direct contribution"].title  # it is exact
    marked = [line.split(",")[0] for line in report.lead if "not calibrated" in line]
    assert marked == ["By total effect (not calibrated)"]
    assert any(note.severity == "warning" for note in report.sections[0].figures[0].spec.notes if note.id == "L28")


def test_an_effect_that_was_never_ablated_is_not_calibrated(trace: xr.Dataset) -> None:
    report = contents_of(suppression(trace.assign_attrs(receipt={}), prompt=0))
    assert panels(report)["Total effect"].title.endswith("(not calibrated)")
    assert "none was ablated" in said(report)


def test_zeros_and_what_is_not_known_are_not_told_alike(trace: xr.Dataset) -> None:
    numbers = [name for name, of in trace.data_vars.items() if of.dtype.kind == "f"]
    zero, missing = (
        trace.assign({name: xr.full_like(trace[name], value) for name in numbers}) for value in (0.0, np.nan)
    )
    assert "every total effect is zero" in contents_of(suppression(zero, prompt=0)).title
    assert "no total effect is known" in contents_of(suppression(missing, prompt=0)).title


def test_words_of_strangers_are_text_on_the_page(trace: xr.Dataset, tmp_path: Path) -> None:
    bad = ["<script>alert(1)</script>", "$\\frac{1}{0}$", "\u202eevil", "x" * 200, "\udce4", "\x1b[31m"]
    texts = np.empty(trace.sizes["token"], object)
    texts[:] = [bad[place % len(bad)] for place in range(len(texts))]
    hostile = trace.assign_coords(text=xr.Variable(("token",), texts, fastpath=True))
    hostile.attrs["token_texts"] = {key: bad[int(key) % len(bad)] for key in trace.attrs["token_texts"]}
    page = (save_result(suppression(hostile, prompt=0), tmp_path / "page") / "report.html").read_text("utf-8")
    before = page.split('<script type="application/json"')[0]
    assert "&lt;script&gt;" in before
    assert "<script" not in before
    assert not any(char in before for char in ("\u202e", "\x1b"))
    assert "x" * 30 not in before


def test_classes_stand_on_one_scale_and_their_difference_first(trace: xr.Dataset) -> None:
    report = contents_of(suppression(trace, groups=False, permutations=99))
    names = [figure.name for figure in report.figures()]
    assert names == ["difference", "depth-1", "depth-2"]
    assert all("Total effects: " in figure.caption for figure in report.figures()[1:])
    first, second = (figure.spec.content for figure in report.figures()[1:])
    assert isinstance(first, Charts)
    assert isinstance(second, Charts)
    for one, other in zip(first.panels, second.panels, strict=True):
        reach = [
            np.abs(np.concatenate([mark.x for mark in panel.marks if isinstance(mark, Bars)])).max()
            for panel in (one, other)
        ]
        assert reach[0] != reach[1]
        assert one.x.low is not None
        assert one.x.high is not None
        assert one.x.high - one.x.low == pytest.approx(float(other.x.high - other.x.low), rel=0.6)  # type: ignore[operator]
    ticks = [label for _, label in first.panels[0].y.ticks]
    assert "final norm" not in ticks
    content = report.figures()[0].spec.content
    assert isinstance(content, Charts)
    direct, total = content.panels
    assert "final norm" in [label for _, label in direct.y.ticks]
    assert {"embedding", "final norm"}.isdisjoint(label for _, label in total.y.ticks)  # of which there is no effect
    assert (direct.y.low, direct.y.high) == (total.y.low, total.y.high)
    assert {panel.x.label for panel in content.panels} == {"logit: ← more in neutral · more in critical →"}


def test_a_token_that_lowered_a_gate_did_not_set_it_off(trace: xr.Dataset) -> None:
    lowered = trace.assign(neuron_read=-trace["neuron_read"])
    (line,), (other,) = (
        [line for line in contents_of(suppression(of, prompt=0)).lead if "suppresses it most (−6)" in line]
        for of in (trace, lowered)
    )
    assert "its gate was set off most by" in line
    assert "its gate was held back most by" in other


def test_a_source_is_told_by_its_position_or_as_the_neurons_own_token() -> None:
    table = {
        "position": 7,
        "source_token": (("part", "source"), np.array([["a", "b", "c"]], object)),
        "source_share": (("part", "source"), np.array([[0.5, -0.4, 0.01]])),
        "source_position": (("part", "source"), np.array([[7, 3, 2]])),
        "source_through": (("part", "source"), np.array([["", "L1 MLP", ""]], object)),
    }
    assert sources(xr.Dataset(table), 0) == ["its own token +50 %", "“b” 3 −40 % (L1 MLP)"]


def test_the_page_of_one_prompt_begins_with_its_words_and_the_logit(trace: xr.Dataset) -> None:
    result = suppression(trace, prompt=0)
    first = contents_of(result).lead[0]
    assert result.attrs["summary"]["asked"] in first
    assert "Sorry" in first
