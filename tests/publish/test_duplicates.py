"""Near-duplicate prompts count once, and prompts that only share some words do not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from class_traces import different, trace_of

from stratoscope.errors import InputError
from stratoscope.publish.profiles.duplicates import clusters, duplicates, neighbours

WORDS = [
    "the",
    "small",
    "red",
    "kettle",
    "on",
    "our",
    "stove",
    "began",
    "to",
    "whistle",
    "before",
    "anyone",
    "had",
    "asked",
    "for",
    "tea",
    "this",
    "quiet",
    "morning",
]


def of(*texts: str) -> list[int]:
    return clusters([neighbours(text.split()) for text in texts]).tolist()


@pytest.mark.parametrize("length", [5, 8, 12, 19])
def test_a_prompt_with_any_one_word_replaced_counts_once(length: int) -> None:
    text = WORDS[:length]
    for place in range(length):
        assert of(" ".join(text), " ".join([*text[:place], "other", *text[place + 1 :]])) == [0, 0], place


def test_a_prompt_that_was_added_to_or_cut_a_little_counts_once() -> None:
    text = " ".join(WORDS)
    assert of(text, f"hello there {text}", f"{text} thank you very much", " ".join(WORDS[:12])) == [0, 0, 0, 0]


def test_prompts_that_share_a_beginning_are_different_prompts() -> None:
    start = "please explain to me how "
    assert of(start + "a kettle begins to boil on a stove", start + "ships find their way across an open sea") == [0, 1]


def test_a_near_duplicate_of_a_near_duplicate_belongs_to_both() -> None:
    one, between, other = "a b c d e f g h", "a b c d e f x y", "a b c z e f x y"
    assert of(one, other) == [0, 1]
    assert of(one, other, between) == [0, 0, 0]


def test_clusters_are_numbered_as_they_appear_and_do_not_depend_on_how_many_are_compared_at_a_time() -> None:
    pick = random.Random(0)
    texts = [" ".join(pick.sample(WORDS, 12)) for _ in range(300)]  # no two are alike
    order = [pick.randrange(300) for _ in range(1200)]
    found = of(*(texts[place] for place in order))
    first = {place: number for number, place in enumerate(dict.fromkeys(order))}
    assert found == [first[place] for place in order]


def test_capitals_blanks_and_signs_make_no_other_prompt() -> None:
    trace = trace_of(["How do I boil an egg ?", "HOW do i boil an EGG !! !", "? ! ?", "! ! !"], ["", "", "", ""])
    assert duplicates(trace, range(4)).tolist() == [0, 0, 1, 2]


def test_only_what_the_user_wrote_is_compared() -> None:
    trace = trace_of(["be kind and brief always now boil eggs", "be kind and brief always now fold paper"], ["", ""])
    trace["span"].values[np.isin(trace["text"].values.tolist(), ["be", "kind", "and", "brief", "always", "now"])] = 0
    assert duplicates(trace, [0, 1]).tolist() == [0, 1]


def test_without_texts_the_ids_of_tokens_tell_prompts_apart() -> None:
    trace = trace_of([*different(3), *different(2)], [""] * 5)
    assert (
        duplicates(trace.drop_vars("text"), range(5)).tolist()
        == duplicates(trace, range(5)).tolist()
        == [0, 1, 2, 0, 1]
    )


def test_a_trace_of_neither_texts_nor_ids_is_refused() -> None:
    bare = trace_of(different(2), ["", ""]).drop_vars("text")
    bare["token_id"].values[:] = -1
    with pytest.raises(InputError, match="neither texts nor ids"):
        duplicates(bare, [0, 1])


@pytest.mark.parametrize(
    "other",
    ["t\u200bhe qu\u00adick bro\u2060wn f\ufeffox", "ｔｈｅ ｑｕｉｃｋ ｂｒｏｗｎ ｆｏｘ", "thé quíck bröwn fôx"],
)
def test_what_is_not_seen_makes_no_prompt_another(other: str) -> None:
    trace = trace_of(["the quick brown fox", other, "a lazy dog sleeps"], ["a"] * 3)
    assert duplicates(trace, range(3)).tolist() == [0, 0, 1]
