"""The form of the public interface: what is exported, how it is called, and that each default is stated once."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stratoscope
from stratoscope import defaults
from stratoscope.doors.cli import command as command_called

EXPORTED = [
    "Prompt",
    "StratoscopeError",
    "ablate",
    "anomalies",
    "attention_matrix",
    "audit",
    "capture",
    "compare",
    "comparison",
    "contrast",
    "diff",
    "engagement",
    "explain",
    "export_csv",
    "fit_lens",
    "heatmap",
    "import_csv",
    "info",
    "lens",
    "lint",
    "merge",
    "open_result",
    "open_trace",
    "patch_null",
    "peaks3d",
    "plan_capture",
    "portable",
    "prompt",
    "publish",
    "route_graph",
    "routes",
    "save_result",
    "simulate",
    "suppression",
    "to_frame",
    "top",
]
VERBS = [name for name in EXPORTED if name not in ("Prompt", "StratoscopeError")]
POSITIONAL = {  # what may be given without its name, in this order
    "ablate": ["model", "prompts"],
    "anomalies": ["trace"],
    "attention_matrix": ["trace", "prompt", "layer", "head"],
    "audit": ["files"],
    "capture": ["model", "prompts", "out"],
    "compare": ["inputs", "out"],
    "comparison": ["inputs"],
    "contrast": ["trace"],
    "diff": ["trace_a", "trace_b"],
    "engagement": ["inputs", "out"],
    "explain": ["model", "prompt", "out"],
    "publish": ["source", "out"],
    "export_csv": ["trace", "out"],
    "fit_lens": ["model", "prompts", "out"],
    "heatmap": ["inputs", "out"],
    "import_csv": ["files", "out"],
    "info": ["trace"],
    "lens": ["trace", "out"],
    "lint": ["trace"],
    "merge": ["parts", "out"],
    "open_result": ["path"],
    "open_trace": ["path"],
    "patch_null": ["model", "trace", "claims"],
    "peaks3d": ["inputs", "out"],
    "plan_capture": ["model", "prompts", "out"],
    "portable": ["dataset"],
    "prompt": ["trace", "choice"],
    "route_graph": ["trace"],
    "routes": ["inputs", "out"],
    "save_result": ["result", "out"],
    "simulate": ["out"],
    "suppression": ["trace"],
    "to_frame": ["trace", "quantity"],
    "top": ["inputs"],
}
SHARED = {  # option -> the one place where its default is stated
    "record": "RECORD",
    "top_k": "TOP_K",
    "batch_size": "BATCH_SIZE",
    "seed": "SEED",
    "scale": "SCALE",
    "theme": "THEME",
    "axis": "AXIS",
    "threshold": "THRESHOLD",
    "statistic": "STATISTIC",
    "unequal": "UNEQUAL",
    "held_out": "HELD_OUT",
    "alpha": "ALPHA",
    "false_findings": "FALSE_FINDINGS",
    "permutations": "PERMUTATIONS",
    "draws": "DRAWS",
    "n": "STRONGEST",
    "edges": "ROUTE_EDGES",
}
OTHER_MEANING = {("cut", "axis"), ("medians", "axis"), ("_output", "scale")}  # functions with a parameter of that name
FLAGS = ("overwrite", "resume", "chat", "trust_remote_code", "all_prompts", "first_token")  # off unless asked for
AS_TEXT: dict[str, Callable[[Any], str]] = {
    "record": ",".join,
}  # how a command line writes it
COMMANDS = {  # command -> verb
    "ablate": "ablate",
    "anomalies": "anomalies",
    "capture": "capture",
    "contrast": "contrast",
    "explain": "explain",
    "fit-lens": "fit_lens",
    "suppression": "suppression",
    "diff": "diff",
    "merge": "merge",
    "simulate": "simulate",
    "import": "import_csv",
    "heatmap": "heatmap",
    "lens": "lens",
    "engagement": "engagement",
    "peaks3d": "peaks3d",
    "routes": "routes",
    "top": "top",
    "compare": "compare",
}
RESULTS = ("anomalies", "contrast", "diff", "explain", "suppression")  # commands that write the folder of a Result

RECORDING = ("lens", "routes")  # commands that draw a trace, or else a model and a text
OF_CAPTURE = {"text", "targets", "against", "answer_prefix", "chat", "dtype", "device", "revision", "trust_remote_code"}


def verb(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(stratoscope, name)
    return function


def options(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(verb(name)).parameters
    return {key: one for key, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}


def test_nothing_is_exported_or_withdrawn_by_accident() -> None:
    assert sorted(stratoscope.__all__) == sorted(EXPORTED)
    assert set(EXPORTED) <= set(dir(stratoscope))


@pytest.mark.parametrize("name", VERBS)
def test_every_export_can_be_used(name: str) -> None:
    assert callable(verb(name))
    assert verb(name).__name__ == name


def test_the_verb_publish_is_not_hidden_by_the_folder_that_is_called_so() -> None:
    """Whatever was imported before, and in a notebook that loads the package again after a change."""
    lines = (
        "import importlib, pickle, stratoscope, stratoscope.publish.levels",
        "from stratoscope.publish import levels",
        "assert callable(stratoscope.publish) and levels.PROMISES",
        "importlib.reload(stratoscope)",
        "assert pickle.loads(pickle.dumps(stratoscope.publish)) is stratoscope.publish",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="explode"):
        _ = stratoscope.explode


@pytest.mark.parametrize("name", VERBS)
def test_only_what_a_verb_acts_on_is_positional(name: str) -> None:
    parameters = inspect.signature(verb(name)).parameters.values()
    kinds = {one.kind for one in parameters}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    positional = [one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == POSITIONAL[name]


@pytest.mark.parametrize("name", VERBS)
def test_every_option_has_a_default_from_the_one_place(name: str) -> None:
    for key, parameter in options(name).items():
        assert parameter.default is not inspect.Parameter.empty, f"{name}({key}) must be given"
        if key == "record" and name == "simulate":
            assert parameter.default == defaults.SIMULATED_RECORD
        elif key == "draws" and name == "ablate":
            assert parameter.default == defaults.ABLATION_DRAWS
        elif key == "edges" and name == "routes":
            assert parameter.default is None  # it depends on what is written: `files.usual_edges`
        elif key in SHARED:
            assert parameter.default == getattr(defaults, SHARED[key]), f"{name}({key})"
        if key in FLAGS:
            assert parameter.default is False, f"{name}({key})"


def stated(path: Path) -> Iterator[tuple[str, str, str]]:
    """Function, parameter and default as written, of every default in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args]
            pairs = [*zip(reversed(given), reversed(node.args.defaults), strict=False)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from ((node.name, key.arg, ast.unparse(value)) for key, value in pairs if value is not None)


def test_no_signature_repeats_the_default_of_an_option() -> None:
    """It is None, off, or a name of `defaults`, in the verbs, in the commands and in whatever they call."""
    known = {key for name in VERBS for key in options(name)}
    again = [
        f"{path.name}: {function}({key}={value})"
        for path in Path(stratoscope.__file__).parent.rglob("*.py")
        for function, key, value in stated(path)
        if key in known and (function, key) not in OTHER_MEANING
        if re.fullmatch(r"True|-?\d[\d.]*|'.+'|\(.+\)", value) or (key == "first_token" and "defaults." not in value)
    ]
    assert not again, f"take the default from `defaults`: {again}"


@pytest.mark.parametrize(("command", "name"), COMMANDS.items())
def test_a_command_has_the_options_and_defaults_of_its_verb(command: str, name: str) -> None:
    given = {one.name: one for one in command_called(command).params}
    wanted = inspect.signature(verb(name)).parameters
    in_python_only = {"progress", "tokenizer", "null", "ax"}
    of_plan_capture = {"plan", "as_json"} if command == "capture" else set()
    of_table = {"csv", "overwrite", "as_json"} if command == "top" else set()  # which prints it, or writes it
    of_probe = {"model"} if command == "diff" else set()  # of which patch_null makes the null
    of_save_result = {"out", "overwrite", "as_json"} if command in RESULTS else set()  # a verb that gives a Result
    of_save_result |= {"as_json"} if command == "compare" else set()  # what `comparison` says
    of_table |= {"out", "theme", "overwrite", "as_json"} if command == "ablate" else set()
    of_capture = OF_CAPTURE | {"as_json"} if command in RECORDING else set()
    of_capture |= {"lens_file", "positions"} if command == "lens" else set()
    assert {key for key in given if key != "help"} == set(
        wanted
    ) - in_python_only | of_plan_capture | of_save_result | of_probe | of_table | of_capture
    for key, parameter in wanted.items():
        if key in in_python_only or parameter.default is inspect.Parameter.empty or key == "out":
            continue
        expected = AS_TEXT.get(key, lambda value: value)(parameter.default)
        assert given[key].default == expected, f"{command} --{key}"


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_documented_as_numpydoc_with_every_parameter(name: str) -> None:
    text = inspect.getdoc(verb(name)) or ""
    sections = text.split("\n---")
    assert len(sections) > 1, f"{name} has no numpydoc sections"
    for section in ("Parameters\n---", "Returns\n---", "Raises\n---"):
        assert section in text, f"{name} lacks the section {section.splitlines()[0]}"
    documented = {
        key.strip()
        for line in text.splitlines()
        if line and not line.startswith(" ")
        for key in line.split(":")[0].split(",")
    }
    missing = set(inspect.signature(verb(name)).parameters) - documented
    assert not missing, f"{name} does not document {sorted(missing)}"


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = stratoscope.StratoscopeError("is empty", where="a.csv", fix="Give a file with rows.")
    assert str(error) == "a.csv: is empty. Give a file with rows."
