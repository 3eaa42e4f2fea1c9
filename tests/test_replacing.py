"""What takes the place of something: the old or the new is there at every moment, and nothing else is lost."""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stratoscope
from stratoscope import disk, replacing
from stratoscope.analysis.results.result import make_result, store_result
from stratoscope.errors import InputError, StratoscopeError, TraceError
from stratoscope.replacing import new_files, write_whole
from stratoscope.trace.read.reader import open_trace, read_back
from stratoscope.view.report import save_result

SMALL = {"prompts": 4, "layers": 2, "d_model": 8, "d_ff": 16, "heads": 1, "tokens": 6, "top_k": 2}
HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trace, and a result of it."""
    folder = tmp_path_factory.mktemp("shared")
    stratoscope.simulate(folder / "t.trace", **SMALL)
    (folder / "r").mkdir()
    store_result(make_result("contrast", {}, sources=[], parameters={}, notes=[]), folder / "r")
    for name in ("report.html", "table.csv"):
        (folder / "r" / name).write_text("the old one")
    return folder


@pytest.fixture
def here(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trace, an import and a CSV file in it, where the test stands."""
    shutil.copytree(shared / "t.trace", tmp_path / "t.trace")
    (tmp_path / "given.csv").write_text(f"{HEADER}\n0,a,0,1,0.5\n1,b,1,2,0.25\n")
    stratoscope.import_csv(tmp_path / "given.csv", tmp_path / "i.trace")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- whatever cannot be right is refused before anything is lost ------------------------------------------------------


def csv_of(path: Path, rows: Iterator[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_an_import_that_could_not_be_opened_leaves_the_trace_that_is_there(here: Path) -> None:
    wide = csv_of(here / "wide.csv", (f"{number},a,{number},1,0.5" for number in range(10_001)))
    before = everything(here)
    with pytest.raises(TraceError, match=r"10,001 different layers, and a trace holds at most 10,000"):
        stratoscope.import_csv(wide, here / "t.trace", overwrite=True)
    assert everything(here) == before


@pytest.mark.parametrize(
    ("name", "rows", "header"),
    [
        ("huge neurons", ["0,a,0,2147483647,1", "0,a,0,0,1"], HEADER),
        ("negative layer", ["0,a,-1,1,1"], HEADER),
        ("extreme layers", ["0,a,2147483647,1,1", "0,a,-2147483648,1,1"], HEADER),
        ("too large a layer", ["0,a,2147483648,1,1"], HEADER),
        ("too large a neuron", ["0,a,0,2147483648,1"], HEADER),
        ("65 columns", ["0,a,0,1,1" + ",x" * 65], HEADER + "".join(f",c{number}" for number in range(65))),
        ("a long token", ["0," + "a" * 300_000 + ",0,1,1"], HEADER),
        ("a long column name", ["0,a,0,1,1,x"], HEADER + "," + "n" * 100_000),
        ("a far position", ["2147483647,a,0,1,1"], HEADER),
        ("not a number", ["0,a,0,1,nan", "0,a,0,2,inf"], HEADER),
        ("no rows", [], HEADER),
    ],
)
def test_what_is_imported_opens_and_is_equal_or_is_refused(
    tmp_path: Path, name: str, rows: list[str], header: str
) -> None:
    file, out = csv_of(tmp_path / "a.csv", iter(rows), header), tmp_path / "t"
    csv_of(tmp_path / "good.csv", iter(["0,b,0,1,0.5"]))
    stratoscope.import_csv(tmp_path / "good.csv", out)
    before = everything(out)
    try:
        trace = stratoscope.import_csv(file, out, overwrite=True)
    except StratoscopeError:
        assert everything(out) == before
    else:
        read_back(out)
        xr.testing.assert_equal(trace.load(), stratoscope.import_csv(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "good.csv", "t"]


INTEGERS = st.sampled_from([0, 1, 2, 7, -1, 9_999, 2**31 - 1, 2**31, -(2**31), 10**20])
CELLS = st.tuples(INTEGERS, st.text(max_size=6), INTEGERS, INTEGERS, st.floats(), st.text(max_size=3))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(CELLS, min_size=1, max_size=4), extra=st.integers(0, 3), tame=st.booleans())
def test_any_csv_gives_a_trace_that_opens_and_is_equal_or_leaves_the_one_that_is_there(
    tmp_path: Path, rows: list[tuple[Any, ...]], extra: int, tame: bool
) -> None:
    file, out = tmp_path / "a.csv", tmp_path / "t"
    with file.open("w", encoding="utf-8", errors="replace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*HEADER.split(","), *(f"c{number}" for number in range(extra))])
        for place, (position, token, layer, neuron, value, text) in enumerate(rows):
            numbers = (place, layer % 50, neuron % 50) if tame else (position, layer, neuron)
            writer.writerow([numbers[0], token, *numbers[1:], value, *([text] * extra)])
    if not out.exists():
        csv_of(tmp_path / "good.csv", iter(["0,b,0,1,0.5"]))
        stratoscope.import_csv(tmp_path / "good.csv", out)
    before = everything(out)
    try:
        trace = stratoscope.import_csv(file, out, overwrite=True)
    except StratoscopeError:
        assert everything(out) == before
    else:
        xr.testing.assert_equal(trace.load(), stratoscope.import_csv(file))
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "good.csv", "t"}


def test_a_trace_that_its_reader_refuses_does_not_take_the_place_of_another(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(here)

    def refuse(folder: Path) -> None:
        raise TraceError("has a chunk that cannot be unpacked", where=str(folder))

    monkeypatch.setattr("stratoscope.trace.write.writer.read_back", refuse)
    with pytest.raises(TraceError, match=r"could not be opened again, so it is not put there: has a chunk"):
        stratoscope.simulate(here / "t.trace", **SMALL, seed=1, overwrite=True)
    assert everything(here) == before


def test_attributes_that_no_reader_takes_are_refused_before_any_work(here: Path) -> None:
    trace = stratoscope.import_csv(here / "given.csv").assign_attrs(notes=[{"id": 3}])
    from stratoscope.trace.write.from_dataset import write_dataset

    before = everything(here)
    with pytest.raises(TraceError, match="its attribute 'notes' is not what it must be"):
        write_dataset(trace, here / "t.trace", overwrite=True)
    assert everything(here) == before


# --- an output that is an input ---------------------------------------------------------------------------------------


def links(path: Path) -> Iterator[Path]:
    """The same file by its other names."""
    yield path
    yield Path(os.path.relpath(path))
    (hard := path.with_name(f"hard{path.suffix}")).hardlink_to(path)
    yield hard
    (soft := path.with_name(f"soft{path.suffix}")).symlink_to(path)
    yield soft


@pytest.mark.parametrize("verb", [stratoscope.heatmap, stratoscope.peaks3d, stratoscope.engagement])
def test_a_picture_is_never_put_over_what_it_is_made_of(here: Path, verb: Callable[..., object]) -> None:
    given = (here / "given.csv").rename(here / ("given.html" if verb is stratoscope.peaks3d else "given.png"))
    names = list(links(given))
    before = everything(here)
    for name in names:
        with pytest.raises(InputError, match="is what it would be made of"):
            verb(str(given), name, overwrite=True)
    assert everything(here) == before


def test_the_csv_that_a_trace_was_imported_from_is_not_written_over(here: Path) -> None:
    names = list(links(here / "given.csv"))
    before = everything(here)
    for name in names:
        with pytest.raises(InputError, match="is the file that this trace was imported from"):
            stratoscope.export_csv(here / "i.trace", name, overwrite=True)
    assert everything(here) == before
    (here / "other.csv").write_text("another file")
    stratoscope.export_csv(here / "i.trace", here / "other.csv", overwrite=True)
    xr.testing.assert_equal(
        stratoscope.import_csv(here / "other.csv")["imported_norm"], open_trace(here / "i.trace")["imported_norm"]
    )


@pytest.mark.parametrize("verb", ["import", "simulate", "merge"])
def test_a_file_of_somebody_in_a_trace_keeps_it_from_being_replaced(here: Path, verb: str) -> None:
    inside = shutil.copy(here / "given.csv", here / "t.trace" / "mine.csv")
    (here / "t.trace" / "mlp_out_norm" / "link").symlink_to(here / "given.csv")
    before = everything(here)
    run = {
        "import": lambda: stratoscope.import_csv(inside, here / "t.trace", overwrite=True),
        "simulate": lambda: stratoscope.simulate(here / "t.trace", **SMALL, overwrite=True),
        "merge": lambda: stratoscope.merge([here / "i.trace"], here / "t.trace", overwrite=True),
    }[verb]
    with pytest.raises(TraceError, match="something that is not part of it"):
        run()
    assert everything(here) == before


def test_nothing_is_written_into_a_trace(here: Path) -> None:
    (here / "link").symlink_to(here / "t.trace")
    before = everything(here / "t.trace")
    for folder in (here / "t.trace", here / "link"):
        with pytest.raises(InputError, match="inside a trace"):
            stratoscope.export_csv(here / "t.trace", folder / "a.csv", prompt=0)
        with pytest.raises(InputError, match="inside a trace"):
            stratoscope.heatmap(here / "t.trace", folder / "a.png")
    assert everything(here / "t.trace") == before


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_a_result_is_the_old_or_the_new_one_at_every_moment(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(disk, "_renameat2", None)
    work, found = tmp_path / "work", []
    shutil.copytree(shared / "r", work / "r")
    new = stratoscope.open_result(work / "r").load()
    new.attrs["summary"] = {"of": "the new one"}
    monkeypatch.setattr(
        "stratoscope.view.report.save._fill",
        lambda folder, *_: shutil.copytree(tmp_path / "new", folder, dirs_exist_ok=True),
    )
    shutil.copytree(shared / "r", tmp_path / "new")
    (tmp_path / "new" / "report.html").write_text("the new one")
    monkeypatch.setattr("stratoscope.view.report.save.contents_of", lambda _: None)
    olds, news = everything(work / "r"), everything(tmp_path / "new")

    def snapshot(operation: str, path: Path) -> None:
        if operation != "fsync":
            found.append(shutil.copytree(work, tmp_path / str(len(found))))

    monkeypatch.setattr(disk, "step", snapshot)
    save_result(new, work / "r", overwrite=True)
    found.append(shutil.copytree(work, tmp_path / "end"))
    monkeypatch.setattr(disk, "step", lambda *_: None)
    seen = []
    for folder in found:
        if not (folder / "r").exists():
            with pytest.raises(InputError, match=r"replacing this result was interrupted.*\.r\.old"):
                stratoscope.open_result(folder / "r")
            with pytest.raises(InputError, match="already exists"):  # the old one, put back
                save_result(new, folder / "r")
        seen.append(everything(folder / "r"))
        seen[-1].pop(replacing.MARK, None)
        assert seen[-1] in (olds, news)
        save_result(new, folder / "r", overwrite=True)
        assert everything(folder) == {f"r/{name}": content for name, content in news.items()}
    assert seen[0] == olds
    assert seen[-1] == news


def test_a_folder_that_was_half_removed_is_removed_the_next_time(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        (path / "c.0").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            stratoscope.simulate(here / "t.trace", **SMALL, seed=1, overwrite=True)
    new = everything(here / "t.trace")
    (here / ".t.trace.old" / "zarr.json").unlink()
    stratoscope.simulate(here / "t.trace", **SMALL, seed=2, overwrite=True)
    assert everything(here / "t.trace") != new
    assert {path.name for path in here.iterdir()} == {"t.trace", "i.trace", "given.csv"}


@pytest.mark.parametrize("kind", ["trace", "result"])
def test_what_is_left_of_a_removal_on_a_full_disk_can_be_removed(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The mark cannot be written then; whichever entry the removal stops at, what is left is known to be ours."""
    from stratoscope.trace.format.place import TRACE
    from stratoscope.view.report.save import RESULT

    source, kind_of = (shared / "t.trace", TRACE) if kind == "trace" else (shared / "r", RESULT)
    folder, left, unlink, rmtree = tmp_path / "x", [0], Path.unlink, shutil.rmtree

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def counted(remove: Callable[..., None]) -> Callable[..., None]:
        def removing(path: Path, *args: object, **options: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            remove(path, *args, **options)

        return removing

    for removals in range(20):
        folder.mkdir()
        for entry in sorted(source.iterdir(), key=lambda one: one.is_dir())[:4]:  # a few are enough
            copy = shutil.copytree if entry.is_dir() else shutil.copy
            copy(entry, folder / entry.name)
        left[0] = removals
        with monkeypatch.context() as patch:
            patch.setattr(replacing, "write_file", full)
            patch.setattr(Path, "unlink", counted(unlink))
            patch.setattr(shutil, "rmtree", counted(rmtree))
            try:
                replacing.remove(folder, kind_of)
            except KeyboardInterrupt:
                pass
            else:
                break
        replacing.remove(folder, kind_of)
        assert not folder.exists()
    assert removals in (3, 4)


def test_something_else_in_the_place_of_a_waiting_trace_costs_neither(here: Path) -> None:
    (here / "t.trace").rename(here / ".t.trace.old")
    (here / "t.trace").mkdir()
    (here / "t.trace" / "thesis.tex").write_text("years of work")
    before = everything(here)
    with pytest.raises(TraceError, match="something else is in the place of a trace that waits"):
        stratoscope.simulate(here / "t.trace", **SMALL, overwrite=True)
    assert {name: content for name, content in everything(here).items() if not name.endswith(".lock")} == before


def test_two_writers_of_one_result_are_refused(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stratoscope.view.report.save import RESULT

    result = stratoscope.open_result(shared / "r").load()
    monkeypatch.setattr("stratoscope.view.report.save.contents_of", lambda _: None)
    with replacing.Lock(tmp_path / "r", RESULT), pytest.raises(InputError, match="another process is writing"):
        save_result(result, tmp_path / "r")


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_the_old_or_the_new_one_and_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    write_whole(target, b"old", overwrite=False)
    child = os.fork()
    if child == 0:
        with new_files([target], overwrite=True) as (path,):
            path.write_bytes(b"ne")
            os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / ".a.png.mine.partial").touch()  # not a name of ours
    (tmp_path / ".a.png.0123abcd.partial").symlink_to(target)
    assert len(list(tmp_path.iterdir())) == 4
    assert target.read_bytes() == b"old"
    write_whole(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", ".a.png.mine.partial", ".a.png.0123abcd.partial"}


def test_two_writers_of_one_file_do_not_harm_each_other(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    with new_files([target], overwrite=True) as (slow,):
        slow.write_bytes(b"slow")
        write_whole(target, b"quick", overwrite=True)
        assert slow.read_bytes() == b"slow"
        with pytest.raises(InputError, match="already exists"):
            write_whole(target, b"another", overwrite=False)
        assert target.read_bytes() == b"quick"
    assert target.read_bytes() == b"slow"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_system_without_locks_still_writes_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    (tmp_path / ".a.0123abcd.partial").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    write_whole(tmp_path / "a", b"new", overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.0123abcd.partial"}


def test_every_file_of_an_export_is_whole_before_the_first_takes_its_place(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: b"former" for path in stratoscope.export_csv(here / "t.trace", here / "e.csv")}
    for name in before:
        (here / name).write_bytes(b"former")
    written = 0

    def full(operation: str, path: Path) -> None:
        nonlocal written
        written += operation == "write"
        if written == len(before):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "step", full)
    monkeypatch.setattr("stratoscope.trace.export.csv.step", full)
    with pytest.raises(InputError, match="No space left"):
        stratoscope.export_csv(here / "t.trace", here / "e.csv", overwrite=True)
    assert {path.name: path.read_bytes() for path in here.glob("*e*-*")} == before
    assert not list(here.glob(".*"))


def test_a_large_array_is_read_back_at_both_ends_only(here: Path) -> None:
    chunk = here / "t.trace" / "mlp_out_norm" / "c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    with pytest.raises(TraceError, match="mlp_out_norm"):
        read_back(here / "t.trace")
    assert np.isfinite(open_trace(here / "t.trace")["neuron_norm"].values).all()


@pytest.mark.parametrize(
    ("name", "fix"),
    [("nowhere/b.csv", "Make the folder"), ("b" * 240 + ".csv", "Give a shorter name"), ("file/b.csv", "a part of it")],
)
def test_what_cannot_be_made_is_named_with_its_own_cause(tmp_path: Path, name: str, fix: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=fix) as caught,
        new_files([tmp_path / "a.csv", tmp_path / name], overwrite=True),
    ):
        pass
    assert caught.value.where == str(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_input_that_cannot_be_read_is_not_told_as_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    for error in (OSError(errno.EACCES, "Permission denied", str(tmp_path / "input")), OSError(errno.EIO, "I/O error")):
        with pytest.raises(OSError, match=error.strerror) as caught, new_files([tmp_path / "a"], overwrite=True):
            raise error
        assert caught.value is error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names_its_file", [True, False])
def test_of_several_files_the_one_being_written_is_named(tmp_path: Path, names_its_file: bool) -> None:
    targets = [tmp_path / name for name in "abc"]

    def fill() -> None:
        with new_files(targets, overwrite=True) as paths:
            first, second = next(paths), next(paths)
            assert first != second
            raise OSError(errno.ENOSPC, "No space left on device", *([str(second)] if names_its_file else []))

    with pytest.raises(InputError, match="Free some space") as caught:
        fill()
    assert caught.value.where == str(tmp_path / "b")


@pytest.mark.parametrize("kind", ["a.png", "a.html", "a.csv"])
def test_a_name_that_is_too_long_is_refused_before_anything_is_made(here: Path, kind: str) -> None:
    long = here / ("n" * 300 + kind)
    make = {"a.png": stratoscope.heatmap, "a.html": stratoscope.peaks3d, "a.csv": stratoscope.export_csv}[kind]
    with pytest.raises(InputError, match="Give a shorter name"):
        make(here / "t.trace", long)
