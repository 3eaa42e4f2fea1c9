"""Files of fitted lenses: what is read of ours and of TransformerLens's, and what is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratoscope.errors import InputError
from stratoscope.recorder.lens.fitted import FittedLens, open_lens
from stratoscope.trace.lens_file import MOVED, READ, WRITE, Cell, is_lens_file, matrix_name, write_lens_file

WIDTH, DEPTHS = 6, 4
CELLS = [Cell(0, 0, 3), Cell(0, 1, 2), Cell(1, 0, 1), Cell(1, 1, 1)]


def lens_arrays(rows: int = WIDTH) -> dict[str, np.ndarray]:
    """Random matrices of every cell and depth."""
    draw = np.random.default_rng(0)
    matrices = {
        matrix_name(cell, depth): draw.normal(size=(rows, WIDTH)).astype(np.float32)
        for cell in CELLS
        for depth in range(DEPTHS - 1)
    }
    return {**matrices, MOVED: np.zeros((7, DEPTHS - 1), np.float32)}


def corpus(name: str, prompts: int) -> dict[str, Any]:
    """What a file says of a corpus."""
    return {"name": name, "sha256": name, "prompts": prompts, "too_short": 0, "cut": 0}


def lens_facts(**other: Any) -> dict[str, Any]:
    """What a file says of itself."""
    facts = {
        "kind": "jacobian",
        "weights_sha256": "abc",
        "basis": "weights",
        "model": {"name": "tiny", "dtype": "float32"},
        "d_model": WIDTH,
        "depths": DEPTHS,
        "rank": None,
        "rows": WIDTH,
        "corpora": [corpus("letters", 5), corpus("books", 2)],
        "positions": 70,
        "skipped": {"first": 16, "last": 1},
        "cells": [[cell.corpus, cell.half, cell.prompts] for cell in CELLS],
        "prompts": 7,
    }
    return {**facts, **other}


def opened(path: Path, **other: Any) -> FittedLens:
    """The lens, for a model that it fits."""
    return open_lens(path, **{"weights_sha256": "abc", "d_model": WIDTH, "depths": DEPTHS, **other})


def test_parts_are_means_over_their_prompts(tmp_path: Path) -> None:
    arrays, x = lens_arrays(), torch.randn(2, 3, WIDTH)
    write_lens_file(tmp_path / "a.lens", lens_facts(), arrays)
    lens = opened(tmp_path / "a.lens")
    assert lens.parts == (
        "jacobian",
        "jacobian, half 1",
        "jacobian, half 2",
        "jacobian, corpus letters",
        "jacobian, corpus books",
    )
    whole = sum(cell.prompts / 7 * arrays[matrix_name(cell, 2)].astype(np.float64) for cell in CELLS)
    torch.testing.assert_close(lens.apply(0, 2, x), x @ torch.tensor(whole, dtype=torch.float32).T)
    halves = [lens.apply(part, 1, x) for part in (1, 2)]
    torch.testing.assert_close((4 * halves[0] + 3 * halves[1]) / 7, lens.apply(0, 1, x))
    letters = (3 * arrays[matrix_name(CELLS[0], 0)] + 2 * arrays[matrix_name(CELLS[1], 0)]) / 5
    torch.testing.assert_close(lens.apply(3, 0, x), x @ torch.tensor(letters).T)
    assert lens.apply(1, DEPTHS - 1, x) is x
    assert all(lens.fitted(depth) for depth in range(DEPTHS))


def test_a_low_rank_lens_is_two_products(tmp_path: Path) -> None:
    arrays, write = lens_arrays(rows=2), np.random.default_rng(1).normal(size=(WIDTH, 2)).astype(np.float32)
    write_lens_file(tmp_path / "a.lens", lens_facts(rank=2, rows=2), {**arrays, READ: write.T, WRITE: write})
    lens, x = opened(tmp_path / "a.lens"), torch.randn(5, WIDTH)
    read = (3 * arrays[matrix_name(CELLS[0], 1)] + arrays[matrix_name(CELLS[2], 1)]) / 4
    torch.testing.assert_close(lens.apply(1, 1, x), x @ torch.tensor(write @ read).T)


def test_a_lens_of_another_model_is_refused(tmp_path: Path) -> None:
    write_lens_file(tmp_path / "a.lens", lens_facts(), lens_arrays())
    with pytest.raises(InputError, match=r"fitted to another model \(tiny\): its weights are others"):
        opened(tmp_path / "a.lens", weights_sha256="abd")
    with pytest.raises(InputError, match="another size"):
        opened(tmp_path / "a.lens", weights_sha256=None, depths=DEPTHS + 1)
    with pytest.raises(InputError, match="does not exist"):
        opened(tmp_path / "b.lens")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"depths": DEPTHS + 1}, "damaged"),
        ({"cells": [[0, 0, 3], [5, 1, 2]]}, "damaged .it does not say which prompts"),
        ({"cells": []}, "damaged"),
        ({"d_model": -1}, "damaged .d_model is -1"),
        ({"rank": 3}, "damaged"),
        ({"rows": 3}, "damaged"),
        ({"unfinished": True, "planned": 9}, "not all of its prompts are in it: 7 of 9"),
        ({"kind": "tuned"}, "damaged"),
        ({"unfinished": True}, "damaged .'planned' is missing"),
        ({"apart": "x"}, "'apart' is no number of each depth"),
        ({"outside": [0.1, "x", 0.2]}, "'outside' is no number of each depth"),
        ({"prompts": None}, "damaged"),
        ({"positions": "x"}, "damaged"),
        ({"skipped": None}, "damaged"),
        ({"model": None}, "damaged"),
        ({"model": {"name": 3, "dtype": "float32"}}, "damaged"),
        ({"corpora": [{"name": "a"}, {"name": "b"}]}, "damaged .'sha256' is missing"),
        ({"corpora": [corpus("a", 5), corpus("a", 2)]}, "two of its corpora have one name"),
        ({"corpora": 3}, "damaged"),
        ({"format_version": "9.0"}, None),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, other: dict[str, Any], words: str | None) -> None:
    write_lens_file(tmp_path / "a.lens", lens_facts(**other), lens_arrays())
    if words is None:  # the version is the writer's own
        assert opened(tmp_path / "a.lens").facts["format_version"] == "1.0"
        return
    with pytest.raises(InputError, match=words):
        opened(tmp_path / "a.lens")


def of_facts(facts: bytes) -> bytes:
    """A file without arrays that says this of itself."""
    head = b'{"__metadata__": {"stratoscope_lens": "' + facts + b'"}}'
    return len(head).to_bytes(8, "little") + head


def test_a_cut_or_changed_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "a.lens"
    write_lens_file(whole, lens_facts(), lens_arrays())
    content = whole.read_bytes()
    assert is_lens_file(whole)
    assert not is_lens_file(tmp_path)
    changes = [content[:-4], content[:40], content.replace(b'"dtype": "F32"', b'"dtype": "F64"', 1),
               content.replace(b'stratoscope_lens', b'stratoscope_lent'), (1 << 40).to_bytes(8, "little") + content[8:],
               content.replace(b'format_version\\": \\"1.0', b'format_version\\": \\"3.0'), b"", b"text",
               of_facts(b"[1]"), of_facts(b"{}")]  # fmt: skip
    for number, changed in enumerate(changes):
        path = tmp_path / f"{number}.lens"
        path.write_bytes(changed)
        assert changed != content
        with pytest.raises(InputError):
            opened(path)


def test_a_matrix_of_no_numbers_is_refused_where_it_is_read(tmp_path: Path) -> None:
    arrays = lens_arrays()
    arrays[matrix_name(CELLS[1], 2)][0, 0] = np.nan
    write_lens_file(tmp_path / "a.lens", lens_facts(), arrays)
    lens = opened(tmp_path / "a.lens")
    lens.apply(1, 2, torch.zeros(1, WIDTH))
    with pytest.raises(InputError, match="depth 2 holds what is no number"):
        lens.apply(0, 2, torch.zeros(1, WIDTH))


# --- TransformerLens's form -----------------------------------------------------------------------------------------


def saved(path: Path, **other: Any) -> Path:
    """A file as `JacobianLens.save` of TransformerLens writes it."""
    torch.manual_seed(0)
    matrices = {layer: torch.randn(WIDTH, WIDTH, dtype=torch.float16) for layer in (0, 1)}
    content = {"J": matrices, "n_prompts": 100, "source_layers": [0, 1], "d_model": WIDTH}
    torch.save({**content, **other}, path)
    return path


def test_layer_l_of_transformer_lens_is_depth_l_plus_1(tmp_path: Path) -> None:
    path, x = saved(tmp_path / "lens.pt"), torch.randn(3, WIDTH)
    lens, content = opened(path), torch.load(path)
    assert [lens.fitted(depth) for depth in range(DEPTHS)] == [False, True, True, True]
    torch.testing.assert_close(lens.apply(0, 1, x), x @ content["J"][0].float().T)
    assert lens.apply(0, DEPTHS - 1, x) is x
    assert lens.parts == ("jacobian",)
    assert lens.facts["basis"].startswith("not stated in the file")
    assert lens.facts["prompts"] == 100


def test_the_basis_is_said_or_refused(tmp_path: Path) -> None:
    raw = {"model_name": "gpt2", "processing": {"compatibility_mode": False, "weight_basis": "raw_huggingface"}}
    facts = opened(saved(tmp_path / "raw.pt", metadata={**raw, "corpus": "wikitext", "target_layer": 2})).facts
    assert facts["basis"].endswith("(the file says so)")
    assert (facts["model"]["name"], facts["corpora"][0]["name"]) == ("gpt2", "wikitext")
    with pytest.raises(InputError, match=r"another basis \(folded\)"):
        opened(saved(tmp_path / "folded.pt", metadata={"processing": {"weight_basis": "folded"}}))
    with pytest.raises(InputError, match="lead to layer 1"):
        opened(saved(tmp_path / "early.pt", metadata={"target_layer": 1}))


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").touch, ())


def test_a_file_that_holds_code_or_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"J": {0: _Hostile()}}, "code.pt")
    Path("pickle.pt").write_bytes(pickle.dumps({"J": {0: _Hostile()}}))
    saved(Path("whole.pt"))
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:-200])
    saved(Path("large.pt"), more=torch.zeros(2**19))
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(2**23))
    torch.save([1, 2], "list.pt")
    saved(Path("wide.pt"), J={0: torch.zeros(WIDTH, WIDTH + 1)})
    saved(Path("deep.pt"), J={2: torch.zeros(WIDTH, WIDTH)})
    saved(Path("whole_numbers.pt"), J={0: torch.zeros(WIDTH, WIDTH, dtype=torch.int64)})
    saved(Path("nan.pt"), J={0: torch.full((WIDTH, WIDTH), float("nan"))})
    Path("page.pt").write_text("<!doctype html><p>not found")
    saved(Path("worded.pt"), d_model="x")
    saved(Path("negative.pt"), n_prompts=-4)
    for name in (
        "worded",
        "negative",
        "code",
        "pickle",
        "cut",
        "large",
        "bomb",
        "list",
        "wide",
        "deep",
        "whole_numbers",
        "nan",
        "page",
    ):
        with pytest.raises(InputError) as refused:
            opened(Path(f"{name}.pt"))
        assert "\n" not in str(refused.value)
    assert not Path("ran").exists()
