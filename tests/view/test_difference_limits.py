"""Limits of a difference are fitted on the cells that can differ (L30)."""

from __future__ import annotations

import numpy as np
import pytest

from drawn_maps import colouring, high
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import can_differ
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec

LAYERS = tuple(range(10))


def spec_of(
    values: np.ndarray, alike: np.ndarray | None = None, *, first: int | None = None, **options: int
) -> ViewSpec:
    quantity = DrawnQuantity("mlp_out_norm", "B − A", "1", "", signed=True, rows=LAYERS)
    tokens = TokenAxis("", "", unknown_tokens(len(values), [] if first is None else [first]))
    strip = Strip(quantity, [values], counted=[can_differ(values, alike)])
    return build("", "", [tokens], [strip], **options)


def differing(tokens: int, before: int, layer: int, noise: float = 0.0) -> np.ndarray:
    """A difference that is zero (or noise) before an edit and before a layer."""
    random = np.random.default_rng(0)
    values = random.normal(size=(tokens, len(LAYERS)))
    values[:before] = noise * random.normal(size=(before, len(LAYERS)))
    values[:, :layer] = 0
    return values


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_most_cells_that_cannot_differ_do_not_saturate_the_few_that_can(noise: float) -> None:
    values = differing(60, 50, 5, noise)
    alike = np.arange(60) < 50
    alone = spec_of(values[50:, 5:].repeat(2, axis=1))  # nothing but what can differ
    spec = spec_of(values, alike)
    found = colouring(spec)
    assert high(spec) == pytest.approx(high(alone), rel=0.1)
    assert sum(found.clipped) < 0.12
    assert found.clipped == pytest.approx([(values[50:, 5:] < found.limits.low).mean(),
                                           (values[50:, 5:] > found.limits.high).mean()], abs=1e-6)  # fmt: skip
    assert found.counts.sum() == 50
    assert any(note.id == "L30" and "from the 50 of 600 cells" in note.text for note in spec.notes)
    assert "not exactly equal, nor, in one model, of tokens before the first edit" in spec.metadata_json()


def test_what_is_pooled_counts_only_cells_that_can_differ() -> None:
    values = differing(4000, 3900, 5)
    spec = spec_of(values, np.arange(4000) < 3900, most_unpooled=100)
    assert 1 < high(spec) < 4
    assert sum(colouring(spec).clipped) < 0.12


def test_all_zero_says_that_there_is_no_difference() -> None:
    found = colouring(spec_of(np.zeros((20, 10))))
    assert (found.limits.state, found.exceptions) == ("zero", False)
    assert not any(note.id == "L30" for note in spec_of(np.zeros((20, 10))).notes)


def test_where_only_a_first_token_differs_all_others_are_said_to_be_zero() -> None:
    values = np.zeros((20, 10))
    values[0] = 7.0
    found = colouring(spec_of(values, first=0))
    assert (found.limits.state, found.exceptions) == ("zero", True)


def test_where_all_tokens_have_seen_the_same_rounding_is_drawn_as_what_it_is() -> None:
    values = np.random.default_rng(0).normal(size=(20, 10)) * 1e-6
    assert high(spec_of(values, np.ones(20, bool))) == pytest.approx(high(spec_of(values)))
    assert not any(note.id == "L30" for note in spec_of(values).notes)
