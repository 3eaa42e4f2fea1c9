"""What the README tells people to type works when they type it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny
from typer.testing import CliRunner

import stratoscope
from stratoscope import names
from stratoscope.doors.cli import app, command
from stratoscope.recorder.prompts.prompt import read_prompts

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def command_lines(page: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks("sh", page) for line in block.splitlines()]


LINES = [line for line in command_lines(README) if line[0] == "stratoscope"]
RUNNABLE = [line for line in LINES if line[1] not in ("capture", "demo") and "MODEL" not in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    groups = (*names.SUMMARIES, names.LENSES, names.ROUTES, *names.OF_TARGETS)
    small = {"prompts": 40, "tokens": 12, "layers": 4, "record": groups}
    for name in ("run", "tuned"):
        stratoscope.simulate(folder / f"{name}.trace", **small, targets=["Sorry"], against="Sure")
    for index, name in enumerate(("critical", "neutral")):
        stratoscope.export_csv(folder / "run.trace", folder / f"{name}.csv", prompt=index)
    return folder


def test_the_readme_shows_commands_at_all() -> None:
    assert {line[1] for line in LINES} >= {"capture", "import", "export", "info", "heatmap", "engagement", "peaks3d"}


def test_every_command_of_the_readme_runs_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for line in RUNNABLE:
        result = CliRunner().invoke(app, line[1:])
        assert result.exit_code == 0, f"{shlex.join(line)}\n{result.output}"
        if "-o" in line:
            assert (folder / line[line.index("-o") + 1]).exists()


@pytest.mark.parametrize("line", [line for line in LINES if line not in RUNNABLE], ids=lambda line: line[1])
def test_commands_that_need_a_large_model_are_at_least_understood(line: list[str]) -> None:
    context = command(line[1]).make_context(line[1], line[2:])
    assert context.params["out"] or line[1] in ("explain", "ablate")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_knows_every_target_that_is_named(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page} names `make {target}`"


def test_the_prompts_of_the_readme_are_a_prompts_file(tmp_path: Path) -> None:
    (block,) = blocks("json")
    (tmp_path / "prompts.jsonl").write_text(block, "utf-8")
    first, second = read_prompts(tmp_path / "prompts.jsonl")
    assert first.pair == second.pair


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"record": names.NEURONS, "tokenizer": byte_tokenizer()}
    recorded = stratoscope.capture(tiny("Llama", torch.bfloat16), ["a text"], "run.trace", **settings)
    before = {path.name for path in tmp_path.iterdir()}
    known: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), known)
    assert {path.name for path in tmp_path.iterdir()} == before, "an example in memory left files behind"
    assert known["neurons"].values.tobytes() == recorded["neurons"].values.tobytes(), "the line decodes bfloat16"


def test_the_worked_example_is_pairs_of_twins() -> None:
    prompts = read_prompts(ROOT / "examples" / "minimal_pairs" / "prompts.jsonl")
    pairs: dict[str, set[str]] = {}
    for prompt in prompts:
        pairs.setdefault(prompt.pair, set()).add(prompt.prompt_class)
    assert len(pairs) == 64
    assert all(classes == {"critical", "neutral"} for classes in pairs.values())
