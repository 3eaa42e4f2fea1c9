from __future__ import annotations

import csv
import json
import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratoscope.errors import InputError
from stratoscope.recorder.prompts.prompt import Prompt, given_prompts, read_prompts

NAMES = ("id", "class", "pair", "group", "text")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(folder: Path, *records: Any) -> Path:
    return write(folder, "p.jsonl", "\n".join(json.dumps(record) for record in records))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_fields_of_a_jsonl_line_arrive(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    path = jsonl(
        tmp_path,
        {"id": "a", "class": "critical", "pair": "1", "group": "g", "text": " x\n"},
        {"id": "b", "class": "neutral", "pair": 1, "messages": messages},
    )
    assert read_prompts(path) == [
        Prompt("a", "critical", "1", "g", text=" x\n"),
        Prompt("b", "neutral", "1", "", messages=tuple(messages)),
    ]


def test_a_prompt_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(FrozenInstanceError):
        Prompt("a", text="x").text = "y"  # type: ignore[misc]


def test_a_text_file_is_one_prompt_a_line_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = write(tmp_path, "p.TXT", "\ufeff first \r\n\r\n   \nsecond\u2028still second")
    assert [(p.id, p.text) for p in read_prompts(path)] == [("p0001", " first "), ("p0002", "second\u2028still second")]


def test_a_default_id_is_the_place_in_the_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "a"}, {"id": "x", "text": "b"}, {"text": "c"})
    assert [p.id for p in read_prompts(path)] == ["p0001", "x", "p0003"]


def test_csv_and_jsonl_of_the_same_prompts_are_the_same(tmp_path: Path) -> None:
    records = [
        {"id": "a", "class": "x", "pair": "1", "group": "g", "text": 'quote " comma , line\nend\r\nand é'},
        {"id": "b", "class": "y", "pair": "1", "text": " null "},
        {"id": "c", "messages": [{"role": "user", "content": "a,b"}]},
    ]
    path = tmp_path / "p.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, [*NAMES, "messages"], restval="")
        writer.writeheader()
        for record in records:
            cells = dict(record)
            if "messages" in cells:
                cells["messages"] = json.dumps(cells["messages"])
            writer.writerow(cells)
    assert read_prompts(path) == read_prompts(jsonl(tmp_path, *records))


@given(texts=st.lists(TEXT, min_size=1, max_size=5))
def test_any_text_survives_jsonl_and_csv(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("texts")
    path = folder / "p.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in texts)])
    assert [p.text for p in read_prompts(jsonl(folder, *({"text": text} for text in texts)))] == texts
    assert [p.text for p in read_prompts(path)] == texts


def test_a_csv_row_is_named_by_the_line_it_starts_on(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", 'id,text\na,"two\nlines"\na,again\n')
    assert f"{path}:4" in refused(path)
    assert f"already that of {path}:2" in refused(path)


def test_the_shipped_prompts_are_pairs_of_two_classes() -> None:
    from stratoscope import doors

    prompts = read_prompts(Path(doors.__file__).with_name("demo_prompts.jsonl"))
    assert {p.prompt_class for p in prompts} == {"critical", "neutral"}
    assert len({p.pair for p in prompts}) * 2 == len(prompts) >= 24


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "a", "clas": "x"}, "unknown key 'clas'"),
        ({"id": "a"}, "neither text nor messages"),
        ({"text": "a", "messages": [USER]}, "both text and messages"),
        ({"text": ""}, "text is empty"),
        ({"text": 3}, "text is 3, not a text"),
        ({"text": True}, "text is true, not a text"),
        ({"text": None}, "text is null"),
        ({"text": None, "messages": None}, "text is null"),
        ({"text": ["a", "b"]}, 'text is the list ["a", "b"], not a text. Give a conversation as {"messages"'),
        ({"text": [USER]}, "Give a conversation as"),
        ({"text": {"a": "b"}}, 'text is the object {"a": "b"}'),
        ({"text": "a", "class": True}, "class is true, not a text"),
        ({"text": "a", "pair": 1.5}, "pair is 1.5, not a text"),
        ({"text": "a", "id": ["x"]}, 'id is the list ["x"]'),
        ({"text": "\ud800"}, "half of a surrogate pair"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": "hi"}, "not a list of messages"),
        ({"messages": ["hi"]}, 'message 1 is "hi", not role and content'),
        ({"messages": [USER, {**USER, "name": "x"}]}, "message 2 has name, and only role and content are read"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "message 1 has tool_calls"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "message 1 has tool_calls"),
        ({"messages": [{**USER, "reasoning_content": "hm"}]}, "Write it into content, as the template does"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "message 1 has the role 'tool'"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "roles 'developer'"),
        ({"messages": [{"role": "User", "content": "x"}]}, "roles 'User'"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "the role 'robot'. Use system, user, assistant, or give"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "the role ['user']"),
        ({"messages": [{"from": "human", "value": "x"}]}, "conversations of from and value"),
        ({"messages": [USER, {"role": "user", "content": ""}]}, "content of message 2 is empty"),
        ({"messages": [USER, {"role": "user", "content": None}]}, "message 2 has no content"),
        ({"messages": [{"role": "user"}]}, "message 1 has no content"),
        ({"messages": [{"role": "user", "content": 3}]}, "the content of message 1 is 3, not a text"),
        ({"messages": [{"role": "user", "content": {"parts": ["x"]}}]}, "content of message 1 is the object"),
        ({"messages": [{"role": "user", "content": []}]}, "the content of message 1 is empty"),
        ({"messages": [{"role": "user", "content": [1]}]}, "part 1 of message 1 is 1, not a part"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, """has no type. Write {"type": "text","""),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "part 1 of message 1 is null"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "part 1 of message 1 is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
            "part 2 of message 1 is of the type 'image_url', and only text is read. Leave it out, or give",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
            """of the type 'input_text', and only text is read. Write {"type": "text",""",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"x": 1}}]}]},
            "part 1 of message 1 has cache_control",
        ),
        (["a"], "not a JSON object"),
        (3, "not a JSON object"),
        ({"text": float("nan")}, "text is null"),
        ({"text": "a", "class": 0.5}, "class is 0.5"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(record: Any, words: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "good"}, record)
    message = refused(path)
    assert message.startswith(f"{path}:2: ")
    assert words in message


def test_no_refusal_advises_to_make_json_the_prompt(tmp_path: Path) -> None:
    values = (None, True, 3, 1.5, ["a"], [USER], {"role": "user"}, [{"type": "text", "text": "x"}])
    records = [{"text": value} for value in values]
    records += [{"text": "a", key: value} for key in ("id", "class") for value in values[1:2] + values[3:]]
    records += [{"messages": [{"role": "user", "content": value}]} for value in values if not isinstance(value, list)]
    for record in records:
        assert "quote" not in refused(jsonl(tmp_path, record))


def test_null_is_nothing_and_never_a_word(tmp_path: Path) -> None:
    messages = [{**USER, "name": None, "tool_calls": [], "refusal": None}]
    records = [
        {"id": None, "class": None, "pair": None, "group": None, "text": "a", "messages": None},
        {"text": None, "messages": messages},
    ]
    assert read_prompts(jsonl(tmp_path, *records)) == [Prompt("p0001", text="a"), Prompt("p0002", messages=(USER,))]
    path = write(tmp_path, "p.csv", "class,text,messages\n,a,null\n")
    assert read_prompts(path) == [Prompt("p0001", text="a")]


def test_text_parts_are_read_as_their_texts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": " two", "annotations": None}, "three"]
    (prompt,) = read_prompts(jsonl(tmp_path, {"messages": [{"role": "user", "content": parts}]}))
    assert prompt.messages == ({"role": "user", "content": ("one", " two", "three")},)
    assert given_prompts([prompt]) == [prompt]


def test_rows_of_a_data_frame_are_prompts_as_those_of_a_file() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [7, 8], "text": ["a", "b"], "class": ["x", None], "group": [1, None]})
    missing = pandas.DataFrame({"text": ["a", "b"], "group": pandas.array([1, None], dtype="Int64")})
    found = given_prompts(frame.to_dict("records"))
    assert [(one.id, one.prompt_class, one.group) for one in found] == [("7", "x", "1"), ("8", "", "")]
    assert [one.group for one in given_prompts(missing.to_dict("records"))] == ["1", ""]
    assert given_prompts([{"text": "a", "id": number} for number in frame["id"].to_numpy()[:1]])[0].id == "7"


def test_prompts_given_in_python_are_checked_as_those_of_a_file() -> None:
    given = ["a", {"text": "b", "class": 3}, Prompt("x", "y", messages=[USER])]
    assert given_prompts(given) == [
        Prompt("p0001", text="a"), Prompt("p0002", "3", text="b"), Prompt("x", "y", messages=(USER,)),
    ]  # fmt: skip
    pandas = pytest.importorskip("pandas")
    wrong: list[tuple[Any, str]] = [
        ([], "there is no prompt"),
        ({"text": "a"}, "prompts is one prompt, not a list of prompts"),
        (Prompt("a", text="x"), "prompts is one prompt, not a list of prompts"),
        (pandas.DataFrame({"text": ["a"]}), r"prompts is a table, not a list of prompts. Give its rows: table.to_dict"),
        (["a", None], "prompts\\[1\\]: is null, not a prompt"),
        ([Prompt("a", text=3)], "prompts\\[0\\]: text is 3"),
        ([Prompt("a")], "prompts\\[0\\]: text is null"),
        ([Prompt("a", text="x", messages=(USER,))], "both text and messages"),
        ([Prompt("a", messages=({**USER, "tool_calls": [1]},))], "message 1 has tool_calls"),
        ([Prompt("a", text="x"), Prompt("a", text="y")], "the id 'a' is already that of prompts\\[0\\]"),
        ([Prompt("a", "c", "1", text="x")], "the pair '1' has 1 prompt,"),
        ([{"text": "x", "clas": "y"}], "unknown key 'clas'"),
        ([{"text": True}], "text is true, not a text. Write the words of the prompt"),
        ([{"text": "a", "class": True}], 'class is true, which is no name. Write a name, such as "critical"'),
        ([{"text": "a", "pair": 1.5}], "pair is 1.5, which is no name. Write a name or a whole number"),
        ([{"text": "a", "group": float("inf")}], "group is inf, which is no name"),
        ([{"text": float("nan")}], "text is null"),
        ([{"messages": [{"role": "user", "text": "x"}]}], "message 1 has text and no content. Call it content"),
        ([{"messages": [{"role": "developer", "content": "x"}]}], """'developer'. Write "system", if that"""),
        ([{"messages": [{"role": "User", "content": "x"}]}], """'User'. Write "user", if that"""),
        ([{"messages": [{"from": "human", "value": "x"}]}], "message 1 has no role, but `from`"),
    ]
    for prompts, words in wrong:
        with pytest.raises(InputError, match=words):
            given_prompts(prompts)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.jsonl", '{"text": "a"}\n{"text": "b"', ":2: is not valid JSON"),
        ("p.jsonl", '{"text": "a", "text": "b"}', "'text' stands twice"),
        ("p.jsonl", "[" * 100_000, "nested too deep"),
        ("p.jsonl", "", "holds no prompt"),
        ("p.jsonl", "\n \n", "holds no prompt"),
        ("p.txt", "", "holds no prompt"),
        ("p.csv", "", "holds no prompt"),
        ("p.csv", "text\n", "holds no prompt"),
        ("p.csv", "text,clas\na,b\n", "unknown key 'clas'"),
        ("p.csv", "text,text\na,b\n", "'text' stands twice"),
        ("p.csv", "text,id\na\n", ":2: has 1 cells, the header has 2"),
        ("p.csv", 'text\n"a\n', "not valid CSV"),
        ("p.csv", "id,text\na,\n", "neither text nor messages"),
        ("p.csv", "messages\nhello\n", ":2: is not valid JSON"),
        ("p.txt", b"good\n\xff\xfe", ":2: is not UTF-8"),
        ("p.txt", b"\xff\xfea", "begins as UTF-16 and is not"),
        ("p.json", '[{"text": "a"},\n {"text": }]', ":2: is not valid JSON"),
        ("p.json", '[{"text": "a"},\n {"text": "b"}', ":2: is not valid JSON"),
        ("p.json", '[{"text": "a"}]\n[]', ":2: something stands behind the end"),
        ("p.json", '[\n"a",\n{"text": "a", "text": "b"}]', ":3: item 2: the key 'text' stands twice"),
        ("p.json", '[\n"a",\n\n{"clas": "x"}]', ":4: item 2: unknown key 'clas'"),
        ("p.json", '{"data": ["a", {"text": 3}]}', ": data item 2: text is 3"),
        ("p.json", "[]", "holds no prompt"),
        ("p.csv", "text,x;prompt\na,b;c\n", "separated by comma or by semicolon"),
        ("p.txt.gz", b"\x1f\x8bx", "is damaged"),
        ("p.parquet", b"PAR1x", "cannot be read as Parquet"),
    ],
)
def test_a_bad_file_is_refused(name: str, content: str | bytes, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    message = refused(path)
    assert str(path) in message
    assert words in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "p.jsonl").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    assert "no such prompts file" in refused(tmp_path / "none.jsonl")
    assert "Name one of its files" in refused(tmp_path / "folder.txt")
    assert "is a pipe" in refused(tmp_path / "pipe.txt"), "reading it twice would wait for ever, or lose its beginning"


def test_two_prompts_of_one_id_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "a"}, {"id": "p0001", "text": "b"})
    assert "'p0001' is already that of" in refused(path)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["x"], "has 1 prompt,"),
        (["x", "y", "z"], "has 3 prompts,"),
        (["x", "x"], "both prompts of the pair '1' are of the class 'x'"),
        (["", ""], "both prompts of the pair '1' are of the class ''"),
    ],
)
def test_a_pair_that_is_none_is_refused(classes: list[str], words: str, tmp_path: Path) -> None:
    records = [{"text": "t", "pair": "1", "class": name} for name in classes]
    message = refused(jsonl(tmp_path, *records))
    assert f":{len(classes)}: " in message
    assert words in message


def test_a_missing_value_is_left_out_and_never_becomes_a_word(tmp_path: Path) -> None:
    nothing = {"class": None, "group": float("nan"), "pair": None, "id": None}
    path = jsonl(tmp_path, {"text": "a", "messages": None, **nothing}, {"text": None, "messages": [USER], "class": 1.0})
    first, second = read_prompts(path)
    assert (first.id, first.prompt_class, first.pair, first.group, first.text) == ("p0001", "", "", "", "a")
    assert (second.text, second.messages, second.prompt_class) == (None, (USER,), "1")


def test_a_prompt_that_is_the_word_for_a_missing_cell_is_kept_and_told(tmp_path: Path) -> None:
    found = read_prompts(write(tmp_path, "p.csv", "text\nnan\nNanny\n"))
    assert [prompt.text for prompt in found] == ["nan", "Nanny"]
    assert "Prompt p0001 is only a word" in found.remarks[0]
    assert read_prompts(jsonl(tmp_path, {"text": "Nanny"})).remarks == ()


def test_a_conversation_that_stands_as_text_is_told(tmp_path: Path) -> None:
    found = read_prompts(jsonl(tmp_path, {"text": json.dumps([USER])}, {"text": "[1]"}))
    assert found.remarks == (
        "Prompt p0001 is recorded as raw text, but written like a conversation, which is in messages.",
    )
