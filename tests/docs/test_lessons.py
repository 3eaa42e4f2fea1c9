"""Lessons run, say what is so, and are of one source: the notebook's cells are the page's, and outputs are of its code."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebooks import LESSONS, cells, code_hash, notebook, outputs_are_of, with_outputs
from real_model import smollm2_folder

import stratoscope
from stratoscope.doors import demo

CALIBRATION = 2
NAMES = [page.stem for page in LESSONS]
OF_ONE_RECORDING = [page for page in LESSONS if "lessons.trace" in page.read_text("utf-8")]
PARTS = """# A title

```python
# A picture
1 + 1
```

Words.

<details><summary>Answers</summary>

```python
2
```

</details>
"""


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


# --- one source -------------------------------------------------------------------------------------------------------


def test_outputs_are_put_behind_their_cells_and_replaced() -> None:
    once = with_outputs(PARTS, ["```text\n2\n```", ""])
    assert "1 + 1\n```\n\n<!-- output -->\n```text\n2\n```\n<!-- end of output -->\n\nWords." in once
    assert once.count("<!-- output -->") == 1
    assert with_outputs(once, ["```text\n2\n```", ""]) == once
    assert cells(once) == cells(PARTS)
    assert outputs_are_of(once) == code_hash(PARTS) != code_hash(PARTS.replace("1 + 1", "1 + 2"))


def test_answers_are_folded_in_a_notebook_and_nothing_else_is() -> None:
    made = nbformat.reads(notebook(PARTS), as_version=4)
    nbformat.validate(made)
    assert [cell.cell_type for cell in made.cells] == ["markdown", "code", "markdown", "code"]
    assert [cell.metadata.get("collapsed", False) for cell in made.cells] == [False, False, False, True]


@pytest.mark.parametrize("page", LESSONS, ids=NAMES)
def test_the_outputs_of_a_lesson_are_those_of_the_code_that_stands_there(page: Path) -> None:
    assert outputs_are_of(text_of(page)) == code_hash(text_of(page)), "run `python docs/lessons/make.py`"


@pytest.mark.parametrize("page", LESSONS, ids=NAMES)
def test_a_lesson_shows_every_picture_of_its_own_and_none_is_large(page: Path) -> None:
    shown = re.findall(r"\]\(([^)]+\.webp)\)", text_of(page))
    own = sorted(page.parent.glob(f"{page.stem}-*.webp"))
    assert shown == [picture.name for picture in own]
    assert shown
    assert all(picture.stat().st_size < 200_000 for picture in own)


@pytest.mark.parametrize("page", LESSONS, ids=NAMES)
def test_a_lesson_ends_with_three_questions_and_their_answers(page: Path) -> None:
    asked = text_of(page).split("## Questions\n")[1].split("<details>")[0]
    assert re.findall(r"^(\d)\. ", asked, re.MULTILINE) == ["1", "2", "3"]
    answers = [cell.text.splitlines()[0] for cell in cells(text_of(page)) if cell.folded]
    assert answers == ["# Answer 1", "# Answer 2", "# Answer 3"]


def test_lessons_of_one_recording_record_the_same() -> None:
    assert len({next(cell.text for cell in cells(text_of(page)) if cell.code) for page in OF_ONE_RECORDING}) == 1


def test_the_page_of_lessons_leads_to_all_of_them() -> None:
    page = (LESSONS[0].parent / "README.md").read_text("utf-8")
    for name in NAMES:
        assert f"]({name}.md)" in page
        assert f"]({name}.ipynb)" in page


# --- they run, and say what is so -------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Run a lesson in a folder of the test, with few trials behind its effects; what its names then are."""
    torch = pytest.importorskip("torch")
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    torch.set_num_threads(1)
    capture = stratoscope.capture
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "find_model", smollm2_folder)
    monkeypatch.setattr(
        stratoscope, "capture", lambda *given, **named: capture(*given, **{**named, "calibration": CALIBRATION})
    )

    def run(page: Path) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for number, cell in enumerate(cells(text_of(page))):
            if cell.code:
                exec(compile(cell.text, f"{page.name}, cell {number}", "exec"), known)
        plt.close("all")
        return known

    return run


def lesson(number: int) -> Path:
    return next(page for page in LESSONS if page.name.startswith(f"{number}-"))


@pytest.mark.model
def test_lessons_of_smollm2_run_and_say_what_is_so(run: Callable[[Path], dict[str, Any]]) -> None:
    neuron = run(lesson(3))
    assert abs(neuron["computed"] - neuron["activation"]) < 1e-3


def test_the_lesson_on_suppression_runs_and_says_what_is_so(
    run: Callable[[Path], dict[str, Any]], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import planted

    organism = planted.organism
    monkeypatch.setattr(planted, "organism", lambda _, kind, seed: organism(shared, kind, seed))
    known = run(lesson(4))
    assert known
