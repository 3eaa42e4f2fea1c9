"""The verb and the command `publish`: what they refuse, in one line and with nothing written, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

import stratoscope
from stratoscope import defaults
from stratoscope.doors.cli import app
from stratoscope.errors import StratoscopeError
from stratoscope.publish.explained import explained
from stratoscope.publish.inputs import kind_of
from stratoscope.publish.levels import PROMISES
from stratoscope.publish.publish import explain_publication
from stratoscope.publish.tokens.traces import published_trace, told
from stratoscope.trace.write.from_dataset import write_dataset

ONE = "mlp_write_ratio"  # quantity: of more, the figures cost time


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `mine.trace`, and `one.csv` of one of its prompts."""
    folder = tmp_path_factory.mktemp("mine")
    trace = stratoscope.simulate(folder / "mine.trace", prompts=4, layers=3, d_model=16, d_ff=32, heads=2)
    stratoscope.export_csv(trace, folder / "one.csv", prompt=0)
    return folder


def _refused(source: Path, out: Path, **options: object) -> str:
    """What is said, in one line, while nothing is written."""
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(StratoscopeError) as error:
        stratoscope.publish(source, out, **options)  # type: ignore[arg-type]
    assert sorted(path.name for path in out.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_offered_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    said = _refused(folder / "mine.trace", tmp_path / "p.trace", level="coarse")
    assert "no level 'coarse'" in said
    assert "80 %" in said
    assert "Did you mean no-text?" in _refused(folder / "mine.trace", tmp_path / "p.trace", level="notext")


def test_an_output_in_around_or_at_the_original_is_refused(folder: Path) -> None:
    trace = folder / "mine.trace"
    for out in (trace, trace / "public.trace", folder):
        assert "what is published" in _refused(trace, out, level="no-text", overwrite=True)


def test_what_was_published_without_text_is_not_published_again(folder: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.trace"
    stratoscope.publish(folder / "mine.trace", public, level="no-text")
    assert "does not come back" in _refused(public, tmp_path / "b.trace", level="provenance")
    assert "Copy it" in _refused(public, tmp_path / "b.trace", level="no-text")
    assert "which of its prompts are alike" in _refused(public, tmp_path / "b.trace", level="aggregate")


def test_what_was_published_with_text_may_lose_it_later(folder: Path, tmp_path: Path) -> None:
    stratoscope.publish(folder / "mine.trace", tmp_path / "a.trace", level="provenance")
    done = stratoscope.publish(tmp_path / "a.trace", tmp_path / "b.trace", level="no-text")
    assert stratoscope.open_trace(done.out).attrs["published"]["level"] == "no-text"


def test_an_output_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    stratoscope.publish(folder / "mine.trace", tmp_path / "a.trace", level="no-text")
    uuid = stratoscope.open_trace(tmp_path / "a.trace").attrs["uuid"]
    _refused(folder / "mine.trace", tmp_path / "a.trace", level="no-text")
    assert stratoscope.open_trace(tmp_path / "a.trace").attrs["uuid"] == uuid
    stratoscope.publish(folder / "mine.trace", tmp_path / "a.trace", level="no-text", overwrite=True)
    assert stratoscope.open_trace(tmp_path / "a.trace").attrs["uuid"] != uuid


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.bin", b"\x89PNG\r\n\x1a\nmore", "picture"),
        ("b.txt", b"%PDF-1.4", "picture"),
        ("c", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "picture"),
        ("d", b"<!DOCTYPE html><html><svg></svg></html>", "page"),
        ("e", b"Token_Pos,Token,Layer\n", "csv"),
    ],
)
def test_a_file_is_known_by_what_is_in_it(name: str, content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02,;", b"just words\n"])
def test_what_is_not_ours_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "empty").mkdir()
    for name in ("x", "empty"):
        assert "nothing that Stratoscope made" in _refused(tmp_path / name, tmp_path / "p.trace", level="no-text")
    assert "does not exist" in _refused(tmp_path / "absent", tmp_path / "p.trace", level="no-text")


def test_a_table_without_text_is_imported_again_with_the_same_values(folder: Path, tmp_path: Path) -> None:
    stratoscope.publish(folder / "one.csv", tmp_path / "p.csv", level="no-text")
    before, after = (stratoscope.import_csv(path) for path in (folder / "one.csv", tmp_path / "p.csv"))
    xr.testing.assert_equal(after["imported_norm"], before["imported_norm"])
    assert after["row_neuron"].values.tolist() == before["row_neuron"].values.tolist()
    assert [*after["text"].values[:2]] == ["#0", "#1"]
    assert [after[f"column_{place}"].attrs["column"] for place in (0, 1)] == ["Peak_Value", "Write_Norm"]
    assert [*after["column_0"].values] == [*before["column_0"].values]


def test_further_columns_of_a_table_do_not_go_out(tmp_path: Path) -> None:
    header = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm"
    (tmp_path / "a.csv").write_text(f"{header},Who,Peak_Value\n0,The,5,17,0.5,Ada,Ada again\n")
    stratoscope.publish(tmp_path / "a.csv", tmp_path / "p.csv", level="provenance")
    assert (tmp_path / "p.csv").read_text("utf-8") == f"{header}\n0,The,5,17,0.5\n"


def test_a_private_model_keeps_its_write_norms(folder: Path, tmp_path: Path) -> None:
    stratoscope.publish(folder / "one.csv", tmp_path / "p.csv", level="provenance", private_model=True)
    assert (tmp_path / "p.csv").read_text("utf-8").splitlines()[0].endswith("Activation_Norm,Peak_Value")


@pytest.fixture
def many(simulated: xr.Dataset, tmp_path: Path) -> Path:
    """A trace of enough prompts for every level, with nothing published of it."""
    write_dataset(simulated, tmp_path / "many.trace")
    return tmp_path / "many.trace"


def test_without_a_level_means_of_classes_go_out_as_a_result(many: Path) -> None:
    done = stratoscope.publish(many, many.with_name("public"), quantity=ONE)
    assert (done.kind, done.level) == ("result", "aggregate")
    result = stratoscope.open_result(done.out)
    assert result["profiles/mlp_write_ratio/mean"].shape == (2, 4)
    assert "about 40 prompts" in done.told[0]
    assert many.with_name("many.published.jsonl").exists()


def test_the_same_prompts_are_not_averaged_twice(many: Path) -> None:
    stratoscope.publish(many, many.with_name("public"), quantity=ONE)
    said = _refused(many, many.with_name("again"))
    assert "--allow-overlap" in said
    done = stratoscope.publish(many, many.with_name("again"), allow_overlap=True, quantity=ONE)
    assert any("same prompts" in sentence for sentence in done.told)


def test_classes_that_share_no_prompt_are_published_one_after_the_other(many: Path) -> None:
    for number, name in enumerate(("critical", "neutral")):
        done = stratoscope.publish(many, many.with_name(str(number)), prompt_class=name, quantity=ONE)
        assert [*stratoscope.open_result(done.out)["classes"]["prompt_class"].values] == [name]


def test_a_private_publication_says_its_numbers(many: Path) -> None:
    pytest.importorskip("opendp")
    done = stratoscope.publish(many, many.with_name("public"), level="private", epsilon=4.0)
    assert "ε = 4" in done.promise
    assert "predicted signal-to-noise" in done.told[0]
    assert PROMISES["private"] != stratoscope.open_result(done.out).attrs["published"]["promise"] == done.promise


def test_too_few_prompts_are_refused_with_their_counts(folder: Path, tmp_path: Path) -> None:
    assert "has 2 prompts" in _refused(folder / "mine.trace", tmp_path / "p")


def test_an_option_that_would_do_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "says nothing at the level no-text" in _refused(
        folder / "mine.trace", tmp_path / "p", level="no-text", neurons=True
    )
    assert "centre" in _refused(folder / "mine.trace", tmp_path / "p", centre="x")
    for epsilon in (0.5, defaults.EPSILON):  # who says it, be it the default, expects noise
        assert "says nothing at the level aggregate" in _refused(folder / "mine.trace", tmp_path / "p", epsilon=epsilon)


def test_what_names_a_private_model_is_not_in_its_means(many: Path) -> None:
    done = stratoscope.publish(many, many.with_name("public"), private_model=True, quantity=ONE)
    assert not {"name", "revision", "weights_sha256"} & {*stratoscope.open_result(done.out).attrs["summary"]["model"]}


def test_every_name_of_the_original_is_explained_once(simulated: xr.Dataset) -> None:
    found = explained(simulated, published_trace(simulated, "no-text"), "no-text")
    assert [row.name for row in found.rows] == told(simulated)
    assert all(row.why for row in found.rows)
    what = {row.name: row.what for row in found.rows}
    assert (what["text"], what["peak_neuron"], what["uuid"]) == ("left out", "published", "left out")
    assert found.classes == ("critical", "neutral")


def test_before_anything_is_averaged_it_is_said_what_would_be(folder: Path) -> None:
    found = {row.name: row.what for row in explain_publication(folder / "mine.trace", level="aggregate").rows}
    assert (found["mlp_write_ratio"], found["peak_neuron"], found["text"]) == ("averaged", "left out", "left out")


def test_it_is_said_beforehand_of_what_no_means_are_published_and_what_would_be_refused(
    folder: Path, simulated: xr.Dataset, tmp_path: Path
) -> None:
    few = explain_publication(folder / "mine.trace")
    assert "2 prompts that differ" in few.refused
    assert "reads them back" in few.refused  # no advice to publish more without what that gives away
    write_dataset(simulated, tmp_path / "enough.trace")
    enough = explain_publication(tmp_path / "enough.trace")
    what = {row.name: row.what for row in enough.rows}
    assert enough.refused == ""
    assert (what["mlp_write_ratio"], what["resid_cos"], what["prompt_mean"]) == ("averaged", "left out", "left out")


def test_names_that_go_out_as_they_are_are_told(folder: Path, tmp_path: Path) -> None:
    whole = " ".join(stratoscope.publish(folder / "mine.trace", tmp_path / "a.trace", level="provenance").told)
    assert "ids of prompts are published as they are: critical-1, neutral-1, critical-2 and 1 more" in whole
    textless = " ".join(stratoscope.publish(folder / "mine.trace", tmp_path / "b.trace", level="no-text").told)
    assert "names of classes are published as they are: critical, neutral." in textless
    assert "ids of prompts" not in textless


def test_a_dataset_is_not_taken_for_a_list_of_paths(simulated: xr.Dataset, tmp_path: Path) -> None:
    assert "Write it to a file first" in _refused(simulated, tmp_path / "p.trace")  # type: ignore[arg-type]


def test_the_command_explains_publishes_and_says_what_it_promises(folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    trace, out = str(folder / "mine.trace"), str(tmp_path / "p.trace")
    said = run.invoke(app, ["publish", trace, "--level", "no-text", "--explain"])
    assert said.exit_code == 0
    assert PROMISES["no-text"] in said.output
    assert not Path(out).exists()
    as_json = json.loads(run.invoke(app, ["publish", trace, "--level", "no-text", "--explain", "--json"]).output)
    assert {"name": "text", "what": "left out", "why": "is the text"} in as_json["rows"]
    assert run.invoke(app, ["publish", trace, "--level", "no-text"]).exit_code == 2  # no output
    done = run.invoke(app, ["publish", trace, "--level", "no-text", "-o", out])
    assert done.exit_code == 0, done.output
    assert PROMISES["no-text"] in done.output
    assert "peak_write" in done.output  # from which columns of the weights follow
