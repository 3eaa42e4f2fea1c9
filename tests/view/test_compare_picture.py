"""The picture of `compare`: A | B | B − A on one scale, named, never refused for length, honest about its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from view_traces import Factory

import stratoscope
from stratoscope.errors import StratoscopeError
from stratoscope.view.maps.compare import compare_spec
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import Maps

HOW, OTHER = [" How", " do", " I", " stop"], [" How", " do", " you", " stop"]


def drawn(result: object) -> Maps:
    content = compare_spec(result).content  # type: ignore[arg-type]
    assert isinstance(content, Maps)
    return content


def test_both_sides_have_one_scale_and_every_legend_has_a_name(trace_of: Factory) -> None:
    trace = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], pairs=("x", "x"))
    content = drawn(stratoscope.comparison(trace))
    labels = [one.quantity.label for one in content.quantities]
    assert labels == ["MLP output: critical", "MLP output: neutral", "Difference: neutral − critical"]
    a, b, difference = (one.colouring(Look()).limits for one in content.quantities)
    assert (a.low, a.high) == (b.low, b.high)
    assert difference.kind == "diverging"
    named = drawn(stratoscope.comparison(trace, prompt=["p1", "p0"]))
    assert named.quantities[2].quantity.label == "Difference: critical − neutral"
    without = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], classes=("", ""))
    assert drawn(stratoscope.comparison(without, prompt=[0, 1])).quantities[2].quantity.label == "Difference: p1 − p0"


def test_tokens_before_the_edit_have_no_say_in_the_limits_of_the_difference(trace_of: Factory) -> None:
    trace = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], pairs=("x", "x"))
    values = trace["mlp_out_norm"].values
    values[5] = values[1] * 1000  # which one model cannot do
    content = drawn(stratoscope.comparison(trace))
    last = np.abs(values[7].astype(float) - values[3])
    assert content.quantities[2].colouring(Look("linear")).limits.high.item() == pytest.approx(last.max())
    third = content.maps[2].cells["without_first"]
    assert np.isnan(third[2]).all()  # I→you: not compared
    assert compare_spec(stratoscope.comparison(trace)).tokens.text == ("·How", "·do", "·I→·you", "·stop")


def test_no_pair_is_too_long_and_the_largest_difference_stays_visible(trace_of: Factory) -> None:
    length = 2_000
    texts = [f" w{place}" for place in range(length)]
    trace = trace_of(lengths=(length, length), layers=2, texts=[*texts, " x", *texts[1:]], pairs=("x", "x"))
    trace["mlp_out_norm"].values[length + 1_234, 1] = -1e6
    content = drawn(stratoscope.comparison(trace))
    by = content.panels[0].tokens_per_column
    assert by > 1
    assert content.maps[2].cells["without_first"][1_234 // by, 1] == pytest.approx(-1e6, rel=1e-3)


def test_a_result_gives_the_very_picture_of_its_trace(trace_of: Factory, tmp_path: Path) -> None:
    trace = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], pairs=("x", "x"))
    stratoscope.compare(trace, tmp_path / "a.png", theme="dark")
    stratoscope.compare(stratoscope.comparison(trace), tmp_path / "b.png", theme="dark")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    about = Image.open(tmp_path / "a.png").info["stratoscope"]
    assert "nothing: `contrast` tests classes" in about
    assert '"prompts":["p0","p1"]' in about


def test_what_cannot_be_drawn_is_refused_with_what_to_do(trace_of: Factory, tmp_path: Path) -> None:
    trace = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], pairs=("x", "x"))
    for asked, words in (
        ({"scale": "log"}, "Use robust"),
        ({"table": tmp_path / "t.txt"}, "Name it t.csv"),
        ({"prompt_class": "critical"}, "1 is named"),
        ({"prompt_class": ["critical", "critical"]}, "named twice"),
        ({"prompt_class": ["critical", "neutral"], "prompt": 0}, "leave out the classes"),
    ):
        with pytest.raises(StratoscopeError) as caught:
            stratoscope.compare(trace, **asked)  # type: ignore[arg-type]
        assert words in str(caught.value)


def test_the_layers_of_two_classes_are_written_as_they_are_drawn(trace_of: Factory, tmp_path: Path) -> None:
    trace = trace_of(lengths=(4,) * 4, texts=[*HOW, *OTHER] * 2, pairs=("x", "x", "y", "y"), layers=3)
    trace["span"].values[:] = 2  # all of the user
    figure = stratoscope.compare(trace, prompt_class=["neutral", "critical"], table=tmp_path / "t.csv")
    assert len(figure.axes) == 2
    head, *rows = (tmp_path / "t.csv").read_text("utf-8").splitlines()
    cells = [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
    means = np.log2(trace["mlp_out_norm"].values.astype(float)).reshape(4, 4, 3)[:, 1:].mean(axis=1)
    expected = np.median(means[[0, 2]] - means[[1, 3]], axis=0)  # critical − neutral of each pair
    np.testing.assert_allclose([float(one["median_difference"]) for one in cells], expected, rtol=1e-6)
    assert {(one["class_a"], one["class_b"], one["pairs"]) for one in cells} == {("neutral", "critical", "2")}


def test_one_negative_value_makes_both_sides_linear_and_not_one_of_them(trace_of: Factory) -> None:
    trace = trace_of(lengths=(4, 4), texts=[*HOW, *OTHER], pairs=("x", "x"))
    trace["mlp_out_norm"].values[1, 0] = -2.0
    for scale in ("robust", "linear"):
        a, b = (
            one.colouring(Look(scale)).limits  # type: ignore[arg-type]
            for one in drawn(stratoscope.comparison(trace)).quantities[:2]
        )
        assert a.kind == b.kind == "linear"
        assert (a.low, a.high) == (b.low, b.high)
