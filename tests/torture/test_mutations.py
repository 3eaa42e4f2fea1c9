"""Some hundreds of damaged files; `make torture` reads 20,000 of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import READERS, Reader, run


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_is_read_or_refused_in_the_projects_own_words(reader: Reader, tmp_path: Path) -> None:
    lines: list[str] = []
    assert not run(tmp_path, round(500 * reader.share), only=reader.name, say=lines.append), "\n".join(lines)


def test_the_same_number_damages_the_same_file_in_the_same_way(tmp_path: Path) -> None:
    said: list[list[str]] = [[], []]
    for place, lines in zip(("one", "two"), said, strict=True):
        run(tmp_path / place, 40, only="CSV", say=lines.append)
    assert said[0][0].split(";")[0] == said[1][0].split(";")[0]


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
