"""Recording in parts: the parts are the whole, cut between batches, and merged they are it again, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_capture import Stop, run
from tiny import RECORDED, TEXTS, tiny

from stratoscope import attention_matrix, engagement, export_csv, heatmap, info, merge, open_trace, peaks3d
from stratoscope.errors import InputError, TraceError
from stratoscope.names import NEURONS, NORMS, RESIDUAL
from stratoscope.recorder.input.grouping import windows
from stratoscope.recorder.parts import divided, prompts_of
from stratoscope.recorder.plan import CapturePlan
from stratoscope.trace.info.facts import info_text

MANY = [f"{text} {'and more ' * (number % 4)}" for number in range(8) for text in TEXTS]  # five windows of eight
SAMPLED = {"generate": 3, "generation": {"do_sample": True, "temperature": 1.5}, "seed": 3}
OF_ONE_RUN = {"uuid", "created", "finished"}


def parts(folder: Path, of: int, **options: Any) -> list[Path]:
    paths = [folder / f"part-{number}" for number in range(1, of + 1)]
    for number, path in enumerate(paths, start=1):
        run(path, prompts=MANY, part=(number, of), **options)
    return paths


def assert_same_trace(one: Path, other: Path) -> None:
    """The files of all arrays have the same bytes, and what is said of them is the same."""
    chunks = {path.relative_to(one) for path in one.rglob("c.*")}
    assert chunks == {path.relative_to(other) for path in other.rglob("c.*")}
    for chunk in chunks:
        assert (one / chunk).read_bytes() == (other / chunk).read_bytes(), chunk
    here, there = open_trace(one).attrs, open_trace(other).attrs
    differing = {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)}
    assert differing - OF_ONE_RUN <= {"merged"}


# --- merged is whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "dtype", "options"),
    [
        ("Llama", torch.bfloat16, {"record": RECORDED, "floor": True}),
        ("Llama", torch.float32, {"record": RECORDED, **SAMPLED}),
        ("Mixtral", torch.float32, {"record": (NORMS, NEURONS)}),
    ],
)
def test_merged_parts_have_the_bytes_of_one_recording(
    tmp_path: Path, family: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    options |= {"model": tiny(family, dtype)}
    run(tmp_path / "whole", prompts=MANY, **options)
    one, two, three = parts(tmp_path, 3, **options)
    merge([three, one, two], tmp_path / "merged")
    assert_same_trace(tmp_path / "whole", tmp_path / "merged")


@pytest.mark.parametrize("of", [1, 2, 4, 5])
def test_any_number_of_parts_gives_the_same_trace(tmp_path: Path, of: int) -> None:
    run(tmp_path / "whole", prompts=MANY, record=(RESIDUAL, NEURONS))
    merge(parts(tmp_path, of, record=(RESIDUAL, NEURONS)), tmp_path / "merged")
    assert_same_trace(tmp_path / "whole", tmp_path / "merged")


def test_a_merged_trace_is_gone_on_with_as_the_whole_that_it_is(tmp_path: Path) -> None:
    whole = merge(parts(tmp_path, 2), tmp_path / "merged")
    again = run(tmp_path / "merged", prompts=MANY, resume=True)
    assert again.attrs["uuid"] == whole.attrs["uuid"]


def test_replays_of_all_parts_from_disk_are_one_in_the_merged_receipt(tmp_path: Path) -> None:
    run(tmp_path / "whole", prompts=MANY, verify="full")
    merge(parts(tmp_path, 2, verify="full"), tmp_path / "merged")
    assert_same_trace(tmp_path / "whole", tmp_path / "merged")
    receipt = open_trace(tmp_path / "merged").attrs["receipt"]
    assert receipt["replays"][-1]["prompts"] == [f"p{number:04d}" for number in range(1, 41)]
    assert "eager replay of 40 prompts" in receipt["receipt_line"]


def test_one_part_measures_the_floor_for_all(tmp_path: Path) -> None:
    run(tmp_path / "whole", prompts=MANY, floor=True)
    for number in (1, 2):
        run(tmp_path / f"{number}", prompts=MANY, part=(number, 2), floor=number == 2)
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert_same_trace(tmp_path / "whole", tmp_path / "merged")


def test_every_view_works_on_a_part_and_on_the_merged_trace(tmp_path: Path) -> None:
    one, two = parts(tmp_path, 2, record=RECORDED)
    merge([one, two], tmp_path / "merged")
    for path in (two, tmp_path / "merged"):
        for view, file in ((heatmap, "h.png"), (engagement, "e.svg"), (peaks3d, "p.html")):
            view(path, tmp_path / file, overwrite=True)
        prompt = str(open_trace(path).prompt_id.values[-1])
        assert export_csv(path, tmp_path / "t.csv", prompt=prompt, overwrite=True)
        assert attention_matrix(open_trace(path), prompt, 1, 2).shape[0] == len(MANY[-1])


# --- a part -----------------------------------------------------------------------------------------------------------


def test_a_part_says_which_it_is_and_plans_the_whole(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", prompts=MANY)
    seen: list[tuple[str, int, int | None]] = []
    part = run(tmp_path / "t", prompts=MANY, part=(2, 5), progress=lambda *state: seen.append(state))
    assert part.prompt_id.values.tolist() == whole.prompt_id.values[8:16].tolist()
    assert part.attrs["plan"] == {**whole.attrs["plan"], "part": [2, 5], "part_prompts": [8, 16]}
    assert CapturePlan.from_json(part.attrs["plan"]).to_json() == part.attrs["plan"]
    assert "part 2 of 5 (prompts 9-16 of 40)" in info_text(info(tmp_path / "t")).splitlines()[0]
    assert [done for stage, done, total in seen if stage == "recording" and total == 8] == [0, 2, 4, 6, 8]


def test_a_picture_of_a_part_says_so(tmp_path: Path) -> None:
    run(tmp_path / "t", prompts=MANY, part=(2, 5))
    heatmap(tmp_path / "t", tmp_path / "f.svg")
    assert "part 2 of 5" in (tmp_path / "f.svg").read_text()


def test_parts_are_proved_and_their_floor_measured_on_the_same_prompts(tmp_path: Path) -> None:
    receipts = [open_trace(path).attrs["receipt"] for path in parts(tmp_path, 2, floor=True)]
    for one in receipts:
        for own in ("batches", "tokens", "receipt_line"):
            del one[own]
    assert receipts[0] == receipts[1]


def test_an_interrupted_part_counts_its_own_prompts_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", prompts=MANY, record=(RESIDUAL, NEURONS), part=(2, 2))
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(tmp_path / "t", prompts=MANY, record=(RESIDUAL, NEURONS), part=(2, 2))
    assert caught.value.__notes__ == ["8 of 16 prompts are kept; resume goes on there"]
    assert "8 of 16 prompts so far" in info_text(info(tmp_path / "t"))
    calls: list[int] = []
    options = {"progress": lambda stage, done, _: stage == "recording" and calls.append(done), "resume": True}
    run(tmp_path / "t", prompts=MANY, record=(RESIDUAL, NEURONS), part=(2, 2), **options)
    assert calls[0] == 8
    for chunk in (tmp_path / "whole").rglob("c.*"):
        assert chunk.read_bytes() == (tmp_path / "t" / chunk.relative_to(tmp_path / "whole")).read_bytes(), chunk


def test_going_on_with_another_part_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    run(tmp_path / "t", prompts=MANY, part=(2, 5))
    run(tmp_path / "t", prompts=MANY, part=(2, 5), resume=True)
    for words, part in (("is now [1, 5]", (1, 5)), ("is now [2, 4]", (2, 4)), ("is now not given", None)):
        with pytest.raises(TraceError) as caught:
            run(tmp_path / "t", prompts=MANY, part=part, resume=True, model="not/loaded")
        assert f"plan.part was [2, 5] and {words}" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ((0, 5), "there is no part 0 of 5"),
        ((6, 5), "there is no part 6 of 5"),
        ((1, 0), "there is no part 1 of 0"),
        ("2-5", "part: '2-5' is no part"),
        ((1, 2, 3), r"part: \(1, 2, 3\) is no part"),
        ((1.0, 2), r"part: \(1.0, 2\) is no part"),
        (3, "part: 3 is no part"),
    ],
)
def test_a_part_that_cannot_be_is_refused_before_the_model_is_loaded(tmp_path: Path, part: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(tmp_path / "t", part=part, model="not/loaded")


def test_more_parts_than_there_are_batches_to_share_are_refused_with_how_many_there_may_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"6 parts are asked for.*make 5 at most.*Use 5 parts or fewer"):
        run(tmp_path / "t", prompts=MANY, part=(1, 6))
    assert not (tmp_path / "t").exists()


# --- how prompts are divided ------------------------------------------------------------------------------------------

lengths_of_prompts = st.lists(st.integers(1, 2**15), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(lengths=lengths_of_prompts, size=st.integers(1, 9), data=st.data())
def test_parts_are_runs_of_whole_windows_that_cover_every_prompt_once(
    lengths: list[int], size: int, data: st.DataObject
) -> None:
    runs = [*windows(lengths, size)]
    of = data.draw(st.integers(1, len(runs)))
    found = [prompts_of((number, of), runs, lengths) for number in range(1, of + 1)]
    assert [found[0].start, found[-1].stop] == [0, len(lengths)]
    assert all(one.stop == other.start for one, other in pairwise(found))
    again = [window for part in found for window in windows(lengths[: part.stop], size, part.start)]
    assert again == runs
    assert all(part for part in found)
    with pytest.raises(InputError, match=f"make {len(runs)} at most"):
        prompts_of((1, len(runs) + 1), runs, lengths)


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(1, 1000), min_size=1, max_size=50), data=st.data())
def test_parts_differ_by_little_more_than_a_window(tokens: list[int], data: st.DataObject) -> None:
    of = data.draw(st.integers(1, len(tokens)))
    shares = [sum(tokens[part.start : part.stop]) for part in divided(tokens, of)]
    assert max(shares) <= sum(tokens) / of + 2 * max(tokens)


@pytest.mark.parametrize(
    ("tokens", "of", "ends"),
    [([1] * 10, 3, [3, 7, 10]), ([9, 1, 1, 1], 2, [1, 4]), ([1, 1, 1, 9], 3, [2, 3, 4]), ([5], 1, [1])],
)
def test_windows_are_shared_out_by_their_tokens(tokens: Sequence[int], of: int, ends: list[int]) -> None:
    assert [part.stop for part in divided(tokens, of)] == ends
