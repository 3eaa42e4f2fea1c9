"""A published trace: what it holds, what it does not, and that every verb still takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.names import NO_TEXT, PROVENANCE, Level
from stratoscope.publish.fields import OF_WEIGHTS
from stratoscope.publish.levels import PROMISES
from stratoscope.publish.tokens.traces import published_trace, told, write_published
from stratoscope.trace.info.facts import info_text
from stratoscope.trace.labels import object_array

MARK = "Zarathustra"  # in whatever somebody may have written into a trace


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A trace of every group on disk, with a marker wherever a person or a program may have put a word."""
    trace = stratoscope.simulate(prompts=4, layers=3, d_model=16, d_ff=32, heads=2, record=names.RECORD_GROUPS)
    marked = {name: trace[name].astype(object).copy() for name in ("prompt_id", "prompt_class", "pair", "group")}
    marked["prompt_id"][0], marked["prompt_class"][:2] = f"/home/{MARK}/a", f"{MARK}@example.org"
    marked["pair"][0] = marked["group"][0] = MARK
    trace = trace.assign_coords(marked)
    texts = object_array([*trace["text"].values[:-1], MARK])
    trace = trace.assign_coords(text=xr.Variable(("token",), texts, fastpath=True))
    attrs = {
        "model": {**trace.attrs["model"], "name": MARK, "device": MARK, "owner": MARK, "files": {"path": MARK}},
        "tokenizer": {"chat_template": MARK, "bos_token": MARK, "sha256": MARK},
        "plan": {
            **trace.attrs["plan"],
            "prompts_sha256": MARK,
            "answer_prefix": MARK,
            "date": MARK,
            "lens_file": {"kind": "jacobian", "corpora": [{"name": MARK}], "sha256": MARK},
            "owner": [{"name": MARK}],
        },
        "receipt": {"receipt_line": MARK, "limits": [MARK], "checks": [MARK], "probe_prompts": [MARK], "batches": 1,
                    "replays": [{"replay": "same batch", "prompts": [MARK], "largest_differences": {MARK: 1.0}}],
                    "calibration": {"asked": 4, "prompts": [MARK], "samples": {"prompt": [MARK]}}},
        "notes": [{"id": "L26", "severity": "warning", "text": MARK}, {"id": MARK, "severity": MARK, "text": MARK}],
        "software": {"stratoscope": "0.1.0", "kernels": f"none: {MARK}", MARK: "1.0"},
        "planted": [{"kind": "sink", "layer": 1, "measure": MARK, "prompt": MARK}],
        "remarks": MARK,
        MARK: 1,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("original") / "original.trace"
    from stratoscope.trace.write.from_dataset import write_dataset

    write_dataset(trace.assign_attrs(attrs), path)
    return stratoscope.open_trace(path)


@pytest.fixture(scope="module")
def published(original: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Level], xr.Dataset]:
    """The same at a level, from disk."""
    folder, made = tmp_path_factory.mktemp("published"), dict[str, xr.Dataset]()

    def at(level: Level) -> xr.Dataset:
        if level not in made:
            write_published(published_trace(original, level), folder / f"{level}.trace")
            made[level] = stratoscope.open_trace(folder / f"{level}.trace")
        return made[level]

    return at


def _everything(trace: xr.Dataset) -> str:
    """Every word of a trace on disk: its documents, and its text columns unpacked."""
    root = Path(trace.encoding["source"])
    documents = [path.read_text("utf-8") for path in root.rglob("zarr.json")]
    columns = [str(trace[name].values.tolist()) for name in trace.variables if trace[name].dtype.kind in "OUT"]
    return "\n".join([*documents, *columns, *(path.name for path in root.rglob("*"))])


def test_no_word_of_the_original_is_in_a_trace_without_text(
    original: xr.Dataset, published: Callable[[Level], xr.Dataset]
) -> None:
    assert _everything(original).count(MARK) >= 30  # the markers are found where they are
    there = published(NO_TEXT)
    assert MARK not in _everything(there)
    assert {*there["text"].values} == {""}
    assert {*there["token_id"].values} == {*there["span"].values} == {-1}
    assert [*there["prompt_id"].values] == ["0", "1", "2", "3"]
    assert {*there["pair"].values, *there["group"].values} == {""}
    assert "token_texts" not in there.attrs
    assert not {"lens_token", "write_token", "target_token"} & {*map(str, there.variables)}


def test_provenance_keeps_the_text_and_nothing_of_who_and_where(
    original: xr.Dataset, published: Callable[[Level], xr.Dataset]
) -> None:
    there = published(PROVENANCE)
    assert [*there["text"].values] == [*original["text"].values]
    left = json.dumps(
        {key: value for key, value in there.attrs.items() if key not in ("tokenizer", "plan", "token_texts")}
    )
    assert MARK not in left
    assert MARK not in " ".join([*there["prompt_id"].values, *there["prompt_class"].values])
    assert there.attrs["tokenizer"] == {"chat_template": MARK, "bos_token": MARK}
    assert there.attrs["plan"]["answer_prefix"] == MARK  # it is text
    assert MARK not in json.dumps({**there.attrs["plan"], "answer_prefix": ""})


def test_the_chat_template_goes_when_it_is_asked(original: xr.Dataset) -> None:
    assert "chat_template" not in published_trace(original, PROVENANCE, chat_template=False).attrs["tokenizer"]


@pytest.mark.parametrize("level", [PROVENANCE, NO_TEXT])
def test_every_number_that_is_kept_is_the_number_that_was_recorded(
    level: Level, original: xr.Dataset, published: Callable[[Level], xr.Dataset]
) -> None:
    there = published(level)
    held = [*map(str, there.data_vars)]
    assert len(held) > 60
    for name in held:
        np.testing.assert_array_equal(there[name].values, original[name].values, err_msg=name)


@pytest.mark.parametrize("level", [PROVENANCE, NO_TEXT])
def test_nothing_of_the_store_itself_is_copied(
    level: Level, original: xr.Dataset, published: Callable[[Level], xr.Dataset]
) -> None:
    there = published(level).attrs
    assert there["uuid"] != original.attrs["uuid"]
    assert not {"created", "finished", "resumed", "merged"} & {*there}
    assert there["published"]["level"] == level
    assert there["published"]["promise"] == PROMISES[level]
    assert there["source"] == names.SIMULATED
    assert there["recording_sha256"] != original.attrs["recording_sha256"]


def test_notes_keep_their_line_and_lose_their_words(published: Callable[[Level], xr.Dataset]) -> None:
    (note,) = published(NO_TEXT).attrs["notes"]
    assert (note["id"], note["severity"]) == ("L26", "warning")


def test_every_picture_and_info_say_the_promise(published: Callable[[Level], xr.Dataset]) -> None:
    from stratoscope.trace.notes import notes_of

    trace = published(NO_TEXT)
    assert any(PROMISES[NO_TEXT] in note.text for note in notes_of(trace))
    assert "published         at the level no-text" in info_text(stratoscope.info(trace))


def test_tokens_without_text_are_called_by_their_place(published: Callable[[Level], xr.Dataset]) -> None:
    from stratoscope.trace.prompts import Prompts

    assert Prompts(published(NO_TEXT)).words(slice(0, 3)) == ("#0", "#1", "#2")


@pytest.mark.parametrize("verb", ["heatmap", "engagement"])
def test_a_trace_without_text_is_drawn(verb: str, published: Callable[[Level], xr.Dataset]) -> None:
    figure = getattr(stratoscope, verb)(published(NO_TEXT), prompt=[0])
    words = " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))
    assert "#" in words
    assert "Published at the level no-text" in words
    assert MARK not in words


def test_of_tokens_without_text_nobody_says_that_they_are_equal(published: Callable[[Level], xr.Dataset]) -> None:
    trace = published(NO_TEXT)
    with pytest.raises(InputError, match="cannot be told apart"):
        stratoscope.compare(trace, prompt=[0, 1])
    classes = [*dict.fromkeys(map(str, trace["prompt_class"].values))][:2]
    figure = stratoscope.compare(trace, prompt_class=classes, quantity="mlp_write_ratio")
    words = " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))
    assert "Published at the level no-text" in words


def test_a_lens_is_not_asked_to_be_recorded_again(published: Callable[[Level], xr.Dataset]) -> None:
    for verb in (stratoscope.lens, stratoscope.suppression):
        with pytest.raises(InputError, match="take the original"):
            verb(published(NO_TEXT))  # type: ignore[operator]


def test_a_private_model_loses_what_its_weights_can_be_solved_from(original: xr.Dataset) -> None:
    public = published_trace(original, NO_TEXT, private_model=True)
    assert {*OF_WEIGHTS} & {*told(original)} >= {"peak_write", "neuron_logit", "neurons"}
    assert not {*OF_WEIGHTS} & {*told(public)}
    assert "name" not in public.attrs["model"]


def test_an_array_that_nobody_knows_does_not_go_out(original: xr.Dataset) -> None:
    public = published_trace(original.assign(secret=("token", np.zeros(original.sizes["token"]))), PROVENANCE)
    assert "secret" not in public


def test_names_of_imported_files_do_not_go_out(tmp_path: Path) -> None:
    file = tmp_path / f"{MARK}.csv"
    file.write_text(f"Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Remark\n0,The,5,17,0.5,{MARK}\n")
    write_published(published_trace(stratoscope.import_csv(file), PROVENANCE), tmp_path / "p.trace")
    there = stratoscope.open_trace(tmp_path / "p.trace")
    assert MARK not in _everything(there)
    assert there["imported_norm"].values.tolist() == [0.5]
