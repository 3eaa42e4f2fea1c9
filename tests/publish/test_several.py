"""Results, pictures, and several inputs together: what is published of each, and that all appear or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import xarray as xr

import stratoscope
from stratoscope.errors import StratoscopeError
from stratoscope.names import Level
from stratoscope.publish.ledger.ledger import ENDING
from stratoscope.publish.publish import explain_publication
from stratoscope.trace.write.from_dataset import write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, two of its pictures, a table, a result, and files that are not ours."""
    folder = tmp_path_factory.mktemp("made") / "quentin"
    folder.mkdir()
    trace = stratoscope.simulate(folder / "quentin.trace", prompts=4, layers=3, d_model=16, d_ff=32, heads=2)
    stratoscope.heatmap(trace, folder / "quentin-heatmap.png", prompt=0)
    stratoscope.engagement(trace, folder / "quentin-engagement.svg", prompt=0)
    stratoscope.export_csv(trace, folder / "quentin.csv", prompt=0)
    stratoscope.save_result(stratoscope.anomalies(trace), folder / "results")
    (folder / "notes.txt").write_text("by Quentin\n")
    (folder / "other.png").write_bytes(b"\x89PNG\r\n\x1a\nnot ours")
    (folder / "link.png").symlink_to(folder / "quentin-heatmap.png")
    return folder


@pytest.fixture
def elsewhere(made: Path, tmp_path: Path) -> Path:
    return tmp_path / "public"


def test_a_folder_is_published_under_names_that_say_nothing(made: Path, elsewhere: Path) -> None:
    done = stratoscope.publish(made, elsewhere, level="no-text")
    names = {path.name for path in elsewhere.iterdir()}
    assert names == {"trace-1.trace", "picture-1.svg", "picture-2.png", "csv-1.csv", "result-1"}
    assert "quentin.trace is published as trace-1.trace." in done.told
    left_out = " ".join(sentence for sentence in done.told if sentence.startswith("Not published"))
    assert all(name in left_out for name in ("notes.txt", "other.png", "link.png"))
    assert ENDING not in left_out
    plain = [path for path in elsewhere.rglob("*") if path.is_file() and path.suffix in (".svg", ".csv", ".json")]
    assert [path.name for path in plain if b"quentin" in path.read_bytes().lower()] == []


def test_one_that_is_named_and_cannot_be_published_stops_all(made: Path, elsewhere: Path) -> None:
    with pytest.raises(StratoscopeError, match="other"):
        stratoscope.publish(
            [made / "quentin.csv", made / "other.png"], elsewhere, level="no-text", trace=made / "quentin.trace"
        )
    assert not elsewhere.exists()
    assert [*elsewhere.parent.iterdir()] == []


def test_an_input_given_twice_is_refused(made: Path, elsewhere: Path) -> None:
    with pytest.raises(StratoscopeError, match="given twice"):
        stratoscope.publish([made / "quentin.csv", made / "." / "quentin.csv"], elsewhere, level="no-text")


def test_the_prompts_of_a_result_are_noted_where_its_trace_is_given(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "quentin.trace", tmp_path / "quentin.trace")
    for traces, told in ((None, 1), (tmp_path / "quentin.trace", 0)):
        out = tmp_path / f"{told}"
        assert len(stratoscope.publish(made / "results", out, level="no-text", trace=traces).told) == told
        assert [*tmp_path.glob(f"*{ENDING}")] == [tmp_path / f"quentin{ENDING}"] * (1 - told)


def test_nothing_is_left_of_a_folder_that_could_not_be_written(
    made: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stratoscope.view.report.save._fill", full)
    with pytest.raises(StratoscopeError, match="No space left"):
        stratoscope.publish([made / "quentin.csv", made / "results"], elsewhere, level="no-text")
    assert [*elsewhere.parent.iterdir()] == []


def test_a_folder_that_is_there_is_not_filled(made: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    with pytest.raises(StratoscopeError, match="already exists"):
        stratoscope.publish(made, elsewhere, level="no-text", overwrite=True)


def test_a_picture_is_drawn_again_of_the_trace_that_it_was_drawn_of(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.trace"
    stratoscope.simulate(other, prompts=2, layers=2, d_model=16, d_ff=32, heads=2)
    picture, traces = made / "quentin-heatmap.png", [other, made / "quentin.trace"]
    assert stratoscope.publish(picture, tmp_path / "p.png", level="no-text", trace=traces).told == (
        "The names of classes are published as they are: critical, neutral.",
    )
    with pytest.raises(StratoscopeError, match="not drawn of this trace"):
        stratoscope.publish(picture, tmp_path / "q.png", level="no-text", trace=other)
    with pytest.raises(StratoscopeError, match="only drawn anew"):
        stratoscope.publish(picture, tmp_path / "q.png", level="no-text")
    kept, unknown = stratoscope.publish(picture, tmp_path / "q.png", level="provenance").told
    assert "The picture itself is as it was" in kept
    assert "--trace" in unknown


def test_a_result_is_published_with_its_tokens_or_not_at_all(made: Path, tmp_path: Path) -> None:
    done = stratoscope.publish(made / "results", tmp_path / "p", level="no-text")
    assert stratoscope.open_result(done.out).attrs["published"]["level"] == "no-text"
    with pytest.raises(StratoscopeError, match="about single prompts"):
        stratoscope.publish(made / "results", tmp_path / "q")
    with pytest.raises(StratoscopeError, match="published already"):
        stratoscope.publish(done.out, tmp_path / "q", level="provenance")


def test_a_result_of_prompts_that_were_published_as_means_is_refused_with_their_trace(
    simulated: xr.Dataset, tmp_path: Path
) -> None:
    trace = tmp_path / "run.trace"
    write_dataset(simulated, trace)
    stratoscope.save_result(stratoscope.anomalies(stratoscope.open_trace(trace)), tmp_path / "run.report")
    stratoscope.publish(trace, tmp_path / "means")
    with pytest.raises(StratoscopeError, match="were published at aggregate"):
        stratoscope.publish(tmp_path / "run.report", tmp_path / "public", level="no-text", trace=trace)
    (unknown,) = stratoscope.publish(tmp_path / "run.report", tmp_path / "public", level="no-text").told
    assert "--trace" in unknown


def test_noise_is_not_drawn_twice_for_the_same_prompts(simulated: xr.Dataset, tmp_path: Path) -> None:
    write_dataset(simulated, tmp_path / "many.trace")
    stratoscope.heatmap(tmp_path / "many.trace", tmp_path / "many.png", prompt=0, quantity="mlp_write_ratio")
    with pytest.raises(StratoscopeError, match="each costs ε"):
        stratoscope.publish([tmp_path / "many.trace", tmp_path / "many.png"], tmp_path / "public", level="private")
    assert not (tmp_path / "public").exists()
    assert not (tmp_path / f"many{ENDING}").exists()


@pytest.mark.parametrize("level", ["aggregate", "private"])
def test_one_prompt_in_two_folders_is_not_published_twice_in_one_go(
    simulated: xr.Dataset, tmp_path: Path, level: Level
) -> None:
    """No ledger knows of either yet: a promise for one would have been made for both."""
    traces = [tmp_path / name / f"{name}.trace" for name in ("one", "two")]
    for trace in traces:
        trace.parent.mkdir()
        write_dataset(simulated, trace)
    with pytest.raises(StratoscopeError, match="prompts are in"):
        stratoscope.publish(traces, tmp_path / "public", level=level)
    assert [*tmp_path.rglob(f"*{ENDING}"), *tmp_path.glob("public")] == []
    told = " ".join(stratoscope.publish(traces, tmp_path / "public", level=level, allow_overlap=True).told)
    assert {"aggregate": "Both are of the same prompts", "private": "together ε = 2"}[level] in told


def test_of_a_result_and_a_picture_it_is_said_what_would_go_out(made: Path) -> None:
    result = explain_publication(made / "results", level="no-text")
    why = {row.name: row.why for row in result.rows}
    assert why["usual.words"].startswith("rewritten")
    assert why["usual.ratio"].startswith("a column of numbers")
    picture = explain_publication(made / "quentin-heatmap.png", level="no-text", trace=made / "quentin.trace")
    what = {row.name: row.what for row in picture.rows}
    assert (what["provenance.uuid"], what["drawn_by.verb"]) == ("left out", "published")
    with pytest.raises(StratoscopeError, match="only drawn anew"):
        explain_publication(made / "quentin-heatmap.png", level="no-text")
