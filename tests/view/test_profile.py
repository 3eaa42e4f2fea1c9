"""The layer profile: a prompt is one observation, each class is one line, and the picture says what was averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from view_traces import Factory

from stratoscope import simulate
from stratoscope.errors import InputError, UsageError
from stratoscope.trace.opened import opened
from stratoscope.view.charts.profile import layer_profile, profile_spec
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.heatmap import heatmap
from stratoscope.view.spec.charts import Band, ChartPanel, Charts, Line
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec

CLASSES = ("critical", "neutral") * 5


def panels_of(spec: ViewSpec) -> tuple[ChartPanel, ...]:
    assert isinstance(spec.content, Charts)
    return spec.content.panels


def lines(panel: ChartPanel) -> dict[str, Line]:
    return {mark.label: mark for mark in panel.marks if isinstance(mark, Line)}


def said(spec: ViewSpec) -> str:
    return " ".join([spec.title, spec.subtitle, spec.selected.of_trace, *(note.text for note in spec.notes)])


def test_a_prompt_counts_once_however_long_it_is(trace_of: Factory) -> None:
    """Means over all tokens of a class would be those of its longest prompt."""
    dataset = trace_of(lengths=(12, 24, 120, 36), layers=3, classes=("a",) * 4)
    values, position = dataset["mlp_out_norm"].values.astype(float), dataset["position"].values
    user = (dataset["span"].values == 2) & (position > 0)
    prompt = dataset["prompt"].values
    means = [np.exp2(np.log2(values[user & (prompt == one)]).mean(axis=0)) for one in range(4)]
    found = layer_profile(dataset).classes[0]
    logs = np.log2(means)
    np.testing.assert_allclose(found.middle, np.exp2(np.quantile(logs, 0.5, axis=0)), rtol=1e-6)
    np.testing.assert_allclose(found.low, np.exp2(np.quantile(logs, 0.25, axis=0)), rtol=1e-6)
    np.testing.assert_allclose(found.high, np.exp2(np.quantile(logs, 0.75, axis=0)), rtol=1e-6)
    assert found.count == 4


def test_the_first_token_takes_part_only_when_asked_and_the_span_is_said(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12,) * 4, sink=1e6, classes=("a",) * 4)
    every = Selection(span=("special", "user", "template"))
    without, with_first = (layer_profile(dataset, every, Look(first_token=first)) for first in (False, True))
    assert (with_first.classes[0].middle > 2 * without.classes[0].middle).all()
    spec = profile_spec(dataset)
    assert "user tokens, first token left out" in said(spec)
    assert "span user" in spec.selected.of_trace
    assert "special, user or template tokens." in said(profile_spec(dataset, every, Look(first_token=True)))


def test_each_class_is_a_line_with_a_band_and_the_legend_counts_its_prompts(trace_of: Factory) -> None:
    spec = profile_spec(trace_of(lengths=(12,) * 10, classes=CLASSES))
    (panel,) = panels_of(spec)
    assert panel.x.log
    assert {label: line.style for label, line in lines(panel).items()} == {
        "critical (5 prompts)": "a",
        "neutral (5 prompts)": "b",
    }
    assert [mark.style for mark in panel.marks if isinstance(mark, Band)] == ["a", "b"]
    assert "quartiles" in spec.subtitle
    assert "not a test" in said(spec)
    assert from_bytes(to_bytes(spec)).content.kind == "charts"


def test_of_few_prompts_the_band_is_all_of_them_and_of_one_there_is_none(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12,) * 4, classes=("a", "b", "a", "a"))
    spec = profile_spec(dataset)
    assert [mark.style for mark in panels_of(spec)[0].marks if isinstance(mark, Band)] == ["a"]
    assert "from the lowest to the highest" in spec.subtitle
    profile = layer_profile(dataset)
    alone = [layer_profile(dataset, Selection(prompt=[one])).classes[0].middle for one in (0, 2, 3)]
    np.testing.assert_allclose(profile.classes[0].low, np.min(alone, axis=0))
    np.testing.assert_allclose(profile.classes[0].high, np.max(alone, axis=0))


def test_a_difference_is_within_pairs_and_the_second_minus_the_first() -> None:
    dataset = simulate(prompts=12, layers=4, anomaly=False)
    back = profile_spec(dataset, Selection(prompt_class=["neutral", "critical"]), difference=True)
    assert panels_of(back)[1].title == "critical − neutral"
    found = layer_profile(dataset, difference=True).difference
    turned = layer_profile(dataset, Selection(prompt_class=["neutral", "critical"]), difference=True).difference
    assert found is not None
    assert turned is not None
    assert found.count == turned.count == 6
    np.testing.assert_allclose(found.middle, -turned.middle, atol=1e-12)
    np.testing.assert_allclose(found.low, -turned.high, atol=1e-12)
    pair = Selection(prompt=["critical-1", "neutral-1"])
    one = layer_profile(dataset, pair, difference=True)
    assert one.difference is not None
    ratio = one.classes[1].middle / one.classes[0].middle
    np.testing.assert_allclose(one.difference.middle, np.log2(ratio), atol=1e-12)
    assert "no spread" in said(profile_spec(dataset, pair, difference=True))


def test_what_makes_no_sense_in_a_profile_is_refused_by_name(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12,) * 3, classes=("a", "b", "c"))
    with pytest.raises(UsageError, match=r"scale.*one axis"):
        heatmap(dataset, profile=True, scale="per-layer")
    with pytest.raises(UsageError, match="two classes, here are 3"):
        profile_spec(dataset, difference=True)
    with pytest.raises(InputError, match="besides the first"):
        profile_spec(trace_of(lengths=(1, 1)))


def test_prompts_without_class_are_one_group_and_a_few_are_drawn_one_by_one(trace_of: Factory) -> None:
    many = profile_spec(trace_of(lengths=(12,) * 8, classes=("",) * 8))
    assert list(lines(panels_of(many)[0])) == ["8 prompts"]
    few = profile_spec(trace_of(lengths=(12,) * 3, classes=("",) * 3))
    assert list(lines(panels_of(few)[0])) == ["p0", "p1", "p2"]


def test_of_many_classes_those_of_most_prompts_are_drawn_and_the_rest_is_counted(trace_of: Factory) -> None:
    names = tuple(f"class-{number}" for number in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6))
    spec = profile_spec(trace_of(lengths=(6,) * 13, classes=names))
    assert len(lines(panels_of(spec)[0])) == 6
    assert "12 of 13 prompts" in spec.selected.of_trace
    assert "class-0" not in spec.selected.of_trace


def test_a_line_does_not_run_across_layers_that_are_not_drawn(trace_of: Factory) -> None:
    spec = profile_spec(trace_of(lengths=(12,) * 8, layers=12, classes=CLASSES), Selection(layers="0,4-6"))
    line = next(iter(lines(panels_of(spec)[0]).values()))
    assert np.isnan(line.x).tolist() == [False, True, False, False, False]
    assert "4 of 12 layers (0, 4-6)" in spec.selected.of_trace


def test_csv_files_are_profiled_and_negative_values_are_not_lost_to_a_logarithm(tmp_path: Path) -> None:
    for name, sign in (("a", 1), ("b", -1)):
        rows = [f"{token},w{token},{layer},7,{sign * (token + layer)}" for token in range(5) for layer in (3, 4)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["Token_Pos,Token,Layer,Neuron_ID,Activation_Norm", *rows]))
    figure = heatmap([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "profile.png", profile=True)
    assert figure.axes[0].get_xscale() == "linear"
    spec = profile_spec(opened([tmp_path / "a.csv", tmp_path / "b.csv"]))
    (first, second) = lines(panels_of(spec)[0]).values()
    np.testing.assert_allclose(first.x, [5.5, 6.5])  # tokens 1 to 4: the first is left out
    np.testing.assert_allclose(second.x, [-5.5, -6.5])


def test_a_profile_fills_a_page_of_a_given_width(trace_of: Factory) -> None:
    figure = heatmap(trace_of(lengths=(12,) * 8), profile=True, width="85mm")
    assert figure.get_size_inches()[0] == pytest.approx(85 / 25.4)
    assert figure.axes[0].get_position().x1 > 0.95
