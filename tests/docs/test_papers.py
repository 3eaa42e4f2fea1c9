"""docs/papers.md shows what its commands draw: every figure is there, as wide as its name says, with its source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "papers.md").read_text("utf-8")
FIGURES = sorted(DOCS.glob("papers/*.svg"))


def test_the_page_shows_what_its_commands_write_and_nothing_else() -> None:
    written = re.findall(r"^stratoscope .* -o (\S+\.svg)$", TEXT, re.MULTILINE)
    shown = re.findall(r"\]\(papers/([^)]+)\)", TEXT)
    assert sorted(written) == sorted(shown) == [path.name for path in FIGURES]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_as_wide_as_its_name_says_and_its_text_is_text(figure: Path) -> None:
    svg = figure.read_text("utf-8")
    points = float(re.search(r'<svg [^>]*width="([0-9.]+)pt"', svg)[1])
    assert points / 72 * 25.4 == pytest.approx(int(figure.stem.split("-")[1]), abs=0.01)
    assert svg.count("<text") > 10
    assert '"source":"imported"' in svg if "csv" in figure.stem else '"source":"real"' in svg
