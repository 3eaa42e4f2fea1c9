"""Two prompts side by side: what is paired, what stays a gap."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stratoscope.analysis.values.align import GAP, align

PROMPTS = st.lists(st.integers(0, 4), max_size=20)


@given(PROMPTS, PROMPTS)
def test_every_token_stands_in_exactly_one_column_in_reading_order(a: list[int], b: list[int]) -> None:
    found = align(a, b)
    assert found.a[found.a != GAP].tolist() == list(range(len(a)))
    assert found.b[found.b != GAP].tolist() == list(range(len(b)))
    assert not ((found.a == GAP) & (found.b == GAP)).any()


@given(PROMPTS, PROMPTS)
def test_only_equal_tokens_are_called_equal(a: list[int], b: list[int]) -> None:
    found = align(a, b)
    for place, other, equal in zip(found.a, found.b, found.equal, strict=True):
        assert equal == (place != GAP and other != GAP and a[place] == b[other])
    assert found.equal[: found.before].all()
    assert found.before == len(found) or not found.equal[found.before]


@given(PROMPTS)
def test_a_prompt_is_aligned_with_itself_without_an_edit(a: list[int]) -> None:
    found = align(a, a)
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
