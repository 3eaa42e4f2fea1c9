"""Which tokens are whose, in a whole Dataset and in one that was cut; and what a person may call a prompt."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.labels import labelled, root_attributes
from stratoscope.trace.opened import opened
from stratoscope.trace.prompts import GONE, Prompts

USER, GENERATED = names.SPANS.index("user"), names.SPANS.index("generated")


def trace(
    given: list[int], answered: list[int], *, source: str = names.REAL, begin: int = 0, **texts: Any
) -> xr.Dataset:
    """Prompts of so many tokens, and so many that the model generated; every number is told apart by its value."""
    lengths = [one + more for one, more in zip(given, answered, strict=True)]
    arrays: dict[str, Any] = {
        "prompt": np.repeat(np.arange(len(lengths)), lengths),
        "position": np.concatenate([np.arange(begin, begin + length) for length in lengths]),
        "token_id": np.arange(sum(lengths)),
        "span": np.concatenate([[USER] * one + [GENERATED] * more for one, more in zip(given, answered, strict=True)]),
        "layer": np.arange(2),
        "mlp_out_norm": np.arange(2.0 * sum(lengths)).reshape(-1, 2),
    }
    if source == names.IMPORTED:
        del arrays["mlp_out_norm"]
        arrays |= {name: np.arange(sum(lengths)) * (name == "row_token") for name in ("row_token", "row_layer")}
        arrays |= {"row_neuron": np.arange(sum(lengths)), "imported_norm": np.arange(1.0 * sum(lengths))}
    else:
        edges = sum(map(names.edges, lengths))
        arrays["attention"] = np.arange(edges * 2).reshape(-1, 2, 1).astype("float16")
    found = {
        "text": [f"t{token}" for token in range(sum(lengths))],
        "prompt_id": [f"p{n}" for n in range(len(lengths))],
    }
    return labelled(arrays, {**found, **texts}, root_attributes(source))


lengths = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=25)
@given(lengths, st.data())
def test_what_is_known_of_each_prompt_is_what_a_slow_count_finds_however_the_tokens_are_cut(
    prompts: list[tuple[int, int]], data: st.DataObject
) -> None:
    whole = trace([one for one, _ in prompts], [more for _, more in prompts])
    tokens = [(prompt, at) for prompt, pair in enumerate(prompts) for at in range(sum(pair))]
    kept = data.draw(st.lists(st.sampled_from(range(len(tokens))), min_size=1, unique=True).map(sorted))
    found = Prompts(whole.isel(token=kept))
    left = [tokens[token] for token in kept]
    assert found.first.tolist() == [at == 0 for _, at in left]
    for prompt, (given_tokens, _) in enumerate(prompts):
        mine = [(token, at) for token, (of, at) in enumerate(left) if of == prompt]
        assert list(range(len(left)))[found.tokens(prompt)] == [token for token, _ in mine]
        assert found.lengths[prompt] == len(mine)
        assert [found.place[token] for token, _ in mine] == list(range(len(mine)))
        answers = [token for token, at in mine if at >= given_tokens]
        if answers:
            before = left[answers[0]][1] - 1
            wanted = next((token for token, at in mine if at == before), GONE)
        else:
            wanted = mine[-1][0] if mine else GONE
        assert found.answer[prompt] == wanted
    cut = opened(whole.isel(token=kept).drop_dims("edge"))
    assert Prompts(cut).ids == [f"p{prompt}" for prompt, _ in groupby(left, key=lambda pair: pair[0])]
    assert Prompts(cut).first.tolist() == found.first.tolist()


def test_a_prompt_whose_first_token_is_gone_has_none_in_the_checks_and_in_every_picture() -> None:
    from drawn_maps import maps_of
    from stratoscope.analysis.classes.units import counted_tokens
    from stratoscope.analysis.lint.check import some_tokens
    from stratoscope.view.choose.selection import Selection
    from stratoscope.view.maps.heatmap import heatmap_spec
    from stratoscope.view.peaks3d.build import peaks_spec

    lengths = [41, 47, 9]
    whole = trace(lengths, [0, 0, 0])
    ranks = {"peak_neuron": np.int32(3), "peak_value": np.float32(1.5), "peak_write": np.float32(2.5)}
    dims = names.QUANTITIES["peak_write"].dims
    whole = whole.assign({name: (dims, np.full((sum(lengths), 2, 1), value)) for name, value in ranks.items()})
    cut = opened(whole.isel(token=whole["position"].values > 0).drop_dims("edge"))
    assert Prompts(cut).starts.tolist() == [0, 40, 86]  # no first token stands there
    for dataset, firsts in ((opened(whole), 3), (cut, 0)):
        tokens = dataset.sizes["token"]
        assert len(some_tokens(dataset, "mlp_out_norm")) == tokens - firsts
        assert counted_tokens(dataset, "user").sum() == tokens - firsts
        assert len(maps_of(heatmap_spec(dataset, Selection(all_prompts=True))).panels[0].first) == firsts
        assert peaks_spec(dataset, Selection(all_prompts=True)).tokens.first.sum() == firsts


@pytest.mark.parametrize(("begin", "first"), [(0, True), (1, True), (2, False)])
def test_a_csv_counts_tokens_from_0_or_from_1_and_one_that_begins_later_lacks_the_first(
    begin: int, first: bool
) -> None:
    assert Prompts(trace([3, 2], [0, 0], source=names.IMPORTED, begin=begin)).first.tolist() == [
        first, False, False, first, False,
    ]  # fmt: skip


def test_a_part_holds_tokens_pairs_and_rows_of_its_prompts_alone_numbered_from_0() -> None:
    whole = trace([3, 2, 4], [0, 1, 0])
    part = Prompts(whole).part(1, 3)
    assert part["prompt"].values.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert part["prompt_id"].values.tolist() == ["p1", "p2"]
    assert part["attention"].values[:, 0, 0].tolist() == list(range(12, 44, 2))
    assert opened(part) is part
    rows = Prompts(trace([3, 2, 4], [0, 0, 0], source=names.IMPORTED)).part(1, 3)
    assert rows["imported_norm"].values.tolist() == [3, 4, 5, 6, 7, 8]
    assert rows["row_token"].values.tolist() == list(range(6))
    assert rows["row_token"].attrs == Prompts(whole).dataset["prompt"].attrs | rows["row_token"].attrs


IDS = ["fire-c", "1", "01", "twin", "twin", ""]


@pytest.mark.parametrize(
    ("choice", "index"),
    [
        ("fire-c", 0), (np.str_("fire-c"), 0),
        ("1", 1), (1, 1), (np.int8(1), 1), (np.array(1), 1),
        ("01", 2), ("2", 2), (2, 2), ("0", 0), (5, 5), ("", 5),
    ],
)  # fmt: skip
def test_a_text_is_an_id_and_else_a_plain_index_and_a_number_is_always_an_index(choice: Any, index: int) -> None:
    assert Prompts(trace([1] * 6, [0] * 6, prompt_id=IDS)).find(choice) == index


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("fire-n", "no prompt called 'fire-n'. Did you mean fire-c"),
        ("twin", "2 prompts are called 'twin'. Name one by its index: 3, 4"),
        ("02", "no prompt called '02'"), ("+1", "no prompt called"), ("-1", "no prompt called"),
        ("²", "no prompt called"),
        (6, "no prompt number 6. There are: 0-5, counted from 0"), (-1, "no prompt number -1"),
        ("6", "no prompt number 6"), (True, "True names no prompt"), (np.True_, "names no prompt"),
        (1.0, "1.0 names no prompt"), (None, "None names"),
        (["fire-c"], "names no prompt"),
    ],
)  # fmt: skip
def test_what_names_no_prompt_or_several_is_refused_with_what_there_is(choice: Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        Prompts(trace([1] * 6, [0] * 6, prompt_id=IDS)).find(choice)
    assert words in str(refused.value)


def test_only_prompts_that_may_be_named_are_and_each_index_stays_that_of_the_whole() -> None:
    prompts = Prompts(trace([1] * 6, [0] * 6, prompt_id=IDS))
    assert prompts.find("twin", among=[0, 3]) == 3
    assert prompts.find_all(["twin", 0], among=[0, 3]) == [3, 0]
    assert prompts.find_all(None, among=[0, 3]) == [0, 3]
    with pytest.raises(InputError, match=r"no prompt number 1\b.*0, 3"):
        prompts.find(1, among=[0, 3])
