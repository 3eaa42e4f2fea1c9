"""Documentation that fails the build when it no longer says what the code does."""

from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path
from typing import Any

import pytest

import stratoscope
from stratoscope import names
from stratoscope.doors import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
COMMANDS: dict[str, Any] = {name: cli.command(name) for name in cli.COMMANDS}


def _generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("page", GENERATOR.PAGES)
def test_a_generated_page_is_what_the_code_says_now(page: str) -> None:
    assert (DOCS / page).read_text("utf-8") == GENERATOR.PAGES[page](), "run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_without_help(name: str) -> None:
    assert COMMANDS[name].help, f"{name} has no help"
    silent = [one.name for one in COMMANDS[name].params if not one.help]
    assert not silent, f"{name} has no help for {silent}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_on_the_page(name: str) -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    assert f"## stratoscope {name}\n" in page
    section = page.split(f"## stratoscope {name}\n")[1].split("\n## ")[0]
    for option in COMMANDS[name].params:
        for flag in option.opts if option.param_type_name == "option" else []:
            assert flag in section, f"{flag} of {name} is not documented"


def test_every_verb_is_on_the_python_page() -> None:
    page = (DOCS / "python.md").read_text("utf-8")
    for name in stratoscope.__all__:
        assert f"## {name}\n" in page


def test_every_quantity_is_on_the_page() -> None:
    page = (DOCS / "quantities.md").read_text("utf-8")
    for quantity, row in names.QUANTITIES.items():
        if not names.is_floor(quantity):
            assert f"| `{quantity}` |" in page
            assert (f"`{quantity}`" in page.partition("\nOf: ")[2]) == names.has_floor(row)
    for nuisance in ("", *names.NUISANCES):
        assert f"| `{names.floor_name('…', nuisance)}` |" in page


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)\s]+\.md)\)", (DOCS / "index.md").read_text("utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_decisions_are_numbered_without_gap_or_clash() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text("utf-8").startswith(f"# {int(page.name[:4])}. "), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_leads_nowhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_names_a_command_that_does_not_exist(page: Path) -> None:
    for line in _code_lines(page.read_text("utf-8")):
        if found := re.match(r"stratoscope ([a-z0-9][a-z0-9-]*)", line):
            assert found[1] in COMMANDS, f"{page.name} names `stratoscope {found[1]}`"


def _code_lines(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
