"""Which items are ablated: seeded, over every depth and size, none twice, and all there are where there are few."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stratoscope.recorder.effects.sample import (
    MOST_EFFECTS,
    MOST_PROMPTS,
    MOST_TOKENS,
    SIZES,
    STRATA,
    calibration_prompts,
    draw,
    portions,
    tokens_drawn_from,
)

LAYERS, TOKENS, WIDTH = 8, 10, 200


@pytest.fixture(scope="module")
def effects() -> list[np.ndarray | None]:
    random = np.random.default_rng(5)
    found: list[np.ndarray | None] = [random.normal(size=(TOKENS, WIDTH)) ** 5 for _ in range(LAYERS)]
    found[3] = None
    assert isinstance(found[2], np.ndarray)
    found[2][:, ::2] = 0
    found[2][0, 1] = np.nan
    return found


def test_every_stratum_is_asked_for_equally_often_and_of_many_prompts() -> None:
    asked = portions(64, 16)
    assert [len(one) for one in asked] == [4] * 16
    assert set(Counter(stratum for one in asked for stratum in one).values()) == {4}
    assert all(len(set(one)) == 4 for one in asked)
    few = portions(64, 3)
    assert sorted(map(len, few)) == [21, 21, 22]
    assert set(Counter(stratum for one in few for stratum in one).values()) == {4}


def test_the_draw_is_of_the_asked_depth_and_size(effects: list[np.ndarray | None]) -> None:
    for stratum in range(STRATA):
        token, layer, number = draw(effects, [stratum], seed=1)[0]
        depth, size = divmod(stratum, SIZES)
        assert layer // 2 == depth
        inside = [abs(one[one != 0]) for one in effects[2 * depth : 2 * depth + 2] if one is not None]
        all_of_depth = np.concatenate(inside)
        all_of_depth = all_of_depth[np.isfinite(all_of_depth)]
        here = effects[layer]
        assert here is not None
        rank = (all_of_depth > abs(here[token, number])).sum() + 1
        n = len(all_of_depth)
        assert round(n ** (size / SIZES)) * (size > 0) < rank <= round(n ** ((size + 1) / SIZES))


def test_the_same_seed_draws_the_same_and_another_prompt_others(effects: list[np.ndarray | None]) -> None:
    strata = [*range(STRATA)]
    assert draw(effects, strata, seed=1) == draw(effects, strata, seed=1)
    assert draw(effects, strata, seed=1) != draw(effects, strata, seed=2)
    assert calibration_prompts(100, 64) == calibration_prompts(100, 64)
    assert len(calibration_prompts(100, 64)) == MOST_PROMPTS
    assert sorted(calibration_prompts(3, 64)) == [0, 1, 2]
    assert len(calibration_prompts(100, 5)) == 5


def test_nothing_is_drawn_twice_or_without_an_effect(effects: list[np.ndarray | None]) -> None:
    found = draw(effects, [*range(STRATA)] * 20, seed=3)
    assert len(found) == len(set(found)) == 20 * STRATA
    for token, layer, number in found:
        here = effects[layer]
        assert here is not None
        assert here[token, number] != 0
        assert np.isfinite(here[token, number])


def test_of_few_places_all_are_drawn() -> None:
    one_each = [np.array([[1.0], [0.0], [-2.0]]), np.array([[np.nan], [0.5], [0.1]]), None]
    found = draw(one_each, [*range(STRATA)], seed=0)
    assert sorted(found) == [(0, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0)]
    assert draw([None, None], [0, 1], seed=0) == []


def test_of_a_long_prompt_the_answer_position_stays() -> None:
    assert tokens_drawn_from(20, 1, 0).tolist() == [*range(20)]
    many = tokens_drawn_from(1000, 1, 0)
    assert len(set(many.tolist())) == MOST_TOKENS
    assert many[-1] == 999
    assert len(tokens_drawn_from(1000, MOST_EFFECTS // 3, 0)) == 3  # of a large model, so that they fit into memory
