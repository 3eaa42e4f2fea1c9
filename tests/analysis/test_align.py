"""Two prompts side by side: what is paired, what stays a gap."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stratoscope
from stratoscope.analysis.values import align as module
from stratoscope.analysis.values.align import GAP, Alignment, align, token_keys

PROMPTS = st.lists(st.integers(0, 4), max_size=20)
LONG = st.booleans()  # whether they are aligned as long prompts are


def aligned(a: list[int], b: list[int], long: bool) -> Alignment:
    if not long:
        return align(a, b)
    with mock.patch.multiple(module, _WHOLE=0, _PIECE=3, _RUNS=(4, 2, 1)):
        return align(a, b)


@given(PROMPTS, PROMPTS, LONG)
def test_every_token_stands_in_exactly_one_column_in_reading_order(a: list[int], b: list[int], long: bool) -> None:
    found = aligned(a, b, long)
    assert found.a[found.a != GAP].tolist() == list(range(len(a)))
    assert found.b[found.b != GAP].tolist() == list(range(len(b)))
    assert not ((found.a == GAP) & (found.b == GAP)).any()


@given(PROMPTS, PROMPTS, LONG)
def test_only_equal_tokens_are_called_equal(a: list[int], b: list[int], long: bool) -> None:
    found = aligned(a, b, long)
    for place, other, equal in zip(found.a, found.b, found.equal, strict=True):
        assert equal == (place != GAP and other != GAP and a[place] == b[other])
    assert found.equal[: found.before].all()
    assert found.before == len(found) or not found.equal[found.before]


@given(PROMPTS, LONG)
def test_a_prompt_is_aligned_with_itself_without_an_edit(a: list[int], long: bool) -> None:
    found = aligned(a, a, long)
    assert found.before == len(found) == len(a)


def test_an_inserted_word_moves_nothing_else() -> None:
    found = align(np.array([1, 2, 3, 4]), np.array([1, 2, 9, 8, 3, 4]))
    assert found.a.tolist() == [0, 1, GAP, GAP, 2, 3]
    assert found.b.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.before == 2


def test_words_replaced_by_equally_many_are_paired_and_not_called_equal() -> None:
    found = align(["a", "b", "c"], ["a", "x", "c"])
    assert found.a.tolist() == found.b.tolist() == [0, 1, 2]
    assert found.equal.tolist() == [True, False, True]


def test_what_both_begin_with_is_paired_even_if_it_also_stands_before_a_longer_equal_run() -> None:
    found = align([1, 5, 6, 7, 8], [1, 2, 3, 1, 5, 6, 7, 8])  # a system prompt between <s> and <s>user
    assert (found.a[0], found.b[0]) == (0, 0)
    assert found.before == 1
    assert found.equal.sum() == 5


@pytest.mark.parametrize("alike", [True, False])
def test_prompts_of_twenty_thousand_tokens_are_not_searched_as_a_whole(
    alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    class Counted(SequenceMatcher[Any]):
        def __init__(self, isjunk: None, a: Any, b: Any, autojunk: bool) -> None:
            nonlocal longest
            longest = max(longest, len(a), len(b))
            assert longest <= 500  # before it begins: of the whole it takes a minute
            super().__init__(isjunk, a, b, autojunk)

    monkeypatch.setattr(module, "SequenceMatcher", Counted)
    rng = np.random.default_rng(0)
    words, others = rng.zipf(1.3, (2, 20_000)).clip(max=30_000)
    edited = [*words[:5_000], 40_000, 40_001, *words[5_000:12_000], *words[12_007:]]
    found = align(words, edited if alike else others)
    if alike:
        assert (found.equal.sum(), found.before) == (19_993, 5_000)
    assert longest > 0 or alike


def test_tokens_of_which_nothing_is_known_equal_none() -> None:
    trace = stratoscope.simulate(prompts=2, tokens=6, layers=2)
    unknown = trace.assign_coords(token_id=("token", np.full(trace.sizes["token"], -1))).drop_vars("text")
    keys = token_keys(unknown, slice(None))
    assert len(set(keys.tolist())) == trace.sizes["token"]
    assert not align(keys[:6], keys[6:]).equal.any()
    assert align(*(token_keys(trace, slice(first, first + 6)) for first in (0, 6))).equal.any()
