"""How errors are written: the next step is a sentence, the place no sentence (`conftest.py` checks what is raised)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "stratoscope"


def given(keyword: str) -> Iterator[tuple[str, ast.expr, dict[str, ast.expr]]]:
    """Each expression that is given for a keyword, where it stands, and the constants of its file."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
        constants = {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == keyword:
                yield f"{path.relative_to(SOURCE)}:{node.value.lineno}", node.value, constants


def ends(value: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """The last words of every text that an expression can be, as far as they stand in the source."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=[*_, ast.Constant(value=str(text))]):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from (*ends(one, constants), *ends(other, constants))
        case ast.BinOp(right=right):
            yield from ends(right, constants)
        case ast.Name(id=name) if name in constants:
            yield from ends(constants[name], constants)


def test_the_next_step_of_every_error_ends_with_a_full_stop() -> None:
    steps = [(place, end) for place, value, constants in given("fix") for end in ends(value, constants)]
    assert len(steps) > 300
    assert [(place, end) for place, end in steps if end and not end.endswith((".", "?"))] == []


def test_the_place_of_every_error_is_no_sentence() -> None:
    places = [(place, end) for place, value, constants in given("where") for end in ends(value, constants)]
    assert len(places) > 50
    assert [(place, end) for place, end in places if end.endswith(".") or len(end.split()) > 5] == []
