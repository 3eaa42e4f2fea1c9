"""The example in the docstring of every public name is run, and prints what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import stratoscope

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, for examples that say MODEL."""
    from tiny import byte_tokenizer, tiny

    folder = tmp_path_factory.mktemp("models") / "MODEL"
    tiny("Llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", stratoscope.__all__)
def test_the_example_of_a_public_name_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(stratoscope, name), name, globs={})
    assert example.examples, f"{name} has no example"
    if "MODEL" in example.docstring:
        Path("MODEL").symlink_to(request.getfixturevalue("model"), target_is_directory=True)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=told.append)
    assert not told, "".join(told)
