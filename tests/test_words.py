"""How numbers, counts, lists and values are written; the page's half of the numbers is in tests/browser."""

from __future__ import annotations

import numpy as np
import pytest

from number_words import CASES
from stratoscope import words


@pytest.mark.parametrize("function", CASES)
def test_a_number_is_written_as_the_table_says(function: str) -> None:
    write = getattr(words, function)
    assert [write(*given) for given, _ in CASES[function]] == [text for _, text in CASES[function]]


def test_numpy_scalars_are_written_as_pythons() -> None:
    assert [words.number(one) for one in (np.float32(0.1), np.int64(2000))] == ["0.1", "2,000"]
    assert words.percent(np.float64(1 / 3)) == "33.3 %"


def test_a_list_is_a_sentence_and_of_many_items_the_first_are_named() -> None:
    assert [words.listed("abcd"[:count]) for count in range(5)] == ["", "a", "a and b", "a, b and c", "a, b, c and d"]
    assert words.listed(range(12), 3) == "0, 1, 2 and 9 more"
    assert words.listed(["x", "y"], joined="or") == "x or y"


def test_a_capital_is_set_where_a_word_begins_the_text_and_nowhere_else() -> None:
    for text, capital in (("", ""), ("a b", "A b"), ("cos(a, b)", "cos(a, b)"), ("MLP (L2)", "MLP (L2)")):
        assert words.capital(text) == capital


def test_a_value_in_a_message_is_quoted_and_short() -> None:
    assert words.quoted("a\nb") == r"'a\nb'"
    assert words.quoted("x" * 50, 10) == "'xxxxxxxxx…'"
    assert words.quoted({"a": [1, None]}) == '{"a": [1, null]}'
    assert words.quoted([0] * 50, 10) == "[0, 0, 0,…"


def test_ranges_of_numbers_are_those_that_options_read() -> None:
    assert words.number_ranges([3, 1, 2, 7, 9, 8]) == "1-3, 7-9"


@pytest.mark.parametrize("whole", ["L4 n116", "p ≤ 0.05", "(q < 0.05).", "95 %", "−2.31 … −0.0149", "6.08 → 12.2"])
def test_no_line_ends_within_what_belongs_together(whole: str) -> None:
    assert words.line_parts(f"so {whole} it is") == ["so", whole, "it", "is"]
    assert words.line_parts(" a  b") == ["", "a", "", "b"]
