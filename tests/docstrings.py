"""Plain prose that whoever has the pinned environment has: the docstrings of its packages, in the order of hashes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

PACKAGES = {
    "science": ("numpy", "scipy", "pandas", "statsmodels", "networkx", "sympy"),
    "software": ("transformers", "torch", "matplotlib", "_pytest", "rich", "jinja2"),
}
_NO_PROSE = (">>>", "::", "---", "===", "`` ", ".. ", "http", "|", "{", "@", "\\")


def docstrings(package: str) -> Iterator[str]:
    """Every docstring of a package's Python files, which are read and not run."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    for path in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py")):
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def prose(docstring: str) -> str:
    """Its paragraphs of plain prose, as one line."""
    paragraphs = (part.strip("\n") for part in docstring.split("\n\n"))
    plain = (part for part in paragraphs if _is_prose(part))
    return " ".join(" ".join(plain).split())


def _is_prose(paragraph: str) -> bool:
    lines = paragraph.split("\n")
    return (
        len(paragraph) >= 60
        and paragraph.rstrip().endswith(".")
        and not any(line.startswith((" ", "\t", "-", "*")) for line in lines)
        and not any(mark in paragraph for mark in _NO_PROSE)
    )


def texts(packages: Sequence[str], *, shortest: int, longest: int) -> list[str]:
    """All pieces of prose of that many characters, each once, in the order of their hashes."""
    found = {prose(one) for package in packages for one in docstrings(package)}
    return sorted((one for one in found if shortest <= len(one) <= longest), key=digest)


def digest(text: str) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
