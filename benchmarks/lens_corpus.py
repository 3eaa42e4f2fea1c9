"""Text for fitting and for judging a lens: docstrings of the pinned packages, chosen by their hashes.

    python benchmarks/lens_corpus.py FOLDER

writes `science.jsonl` and `software.jsonl` (to fit), and `held-out.jsonl` (of both kinds, to judge). Whoever has the
pinned environment gets the same files. Of each docstring the paragraphs of plain prose are taken, as one line.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

CORPORA = {
    "science": ("numpy", "scipy", "pandas", "statsmodels", "networkx", "sympy"),
    "software": ("transformers", "torch", "matplotlib", "_pytest", "rich", "jinja2"),
}
TO_FIT, HELD_OUT = slice(0, 5), slice(60, 90)  # of the prompts of each corpus, in the order of their hashes
SHORTEST, LONGEST = 360, 900  # characters: 64 tokens of English have about 300
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


def texts(packages: Sequence[str]) -> list[str]:
    """All pieces of prose that are long enough, each once, in the order of their hashes."""
    found = {prose(one) for package in packages for one in docstrings(package)}
    return sorted((one for one in found if SHORTEST <= len(one) <= LONGEST), key=_digest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def corpora() -> tuple[dict[str, list[str]], list[str]]:
    """What to fit, corpus by corpus, and what is held out."""
    fit, held_out = {}, []
    for name, packages in CORPORA.items():
        chosen = texts(packages)
        fit[name] = chosen[TO_FIT]
        held_out += chosen[HELD_OUT]
    return fit, held_out


def main(folder: Path) -> None:
    """Write the three files and say what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    fit, held_out = corpora()
    for name, prompts in {**fit, "held-out": held_out}.items():
        lines = [json.dumps({"id": f"{name}-{number:02}", "text": text}) for number, text in enumerate(prompts)]
        content = "\n".join(lines) + "\n"
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        print(f"{name}.jsonl: {len(prompts)} prompts, sha256 {_digest(content)[:16]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
