"""A small file from a stranger costs little: it is refused for its size before it is parsed or unpacked."""

from __future__ import annotations

import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_traces import edit, record

from stratoscope.errors import InputError, StratoscopeError, TraceError
from stratoscope.trace.csv.file import LONGEST_LINE
from stratoscope.trace.csv.read import import_csv, read_csv
from stratoscope.trace.format import bounds
from stratoscope.trace.format.schema import MAX_COLUMNS
from stratoscope.trace.format.text import decode_texts, encode_texts
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.notes import LONGEST_NOTE, MOST_NOTES, notes_of
from stratoscope.trace.read.reader import open_trace
from stratoscope.view.sheet import fonts

HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("sound") / "t")


@pytest.fixture
def trace(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "t"))


COSTLY: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "empty objects": (lambda a: a.update(plan={"x": [{}] * (bounds.MAX_CONTAINERS + 1)}), "lists and objects"),
    "many keys": (lambda a: a.update(plan={str(i): 0 for i in range(bounds.MAX_VALUES // 2)}), "values"),
    "one long text": (lambda a: a.update(plan={"x": "w" * (bounds.MAX_TEXT_BYTES + 1)}), "a text of"),
    "many bytes": (lambda a: a.update(plan={"x": [" " * 10**6] * 11}), "bytes"),
}


@pytest.mark.parametrize(("change", "words"), COSTLY.values(), ids=COSTLY)
def test_a_root_document_that_would_fill_the_memory_is_refused_unparsed(
    trace: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(trace, lambda content: change(content["attributes"]))
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match=words):
            open_trace(trace)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_quotes_that_are_never_closed_are_looked_at_once() -> None:
    began = time.process_time()
    with pytest.raises(TraceError, match="a text of"):
        bounds.refuse_costly_document(b'"' + b'\\"' * 450_000 + b"w" * 10**6, "t")
    assert time.process_time() - began < 1


def test_arrays_that_stand_for_far_more_than_their_files_hold_are_refused() -> None:
    bounds.refuse_inflated(64 * 2**20, 100, "t")
    bounds.refuse_inflated(2**30, 2**30 // 100 + 1, "t")
    with pytest.raises(TraceError, match="stand for"):
        bounds.refuse_inflated(2**30, 86_000, "t")


def test_a_text_that_a_reader_refuses_is_not_written() -> None:
    encode_texts(["w" * bounds.LONGEST_TEXT], "text")
    with pytest.raises(TraceError, match="262,145 bytes"):
        encode_texts(["w" * (bounds.LONGEST_TEXT + 1)], "text")


def test_texts_come_back_as_they_were() -> None:
    texts = ["", "a\0", "", "héé", "\udce4", ""]
    data, ends = encode_texts(texts, "text")
    assert decode_texts(data, ends, 0).tolist() == texts
    assert decode_texts(data[int(ends[2]) :], ends[3:], int(ends[2])).tolist() == texts[3:]
    assert decode_texts(np.empty(0, np.uint8), ends[:0], 0).tolist() == []


def test_a_picture_says_how_many_notes_it_leaves_out(trace: Path) -> None:
    notes = [{"id": "L01", "severity": "info", "text": "w" * 200_000}] * 1_000
    notes[700] = {"id": "L16", "severity": "warning", "text": "do not miss this"}
    edit(trace, lambda content: content["attributes"].update(notes=notes[:20] + notes[700:701]))
    assert all(len(note.text) < LONGEST_NOTE + 100 for note in notes_of(open_trace(trace)))
    short = [{**note, "text": note["text"][:20]} for note in notes]
    edit(trace, lambda content: content["attributes"].update(notes=short))
    shown = notes_of(open_trace(trace))
    assert "do not miss this" in [note.text for note in shown]
    assert any(f"{1_000 - MOST_NOTES:,} more" in note.text for note in shown)
    text = info_text(info(trace))
    assert "800 more" in text
    assert text.count("\n") < 400


def test_a_long_word_is_fitted_without_measuring_all_of_it() -> None:
    began = time.process_time()
    fitted = fonts.fit("w" * 200_000, 7, 3.0)
    assert fonts.width(fitted, 7) <= 3.0 < fonts.width(fitted + "ww", 7)
    assert time.process_time() - began < 1


def test_a_csv_of_too_many_columns_or_an_endless_line_is_refused(tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text(f"{HEADER},{','.join(f'c{i}' for i in range(20_000))}\n0,a,0,1,0.5\n")
    with pytest.raises(InputError, match=rf"20,005 columns; 5 and up to {MAX_COLUMNS} further"):
        read_csv(wide)
    for start in ("", f"{HEADER}\n0,"):
        wide.write_text(start + "a" * (LONGEST_LINE + 1))
        with pytest.raises(InputError, match="a line has more than"):
            read_csv(wide)
    wide.write_text(f'{HEADER}\n0,"' + "ab\n" * 100_000)
    with pytest.raises(InputError, match="a value has more than"):
        read_csv(wide)


@pytest.mark.parametrize("what", ["layers", "columns"])
def test_a_csv_of_more_than_a_trace_holds_is_refused_before_anything_is_written(tmp_path: Path, what: str) -> None:
    rows = [f"{number},a,{number},1,0.5" for number in range(10_001)]
    extra = "".join(f",c{number}" for number in range(MAX_COLUMNS + 1))
    text = (
        "\n".join([HEADER, *rows]) if what == "layers" else f"{HEADER}{extra}\n0,a,0,1,0.5{',x' * (MAX_COLUMNS + 1)}\n"
    )
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(StratoscopeError, match=r"10,001 different layers|106 columns; 5 and up to 100 further"):
        import_csv(tmp_path / "p.csv", tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("last", ["", ",Escapes"])
def test_a_csv_of_as_many_further_columns_as_a_trace_holds_is_read_and_one_more_is_not(
    tmp_path: Path, last: str
) -> None:
    for count in (MAX_COLUMNS, MAX_COLUMNS + 1):
        names = "".join(f",c{number}" for number in range(count))
        (tmp_path / "p.csv").write_text(f"{HEADER}{names}{last}\n0,a,0,1,0.5{',x' * count}{last and ',' + chr(92)}\n")
        if count == MAX_COLUMNS:
            assert f"column_{count - 1}" in import_csv(tmp_path / "p.csv", tmp_path / "t")
        else:
            with pytest.raises(InputError, match="5 and up to 100 further ones are read"):
                read_csv(tmp_path / "p.csv")


@pytest.mark.parametrize("column", ["Token", "Note"])
def test_a_value_longer_than_a_trace_holds_is_refused_in_whatever_row_it_stands(tmp_path: Path, column: str) -> None:
    for length in (bounds.LONGEST_TEXT, bounds.LONGEST_TEXT + 1):
        token, note = ("v" * length if column == one else "v" for one in ("Token", "Note"))
        (tmp_path / "p.csv").write_text(f"{HEADER},Note\n0,a,0,1,0.5,x\n1,{token},0,1,0.5,{note}\n")
        if length == bounds.LONGEST_TEXT:
            import_csv(tmp_path / "p.csv", tmp_path / "t")
        else:
            with pytest.raises(InputError, match=r"line 3: a value has more than 262,144 bytes"):
                read_csv(tmp_path / "p.csv")
