"""Which prompts, tokens and layers are shown."""

from __future__ import annotations

import numpy as np
import pytest
from view_traces import Factory

from stratoscope.errors import InputError
from stratoscope.trace.numbers import choose_layers
from stratoscope.view.choose.selection import EVERYTHING, MOST_PANELS, Selection


def shown(dataset, **choice) -> list[tuple[int, ...]]:  # type: ignore[no-untyped-def]
    return [panel.prompts for panel in Selection(**choice).of(dataset).panels]


def test_the_first_pair_is_shown_without_being_asked_for(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3,) * 4, classes=("a", "a", "b", "b"), pairs=("", "x", "", "x"))
    assert shown(dataset) == [(1,), (3,)]


def test_without_pairs_the_first_prompt_of_each_class_is_shown(trace_of: Factory) -> None:
    assert shown(trace_of(lengths=(3,) * 5, classes=("a", "a", "b", "b", "c"))) == [(0,), (2,), (4,)]


def test_a_half_pair_is_not_taken_for_a_pair(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3,) * 3, classes=("a", "a", "b"), pairs=("lonely", "x", "x"))
    assert shown(dataset) == [(1,), (2,)]


def test_prompts_come_in_the_order_asked_for_by_id_or_index(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3, 4, 5))
    assert shown(dataset, prompt=["p2", 0]) == [(2,), (0,)]
    assert shown(dataset, prompt="1") == [(1,)]


def test_an_id_that_looks_like_a_number_is_an_id_first(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3, 4, 5))
    dataset["prompt_id"].values[:] = ["2", "1", "0"]
    assert shown(dataset, prompt="2") == [(0,)]
    assert shown(dataset, prompt=2) == [(2,)]


def test_all_prompts_stand_end_to_end_and_are_never_averaged(trace_of: Factory) -> None:
    (panel,) = Selection(all_prompts=True).of(trace_of(lengths=(3, 4, 5))).panels
    assert panel.prompts == (0, 1, 2)
    np.testing.assert_array_equal(panel.tokens, np.arange(12))


def test_a_class_narrows_every_choice(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3,) * 4)
    assert shown(dataset, prompt_class="neutral") == [(1,)]
    assert shown(dataset, prompt_class="neutral", all_prompts=True) == [(1, 3)]
    with pytest.raises(InputError, match="no prompt called 'p0'"):
        Selection(prompt="p0", prompt_class="neutral").of(dataset)


def test_a_span_leaves_out_other_tokens(trace_of: Factory) -> None:
    (panel,) = Selection(span="user").of(trace_of(lengths=(12,))).panels
    np.testing.assert_array_equal(panel.tokens, np.arange(3, 10))


def test_a_prompt_without_a_token_to_show_has_no_panel(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(3, 12))  # the span `user` begins with the fourth token
    chosen = Selection(span="user").of(dataset)
    assert [panel.prompts for panel in chosen.panels] == [(1,)]
    assert chosen.left_out == "1 of 2 prompts shown"


def test_what_is_not_shown_is_said(trace_of: Factory) -> None:
    assert EVERYTHING.of(trace_of(lengths=(3,) * 4)).left_out == "2 of 4 prompts shown"
    assert EVERYTHING.of(trace_of(lengths=(3, 3))).left_out == ""


def test_a_picture_has_its_class_and_id_as_titles(trace_of: Factory) -> None:
    panel = Selection(prompt=0).of(trace_of()).panels[0]
    assert (panel.title, panel.detail) == ("critical", "p0")
    unclassed = EVERYTHING.of(trace_of(lengths=(3,), classes=("",))).panels[0]
    assert (unclassed.title, unclassed.detail) == ("p0", "")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"prompt": "nobody"}, "p0, p1"),
        ({"prompt": 7}, "0-1"),
        ({"prompt": -1}, "0-1"),
        ({"prompt_class": "rude"}, "critical, neutral"),
        ({"span": "poem"}, "system, template"),
        ({"span": "answer"}, "template, user, special"),
        ({"prompt": 0, "all_prompts": True}, "not both"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(trace_of: Factory, choice, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        Selection(**choice).of(trace_of())


def test_a_long_list_in_an_error_is_shortened(trace_of: Factory) -> None:
    with pytest.raises(InputError, match=r"p7, … \(40 in all\)"):
        Selection(prompt="nobody").of(trace_of(lengths=(1,) * 40))


def test_too_many_prompts_one_by_one_are_refused_with_advice(trace_of: Factory) -> None:
    with pytest.raises(InputError, match="--all"):
        Selection(prompt=list(range(MOST_PANELS + 1))).of(trace_of(lengths=(1,) * 20))


def test_a_trace_without_a_prompt_is_refused(trace_of: Factory) -> None:
    with pytest.raises(InputError, match="no prompt"):
        EVERYTHING.of(trace_of().isel(token=slice(0), prompt=slice(0)))


@pytest.mark.parametrize(
    ("layers", "places"),
    [(None, [0, 1, 2, 3]), ("22-31,0", [0, 1, 2, 3]), ("L31", [3]), ("31,22", [1, 3]), (22, [1]), ([31, 0], [0, 3])],
)
def test_layers_are_block_numbers_in_ascending_order(layers, places: list[int]) -> None:  # type: ignore[no-untyped-def]
    have = [0, 22, 23, 31]
    if layers == "22-31,0":
        with pytest.raises(InputError, match="no layer 24, 25"):
            choose_layers(have, layers)
        have = [0, *range(22, 32)]
        places = list(range(11))
    assert choose_layers(have, layers).tolist() == places


@pytest.mark.parametrize("layers", ["", "a", "3-", "-3", "5-2", "1;2", "1.5"])
def test_unreadable_layers_are_refused_with_an_example(layers: str) -> None:
    with pytest.raises(InputError, match="22-31,0"):
        choose_layers(range(4), layers)


def test_an_endless_range_of_layers_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="no layer 999999999999"):
        choose_layers(range(4), "0-999999999999")
