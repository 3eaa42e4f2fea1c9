"""A published Result holds what is listed and nothing else, and its page can still be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from every_result import EVERY

import stratoscope
from result_tables import made
from stratoscope import names
from stratoscope.analysis.results.again import KINDS as ON_DISK
from stratoscope.analysis.results.result import store_result
from stratoscope.errors import InputError
from stratoscope.publish.levels import PROMISES
from stratoscope.publish.tokens.result_fields import COLUMNS, KINDS
from stratoscope.publish.tokens.results import compared_classes, published_result, unlisted
from stratoscope.recorder.simulated.vocabulary import WORDS
from stratoscope.view.report.save import contents_of

LEVELS = (names.PROVENANCE, names.NO_TEXT)


@cache
def results(kind: str) -> list[xr.DataTree]:
    return list(EVERY[kind]())


def texts(result: xr.DataTree) -> Iterator[str]:
    """Every text that a Result holds, keys left out."""

    def inside(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from inside(one)

    yield from inside(dict(result.attrs))
    for node in result.subtree:
        for variable in node.to_dataset(inherit=False).variables.values():
            yield from inside(dict(variable.attrs))
            if variable.dtype == object:
                yield from map(str, variable.values.ravel())


@pytest.mark.parametrize("kind", EVERY)
def test_every_column_and_fact_of_every_kind_is_listed(kind: str) -> None:
    assert [name for result in results(kind) for name in unlisted(result)] == []


def test_nothing_is_listed_that_no_result_has() -> None:
    of_patches = {"patch-null"}  # made with a model
    listed = {one for one in COLUMNS if one[0] not in of_patches and not one[1].startswith("null")}
    found = {(kind, table.replace("<quantity>", "*"), name) for kind in EVERY for table, name, _ in made(results(kind))}
    assert listed == found
    assert set(KINDS) == {*EVERY, *of_patches} >= set(ON_DISK) - {"profiles"}


@pytest.mark.parametrize("level", LEVELS)
def test_what_nobody_listed_does_not_go_out(level: names.Level) -> None:
    (result,) = results("lint")
    more = result.copy(deep=True)
    more["findings"] = (
        more["findings"].to_dataset().assign(secret=("finding", np.arange(more["findings"].sizes["finding"])))
    )
    more["hidden"] = xr.Dataset({"words": ("word", np.array(["secret"], object))})
    more.attrs |= {"host": "secret", "summary": {**more.attrs["summary"], "secret": {"deep": "secret"}}}
    assert set(unlisted(more)) == {"findings/secret", "hidden/words", "host", "summary.secret.deep"}
    public = published_result(more, level)
    assert "secret" not in json.dumps([public.attrs, *texts(public), *(str(node) for node in public.subtree)])


@pytest.mark.parametrize("kind", EVERY)
def test_without_text_no_word_and_no_id_of_a_prompt_is_left(kind: str) -> None:
    spoken = {word.strip().casefold() for word in WORDS if len(word.strip()) > 4} - {"write", "about"}
    for result in results(kind):
        public = published_result(result, names.NO_TEXT)
        said = [text.casefold() for text in texts(public)]
        before = [text.casefold() for text in texts(result)]
        found = {word for word in spoken for text in said if re.search(rf"\b{re.escape(word)}\b", text)}
        ids = {text for text in said if re.search(r"(critical|neutral)-\d", text)}
        assert (found, ids) == (set(), set())
        if kind not in ("lint", "routes"):  # there is something to hide
            assert any(re.search(r"(critical|neutral)-\d", text) for text in before) or kind == "contrast"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", EVERY)
def test_no_uuid_and_the_promise_in_every_kind(kind: str, level: names.Level) -> None:
    for result in results(kind):
        public = published_result(result, level)
        hidden = {one["uuid"] for one in result.attrs["sources"]}
        assert not hidden & set(texts(public))
        assert public.attrs["published"]["promise"] == PROMISES[level]
        assert any(PROMISES[level] in note["text"] for note in public.attrs["notes"])
        assert public.attrs["kind"] == kind


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", sorted(set(EVERY) & set(ON_DISK)))
def test_the_page_of_a_published_result_can_be_made_and_keeps_every_number(kind: str, level: names.Level) -> None:
    for result in results(kind):
        public = published_result(result, level)
        contents, original = contents_of(public), contents_of(result)
        assert [figure.name for figure in contents.figures()] == [figure.name for figure in original.figures()]
        assert len(contents.table.rows) == len(original.table.rows)
        for node in public.descendants:
            for name, values in node.to_dataset(inherit=False).variables.items():
                if values.dtype != object and name not in ("write_token_id", "span", "template"):
                    before = result[node.path].to_dataset().variables[name]
                    np.testing.assert_array_equal(values.values, before.values)


def test_files_and_addresses_are_cut_out_of_sentences_and_ratios_are_not() -> None:
    (result,) = results("lint")
    said = "MLP write / residual, B / A, and/or 3/4; from /home/ann/run.trace, C:\\Users\\ann\\x, ~/data, runs/a/b.csv."
    result = result.copy(deep=True)
    result.attrs["notes"] = [{"id": "L16", "severity": "info", "text": f"{said} Ask ann@example.org about other.csv."}]
    (_, note) = published_result(result, names.PROVENANCE).attrs["notes"]
    assert note["text"] == "MLP write / residual, B / A, and/or 3/4; from …, …, …, … Ask … about …."


def test_prompts_of_imported_files_are_numbered_wherever_they_are_named() -> None:
    result = next(iter(EVERY["anomalies"]())).copy(deep=True)
    result.attrs["sources"][0]["source"] = names.IMPORTED
    public = published_result(result, names.PROVENANCE)
    assert public["findings/prompt_id"].values.tolist() == [str(result["findings/prompt"].values[0])]
    assert "neutral-7" not in " ".join(texts(public))
    assert "myself" in public["findings/token"].values[0]


def test_sizes_of_columns_of_weights_stay_away_for_a_private_model() -> None:
    result = results("diff")[0]
    assert "column_norm_a" in published_result(result, names.NO_TEXT)["neurons"]
    held = [str(name) for node in published_result(result, names.NO_TEXT, private_model=True).subtree for name in node]
    assert [name for name in held if name.startswith("column_norm") or name.startswith("column_most")] == []


def test_what_was_published_is_not_published_again() -> None:
    (result,) = results("lint")
    with pytest.raises(InputError, match="published before, at the level no-text"):
        published_result(published_result(result, names.NO_TEXT), names.PROVENANCE)


def test_of_a_contrast_its_classes_go_out_as_means_of_its_trace_and_of_others_nothing(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.trace", tmp_path / "other.trace"
    sizes = {"prompts": 90, "layers": 2, "d_model": 8, "d_ff": 16, "heads": 2, "record": ["norms"]}
    trace = stratoscope.simulate(mine, **sizes)
    stratoscope.simulate(other, **sizes, seed=1)
    contrast = tmp_path / "contrast"
    contrast.mkdir()
    store_result(stratoscope.contrast(trace, b="critical", quantity="mlp_write_cos", permutations=99), contrast)
    with pytest.raises(InputError, match="--trace TRACE"):
        stratoscope.publish(contrast, tmp_path / "out")
    with pytest.raises(InputError, match="is not the trace of this contrast"):
        stratoscope.publish(contrast, tmp_path / "out", trace=other)
    found = stratoscope.open_result(stratoscope.publish(contrast, tmp_path / "out", trace=mine).out)
    assert found.attrs["kind"] == "profiles"
    assert found.attrs["parameters"]["quantity"] == ["mlp_write_cos"]
    assert found["classes/prompt_class"].values.tolist() == ["neutral", "critical"]
    for kind in ("diff", "anomalies", "suppression"):
        with pytest.raises(InputError, match="about single prompts"):
            compared_classes(results(kind)[0])
