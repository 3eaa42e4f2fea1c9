"""Whatever is wrong with what a person gives: one line that says what, where and what to do; nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import stratoscope
from stratoscope.errors import InputError

Refuse = Callable[..., str]  # the fixture of conftest.py

HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
GOOD = HEADER + "0,<s>,22,7,1.5\n1,it,22,7,0.5\n"
BAD_CSV = {  # what is wrong -> file, and a word that the message must have
    "a missing column": ("Token_Pos,Token,Layer,Neuron_ID\n0,a,1,2\n", "Activation_Norm"),
    "text in a number column": (HEADER + "0,a,twenty,2,1.0\n", "Layer"),
    "text instead of a value": (HEADER + "0,a,1,2,large\n", "Activation_Norm"),
    "an empty file": ("", "empty"),
    "a header and no rows": (HEADER, "row"),
    "not a number": (HEADER + "0,a,1,2,nan\n", "Activation_Norm"),
    "infinity": (HEADER + "0,a,1,2,inf\n", "Activation_Norm"),
    "a negative id": (HEADER + "0,a,1,-2,1.0\n", "Neuron_ID"),
    "an id beyond int32": (HEADER + "0,a,1,3000000000,1.0\n", "Neuron_ID"),
    "a negative layer": (HEADER + "0,a,-1,2,1.0\n", "Layer"),
    "two tokens at one position": (HEADER + "0,a,1,2,1.0\n0,b,1,3,1.0\n", "position 0"),
    "a short row": (HEADER + "0,a,1\n", "line 2"),
    "bytes that are no text": (b"\xff\xfe\x00\x01", "bad.csv"),
}
COMMANDS = {  # every way in that reads CSV files
    "import": ("-o", "out.trace"),
    "heatmap": ("-o", "out.png"),
    "peaks3d": ("-o", "out.html"),
}


@pytest.mark.parametrize("wrong", BAD_CSV)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_csv_is_refused_in_one_line(refuse: Refuse, command: str, wrong: str) -> None:
    content, word = BAD_CSV[wrong]
    Path("bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refuse(command, "bad.csv", *COMMANDS[command])
    assert "bad.csv" in message
    assert word in message


@pytest.mark.parametrize("command", COMMANDS)
def test_one_bad_file_among_good_ones_is_named(refuse: Refuse, command: str) -> None:
    Path("good.csv").write_text(GOOD)
    Path("bad.csv").write_text(HEADER + "0,a,1,2,nan\n")
    assert "bad.csv" in refuse(command, "good.csv", "bad.csv", *COMMANDS[command])


@pytest.mark.parametrize(
    "command",
    [
        ("info", "x"),
        ("export", "x", "--csv", "out.csv"),
        ("heatmap", "x", "-o", "out.png"),
        ("engagement", "x", "-o", "out.png"),
        ("peaks3d", "x", "-o", "out.html"),
    ],
    ids=lambda command: command[0],
)
class TestSomethingThatIsNoTrace:
    def test_nothing_there(self, refuse: Refuse, command: tuple[str, ...]) -> None:
        assert "x" in refuse(*command)

    def test_a_folder_of_something_else(self, refuse: Refuse, command: tuple[str, ...]) -> None:
        Path("x").mkdir()
        Path("x/notes.txt").write_text("hello")
        assert "trace" in refuse(*command)

    def test_a_file_of_something_else(self, refuse: Refuse, command: tuple[str, ...]) -> None:
        Path("x").write_bytes(b"\x00\x01")
        assert "x" in refuse(*command)

    def test_a_trace_of_a_future_version(self, refuse: Refuse, command: tuple[str, ...], trace: Path) -> None:
        shutil.copytree(trace, "x")
        root = Path("x/zarr.json")
        document = json.loads(root.read_text())
        document["attributes"]["format_version"] = "3.0"
        root.write_text(json.dumps(document))
        assert "3.0" in refuse(*command)

    def test_a_trace_with_a_torn_root(self, refuse: Refuse, command: tuple[str, ...], trace: Path) -> None:
        shutil.copytree(trace, "x")
        root = Path("x/zarr.json")
        root.write_text(root.read_text()[:100])
        assert "x" in refuse(*command)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jsonl", ""),
        ("blank.txt", "\n \n"),
        ("broken.jsonl", '{"text": '),
        ("unknown.jsonl", '{"text": "a", "colour": "red"}\n'),
        ("neither.jsonl", '{"id": "a"}\n'),
        ("twice.jsonl", '{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n'),
        ("list.jsonl", "[1]\n"),
        ("empty.csv", ""),
        ("header.csv", "text,class\n"),
        ("prompts.yaml", "text: a\n"),
    ],
)
def test_a_bad_prompts_file_is_refused_before_a_model_is_loaded(refuse: Refuse, name: str, content: str) -> None:
    Path(name).write_text(content)
    assert name in refuse("capture", "there-is-no-such-model", "--prompts", name, "-o", "out.trace")


def test_a_prompts_file_that_is_not_there(refuse: Refuse) -> None:
    assert "missing.txt" in refuse("capture", "m", "--prompts", "missing.txt", "-o", "out.trace")


@pytest.mark.model
def test_a_model_that_is_not_there(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("p.txt").write_text("Hello\n")
    assert "./no-model" in refuse("capture", "./no-model", "--prompts", "p.txt", "-o", "out.trace")


@pytest.mark.parametrize(
    ("option", "value", "code", "next_step"),
    [
        ("--prompt", "nobody", 1, "There are: "),
        ("--prompt", "99", 1, "There are: 0-3"),
        ("--class", "neutra", 1, "Did you mean neutral? There are: critical, neutral."),
        ("--layers", "99", 1, "There are: 0-2."),
        ("--layers", "2-x", 2, "22-31,0"),
        ("--quantity", "mlp_out_nrom", 1, "Did you mean mlp_out_norm "),
        ("--span", "usr", 2, "Did you mean user? There are: system, template, user"),
        ("--scale", "rbust", 2, "Did you mean robust? There are: linear, log, robust, per-layer."),
        ("--theme", "drak", 2, "Did you mean dark? There are: light, dark."),
        ("--prompts", "0", 2, "Did you mean --prompt? See `stratoscope heatmap --help`."),
    ],
)
def test_asking_for_what_is_not_there(
    refuse: Refuse, trace: Path, option: str, value: str, code: int, next_step: str
) -> None:
    message = refuse("heatmap", trace, "-o", "out.png", option, value, code=code)
    assert message.startswith(f"error: {option}: ") or "no option called" in message
    assert value in message or option in message
    assert next_step in message


def test_a_class_that_is_not_there_is_told_under_the_name_by_which_it_was_given(refuse: Refuse, trace: Path) -> None:
    assert refuse("contrast", trace, "--a", "critcal").startswith("error: --a: no prompt of class 'critcal'")
    assert refuse("contrast", trace, "--a", "neutral", "--b", "neutral").startswith("error: --a, --b: 'neutral' is")
    with pytest.raises(InputError) as caught:
        stratoscope.contrast(trace, b="neutrl")
    assert (caught.value.where, caught.value.fix[:21]) == ("b", "Did you mean neutral?")


def test_a_head_that_is_not_there(refuse: Refuse, trace: Path) -> None:
    assert "999" in refuse("engagement", trace, "-o", "out.png", "--head", "999")
    assert "loudest" in refuse("engagement", trace, "-o", "out.png", "--head", "loudest")


@pytest.mark.parametrize("out", ["out.jpeg2", "out", "out.csv"])
def test_a_kind_of_picture_that_is_not_made(refuse: Refuse, trace: Path, out: str) -> None:
    assert out in refuse("heatmap", trace, "-o", out)


@pytest.mark.parametrize(
    "command",
    [
        ("heatmap", "TRACE", "-o", "there.png"),
        ("engagement", "TRACE", "-o", "there.svg"),
        ("peaks3d", "TRACE", "-o", "there.html"),
        ("export", "TRACE", "--prompt", "0", "--csv", "there.csv"),
        ("simulate", "-o", "there.trace"),
        ("import", "a.csv", "-o", "there.trace"),
    ],
    ids=lambda command: command[0],
)
def test_what_is_already_there_is_not_replaced_unasked(refuse: Refuse, trace: Path, command: tuple[str, ...]) -> None:
    there = Path(command[-1])
    if there.suffix == ".trace":
        shutil.copytree(trace, there)
    else:
        there.write_text("mine")
    Path("a.csv").write_text(GOOD)
    message = refuse(*(str(trace) if one == "TRACE" else one for one in command))
    assert there.name in message
    assert "--overwrite" in message


@pytest.mark.parametrize("command", ["simulate", "import"])
def test_not_even_overwrite_removes_a_folder_that_is_no_trace(refuse: Refuse, command: str) -> None:
    Path("mine.trace").mkdir()
    Path("mine.trace/thesis.txt").write_text("years of work")
    Path("a.csv").write_text(GOOD)
    inputs = ["a.csv"] if command == "import" else []
    assert "mine.trace" in refuse(command, *inputs, "-o", "mine.trace", "--overwrite")
    assert Path("mine.trace/thesis.txt").read_text() == "years of work"


def test_a_folder_that_is_a_file(refuse: Refuse, trace: Path) -> None:
    Path("thesis.txt").write_text("years of work")
    for command in (("heatmap", trace, "-o", "thesis.txt/a.png"), ("simulate", "-o", "thesis.txt/a.trace")):
        assert "its folder is a file. Choose another place." in refuse(*command)


def test_a_folder_that_does_not_exist(refuse: Refuse, trace: Path) -> None:
    assert "nowhere" in refuse("heatmap", trace, "-o", "nowhere/out.png")


def test_control_characters_in_a_name_cannot_forge_a_second_line(refuse: Refuse) -> None:
    message = refuse("info", "x\n\x1b[31mdone")
    assert "\x1b" not in message
