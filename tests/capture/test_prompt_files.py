"""Prompt files as people have them: read, or refused with a line that is run here as it is pasted, till it succeeds."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import re
import shlex
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.recorder.answers.settings import parse_settings
from stratoscope.recorder.plan import prompts_sha256
from stratoscope.recorder.prompts.files import foreign_files
from stratoscope.recorder.prompts.prompt import Prompt, PromptList, read_prompts

HI = {"role": "user", "content": "hi"}
HO = {"role": "assistant", "content": "ho"}
BRIEF = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `python` is the one that runs the tests."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name a shell must not take apart."""
    made = tmp_path / 'it\'s a "$HOME" folder; é'
    made.mkdir()
    return made


def lines(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def contents(prompts: list[Prompt]) -> list[Any]:
    return [prompt.text if prompt.messages is None else list(prompt.messages) for prompt in prompts]


def advice(path: Path, column: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_prompts(path, column=column)
    assert "\n" not in str(caught.value), "a command says what is wrong in one line"
    assert str(caught.value).startswith(str(path)), "a mistake is named with its file"
    return caught.value.fix


def followed(path: Path, python: Path, packages: str = "", most: int = 3) -> tuple[PromptList, list[str]]:
    """The prompts after doing what each refusal says, and what was done."""
    done: list[str] = []
    column = None
    for _ in range(most):
        try:
            return read_prompts(path, column=column), done
        except InputError:
            fix = advice(path, column)
        if commands := list(re.finditer(r"(?<= `)(python -c|cp -n --) ", fix)):
            done.append(fix[commands[-1].start() :].removesuffix("`."))
            paths = os.pathsep.join(filter(None, sys.path))
            environment = {"PATH": f"{python}:/usr/bin:/bin", "PYTHONPATH": paths, "HOME": "/nowhere"}
            before = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
            ran = subprocess.run(done[-1], shell=True, capture_output=True, text=True, env=environment, cwd=path.parent)
            assert ran.returncode == 0, ran.stderr
            assert all(file.read_bytes() == content for file, content in before.items()), "a file was replaced"
            made = {file for file in path.parent.iterdir() if file.is_file()} - before.keys()
            path, column = Path(shlex.split(done[-1])[-1]), None
            assert made == {path}, "something else ran"
        else:
            named = re.search(r"Use --column (.+?)(?: for that column|: the other)", fix)
            assert named, fix
            (column,) = shlex.split(named[1])
            done.append(f"--column {column}")
    return read_prompts(path, column=column), done


# --- what is read ---------------------------------------------------------------------------------------------------

TABLE = [["id", "class", "text"], ["a", "x", "One, two; three"], ["b", "y", "Fo\tur"]]
SAME = [Prompt("a", "x", text="One, two; three"), Prompt("b", "y", text="Fo\tur")]


def objects() -> list[dict[str, str]]:
    return [dict(zip(TABLE[0], row, strict=True)) for row in TABLE[1:]]


def table(separator: str = ",", *, ends: str = "\r\n") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator=ends).writerows(TABLE)
    return stream.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


READ: dict[str, Callable[[], str | bytes]] = {
    "list.json": lambda: json.dumps(objects(), indent=1),
    "line.json": lambda: json.dumps(objects()),
    "list.jsonl": lambda: json.dumps(objects(), indent=1),
    "lines.json": lambda: lines(*objects()),
    "p.ndjson": lambda: lines(*objects()),
    "inside.json": lambda: json.dumps({"prompts": objects()}),
    "comma.csv": table,
    "semicolon.csv": lambda: table(";"),
    "tab.csv": lambda: table("\t"),
    "tab.tsv": lambda: table("\t", ends="\n"),
    "comma.tsv": table,
    "hint.csv": lambda: "sep=;\n" + table(";"),
    "utf16.csv": lambda: table(";").encode("utf-16"),
    "utf16.jsonl": lambda: lines(*objects()).encode("utf-16"),
    "utf32.json": lambda: json.dumps(objects()).encode("utf-32"),
    "p.csv.gz": lambda: gzip.compress(table(";").encode("utf-16")),
    "p.jsonl.gz": lambda: gzip.compress(lines(*objects()).encode()),
    "gzip.json": lambda: gzip.compress(json.dumps(objects()).encode()),
    "p.json.bz2": lambda: bz2.compress(json.dumps(objects()).encode()),
    "p.tsv.xz": lambda: lzma.compress(table("\t").encode()),
    "p.parquet": lambda: parquet(objects()),
    "without-an-ending": lambda: parquet(objects()),
}


@pytest.mark.parametrize("name", READ)
def test_the_same_prompts_are_read_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    content = READ[name]()
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_prompts(tmp_path / name)
    assert found == SAME
    assert found.remarks == ()
    assert prompts_sha256(found) == prompts_sha256(SAME), "a recording can be resumed from any of them"


def test_texts_and_conversations_are_rows_of_json(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(["a", {"text": "b"}, [HI, HO]]))
    (tmp_path / "p.jsonl").write_text(lines("a", {"text": "b"}))
    (tmp_path / "conversations.jsonl").write_text(lines([HI], [HI, HO]))
    assert contents(read_prompts(tmp_path / "conversations.jsonl")) == [[HI], [HI, HO]]
    (tmp_path / "one.json").write_text(json.dumps({"messages": [HI]}, indent=1))
    assert contents(read_prompts(tmp_path / "p.json")) == ["a", "b", [HI, HO]]
    assert contents(read_prompts(tmp_path / "p.jsonl")) == ["a", "b"]
    assert contents(read_prompts(tmp_path / "one.json")) == [[HI]]


def test_messages_in_a_cell_are_read_as_json_or_as_python_prints_them(tmp_path: Path) -> None:
    for name, cell in {"a.csv": json.dumps([BRIEF, HI]), "b.csv": str([BRIEF, HI])}.items():
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream, delimiter=";").writerows([["id", "messages"], ["1", cell]])
        assert contents(read_prompts(tmp_path / name)) == [[BRIEF, HI]]
    (tmp_path / "c.csv").write_text("messages\n\"[{'role': 'user', 'content': 'it' 's'}]\"\n")
    assert "as Parquet" in advice(tmp_path / "c.csv"), "two texts would be joined to one"


def test_a_cell_that_says_null_holds_no_messages(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("text,messages\nhi,null\n")
    assert contents(read_prompts(tmp_path / "p.csv")) == ["hi"]


def test_parquet_gives_structs_categories_and_gaps_as_they_are(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "messages": [[{**HI, "name": None}], [{**HI, "name": None}, {**HO, "name": None}], None],
        "text": pyarrow.array([None, None, "x"]).dictionary_encode(),
        "class": [0.0, float("nan"), 1.0],
        "id": pyarrow.array([7, None, 9]),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    found = read_prompts(tmp_path / "p.parquet")
    assert contents(found) == [[HI], [HI, HO], "x"]
    assert [(prompt.id, prompt.prompt_class) for prompt in found] == [("7", "0"), ("p0002", ""), ("9", "1")]


# --- a column by its name -------------------------------------------------------------------------------------------


def test_a_named_column_is_the_prompt_and_the_others_are_told(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "One", "answer": "1", "messages": [HI]}, {"id": "b", "prompt": [HI, HO], "score": 2}]
    (tmp_path / "p.jsonl").write_text(lines(*rows))
    found = read_prompts(tmp_path / "p.jsonl", column="prompt")
    assert contents(found) == ["One", [HI, HO]]
    assert [prompt.id for prompt in found] == ["a", "b"]
    assert found.remarks == (
        "The prompts are the column 'prompt' of p.jsonl; not used: 'answer', 'messages' and 'score'.",
    )


def test_a_named_column_of_a_table_may_hold_messages_and_text_stays_text(tmp_path: Path) -> None:
    cell = json.dumps([HI])
    with (tmp_path / "p.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["talk", "text"], [cell, cell]])
    assert contents(read_prompts(tmp_path / "p.csv", column="talk")) == [[HI]]
    assert contents(read_prompts(tmp_path / "p.csv", column="text")) == [cell]


@pytest.mark.parametrize("cell", ['[{"role": "user", "content": "cut o', "[{'role': 'user', 'content': 'a'}\n {}]"])
@pytest.mark.parametrize("column", ["talk", "messages"])
def test_a_conversation_that_cannot_be_read_never_becomes_a_text(cell: str, column: str, tmp_path: Path) -> None:
    with (tmp_path / "p.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([[column], [json.dumps([HI])], [cell]])
    with pytest.raises(InputError, match=r"p\.csv:3: (is not valid JSON|messages are neither JSON)"):
        read_prompts(tmp_path / "p.csv", column=column)


@pytest.mark.parametrize(
    ("rows", "column", "words"),
    [
        ([{"prompt": "a"}], "promt", "has no column 'promt'. Did you mean prompt?"),
        ([{"prompt": "a"}, {"other": "b"}], "prompt", ":2: prompt is empty"),
        ([{"prompt": "a"}, {"prompt": None}], "prompt", ":2: prompt is empty"),
        ([{"prompt": "a"}, {"prompt": 3}], "prompt", ":2: prompt is 3, not a text"),
        ([{"prompt": "a"}, {"prompt": {"x": 1}}], "prompt", ':2: prompt is {"x": 1}, not a text'),
        ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], "prompt", ":1: the id '1' stands 2 times"),
        ([{"prompt": "a"}, {"prompt": "b", "class": True}], "prompt", ":2: its class is true"),
        ([{"text": "a", "pair": "1"}, {"text": "b"}], "text", ":1: the pair '1' has 1 prompts"),
    ],
)
def test_a_column_that_does_not_hold_prompts_is_refused_with_its_line(
    rows: list[Any], column: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(lines(*rows))
    with pytest.raises(InputError) as caught:
        read_prompts(tmp_path / "p.jsonl", column=column)
    assert words in str(caught.value)


def test_a_text_file_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\n")
    assert "There are: text" in advice(tmp_path / "p.txt", column="prompt")


# --- what is refused, and what then succeeds ------------------------------------------------------------------------

SHARE = [
    {"id": "q1", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
    {"id": "q2", "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "hi"}]},
]
SHARED = [[HI, HO], [BRIEF, HI]]
TOOL = {"id": "q3", "conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "y"}]}
ALPACA = [{"instruction": "Sum", "input": "1, 2", "output": "3"}, {"instruction": "Greet", "input": "", "output": "!"}]
BATCH = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [HI]}}


def separated(separator: str, *rows: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows(rows)
    return stream.getvalue()


REFUSED: dict[str, tuple[Callable[[], str | bytes], list[Any]]] = {
    # conversations in other words
    "share.json": (lambda: json.dumps(SHARE), SHARED),
    "share.jsonl": (lambda: lines(*SHARE), SHARED),
    "share.json.gz": (lambda: gzip.compress(json.dumps(SHARE).encode()), SHARED),
    "share-tools.jsonl": (lambda: lines(*SHARE, TOOL), SHARED),
    "share-inside.json": (lambda: json.dumps({"data": SHARE}), SHARED),
    "share-one.json": (lambda: json.dumps(SHARE[0]), SHARED[:1]),
    "share-cells.csv": (
        lambda: separated(";", ["conversations"], *([json.dumps(one["conversations"])] for one in SHARE)),
        SHARED,
    ),
    "share-python.csv": (
        lambda: separated(",", ["n", "conversations"], *([1, str(one["conversations"])] for one in SHARE)),
        SHARED,
    ),
    "share.parquet": (lambda: parquet(SHARE), SHARED),
    "share-messages.jsonl": (lambda: lines({"messages": SHARE[0]["conversations"]}), SHARED[:1]),
    "roles.jsonl": (lambda: lines({"messages": [{"role": "human", "content": "hi"}]}), [[HI]]),
    "one-conversation.json": (lambda: json.dumps([HI, HO]), [[HI, HO]]),
    # tables of other tools
    "alpaca.json": (lambda: json.dumps(ALPACA), ["Sum\n\n1, 2", "Greet"]),
    "alpaca.csv": (
        lambda: separated(";", ["instruction", "input", "output"], ["Sum", "1, 2", "3"], ["Greet", "", "!"]),
        ["Sum\n\n1, 2", "Greet"],
    ),
    "alpaca-no-input.json": (lambda: json.dumps([{**one, "input": ""} for one in ALPACA]), ["Sum", "Greet"]),
    "dolly.jsonl": (lambda: lines({"instruction": "Sum", "context": "1", "response": "1"}), ["Sum\n\n1"]),
    "orca.jsonl": (
        lambda: lines({"system_prompt": "Be brief.", "question": "hi", "response": "x"}),
        [[BRIEF, HI]],
    ),
    "question.jsonl": (lambda: lines({"question": "hi", "answer": "ho"}), ["hi"]),
    "prompt.csv": (lambda: "prompt;answer\nhi, you;ho\n", ["hi, you"]),
    "prompt.parquet": (lambda: parquet([{"prompt": "hi", "n": 1}]), ["hi"]),
    "gaps.jsonl": (lambda: lines({"prompt": "hi"}, {"prompt": None}, {"prompt": ""}), ["hi"]),
    "gaps.parquet": (lambda: parquet([{"prompt": "hi"}, {"prompt": None}]), ["hi"]),
    "same-ids.csv": (lambda: "id,prompt\n1,a\n1,b\n", ["a", "b"]),
    "index.csv": (lambda: ",text,class\n0,hi,x\n", ["hi"]),
    "ultrachat.jsonl": (lambda: lines({"prompt": "hi", "prompt_id": "1", "messages": [HI, HO]}), [[HI, HO]]),
    "hh.jsonl": (lambda: lines({"chosen": "a", "rejected": "b"}, {"chosen": "", "rejected": "c"}), ["a", "b"]),
    "dpo.jsonl": (lambda: lines({"prompt": "hi", "chosen": "a", "rejected": "b"}), ["hi"]),
    "dpo-messages.jsonl": (lambda: lines({"chosen": [HI, HO], "rejected": [HI]}), [[HI, HO], [HI]]),
    "openai.jsonl": (lambda: lines(BATCH), [[HI]]),
    "openai-text.jsonl": (lambda: lines({"custom_id": "r", "body": {"prompt": "hi"}}), ["hi"]),
    "anthropic.jsonl": (
        lambda: lines({"custom_id": "r", "params": {"system": "Be brief.", "messages": [HI]}}),
        [[BRIEF, HI]],
    ),
    "turns.jsonl": (lambda: lines({"question_id": 81, "turns": ["hi", "more"]}), ["hi"]),
    "viewer.json": (
        lambda: json.dumps({"features": [{"name": "x"}], "rows": [{"row_idx": 0, "row": {"prompt": "hi"}}]}),
        ["hi"],
    ),
    "numbers.parquet": (lambda: parquet([{"text": 3}, {"text": 4}]), ["3", "4"]),
    "dates.parquet": (lambda: parquet([{"text": "hi", "id": datetime(2020, 1, 2)}]), ["hi"]),
    "share-system.json": (
        lambda: json.dumps([{"system": "Be brief.", "conversations": [{"from": "human", "value": "hi"}]}]),
        [[BRIEF, HI]],
    ),
    "alpaca-system.json": (
        lambda: json.dumps([{"instruction": "hi", "input": "1", "output": "x", "system": "Be brief."}]),
        [[BRIEF, {"role": "user", "content": "hi\n\n1"}]],
    ),
    "empty.parquet": (lambda: parquet([{"text": ""}, {"text": "hi"}]), ["hi"]),
    "empty.csv": (lambda: "id,text\na,\nb,hi\n", ["hi"]),
    "train.json": (lambda: json.dumps({"data": {"train": [{"text": "hi"}, {"text": "ho"}]}}), ["hi", "ho"]),
    # shapes of JSON and CSV
    "columns.json": (lambda: json.dumps({"text": ["a", "b"], "id": ["x", "y"]}), ["a", "b"]),
    "pandas.json": (lambda: json.dumps({"text": {"0": "a", "1": "b"}, "class": {"0": "x", "1": "y"}}), ["a", "b"]),
    "pandas-names.json": (
        lambda: json.dumps({"text": {"x": "a", "y": "b"}, "class": {"x": "x", "y": "y"}}),
        ["a", "b"],
    ),
    "version.json": (lambda: json.dumps({"version": 1, "prompts": ["a", "b"]}), ["a", "b"]),
    "documents.jsonl": (lambda: "\n".join(json.dumps({"text": one}, indent=1) for one in "ab"), ["a", "b"]),
    "printed.jsonl": (lambda: "{'text': \"it's\"}\n{'text': 'b'}\n", ["it's", "b"]),
    "capitals.csv": (lambda: "ID,Text\na,hi\n", ["hi"]),
    "headless.csv": (
        lambda: "1,What is a neuron?\n2,Why is the sky blue?\n",
        ["What is a neuron?", "Why is the sky blue?"],
    ),
    "unquoted.csv": (lambda: "text\nHi, you\nHo\n", ["Hi, you", "Ho"]),
    "quote-hint.csv": (lambda: 'sep="\nid"text\na"hi, you\n', ["hi, you"]),
    "backslash-hint.csv": (lambda: "sep=\\\nid\\text\na\\hi, you\n", ["hi, you"]),
    "apostrophe-hint.csv": (lambda: "sep='\nid'text\na'hi, you\n", ["hi, you"]),
    "bars.csv": (lambda: "id|text\na|hi, you\n", ["hi, you"]),
    "blanks.csv": (lambda: "\n question ; answer\nhi;ho\n;x\n", ["hi"]),
    "long.csv": (lambda: "question,answer\n" + "x" * 200_000 + ",y\n,z\n", ["x" * 200_000]),
    "quotes.tsv": (lambda: 'id\ttext\na\t"Hi\nb\tHo"\n', ['"Hi', 'Ho"']),
    "quotes-within.tsv": (lambda: 'id\ttext\na\t"Hi" he said\n', ['"Hi" he said']),
    "old-mac.csv": (lambda: "text,class\rhi,x\rho,y\r", ["hi", "ho"]),
    "old-mac.txt": (lambda: "hi\rho", ["hi", "ho"]),
    "either.csv": (lambda: "text,x;prompt\na,b;c\n", ["a"]),
    # prompts in pairs and classes, under other names
    "classes.json": (lambda: json.dumps({"critical": ["a b", "c"], "neutral": ["b", "d"]}), ["a b", "b", "c", "d"]),
    "classes-uneven.json": (lambda: json.dumps({"critical": ["a", "c"], "neutral": ["b"]}), ["a", "c", "b"]),
    "classes-rows.json": (
        lambda: json.dumps({"critical": [{"text": "a"}, {"text": "c"}], "neutral": [{"text": "b"}]}),
        ["a", "c", "b"],
    ),
    "classes.csv": (lambda: "Name,Critical,Neutral\nx y,a b,b\nz,c,d e\n", ["a b", "b", "c", "d e"]),
    "labels.jsonl": (
        lambda: lines(*({"pair_id": 1, "label": name, "prompt": name} for name in "ab")),
        ["a", "b"],
    ),
    "capital-labels.csv": (lambda: "Class,Prompt\nx,a\ny,b\n", ["a", "b"]),
    "pairs.json": (lambda: json.dumps([["a", "b"], ["c", "d"]]), ["a", "b", "c", "d"]),
    "pairs-inside.json": (lambda: json.dumps({"pairs": [["a", "b"], ["c", "d"]]}), ["a", "b", "c", "d"]),
    "pairs.jsonl": (lambda: lines(["a", "b"], ["c", "d"]), ["a", "b", "c", "d"]),
    # objects by id, and tables as pandas and Python write them
    "index.json": (lambda: json.dumps({"a": {"question": "x"}, "b": {"question": "y"}}), ["x", "y"]),
    "numbers.json": (lambda: json.dumps({"0": {"text": "x"}, "1": {"text": "y"}}), ["x", "y"]),
    "by-id.json": (lambda: json.dumps({"p1": "hello", "p2": "bye"}), ["hello", "bye"]),
    "one-row.json": (lambda: json.dumps({"label": "x", "statement": "a b"}), ["a b"]),
    "split.json": (
        lambda: json.dumps({"columns": ["text", "n"], "index": [0, 1], "data": [["a", 1], ["b", 2]]}),
        ["a", "b"],
    ),
    "printed.json": (lambda: str([{"text": "it's"}, {"text": "b"}]), ["it's", "b"]),
    "commas.jsonl": (lambda: '{"text": "a"},\n{"text": "b"},\n', ["a", "b"]),
    # data sets that keep what is asked elsewhere
    "gemini.jsonl": (lambda: lines({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}), [[HI]]),
    "hellaswag.jsonl": (lambda: lines({"ind": 1, "ctx": "a", "endings": ["b", "c"], "split_type": "x"}), ["a"]),
    "squad.json": (
        lambda: json.dumps(
            {"version": "1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"question": "q"}]}]}]}
        ),
        ["q"],
    ),
    "headless-commas.csv": (lambda: "Hi, you\nHo\nA, b, c\n", ["Hi, you", "Ho", "A, b, c"]),
    "sentences.csv": (lambda: "What is it, now?\nHow is it, then?\n", ["What is it, now?", "How is it, then?"]),
    # text in another encoding, or under another name
    "latin.csv": (lambda: "text\ncafé\n".encode("latin-1"), ["café"]),
    "latin.txt.gz": (lambda: gzip.compress("café\n".encode("latin-1")), ["café"]),
    "utf16-no-mark.txt": (lambda: "hello you\n".encode("utf-16-le"), ["hello you"]),
    "json.txt": (lambda: lines({"text": "a"}, {"text": "b"}), ["a", "b"]),
    "csv.txt": (lambda: "id,text\na,hi\n", ["hi"]),
    "json-mostly.txt": (lambda: lines({"text": "a"}, {"text": "b"}, "c"), ["a", "b", "c"]),
    "printed.txt": (lambda: "{'text': 'a'}\n", ["a"]),
    "json.csv": (lambda: lines({"text": "a"}), ["a"]),
    "json.parquet": (lambda: lines({"text": "a"}), ["a"]),
    "text.jsonl": (lambda: "Hello you\nHi\n", ["Hello you", "Hi"]),
    "no-ending": (lambda: lines({"text": "a"}), ["a"]),
    "no-ending-csv": (lambda: "id;text\na;hi\n", ["hi"]),
    "no-ending.gz": (lambda: gzip.compress(lines({"text": "a"}).encode()), ["a"]),
    "-text.dat": (lambda: "Hello\n", ["Hello"]),
    # other kinds of file
    "notes.md": (lambda: "# T\n\nHello\n", ["# T\n\nHello\n"]),
    "p.yaml": (lambda: "- text: hi\n- text: ho\n", ["hi", "ho"]),
    "two.yaml": (lambda: "text: hi\n---\ntext: ho\n", ["hi", "ho"]),
    "p.zip": (lambda: zipped({"a b.jsonl": lines({"text": "a"})}), ["a"]),
    "p.docx": (lambda: zipped({"word/document.xml": DOCX}), ["One & two", "Three"]),
    "p.tar.gz": (lambda: tarred({"p.jsonl": lines({"text": "a"})}), ["a"]),
    "p.jsonl.zst": (lambda: zstd(lines({"text": "a"})), ["a"]),
    "p.feather": (lambda: arrow("file"), ["a", "b"]),
    "p.arrow": (lambda: arrow("stream"), ["a", "b"]),
}
DOCX = (
    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    "<w:p><w:r><w:t>One &amp; </w:t></w:r><w:r><w:t>two</w:t></w:r></w:p><w:p/>"
    "<w:p><w:r><w:t>Three</w:t></w:r></w:p></w:body></w:document>"
)


def zipped(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return stream.getvalue()


def zstd(text: str) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(text.encode())
    return bytes(stream.getvalue())


def arrow(how: str) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    table, stream = pyarrow.table({"text": ["a", "b"]}), io.BytesIO()
    with getattr(pyarrow.ipc, f"new_{how}")(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_refusal_says_to_do_succeeds(name: str, folder: Path, python: Path) -> None:
    make, expected = REFUSED[name]
    content = make()
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, done = followed(path, python)
    assert done, "it was read at once"
    assert contents(found) == expected


QUOTES, CONTROLS = "a\"b'c\\ $(touch harm) `touch harm`; touch harm # {x} %s !!", "a\nb\tc\x1b[31md\x7f\x9b\u2028\u202e"
HOSTILE = [QUOTES, CONTROLS, '"', "'", "\\", "\ud800"]
PLACES: dict[str, Callable[[str], tuple[str, str | bytes]]] = {
    "column": lambda name: ("p.jsonl", lines({name: "hi", "n": 1}, {"n": 2})),
    "only-column": lambda name: ("p.jsonl", lines({name: "hi", "n": 1})),
    "conversations": lambda name: ("p.jsonl", lines({name: SHARE[0]["conversations"][:1]})),
    "role": lambda name: (
        "p.jsonl",
        lines(*({"c": [{"from": who, "value": "hi"}]} for who in ("human", name))),
    ),
    "list": lambda name: ("p.json", json.dumps({name: ["hi"], "version": 1})),
    "member": lambda name: ("p.zip", zipped({f"{name}.txt": "hi\n"})),
}


@pytest.mark.parametrize(
    ("place", "name"),
    [*(("column", name) for name in HOSTILE), *((place, name) for place in PLACES for name in (QUOTES, CONTROLS))],
    ids=ascii,
)
def test_whatever_a_name_holds_the_line_does_what_it_says_and_nothing_else(
    place: str, name: str, folder: Path, python: Path
) -> None:
    file, content = PLACES[place](name)
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, done = followed(folder / file, python)
    assert contents(found) in (["hi"], [[HI]])
    assert done


@pytest.mark.parametrize("name", ["\\", "$(touch harm) `touch harm`; '\"", "a\nb", "\x1b[31m", "\u202e"], ids=ascii)
def test_a_file_of_any_name_is_converted_or_said_to_need_another_name(name: str, folder: Path, python: Path) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(SHARE))
    if name.isprintable():
        assert contents(followed(path, python)[0]) == SHARED
        return
    with pytest.raises(InputError, match="rename it") as caught:
        read_prompts(path)
    assert "python -c" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_come_along_and_those_that_cannot_be_used_are_named(folder: Path, python: Path) -> None:
    path = folder / "p.jsonl"
    path.write_text(lines(*({**one, "class": name, "group": True} for one, name in zip(SHARE, "xy", strict=True))))
    assert "without group (its group is true" in advice(path)
    found, _ = followed(path, python)
    assert [(one.id, one.prompt_class, one.group) for one in found] == [("q1", "x", ""), ("q2", "y", "")]


@pytest.mark.parametrize("name", ["classes.json", "classes.csv", "labels.jsonl", "pairs.json"])
def test_pairs_and_classes_of_any_names_become_minimal_pairs(name: str, folder: Path, python: Path) -> None:
    path = folder / name
    path.write_text(str(REFUSED[name][0]()))
    found, _ = followed(path, python)
    assert all(one.prompt_class and one.pair for one in found)
    assert len({one.prompt_class for one in found}) == 2


def test_keys_of_an_object_become_ids_and_uneven_classes_have_no_pairs(folder: Path, python: Path) -> None:
    for name, column in (("by-id.json", "id"), ("index.json", "id"), ("classes-uneven.json", "prompt_class")):
        (folder / name).write_text(str(REFUSED[name][0]()))
        keys = [getattr(one, column) for one in followed(folder / name, python)[0]]
        assert list(dict.fromkeys(keys)) == list(json.loads((folder / name).read_text()))


def test_a_column_of_names_or_speakers_is_never_offered_as_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Name,pair_id,role,A,B\nx,1,user,a b,c\n")
    assert "one of 'A' or 'B'." in advice(tmp_path / "p.csv")
    (tmp_path / "p.json").write_text(json.dumps([{"title": "t", "paragraphs": [{"qas": [{"question": "q"}]}]}]))
    assert "inside 'paragraphs'" in advice(tmp_path / "p.json")


def test_labels_under_other_names_are_said(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(lines(*({"pair_id": 1, "label": name, "prompt": name} for name in "ab")))
    assert "with 'label' as class and 'pair_id' as pair: `python -c" in advice(tmp_path / "p.jsonl")


def test_columns_that_a_line_does_not_use_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{**one, "history": [["a", "b"]]} for one in ALPACA]))
    assert "as one text, without 'output' and 'history': `python -c" in advice(tmp_path / "p.json")


def test_a_line_of_text_that_begins_like_json_is_text(tmp_path: Path) -> None:
    text = '[INST] hi [/INST]\n[1]\n{name} greets\n"quoted"\n3\n'
    (tmp_path / "p.txt").write_text(text)
    assert contents(read_prompts(tmp_path / "p.txt")) == text.splitlines()


def test_a_line_of_text_is_not_taken_for_a_program_that_could_be_wrong(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("[1is 2]\n['\\d']\nhi\n")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert len(read_prompts(tmp_path / "p.txt")) == 3
    assert not warned


MANY = [f"c{number}" for number in range(20_000)]
WIDE = {
    "columns.csv": (",".join([*MANY, "c19999"]) + "\n", "the column 'c19999' stands twice"),
    "keys.json": ("[{" + ",".join(f'"{one}":1' for one in [*MANY, "c19999"]) + "}]", "the key 'c19999' stands twice"),
    "rows.jsonl": (lines(*({one: "x"} for one in MANY[:8000])), "unknown keys 'c0', 'c1'"),
}


@pytest.mark.parametrize("name", WIDE)
def test_very_many_columns_are_refused_at_once(name: str, tmp_path: Path) -> None:
    content, cause = WIDE[name]
    (tmp_path / name).write_text(content)
    begun = time.perf_counter()
    with pytest.raises(InputError, match=re.escape(cause)):
        read_prompts(tmp_path / name)
    assert time.perf_counter() - begun < 3, "it took seconds or minutes"


def test_conversations_without_a_user_are_refused_without_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(lines({"conversations": [{"from": "tool", "value": "x"}]}))
    assert advice(tmp_path / "p.jsonl").endswith("(of tool).")


def test_a_spreadsheet_is_refused_with_a_line_that_converts_it(folder: Path, python: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["prompt", "id"], ["hi", 7], ["nan", 8]):
        book.active.append(row)
    book.save(folder / "p.xlsx")
    found, done = followed(folder / "p.xlsx", python)
    assert [one.split()[0] for one in done] == ["python", "--column"]
    assert [(one.id, one.text) for one in found] == [("7", "hi"), ("8", "nan")]


def test_a_pickle_is_never_opened(folder: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (folder / "harm",)

    for name, content in {"p.pkl": pickle.dumps(Harm(), 2), "p.csv.gz": gzip.compress(pickle.dumps(Harm()))}.items():
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match="can run any program"):
            read_prompts(folder / name)
        assert "python" not in advice(folder / name), "no line opens it"
    assert not (folder / "harm").exists()


def test_a_folder_of_a_data_set_becomes_one_file(folder: Path, python: Path) -> None:
    saved = folder / "saved set"
    saved.mkdir()
    for number in range(2):
        (saved / f"data-0000{number}-of-00002.arrow").write_bytes(arrow("stream"))
    (saved / "dataset_info.json").write_text("{}")
    found, done = followed(saved, python)
    assert contents(found) == ["a", "b", "a", "b"]
    assert len(done) == 1


def test_a_folder_of_very_many_files_is_not_walked_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "_MOST_SEEN", 20)
    for number in range(30):
        (folder / f"{number}.parquet").touch()
    seen: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: seen.append(path) or is_file(path))
    assert advice(folder).startswith("Name one of its files"), "a line would leave out what was not seen"
    assert len(seen) < 25


def test_no_line_replaces_a_file_that_came_since(folder: Path, python: Path) -> None:
    saved = folder / "saved set"
    saved.mkdir()
    for number in range(2):
        (saved / f"data-{number}.parquet").write_bytes(parquet([{"text": str(number)}]))
    (folder / "p.arrow").write_bytes(arrow("stream"))
    (folder / "p.dat").write_text("Hello\n")
    for path in (saved, folder / "p.arrow", folder / "p.dat"):
        fix = advice(path)
        line = fix[re.search(r"(?<= `)(python -c|cp -n --) ", fix).start() :].removesuffix("`.")
        target = Path(shlex.split(line)[-1])
        target.write_text("precious")
        subprocess.run(line, shell=True, capture_output=True, env={"PATH": f"{python}:/usr/bin:/bin"})
        assert target.read_text() == "precious"
        assert str(target) not in advice(path), "another name is given now"


@pytest.mark.parametrize("name", ["p.txt", "p.txt.gz", "p.parquet"])
def test_a_file_that_unpacks_to_too_much_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * 1000
    content = {
        "p.txt": lambda: f"{text}\n".encode() * 100,
        "p.txt.gz": lambda: gzip.compress(f"{text}\n".encode() * 100),
        "p.parquet": lambda: parquet([{"text": text}] * 100),
    }[name]()
    (tmp_path / name).write_bytes(content)
    assert len(read_prompts(tmp_path / name)) == 100
    monkeypatch.setattr(defaults, "PROMPTS_BYTES", 50_000)
    assert "split it" in advice(tmp_path / name)


@pytest.mark.parametrize("name", ["p.txt.gz", "p.jsonl.bz2", "p.csv.xz", "p.parquet"])
def test_a_small_file_that_unpacks_to_very_much_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    text, kind = "x" * 2**16, Path(name).suffix
    content = parquet([{"text": text}] * 300) if kind == ".parquet" else pack[kind](f"{text}\n".encode() * 300)
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(defaults, "UNPACKED_BYTES", 2**22)
    assert re.match("If it is meant, (unpack it yourself|write it as CSV)", advice(tmp_path / name))


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet([{"text": "a"}]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert advice(tmp_path / "p.parquet") == "Install it: `pip install 'stratoscope[parquet]'`."


HUGE = "1" + "0" * 5000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("id.jsonl", f'{{"text": "x", "id": {HUGE}}}', "a number has 5,001 digits"),
        ("list.json", f'[{{"text": {HUGE}}}]', "a number has 5,001 digits"),
        ("keys.jsonl", "{" + ",".join(f'"k{number}": 1' for number in range(20_000)) + "}", "20,000 unknown keys"),
        (
            "columns.csv",
            ",".join(f"c{number}" for number in range(20_000)) + "\n" + ",1" * 19_999,
            "20,000 unknown keys",
        ),
        ("lines.txt", "x\n" * 1_000_001, "holds 1,000,001 lines"),
        ("objects.jsonl", "{}\n" * 3_000_001, "holds 3,000,001 objects"),
    ],
)
def test_what_no_file_of_prompts_holds_is_refused_at_once_and_in_words(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    began = time.process_time()
    with pytest.raises(InputError, match=words):
        read_prompts(tmp_path / name)
    assert time.process_time() - began < 1


def test_a_text_that_parquet_stores_once_counts_in_every_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200, pyarrow.int32()), ["x" * 1_000_000])
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="could fill the memory"):
        read_prompts(tmp_path / "p.parquet")


def test_generation_settings_from_no_file_or_with_endless_numbers_are_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no file but"):
        parse_settings(str(tmp_path / "pipe"))
    with pytest.raises(InputError, match="a number is too long"):
        parse_settings(f'{{"seed": {HUGE}}}')
