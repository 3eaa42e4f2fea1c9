"""What a stored calibration says in words, and that it never says more than was measured. No torch."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from small_traces import ATTRS, record

from calibrations import AGREE, DISAGREE, receipt, samples, stored
from sentences import is_sentence
from stratoscope import info
from stratoscope.trace.calibration import Agreement, Bounded, Calibration, Samples
from stratoscope.trace.format.attributes import to_json
from stratoscope.trace.info.facts import info_text

GOOD = Bounded(0.97, 0.9, 0.99)
ONE_KIND: dict[str, Any] = {"count": 64, "decided": 60, "slope": Bounded(1.0, 0.9, 1.1)}


@pytest.fixture(scope="module")
def mixed() -> dict[str, Any]:
    return receipt(neuron=AGREE, mlp=DISAGREE, head=AGREE)


def test_only_what_agrees_is_called_calibrated(mixed: dict[str, Any]) -> None:
    found = Calibration.from_receipt(mixed)
    assert not found.calibrated
    assert [found.mark(kind) for kind in ("neuron", "mlp", "head")] == ["", "not calibrated", ""]
    assert Calibration.from_receipt(receipt(neuron=AGREE, head=AGREE)).calibrated


@pytest.mark.parametrize(
    ("spearman", "sign", "calibrated"),
    [
        (Bounded(0.8, 0.5, 0.9), Bounded(0.9, 0.6, 0.95), True),  # the bounds themselves are enough
        (Bounded(0.8, 0.499, 0.9), Bounded(0.9, 0.8, 0.95), False),
        (Bounded(0.8, 0.7, 0.9), Bounded(0.9, 0.599, 0.95), False),
        (Bounded(0.8, math.nan, math.nan), Bounded(0.9, 0.8, 0.95), False),
        (Bounded(0.8, 0.7, 0.9), Bounded(math.nan, math.nan, math.nan), False),
    ],
)
def test_the_lower_bounds_decide(spearman: Bounded, sign: Bounded, *, calibrated: bool) -> None:
    assert Agreement(spearman=spearman, sign=sign, **ONE_KIND).calibrated is calibrated


def test_of_too_few_items_nothing_is_calibrated() -> None:
    assert not Agreement(7, 7, GOOD, GOOD, GOOD).calibrated
    assert Agreement(8, 8, GOOD, GOOD, GOOD).calibrated


def test_a_sentence_says_what_was_ablated_how_it_agrees_and_why_that_is_not_enough(mixed: dict[str, Any]) -> None:
    found = Calibration.from_receipt(mixed)
    good, bad, none = (found.sentence(kind) for kind in ("neuron", "mlp", "attn"))
    assert good.startswith(
        "64 (neuron, token) pairs of 16 prompts set to zero: first-order and measured effects have ρ "
    )
    assert bad.startswith("Not calibrated (lower bound of ρ −0.")
    assert none == "Total effects of attention are not calibrated: none was ablated."
    assert "set to their means" in found.sentence("neuron", "mean")
    assert all(map(is_sentence, (good, bad, none)))


def test_without_a_target_the_worst_of_all_speaks() -> None:
    found = Calibration.from_receipt({"calibration": stored(samples({"neuron": 2.0}, targets=3))})
    lows = [found.of("neuron", target=target).spearman.low for target in range(3)]
    assert len(set(lows)) == 3
    assert found.of("neuron").spearman.low == min(lows)
    assert "(the worst of 3 targets)" in found.sentence("neuron")


def test_intervals_of_few_prompts_say_what_they_do_not_cover() -> None:
    few = Calibration.from_receipt({"calibration": stored(samples({"neuron": AGREE}, prompts=2))})
    assert "intervals are over pairs, not over other prompts" in few.sentence("neuron")
    assert "say nothing of other prompts" in few.explained
    one = Calibration.from_receipt({"calibration": stored(samples({"neuron": AGREE}, prompts=1))})
    count = one.of("neuron").count
    assert f"over these {count} pairs of one prompt and say nothing of other prompts" in one.sentence("neuron")
    assert "pairs of one prompt" in one.explained


def test_a_bound_that_is_missed_by_little_is_told_with_the_decimals_that_show_it() -> None:
    doubts = Agreement(spearman=Bounded(0.8, 0.499, 0.9), sign=Bounded(0.9, 0.5997, 0.95), **ONE_KIND).doubts
    assert doubts == ["lower bound of ρ 0.499 < 0.5", "lower bound of equal signs 59.97 % < 60 %"]


def test_a_receipt_without_calibration_calls_nothing_calibrated() -> None:
    for nothing in ({}, {"calibration": None}, None):
        found = Calibration.from_receipt(nothing)
        assert not found.calibrated
        assert found.mark("neuron") == "not calibrated"
        assert found.sentence("neuron") == "Total effects of neurons are not calibrated: none was ablated."


@pytest.mark.parametrize("key", ["prompts", "agreement", "floor", "asked", "baseline"])
@pytest.mark.parametrize("odd", [None, 7, "x", [1], [{"kind": []}], {"a": 1}, [{"kind": "neuron", "spearman": [1]}]])
def test_an_odd_calibration_of_a_stranger_is_never_called_calibrated_and_not_fatal(
    mixed: dict[str, Any], key: str, odd: object
) -> None:
    found = Calibration.from_receipt({"calibration": {**mixed["calibration"], key: odd}})
    assert is_sentence(found.sentence("mlp"))
    assert not found.of("mlp").calibrated
    assert found.rows()


def test_samples_and_statistics_survive_json(mixed: dict[str, Any]) -> None:
    through = json.loads(json.dumps(to_json(mixed), allow_nan=False))
    before, after = (Samples.from_receipt(one) for one in (mixed, through))
    assert before.kind == after.kind
    for name in ("first_order", "measured", "direct"):
        for key, values in getattr(before, name).items():
            np.testing.assert_array_equal(values, getattr(after, name)[key])
    assert Calibration.from_receipt(through) == Calibration.from_receipt(mixed)


def test_info_prints_a_table_of_it(tmp_path: Any, mixed: dict[str, Any]) -> None:
    path = record(tmp_path / "t", attrs={**ATTRS, "receipt": mixed})
    text = info_text(info(path))
    section = text.split("How far its total effects can be believed")[1].split("\n\n")[0]
    assert "16 prompts" in section
    rows = [line.split() for line in section.splitlines()]
    marked = [row for row in rows if row[-2:] == ["not", "calibrated"]]
    assert [row[:2] for row in marked] == [["MLPs,", "zero"], ["MLPs,", "mean"]]
    assert "samples" not in text
    assert max(map(len, text.splitlines())) <= 100
