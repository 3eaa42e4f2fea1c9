"""The grammar of the commands: results on stdout, progress on stderr, options that reach the verb."""

from __future__ import annotations

import gzip
import inspect
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import stratoscope
from stratoscope import names
from stratoscope.doors import options
from stratoscope.doors.cli import app
from stratoscope.recorder.answers.refusals import ENGLISH


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_without_arguments_the_help_is_shown() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout
    assert all(f"  {name} " in result.stdout for name in typer.main.get_group(app).commands)


def test_no_line_of_help_is_cut_short() -> None:
    assert "..." not in run("--help").stdout.split("Commands:")[1]


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout == f"stratoscope {stratoscope.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("paint",),
        ("heatmap",),
        ("heatmap", "a.trace"),
        ("heatmap", "a.trace", "-o", "a.png", "--scale", "loud"),
        ("heatmap", "a.trace", "-o", "a.png", "--theme", "pink"),
        ("capture", "m", "--prompts", "p.txt", "-o", "a.trace", "--record", "norms,everything"),
        ("capture", "m", "--prompts", "p.txt", "-o", "a.trace", "--top-k", "0"),
        ("capture", "m", "--prompts", "p.txt", "-o", "a.trace", "--resume", "--overwrite"),
        ("simulate", "-o", "a.trace", "--tokens", "few"),
        ("simulate", "-o", "a.trace", "--seed", "-1"),
        ("capture", "model", "--prompts", "p.txt", "-o", "a.trace", "--part", "2"),
        ("capture", "model", "--prompts", "p.txt", "-o", "a.trace", "--part", "two/3"),
        ("merge", "-o", "a.trace"),
        ("import", "a.csv", "-o", "a.trace", "--axis", "y"),
        ("export", "a.trace"),
        ("export", "a.trace", "--csv", "a.csv", "--parquet", "a.parquet"),
    ],
    ids=" ".join,
)
def test_a_mistake_in_usage_exits_with_2_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert not list(tmp_path.iterdir())


def test_stdout_is_the_written_paths_and_nothing_else(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("heatmap", trace, "-o", "a.svg").stdout == "a.svg\n"
    assert run("peaks3d", trace, "-o", "a.html").stdout == "a.html\n"
    assert run("simulate", "-o", "s.trace", "--prompts", "2", "--tokens", "4-6").stdout == "s.trace\n"
    exported = run("export", trace, "--csv", "rows.csv").stdout.splitlines()
    assert len(exported) == 4
    assert all(Path(file).exists() for file in exported)
    assert run("import", *exported, "-o", "i.trace").stdout == "i.trace\n"


def test_info_is_text_for_people_and_json_for_programs(trace: Path) -> None:
    text, facts = run("info", trace).stdout, json.loads(run("info", trace, "--json").stdout)
    assert "simulated" in text
    assert facts == stratoscope.info(trace)
    assert facts["tokens"] == 24


def test_parquet_holds_the_rows_of_the_csv(trace: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    run("export", trace, "--prompt", "0", "--csv", tmp_path / "a.csv")
    run("export", trace, "--prompt", "0", "--parquet", tmp_path / "a.parquet")
    csv, parquet = pandas.read_csv(tmp_path / "a.csv"), pandas.read_parquet(tmp_path / "a.parquet")
    assert list(csv.columns) == list(parquet.columns)
    assert (csv["Neuron_ID"] == parquet["Neuron_ID"]).all()


def test_classes_and_axis_of_an_import_reach_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n0,x,1,2,3.5\n")
    run("import", "a.csv", "b.csv", "--class", "critical", "--class", "neutral", "--axis", "residual", "-o", "i.trace")
    facts = stratoscope.info("i.trace")
    assert facts["classes"] == {"critical": 1, "neutral": 1}
    assert facts["axis"] == "residual"


@pytest.mark.parametrize(
    ("command", "out"), [("import", "i.trace"), ("heatmap", "h.png"), ("engagement", "e.png"), ("peaks3d", "p.html")]
)
def test_the_option_that_a_refused_csv_is_told_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv.gz").write_bytes(gzip.compress(b"pos;token;layer;neuron id, 0;act value\n0;x;1;2;3,5\n1;y;1;2;4,5\n"))
    refused = run(command, "a.csv.gz", "-o", out)
    assert refused.exit_code == 1
    option = refused.stderr[refused.stderr.index("--columns") : refused.stderr.index(" (in Python")]
    done = run(command, "a.csv.gz", "-o", out, *shlex.split(option))
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert Path(out).exists()


@pytest.mark.parametrize("command", ["capture", "simulate", "heatmap", "engagement", "peaks3d"])
def test_every_option_reaches_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Each option is given a value that is not its default, and the verb must receive exactly that."""
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("Hello\n")
    received: dict[str, Any] = {}
    signature = inspect.signature(getattr(stratoscope, command))

    def record(*args: Any, **kwargs: Any) -> SimpleNamespace:
        received.update(signature.bind(*args, **kwargs).arguments)
        return SimpleNamespace(attrs={"notes": []})

    monkeypatch.setitem(vars(stratoscope), command, record)
    arguments, expected = _other_values(command)
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    assert {key: received[key] for key in expected} == expected
    left = {one.name for one in typer.main.get_group(app).commands[command].params} - set(expected)
    assert left <= {"help", "plan", "as_json", "model", "prompts", "out", "inputs", "overwrite", "column"}


def _other_values(command: str) -> tuple[list[str], dict[str, Any]]:
    view = [
        "x",
        "-o",
        "y",
        "--prompt",
        "a",
        "--prompt",
        "1",
        "--class",
        "c",
        "--all",
        "--layers",
        "1-2",
        "--span",
        "user",
    ]
    view += ["--scale", "linear", "--first-token", "--theme", "dark", "--overwrite", "--columns", "Token=t"]
    seen: dict[str, Any] = {"prompt": ["a", "1"], "prompt_class": ["c"], "all_prompts": True, "layers": "1-2"}
    seen["columns"] = "Token=t"
    seen |= {"span": ["user"], "scale": "linear", "first_token": True, "theme": "dark", "overwrite": True}
    record = ["--record", "peaks, norms", "--top-k", "3"]
    recorded: dict[str, Any] = {"record": ("peaks", "norms"), "top_k": 3}
    model = ["--dtype", "bfloat16", "--device", "cuda:1", "--device-map", "auto", "--batch-size", "2", "--chat"]
    model += ["--revision", "r"]
    loaded = {"dtype": "bfloat16", "device": "cuda:1", "device_map": "auto", "batch_size": 2, "chat": True}
    loaded["revision"] = "r"
    settings = '{"do_sample": true}'
    answers = ["--generate", "7", "--generation", settings, "--seed", "4", "--openers", "No|Yes, of course"]
    answers += ["--refusal-patterns", str(ENGLISH)]
    answered = {"generate": 7, "generation": {"do_sample": True}, "seed": 4, "openers": ("No", "Yes, of course")}
    answered["refusal_patterns"] = ENGLISH
    answers += ["--date", "2026-01-02"]
    answered["date"] = "2026-01-02"
    proof = ["--verify", "full", "--floor", "--part", "2/5"]
    proved = {"verify": "full", "floor": True, "part": (2, 5)}
    shape = ["--prompts", "3", "--tokens", "7", "--layers", "2", "--d-model", "8", "--d-ff", "9", "--heads", "1"]
    shaped = {"prompts": 3, "tokens": 7, "layers": 2, "d_model": 8, "d_ff": 9, "heads": 1, "seed": 5}
    return {
        "heatmap": ([*view, "--quantity", "q"], seen | {"quantity": "q"}),
        "engagement": ([*view, "--head", "4"], seen | {"head": 4}),
        "peaks3d": ([*view, "--quantity", "q", "--threshold", "0.5"], seen | {"quantity": "q", "threshold": 0.5}),
        "capture": (
            [
                "m",
                "--prompts",
                "p.txt",
                "-o",
                "y",
                *record,
                *model,
                *answers,
                *proof,
                "--trust-remote-code",
                "--resume",
            ],
            recorded | loaded | answered | proved | {"trust_remote_code": True, "resume": True},
        ),
        "simulate": (
            ["-o", "y", *record, *shape, "--seed", "5", "--no-anomaly", "--overwrite"],
            recorded | shaped | {"anomaly": False, "overwrite": True},
        ),
    }[command]


def test_lists_on_the_command_line_are_read_as_they_are_written() -> None:
    assert options.parse_groups("peaks,norms,peaks") == (names.PEAKS, names.NORMS)
    assert options.parse_tokens("24") == 24
    assert options.parse_tokens(options.tokens_text((20, 32))) == (20, 32)
    assert options.parse_openers("No|I can, but") == ("No", "I can, but")
    assert options.parse_openers(r"<\|end\|>|No") == ("<|end|>", "No")
    assert (options.parse_openers(None), options.parse_openers("")) == (None, ())
    assert (options.parse_head("max"), options.parse_head("3")) == ("max", 3)
