"""The shape of the package: which way imports point, who may touch torch, and what starting up loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stratoscope

ROOT = Path(stratoscope.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

GROUND = {
    "names",
    "defaults",
    "errors",
    "progress",
    "disk",
    "replacing",
    "version",
    "words",
}  # everyone may use these; they use nobody
MAY_IMPORT = {  # package -> packages it may import, besides itself and GROUND
    "kernels": set(),
    "model": set(),
    "recorder": {"analysis", "kernels", "model", "trace"},
    "trace": set(),
    "analysis": {"kernels", "trace"},
    "probe": {"analysis", "model", "recorder", "trace"},
    "view": {"analysis", "trace"},
    "publish": {"analysis", "trace", "view"},
    "doors": {"analysis", "model", "probe", "publish", "recorder", "trace", "view"},
}
FOLDERS = {  # package -> its folders -> folders beside them that they import; files only may not close a circle
    "trace": {
        "format": set(),
        "read": {"format"},
        "write": {"format", "read"},
        "csv": {"format", "read", "write"},
        "export": {"csv", "format"},
        "info": {"csv", "format"},
    },
    "model": {"gguf": set(), "files": {"gguf"}, "search": set()},
    "recorder": {
        "prompts": set(),
        "input": {"prompts"},
        "targets": {"input", "prompts"},
        "reduce": {"input", "lens", "targets"},
        "attention": {"input", "reduce"},
        "reference": set(),
        "simulated": {"targets"},
        "groups": {"reduce", "reference", "routes", "simulated"},
        "proof": {"groups", "input", "reference", "targets"},
        "answers": {"input", "prompts", "proof"},
        "estimate": {"reduce"},
        "effects": {"attention", "input", "reduce", "routes", "targets"},
        "lens": set(),
        "routes": {"attention", "input", "reduce"},
    },
    "analysis": {
        "statistics": set(),
        "values": set(),
        "results": set(),
        "classes": {"statistics", "values"},
        "lint": {"classes", "results", "statistics", "values"},
        "anomalies": {"lint", "results", "statistics", "values"},
        "contrast": {"classes", "lint", "results", "statistics", "values"},
        "diff": {"lint", "results", "statistics", "values"},
        "lens": set(),
        "top": {"values"},
        "routes": {"results", "values"},
        "compare": {"diff", "lint", "results", "statistics", "values"},
        "suppression": {"classes", "contrast", "results", "statistics", "values"},
    },
    "view": {
        "spec": set(),
        "web": set(),
        "choose": {"spec"},
        "charts": {"choose", "spec"},
        "sheet": {"spec"},
        "matplotlib": {"sheet", "spec"},
        "routes": {"choose", "matplotlib", "sheet", "spec", "web"},
        "maps": {"charts", "choose", "matplotlib", "spec"},
        "lens": {"choose", "matplotlib", "sheet", "spec"},
        "peaks3d": {"choose", "sheet", "spec", "web"},
        "report": {"charts", "maps", "matplotlib", "sheet", "spec", "web"},
    },
    "publish": {
        "attacks": set(),
        "tokens": set(),
        "profiles": {"attacks"},
        "private": {"profiles"},
        "pictures": {"tokens"},
        "ledger": set(),
        "audit": {"attacks", "pictures", "tokens"},
    },
}
TORCH = {"torch", "transformers", "safetensors", "accelerate", "gguf"}
WITHOUT_TORCH = {
    "recorder/__init__.py",
    "recorder/prompts",
    "recorder/prompts/files",
    "recorder/simulate.py",
    "recorder/plan.py",
    "recorder/answers/settings.py",
    "recorder/effects/asked.py",
    "recorder/lens/asked.py",
    "recorder/targets/asked.py",
    "recorder/parts.py",
    "recorder/groups",
    "recorder/simulated",
}
HOOKS = ("register_forward_hook", "register_forward_pre_hook", "register_module_forward_hook")
HOOK_FILES = {"model/hooks.py"}
HEAVY = {"torch", "transformers", "pandas", "xarray", "zarr", "matplotlib", "plotly"}
LONGEST = 450


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, wherever in the file, relative imports resolved."""
    package = ("stratoscope", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module(path: Path) -> str:
    """Dotted name of a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_files(path: Path) -> set[str]:
    """Dotted names of the files of the package that a file imports: late ones, and those for types alone, too."""
    files = {module(one) for one in MODULES}
    found = (item if item in files else item.rpartition(".")[0] for item in imports(path))
    return set(found) & files - {module(path)}


GRAPH = {module(path): imported_files(path) for path in MODULES}


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' ← '.join(error.args[1])}")


def packages() -> list[str]:
    """Dotted names of the package and of every folder in it."""
    return sorted(module(path) for path in MODULES if path.name == "__init__.py")


def neighbours(package: str) -> dict[str, set[str]]:
    """What stands in a package, folders and files, and what of it each imports."""
    found: dict[str, set[str]] = {}
    inside = {one: one.removeprefix(f"{package}.").split(".")[0] for one in GRAPH if one.startswith(f"{package}.")}
    for one, own in inside.items():
        found.setdefault(own, set()).update({inside[other] for other in GRAPH[one] & inside.keys()} - {own})
    return found


@pytest.mark.parametrize("package", packages())
def test_no_folders_import_each_other_in_a_circle(package: str) -> None:
    try:
        TopologicalSorter(neighbours(package)).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports in {package}: {' ← '.join(error.args[1])}")


@pytest.mark.parametrize("package", FOLDERS)
def test_folders_import_only_those_that_they_stand_on(package: str) -> None:
    found = neighbours(f"stratoscope.{package}")
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders == set(FOLDERS[package])
    used = {folder: found[folder] & folders for folder in folders}
    assert used == FOLDERS[package]


@pytest.mark.parametrize("package", packages())
def test_a_folder_says_in_a_line_what_it_is_for(package: str) -> None:
    path = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    said = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
    assert said.endswith("."), f"{name(path)}: {said!r}"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


inside = [path for path in MODULES if len(path.relative_to(ROOT).parts) > 1]


@pytest.mark.parametrize("path", inside, ids=name)
def test_no_import_points_against_the_flow(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    own = {imported.split(".")[1] for imported in imports(path) if imported.startswith("stratoscope.")}
    public = set(stratoscope.__all__)
    allowed = MAY_IMPORT[package] | GROUND | {package} | (public if package == "doors" else set())
    assert own <= allowed, f"{name(path)} imports {sorted(own - allowed)}"


def test_the_recorder_takes_kernels_of_statistics_and_opens_results_and_takes_nothing_else_of_the_analysis() -> None:
    taken = {one for path in GRAPH if path.startswith("stratoscope.recorder.") for one in GRAPH[path]}
    found = {one for one in taken if one.startswith("stratoscope.analysis.")}
    kernels = "stratoscope.analysis.statistics.agreement"
    assert found == {kernels, "stratoscope.analysis.results.result"}  # of which a look-alike is made
    assert not {one for one in GRAPH[kernels] if one.startswith("stratoscope.analysis")}


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_stands_on_nothing_but_itself(module: str) -> None:
    assert {item.split(".")[0] for item in imports(ROOT / f"{module}.py")} <= {*sys.stdlib_module_names, "stratoscope"}
    own = {item.split(".")[1] for item in imports(ROOT / f"{module}.py") if item.startswith("stratoscope.")}
    assert own <= GROUND


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_model_the_recorder_and_the_probe_import_torch(path: Path) -> None:
    used = {imported.split(".")[0] for imported in imports(path)} & TORCH
    without = name(path) in WITHOUT_TORCH or name(path.parent) in WITHOUT_TORCH
    may = path.relative_to(ROOT).parts[0] in {"model", "recorder", "probe"} and not without
    assert may or not used, f"{name(path)} imports {sorted(used)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_hooks_are_registered_in_one_place(path: Path) -> None:
    found = [hook for hook in HOOKS if hook in path.read_text("utf-8")]
    assert not found or name(path) in HOOK_FILES, f"{name(path)} registers {found}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_file_grows_beyond_one_purpose(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST


def loaded(*arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running the given arguments."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}


def test_import_stratoscope_loads_nothing_heavy() -> None:
    modules = loaded("-X", "importtime", "-c", "import stratoscope; dir(stratoscope)")
    assert "stratoscope" in modules
    assert not modules & {*HEAVY, "numpy", "typer", "rich"}


def test_a_mistake_in_the_arguments_of_capture_is_told_before_torch_is_loaded() -> None:
    """Neither the command nor the function waits for it: what is asked is checked first."""
    call = "stratoscope.capture('m', ['a'], 'x', record='nrms')"
    wrong = f"import contextlib, stratoscope\nwith contextlib.suppress(stratoscope.StratoscopeError): {call}"
    modules = loaded("-X", "importtime", "-c", wrong)
    assert "xarray" in modules
    assert not modules & TORCH


@pytest.mark.parametrize("arguments", [(), ("--help",), ("heatmap", "--help"), ("capture", "--help"), ("--version",)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = loaded("-X", "importtime", "-m", "stratoscope", *arguments)
    assert "typer" in modules
    assert not modules & {*HEAVY, "numpy", "rich"}


def test_a_command_prints_only_through_the_console_and_a_page_is_made_only_by_a_template() -> None:
    source = Path(__file__).parents[1] / "src" / "stratoscope"
    files = {path: path.read_text("utf-8") for path in source.rglob("*.py")}
    prints = re.compile(r"^(?! *(?:>>>|\.\.\.) ).*\b(?:typer\.echo|print)\(", re.MULTILINE)  # but for examples
    printing = [path.name for path, text in files.items() if prints.search(text)]
    assert set(printing) <= {"console.py", "commands.py", "estimate.py"}  # lines of Python to paste; a table of sizes
    markup = [path.name for path, text in files.items() if re.search(r"\bMarkup\b|\|\s*safe\b", text)]
    assert markup == ["pages.py"]
    templates = [path.read_text("utf-8") for path in (source / "view" / "web").glob("*.html")]
    assert not any(re.search(r"\|\s*safe|autoescape", text) for text in templates)


def test_no_default_has_two_values() -> None:
    """Two branches that each add one of the same name merge without a conflict, and the later would win."""
    tree = ast.parse((ROOT / "defaults.py").read_text("utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    assert len(names) == len({*names}), sorted(name for name in {*names} if names.count(name) > 1)
