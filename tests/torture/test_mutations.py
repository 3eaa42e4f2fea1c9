"""Some hundreds of damaged files; `make torture` reads 20,000 of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import READERS, Reader, run


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_is_read_or_refused_in_the_projects_own_words(reader: Reader, tmp_path: Path) -> None:
    lines: list[str] = []
    assert not run(tmp_path, round(500 * reader.share), only=reader.name, say=lines.append), "\n".join(lines)


def test_the_same_number_damages_the_same_file_in_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mutations

    given: list[list[tuple[str, bytes]]] = []
    seen = Reader("CSV", mutations.csv_files, lambda path: given[-1].append((path.name, path.read_bytes())), 1.0)
    monkeypatch.setattr(mutations, "READERS", (seen,))
    for place in ("one", "two"):
        given.append([])
        assert not run(tmp_path / place, 40, say=lambda line: None)
    assert len(set(given[0])) > 30  # as many kinds of damage, nearly, as numbers
    assert given[0] == given[1]


def test_what_a_reader_does_not_refuse_in_its_own_words_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mutations

    def careless(path: Path) -> object:
        return int(path.read_bytes()[:1])

    broken = Reader("careless", lambda folder: mutations.csv_files(folder), careless, 1.0)
    monkeypatch.setattr(mutations, "READERS", (broken,))
    lines: list[str] = []
    assert run(tmp_path, 5, say=lines.append) == 5
    assert "again: 1 --first 0 --only 'careless'" in lines[0]
