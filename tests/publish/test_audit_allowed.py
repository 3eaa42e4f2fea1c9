"""A written file may hold what its level lists and nothing else; whatever was put into it since is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import xarray as xr
from class_traces import different, trace_of

import stratoscope
from stratoscope.analysis.results.result import store_result
from stratoscope.publish.audit.allowed.allowed import unlisted
from stratoscope.publish.audit.audit import audit
from stratoscope.publish.audit.outcome import NOT_FOUND
from stratoscope.publish.audit.search.files import kind_of
from stratoscope.publish.pictures.files import public_picture
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.write.from_dataset import write_dataset


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an original, and what is published of it without text."""
    folder = tmp_path_factory.mktemp("published")
    write_dataset(trace_of(different(3), ["a", "a", "b"]), folder / "mine.trace")
    stratoscope.publish(folder / "mine.trace", folder / "public.trace", level="no-text")
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published / "public.trace", tmp_path / "public.trace")
    return tmp_path / "public.trace"


@pytest.fixture(scope="session")
def profiles(simulated: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of class profiles of one quantity."""
    folder = tmp_path_factory.mktemp("profiles") / "public"
    return stratoscope.save_result(class_profiles(simulated, quantities=["resid_norm"]), folder)


def told(path: Path, level: str = "no-text") -> str:
    return "\n".join(one.what for one in unlisted(path, kind_of(path), level))


@pytest.mark.parametrize("level", ["provenance", "no-text"])
def test_a_published_trace_holds_nothing_else_and_nothing_is_found_in_it(published: Path, level: str) -> None:
    out = published / f"{level}.trace"
    stratoscope.publish(published / "mine.trace", out, level=level)
    assert audit(out, original=published / "mine.trace").last_line == NOT_FOUND


def test_on_how_many_prompts_effects_were_calibrated_may_be_said_but_not_on_which(tmp_path: Path) -> None:
    original = trace_of(different(3), ["a", "a", "b"])
    calibration = {"asked": 4, "prompts": ["prompt-of-mine", "another-of-mine"]}
    write_dataset(original.assign_attrs(receipt={"calibration": calibration}), tmp_path / "mine.trace")
    out = stratoscope.publish(tmp_path / "mine.trace", tmp_path / "public.trace", level="no-text").out
    assert stratoscope.open_trace(out).attrs["receipt"]["calibration"]["prompts"] == ["0", "1"]
    assert told(out) == ""
    document = out / "zarr.json"
    said = document.read_text()
    assert '"1"' in said
    document.write_text(said.replace('"1"', '"mine"'))
    assert "calibration.prompts" in told(out)


def test_a_level_with_text_is_not_one_without(published: Path) -> None:
    out = published / "text.trace"
    stratoscope.publish(published / "mine.trace", out, level="provenance")
    assert "'text' is not empty" in told(out)
    assert "'prompt_id' is not empty" in told(out)
    assert told(out, "aggregate").startswith("it has a row for every token")


def test_files_that_are_no_part_of_a_trace_are_told(copy: Path) -> None:
    (copy / "notes.txt").write_text("x")
    (copy / "mlp_write_ratio" / "c.0.0.old").write_text("x")
    (copy / "left").mkdir()
    assert told(copy).count("it is no part of the") == 3


def test_what_hides_beside_the_chunks_of_an_array_is_told(copy: Path) -> None:
    folder = copy / "mlp_write_ratio"
    (folder / "c.99.0").write_text("quokka")
    with (folder / "c.0.0").open("ab") as file:
        file.write(b"quokka")
    document = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps(document | {"comment": "quokka"}))
    assert told(copy).splitlines() == [
        "it holds more, or other, than the part of the array that was written there",
        "it is no part of the array",
        "it says something else than the root document",
    ]


def test_a_clean_trace_of_an_older_format_with_bits_in_place_of_numbers_is_no_finding(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "archive" / "v1.2" / "trace", tmp_path / "old.trace")
    stratoscope.publish(tmp_path / "old.trace", tmp_path / "public.trace", level="no-text")
    assert told(tmp_path / "public.trace") == ""


def test_prompts_of_a_calibration_may_be_counted_and_not_named(copy: Path) -> None:
    for prompts, allowed in ((["0", "1"], True), (["0", "kalimba"], False)):
        named = told(edited(copy, "attributes/receipt", {"calibration": {"prompts": prompts}}))
        assert ("receipt.calibration.prompts" not in named) is allowed


@pytest.mark.parametrize("part", ["report.html", "table.csv", "figures/profiles.svg", "figures/more.png"])
def test_what_stands_beside_a_result_and_is_not_made_of_it_is_told(profiles: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(profiles, tmp_path / "public")
    assert told(tmp_path / "public", "aggregate") == ""
    with (tmp_path / "public" / part).open("a") as file:
        file.write("<!-- quokka -->")
    assert len(told(tmp_path / "public", "aggregate").splitlines()) == 1


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("summary", {"owner": "quokka"}),
        ("notes", [{"id": "L01", "severity": "info", "text": "for quokka"}]),
        ("published", {"level": "aggregate", "promise": "No prompt is shown.", "software": "stratoscope 1"}),
        ("owner", "ann"),
    ],
)
def test_what_a_result_says_beyond_what_is_written_is_told(
    simulated: xr.Dataset, tmp_path: Path, part: str, value: object
) -> None:
    result = class_profiles(simulated)
    held = result.attrs.get(part)
    result.attrs[part] = held | value if isinstance(held, dict) and part == "summary" else value
    store_result(result, tmp_path)
    assert len(told(tmp_path, "aggregate").splitlines()) == 1


def edited(copy: Path, edit: str, value: object) -> Path:
    document = json.loads((copy / "zarr.json").read_text())
    *path, last = edit.split("/")
    inner = document
    for key in path:
        inner = inner[key]
    inner[last] = value
    (copy / "zarr.json").write_text(json.dumps(document))
    return copy


@pytest.mark.parametrize(
    ("edit", "value", "words"),
    [
        ("attributes/owner", "ann", "'owner' is not listed"),
        ("attributes/created", "2026-01-01", "'created' is not listed"),
        ("attributes/plan", {"prompts_sha256": "f00d"}, "'plan.prompts_sha256' is not listed"),
        ("attributes/model", {"architecture": "by ann, in a word of mine"}, "holds something else than is stated"),
        ("attributes/notes", [{"id": "L01", "severity": "info", "text": "for ann"}], "words that are not written here"),
        ("consolidated_metadata/metadata/layer/attributes/comment", "for ann", "says something of its own"),
    ],
)
def test_attributes_that_no_level_lists_are_told(copy: Path, edit: str, value: object, words: str) -> None:
    assert words in told(edited(copy, edit, value))


def test_a_trace_that_was_damaged_is_a_finding_and_no_end(copy: Path) -> None:
    (copy / "layer" / "c.0").write_bytes(b"")
    edited(copy, "attributes/owner", "ann")
    assert any("not as it was written" in one.what for one in audit(copy).findings)


def test_a_picture_with_more_in_it_than_is_written_is_told(published: Path, tmp_path: Path) -> None:
    stratoscope.heatmap(published / "mine.trace", tmp_path / "a.png", quantity="mlp_write_ratio")
    public = public_picture(tmp_path / "a.png", "provenance")
    public.write(tmp_path / "b.png", overwrite=False)
    assert audit(tmp_path / "b.png").last_line == NOT_FOUND
    with (tmp_path / "b.png").open("ab") as file:
        file.write(b"more")
    assert told(tmp_path / "b.png", "provenance")


def test_a_table_with_a_column_more_is_told(published: Path, tmp_path: Path) -> None:
    rows = ["Token_Pos,Token,Layer,Neuron_ID,Activation_Norm", "0,kalimba,0,1,0.5", "1,quokka,0,2,0.25"]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    stratoscope.publish(tmp_path / "a.csv", tmp_path / "b.csv", level="no-text")
    assert audit(tmp_path / "b.csv", original=tmp_path / "a.csv", level="no-text").last_line == NOT_FOUND
    lines = (tmp_path / "b.csv").read_text().splitlines()
    (tmp_path / "c.csv").write_text("\n".join(f"{line},{'Note' if not at else 'x'}" for at, line in enumerate(lines)))
    assert told(tmp_path / "c.csv")
    assert "a row for every token" in told(tmp_path / "b.csv", "aggregate")


def test_profiles_of_too_few_prompts_or_with_another_column_are_told(simulated: xr.Dataset, tmp_path: Path) -> None:
    result = class_profiles(simulated)
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    store_result(result, tmp_path / "good")
    assert told(tmp_path / "good", "aggregate") == ""
    result["classes"]["prompts"].values[:] = [12, 43]
    result["profiles/resid_norm"]["largest"] = result["profiles/resid_norm"]["mean"]
    store_result(result, tmp_path / "bad")
    words = told(tmp_path / "bad", "aggregate")
    assert "has 12 prompts, fewer than 20" in words
    assert "is not rounded" in words
    assert "'profiles/resid_norm/largest' is not listed" in words


def test_private_profiles_are_known_and_nothing_in_them_that_has_no_noise(
    simulated: xr.Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("opendp")
    result = private_profiles(Prompts(simulated).part(0, 46))  # 23 of each class: told, as replacing one keeps it
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    store_result(result, tmp_path / "good")
    assert told(tmp_path / "good", "private") == ""
    result["classes"]["tokens"] = result["classes"]["prompts"]
    store_result(result, tmp_path / "bad")
    assert "'classes/tokens' is not listed" in told(tmp_path / "bad", "private")
