"""Every record group goes every way: resumed, in parts and merged, with answers, simulated, planned.

A new group is covered by being in `names.RECORD_GROUPS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from test_capture import Stop, run
from tiny import RECORDED, byte_tokenizer, tiny

from stratoscope import merge, names, plan_capture, simulate
from stratoscope.recorder.estimate import trial
from stratoscope.recorder.groups import GROUPS, groups_of

PROMPTS = ["The river.", "No.", "Tell me more", "é→x", "What did it say?", "A clock"]
NEW = 2  # tokens of an answer
CHANGED_BY_LATER_TOKENS = ("attn_received",)


@dataclass(frozen=True)
class Ways:
    """One recording of all groups in one go, and the others that must hold the same."""

    whole: Any
    same: dict[str, Any]
    answered: Any
    simulated: Any
    planned: Any


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Ways:
    folder = tmp_path_factory.mktemp("ways")
    options: dict[str, Any] = {"model": tiny("Llama"), "prompts": PROMPTS, "record": RECORDED}
    options["batch_size"] = 1  # then nothing depends on which others run beside it
    options["calibration"] = 4

    def recorded(name: str, **more: Any) -> Any:
        return run(folder / name, **options, **more)

    with pytest.MonkeyPatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            recorded("resumed")
    parts = [folder / f"part {number}" for number in (1, 2)]
    for number, path in enumerate(parts, start=1):
        run(path, part=(number, 2), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_ROUNDS", 1)
        patch.setattr(trial, "_MORE_SECONDS", 0.0)
        model, prompts = options["model"], options["prompts"]
        planned = plan_capture(
            model, prompts, folder / "p", record=RECORDED, tokenizer=byte_tokenizer(), top_k=5, calibration=4
        )
    return Ways(
        recorded("whole"),
        {"resume": recorded("resumed", resume=True), "merge": merge(parts, folder / "merged")},
        recorded("answered", generate=NEW, openers=()),
        simulate(folder / "simulated", prompts=2, tokens=9, layers=3, d_ff=40, heads=2, record=names.RECORD_GROUPS),
        planned,
    )


def held(group: str) -> list[str]:
    """Its quantities, those that come with it beside other groups too."""
    found = (one for one in names.quantities_of([*names.RECORD_GROUPS]) if one.group == group)
    return [one.name for one in found if one.name not in names.OF_SOME_MODELS]


@pytest.mark.parametrize("group", RECORDED)
@pytest.mark.parametrize("way", ["resume", "merge"])
def test_a_group_is_the_same_when_resumed_or_recorded_in_parts(ways: Ways, group: str, way: str) -> None:
    for name in held(group):
        np.testing.assert_array_equal(ways.same[way][name].values, ways.whole[name].values, err_msg=name)


@pytest.mark.parametrize("group", RECORDED)
def test_a_group_is_recorded_of_answers_and_unchanged_at_the_prompts_own_tokens(ways: Ways, group: str) -> None:
    whole, answered = ways.whole, ways.answered
    written = answered.span.values == names.SPANS.index("generated")
    assert written.sum() > 0
    for name in held(group):
        values = answered[name].values
        if names.QUANTITIES[name].dims[0] == names.TOKEN:
            if group in (names.EFFECTS, names.ROUTES):  # of the prompt's own tokens
                assert (np.isnan(values[written]) if values.dtype.kind == "f" else values[written] == -1).all(), name
            else:
                known = np.isfinite(values[written]).any() if values.dtype.kind == "f" else True
                of_prompts = names.QUANTITIES[name].at_answer or name in names.BY_SOURCE
                assert known != of_prompts or values.dtype.kind != "f", name
            values = values[~written]
        elif names.QUANTITIES[name].dims[0] == names.EDGE:
            assert len(values) == sum(names.edges(length) for length in np.bincount(answered.prompt))
            continue
        if values.dtype.kind == "f" and not name.startswith(CHANGED_BY_LATER_TOKENS):
            np.testing.assert_allclose(values, whole[name].values, rtol=2e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("group", names.RECORD_GROUPS)
def test_a_group_is_simulated(ways: Ways, group: str) -> None:
    for name in held(group):
        assert ways.simulated[name].dims == names.QUANTITIES[name].dims
        assert ways.simulated[name].attrs["source"] == names.SIMULATED
        assert np.isfinite(ways.simulated[name].values).any(), name
    kinds = {entry["kind"] for entry in ways.simulated.attrs["planted"]}
    assert {*GROUPS[group].planted} <= kinds


@pytest.mark.parametrize("group", RECORDED)
def test_what_a_group_takes_is_planned(ways: Ways, group: str) -> None:
    assert ways.planned.groups[group].disk_bytes > 0


@pytest.mark.parametrize("group", [group for group in RECORDED if group != names.EFFECTS])
def test_everything_of_a_group_is_replayed(ways: Ways, group: str) -> None:
    """But indices, which have no distance: what they point at is compared; and of parts by source token their sum.

    Effects are measured by really ablating.
    """
    replayed = {name for replay in ways.whole.attrs["receipt"]["replays"] for name in replay["largest_differences"]}
    quantities = [names.QUANTITIES[name] for name in held(group)]
    wanted = {one.name for one in quantities if not one.dtype.startswith("int") and one.beside != names.EFFECTS}
    assert wanted - {*names.BY_SOURCE} <= replayed


@pytest.mark.parametrize("group", names.RECORD_GROUPS)
def test_what_a_group_says_of_its_quantities_is_of_its_own(group: str) -> None:
    known = GROUPS[group]
    of_group = {one.name for one in names.quantities_of([group])}
    assert {*known.quotients} <= of_group
    assert groups_of([group]) == [known]
