"""How errors are written: the next step is a sentence, the place no sentence (`conftest.py` checks what is raised)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stratoscope.errors import InputError, choices, did_you_mean, nearest, refuse_unknown

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


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("usr", ("system", "user"), "user"),
        ("ROBUST", ("linear", "robust"), "robust"),
        ("fire c", ("fire-c", "ice c"), "fire-c"),
        ("ice", ("ice c", "fire-c"), "'ice c'"),  # in quotes, as a blank in it is not seen
        (3.5, ("3.6", "a"), ""),
        ("-1", ("a-1", "b"), ""),  # a number is no mistyped name
        ("", ("a",), ""),
        ("colour", ("a", "b"), ""),
        ("x" * 10**6, ["y" * 10**6], ""),
    ],
)
def test_a_mistyped_name_is_told_the_nearest_one(given: object, known: tuple[str, ...], meant: str) -> None:
    assert did_you_mean(given, known) == (f"Did you mean {meant}? " if meant else "")


def test_all_there_are_is_told_where_it_is_short() -> None:
    assert choices("b", ("a", "bb c")) == "There are: a, 'bb c'."
    assert choices("b", [f"n{number}" for number in range(2000)], most=2) == "There are: n0, n1, … (2,000 in all)."
    assert choices("b", ()) == "There are: none."
    assert nearest("norm", ("norms", "form", "norm_x"), 2) == ["norms", "norm_x"]


def test_a_name_that_is_none_of_its_kind_is_refused_in_one_way() -> None:
    refuse_unknown("user", ("system", "user"), "span")
    with pytest.raises(InputError, match=r"span: no span called 'usr'\. Did you mean user\? There are: system, user\."):
        refuse_unknown("usr", ("system", "user"), "span")
