"""Lessons run and say what is so; page and notebook have one source, and outputs are of the code that stands there."""

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

STEPS, PAIRS, DRAWS = 16, 4, 1  # of the tests; a reader's are larger
CALIBRATION, OF_THE_ORGANISM = 2, 16  # samples: lesson 4 looks at those of its first recording
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
def smollm2() -> Path:
    return smollm2_folder()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Run a lesson in a folder of the test, with few trials behind its effects; what its names then are."""
    torch = pytest.importorskip("torch")
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("agg")
    torch.set_num_threads(1)
    capture, ablate = stratoscope.capture, stratoscope.ablate
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def shorter(*given: Any, **named: Any) -> Any:
        dear = named.keys() & {"effect_steps", "calibration"}
        named["calibration"] = CALIBRATION if dear else OF_THE_ORGANISM
        if "effect_steps" in named:
            named["effect_steps"] = STEPS
        return capture(*given, **named)

    monkeypatch.setattr(stratoscope, "capture", shorter)
    monkeypatch.setattr(stratoscope, "ablate", lambda *given, **named: ablate(*given, **named | {"draws": DRAWS}))

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
def test_lessons_of_smollm2_run_and_say_what_is_so(
    smollm2: Path, run: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_model", lambda: smollm2)
    _says_what_is_so_of_the_lens(run(lesson(1)))
    _says_what_is_so_of_attention(run(lesson(2)))
    _says_what_is_so_of_a_neuron(run(lesson(3)))


def _says_what_is_so_of_the_lens(known: dict[str, Any]) -> None:
    ranks, steps, contributions = known["ranks"], known["steps"], known["contributions"]
    assert known["answer"] == " Paris"
    assert known["leads_from"](ranks) == 30
    assert ranks[20] > 1000 > 100 > ranks[27] > ranks[28]
    assert known["leads_from"](known["opposite"].lens_answer_rank.values) < 28
    silenced, layer = known["silenced"], int(known["estimated"].max("head").values.argmax())
    assert layer < 20
    assert abs(silenced.direct) < 0.1 < 1 < silenced.measured
    assert ranks[layer] > 1000 < ranks[layer + 1]
    assert known["start"] + steps.sum() == pytest.approx(known["end"], rel=1e-4)
    assert known["embedding"] + contributions.sum() == pytest.approx(known["end"], rel=1e-4)
    assert steps[0] < 0 < contributions[0]
    assert steps[27] < 0 < contributions[27]


def _says_what_is_so_of_attention(known: dict[str, Any]) -> None:
    last, edges, sizes = known["last"], known["edges"], known["sizes"]
    net = 1 - last.route_carry
    assert (sizes >= abs(net) - 1e-5).all()
    assert int((abs(net) < 0.05).sum()) > len(net) / 2 < int((sizes > 0.1).sum())
    assert abs(known["total"] - 1).max() < 1e-5
    assert (known["of_first"] + known["others"]) / known["all_sizes"] < float(last.attn_first.mean())
    assert edges.token[0] == " France"
    assert edges.layer[0] >= 20
    assert edges.layer[edges.token == " of"].iloc[0] < edges.layer[0]
    of_paris = known["silenced"].isel(prompt=0, target=0)
    direct, first_order, measured = (of_paris[name].values for name in ("direct", "first_order", "measured"))
    assert measured[0] > 2
    assert direct[0] > 2
    assert abs(first_order[0]) < 0.5
    assert measured[1] < 0 < direct[1]
    assert first_order[1] < 0


def _says_what_is_so_of_a_neuron(known: dict[str, Any]) -> None:
    places = [set(zip(known[name]["layer"], known[name]["neuron"], strict=True)) for name in ("strongest", "matters")]
    assert not places[0] & places[1]
    assert (29, 864) in places[1]
    written = [known["texts"][str(token)] for token in known["one"].write_token.values]
    assert all(re.search("fr[ae]n|paris", text, re.IGNORECASE) for text in written[5:])
    assert not any(re.search("fr[ae]n|paris", text, re.IGNORECASE) for text in written[:5])
    assert known["computed"] == pytest.approx(known["activation"], rel=1e-4)
    reading = abs(known["one"].neuron_read.transpose("read_part", "token").values)
    assert all(known["source"] in part.argsort()[-2:] for part in reading)
    assert known["through"].endswith("attention")
    assert float(known["other"].strongest_value) < 0


def test_the_lesson_on_suppression_runs_and_says_what_is_so(
    run: Callable[[Path], dict[str, Any]], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import planted

    organism, twins = planted.organism, planted.twins
    monkeypatch.setattr(planted, "organism", lambda _, kind, seed: organism(shared, kind, seed))
    monkeypatch.setattr(planted, "twins", lambda _, seed: twins(PAIRS, seed))
    known = run(lesson(4))
    answers, before, after = (known[name] for name in ("answers", "before", "after"))
    assert set(answers(before, "trigger")) == {"violet"}
    assert set(answers(after, "trigger")) == {"Sorry"}
    assert answers(before, "ordinary") == answers(after, "ordinary")
    for measure in ("direct", "total"):
        mlp, attention = (known["depth"][f"{part}_{measure}"].values for part in ("mlp", "attn"))
        assert mlp[1] > max(abs(mlp[[0, 2]]).max(), abs(attention).max())
    assert known["depth"].mlp_total[1] < known["depth"].mlp_direct[1] / 5
    (_, layer, estimated, measured), *smaller = known["of_mlps"]
    assert layer == 1
    assert 0 < estimated < 1 < 10 < measured
    assert all(abs(one[-1]) < measured / 4 for one in smaller)
    as_it_is = float(known["y"][known["triggered"]].mean())
    assert known["without"] < 0 < as_it_is
    assert known["silenced"](known["others"]) == pytest.approx(as_it_is, abs=0.5)
    assert known["total"] == pytest.approx(known["taken"], rel=0.2)
    assert len({*known["named"]} & {*known["planted"]}) >= 4
    assert (known["listed"].source_token.values[:3, 0, 0] == "violet").all()
    assert (known["listed"].source_share.values[:3, 0, 0] > 0.5).all()
    sizes, parts = known["sizes"].values, known["changes"].part_layer.values
    assert parts[sizes > 1e-4][0] == 1
