"""The grammar of the commands: results on stdout, progress on stderr, options that reach the verb."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors import cli, commands, options
from stratoscope.doors.cli import app
from stratoscope.doors.options import several_texts
from stratoscope.recorder.answers.refusals import ENGLISH


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_without_arguments_the_help_is_shown() -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == run("--help").stdout
    assert all(f"  {name} " in result.stdout for name in cli.COMMANDS)


def test_no_line_of_help_is_cut_short() -> None:
    assert "..." not in run("--help").stdout.split("Commands:")[1]


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout == f"stratoscope {stratoscope.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("paint",),
        ("heatmap",),
        ("heatmap", "a.trace", "-o"),
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
    assert re.fullmatch(r"error: .+: .+\. \S.*[.?]\n", result.stderr), "what, where, what to do next, in one line"
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


VERBS = {
    "import": "import_csv",
    "export": "export_csv",
    "fit-lens": "fit_lens",
}  # of the commands that are not called as their verb
TYPED: dict[str, tuple[str, Any]] = {  # what is typed where not every text will do, and what the verb gets
    "record": ("effects, lens, norms", "effects, lens, norms"),
    "baseline": ("mean", "mean"),
    "mean_of": ("means.trace", Path("means.trace")),
    "part": ("2/5", "2/5"),
    "date": ("2026-01-02", "2026-01-02"),
    "generation": ('{"do_sample": true}', '{"do_sample": true}'),
    "openers": ("No|Yes, of course", ("No", "Yes, of course")),
    "targets": ("No|Yes", ("No", "Yes")),
    "refusal_patterns": (str(ENGLISH), ENGLISH),
    "column": ("text", "text"),
    "neurons": ("1:2,3:4", "1:2,3:4"),
    "heads": ("5:6", "5:6"),
    "a": ("neutral", "neutral"),
    "b": ("critical", "critical"),
    "out": ("x.png", Path("x.png")),
    "level": ("no-text", "no-text"),
    "table": ("x.csv", Path("x.csv")),
    "peaks_table": ("y.csv", Path("y.csv")),
}
OF_A_RECORDING = (
    "text",
    "targets",
    "against",
    "answer_prefix",
    "chat",
    "dtype",
    "device",
    "revision",
    "trust_remote_code",
)
# imported only when a command runs: while `opened` is another, they would keep that for good
HOLD_OPENED = ("stratoscope.analysis.routes.graph", "stratoscope.view.routes.chosen")
OF_THE_COMMAND = {  # options that no verb has; --resume and --overwrite exclude each other
    "capture": {"plan", "as_json", "overwrite"},
    "compare": {"as_json", "prompt_class"},  # classes instead of prompts: tests/doors/test_compare_command.py
    "export": {"csv", "parquet"},  # the file, and what kind it is
    "contrast": {"out", "as_json", "overwrite"},
    "diff": {"out", "as_json", "overwrite", "model"},  # `patch_null` makes `null` of the model
    "anomalies": {"out", "as_json", "overwrite"},
    "explain": {"out", "as_json"},
    "suppression": {"out", "as_json", "overwrite"},
    "lens": {"as_json", "lens_file", "positions", *OF_A_RECORDING},
    "routes": {"as_json", *OF_A_RECORDING},
    "info": {"as_json"},
    "publish": {"explain", "as_json"},
    "lint": {"as_json", "strict"},
    "audit": {"as_json", "model"},  # which `doors` runs after the verb
    "top": {"csv", "as_json", "overwrite"},
    "fit-lens": {"overwrite"},
    "ablate": {"out", "theme", "as_json", "overwrite", "mean_of"},  # means are of neurons, and heads are given too
}


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "demo"])
def test_every_option_reaches_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Each option is given a value that is not its default, and the verb must receive exactly that."""
    monkeypatch.chdir(tmp_path)
    Path("means.trace").mkdir()
    Path("p.txt").write_text("Hello\n")
    received: dict[str, Any] = {}
    signature = inspect.signature(getattr(stratoscope, VERBS.get(command, command)))

    def record(*args: Any, **kwargs: Any) -> None:
        received.update(signature.bind(*args, **kwargs).arguments)
        raise typer.Exit

    def opened(_: Any, columns: Any = None) -> Any:
        received["columns"] = columns
        return stratoscope.simulate(prompts=2, tokens=4, layers=1, record="norms")

    monkeypatch.setitem(vars(stratoscope), VERBS.get(command, command), record)

    def compared(inputs: Any, **asked: Any) -> Any:
        received.update(asked)
        return inputs  # of which `compare` draws the picture

    monkeypatch.setitem(vars(stratoscope), "comparison", compared)
    monkeypatch.setattr("stratoscope.doors.recorded.is_trace", lambda _: True)
    monkeypatch.setitem(vars(stratoscope), "patch_null", lambda *given, **_: given[0])
    for name in HOLD_OPENED:
        import_module(name)
    module = import_module("stratoscope.trace.opened")
    monkeypatch.setattr(module, "opened", opened)
    monkeypatch.setattr(module, "opened_each", lambda inputs, columns: [opened(one, columns) for one in inputs])
    alone = OF_THE_COMMAND.get(command, set())
    params = [one for one in cli.command(command).params if one.name not in {*alone, "help"}]
    typed, expected = ["--csv", "out.csv"] if command == "export" else [], {}
    typed += ["--model", "m"] if command == "diff" else []
    for one in params:
        words, value = _other_value(one)
        typed, expected = [*typed, *words], {**expected, one.name: value}
    result = run(command, *typed)
    assert result.exit_code == 0, result.output
    for name in {"trace_a", "trace_b"} & set(received) | ({"trace"} if command == "contrast" else set()):
        expected[name] = received[name]  # opened before
    if command in ("capture", "ablate"):
        assert [one.text for one in received["prompts"]] == ["Hello"]
        expected |= {"prompts": received["prompts"], "column": received["column"]}  # read before
    if command == "fit-lens":  # each file is a corpus, by its name
        expected["prompts"] = {name: Path(name) for name in expected["prompts"]}
    assert {key: received[key] for key in expected} == expected
    assert command != "diff" or received["null"] == "m"


def _other_value(param: Any) -> tuple[list[str], Any]:
    """What is typed to give an option, or an argument, another value than its default; and that value."""
    flag, kind = max(param.opts, key=len), param.type_descriptor.annotation
    if param.name == "prompts" and kind is Path:
        return [flag, "p.txt"], Path("p.txt")
    if param.param_type_name == "argument":
        return ["x"], "x" if kind is str else Path("x") if kind is Path else [Path("x")]
    if param.name in TYPED and kind not in (int, bool):
        return [flag, TYPED[param.name][0]], TYPED[param.name][1]
    if kind is bool:
        return [param.secondary_opts[0] if param.default else flag], not param.default
    if choices := param.type_descriptor.choices:
        other = next(choice for choice in choices if choice != param.default)
        return [flag, other], other
    if param.multiple:
        return [flag, "a", flag, "1"], [Path("a"), Path("1")] if param.name in ("trace", "earlier") else ["a", "1"]
    value = {int: 3, float: 0.25, Path: Path("x")}.get(kind, "7")
    return [flag, str(value)], value


def test_openers_on_the_command_line_are_read_as_they_are_written() -> None:
    assert several_texts("No|I can, but") == ("No", "I can, but")
    assert several_texts(r"<\|end\|>|No") == ("<|end|>", "No")
    assert (several_texts(None), several_texts("")) == (None, ())


def test_each_file_of_commands_defines_one_command() -> None:
    folder = Path(commands.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == {
        module.__name__.split(".")[-1] for module in FILES
    }
    for name, module in zip(cli.COMMANDS, FILES, strict=True):
        takes_options = re.compile("|".join([r"options\.[A-Z]", *_options_of(module)]))
        made = [
            node.name
            for node in ast.parse(inspect.getsource(module)).body
            if isinstance(node, ast.FunctionDef) and takes_options.search(ast.unparse(node.args))
        ]
        assert made == [cli.command(name).callback.__name__], module.__name__


def test_no_option_is_stated_twice_or_shared_by_nobody() -> None:
    stated = [
        (made.param_decls, made.help, name)
        for module in (options, *FILES)
        for name, made in _options_of(module).items()
    ]
    assert len({(str(flags), words) for flags, words, _ in stated}) == len(stated)
    sources = {module: inspect.getsource(module) for module in FILES}
    for module in FILES:
        assert [own for own in _options_of(module) if f": {own}" not in sources[module]] == []
    for name in _options_of(options):
        used = [module.__name__ for module in FILES if re.search(rf"options\.{name}\b", sources[module])]
        assert len(used) > 1, f"{name} belongs into {used}"


FILES = [sys.modules[cli.command(name).callback.__module__] for name in cli.COMMANDS]


def _options_of(module: Any) -> dict[str, Any]:
    """Name and what typer is told, of the options and arguments that a file states."""
    kept = {name: get_args(value) for name, value in vars(module).items() if get_origin(value) is Annotated}
    return {name: parts[1] for name, parts in kept.items() if hasattr(parts[1], "param_decls")}
