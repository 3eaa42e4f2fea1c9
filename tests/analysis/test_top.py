"""The strongest neurons, against loops that share nothing with what finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stratoscope
from stratoscope.analysis.top import peaks
from stratoscope.errors import InputError, UsageError
from stratoscope.words import number

Key = tuple[int, int, int]  # layer, expert, neuron

SIZES: dict[str, Any] = {"prompts": 4, "layers": 3, "d_model": 8, "d_ff": 24, "heads": 2, "record": "peaks"}
HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return stratoscope.simulate(tokens=(7, 11), top_k=4, **SIZES)


def peaks_by_loop(trace: xr.Dataset, prompt: int) -> list[tuple[float, int, Key]]:
    """Write norm, token and neuron of every peak of a prompt, first token left out, strongest first."""
    found = []
    for token in np.flatnonzero((trace["prompt"].values == prompt) & (trace["position"].values > 0)).tolist():
        for row, layer in enumerate(trace["layer"].values.tolist()):
            for rank in range(trace.sizes["peak"]):
                neuron = int(trace["peak_neuron"].values[token, row, rank])
                expert = int(trace["peak_expert"].values[token, row, rank]) if "peak_expert" in trace else -1
                if neuron >= 0:
                    found.append((float(trace["peak_write"].values[token, row, rank]), token, (layer, expert, neuron)))
    return sorted(found, key=lambda one: -one[0])


def listed_by_loop(trace: xr.Dataset, prompt: int, n: int) -> list[tuple[float, int, Key]]:
    best: dict[Key, tuple[float, int, Key]] = {}
    for one in peaks_by_loop(trace, prompt):
        best.setdefault(one[2], one)
    return list(best.values())[:n]


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_the_list_is_that_of_a_loop_over_all_peaks(trace: xr.Dataset, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    shape = trace["peak_neuron"].shape
    mixed = trace.assign(
        peak_neuron=(trace["peak_neuron"].dims, rng.integers(-1, 5, shape).astype(np.int32)),
        peak_expert=(trace["peak_neuron"].dims, rng.integers(-1, 2, shape).astype(np.int32)),
        peak_write=(trace["peak_neuron"].dims, rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)),
    )
    prompt, n = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "_BLOCK", data.draw(st.sampled_from([60, 2**20])))  # any split gives the same answer
        found = stratoscope.top(mixed, prompt=prompt, n=n)
    expected = listed_by_loop(mixed, prompt, n)
    position = mixed["position"].values
    keys = [*zip(found["layer"], found["expert"], found["neuron"], strict=True)]
    assert [(write, at, key) for write, at, key in zip(found["write_norm"], found["position"], keys, strict=True)] == [
        (write, position[token], key) for write, token, key in expected
    ]
    every = [{key for _, _, key in peaks_by_loop(mixed, one)} for one in range(4)]
    assert found["in_prompts"].tolist() == [sum(key in those for those in every) for key in keys]


def test_the_share_is_of_all_neurons_and_not_of_the_recorded_ones(trace: xr.Dataset) -> None:
    dims = trace["peak_write"].dims
    every = np.random.default_rng(0).lognormal(size=(*trace["peak_write"].shape[:2], 24))
    neuron = np.argsort(-every, axis=2)[..., :4]
    write = np.take_along_axis(every, neuron, axis=2)
    share = (write**2).sum(axis=2) / (every**2).sum(axis=2)
    made = trace.assign(peak_neuron=(dims, neuron), peak_write=(dims, write), peak_share=(dims[:2], share))
    found = stratoscope.top(made, prompt=1, n=8)
    for one in found.itertuples():
        token = int(np.flatnonzero((trace["prompt"].values == 1) & (trace["position"].values == one.position))[0])
        of_all = every[token, int(one.layer)] ** 2  # type: ignore[call-overload]
        assert one.share == pytest.approx(of_all[one.neuron] / of_all.sum())
    for lacking in (made.isel(peak=slice(2)), made.drop_vars("peak_share")):
        assert stratoscope.top(lacking, prompt=1)["share"].isna().all(), "cut peaks do not sum to the recorded share"


def test_other_tokens_are_the_strongest_elsewhere_and_never_twins_first(trace: xr.Dataset) -> None:
    found = stratoscope.top(trace, prompt="critical-1", n=6)
    values = trace["peak_value"].values
    for one in found.itertuples():
        here = trace["peak_neuron"].values[:, int(one.layer)] == one.neuron  # type: ignore[call-overload]
        here &= (trace["position"].values > 0)[:, None]
        here[(trace["prompt"].values == 0) & (trace["position"].values == one.position)] = False
        token, rank = np.nonzero(here)
        value = values[token, int(one.layer), rank]  # type: ignore[call-overload]
        prompt = trace["prompt_id"].values[trace["prompt"].values[token]]
        order = np.argsort(-np.abs(value), kind="stable")
        told = [f"{number(value[at])}, {prompt[at]})" for at in order]
        pair = [text.split("-")[-1] for text in told]
        first = [told[pair.index(one)] for one in dict.fromkeys(pair)]  # the strongest of each pair of twins
        ends = [text.rpartition("(")[2] for text in one.elsewhere]
        assert ends[: len(first)] == first
        assert len(ends) == min(3, len(told))


def test_what_reads_the_same_elsewhere_is_told_once(tmp_path: Path) -> None:
    files = [rows(tmp_path / f"{name}.csv", "0,a,0,1,9", "1, b,0,3,2", f"2,{name},0,4,1") for name in ("x", "y", "y2")]
    assert stratoscope.top(files, prompt="x", n=1)["elsewhere"].tolist() == [["a [b]y (2, y)", "a [b]y2 (2, y2)"]]
    files = [rows(tmp_path / f"{name}.csv", "0,a,0,1,9", "1, b,0,3,2") for name in ("x", "y", "z")]
    assert stratoscope.top(files, prompt="x")["elsewhere"].tolist() == [["a [b] (2, y)"]]


def test_the_first_token_is_left_out_unless_it_is_asked_for(trace: xr.Dataset) -> None:
    assert (stratoscope.top(trace, prompt=0, n=50)["position"] > 0).all()
    with_first = stratoscope.top(trace, prompt=0, n=1, first_token=True)
    assert with_first["position"].tolist() == [0]
    assert any("left out" in note["text"] for note in stratoscope.top(trace).attrs["notes"])
    of_it = stratoscope.top(trace, prompt=0, token=0, n=1)
    assert of_it["in_prompts"].tolist() == with_first["in_prompts"].tolist() == [4], "it counts where it is asked for"
    assert not any("left out" in note["text"] for note in of_it.attrs["notes"])
    one_token = trace.isel(token=trace["position"].values == 0)
    with pytest.raises(InputError, match="no token but the first"):
        stratoscope.top(one_token)


def test_prompts_are_listed_one_by_one_and_the_first_where_nobody_chose(trace: xr.Dataset) -> None:
    assert stratoscope.top(trace)["prompt"].unique().tolist() == ["critical-1"]
    every = stratoscope.top(trace, all_prompts=True, n=2)
    assert every["prompt"].tolist() == [one for one in trace["prompt_id"].values for _ in range(2)]
    each = [stratoscope.top(trace, prompt=one, n=2) for one in range(4)]
    assert every["neuron"].tolist() == [neuron for one in each for neuron in one["neuron"]]


def test_layers_and_positions_are_those_named(trace: xr.Dataset) -> None:
    found = stratoscope.top(trace, prompt=2, token=3, layers="1-2", n=50)
    assert set(found["position"]) == {3}
    assert set(found["layer"]) == {1, 2}
    assert len(found) == 8
    assert any("Fewer than 50" in note["text"] for note in found.attrs["notes"])
    with pytest.raises(InputError, match="There are: 0-"):
        stratoscope.top(trace, token=99)
    with pytest.raises(UsageError, match="Give one of them"):
        stratoscope.top(trace, token=1, token_text="x")
    with pytest.raises(InputError, match="In these prompts: "):
        stratoscope.top(trace, span="system")


def rows(path: Path, *lines: str) -> Path:
    path.write_text(HEADER + "\n".join(lines) + "\n", "utf-8")
    return path


def test_a_text_names_one_token_and_where_it_stands_twice_its_positions_are_told(tmp_path: Path) -> None:
    words = ["<s>", "▁Stop", "▁the", "▁cough", ",", "▁stop", "▁the", "<0x0A>"]
    file = rows(tmp_path / "a.csv", *(f'{place},"{word}",0,{place},1' for place, word in enumerate(words)))
    for text, position in (
        ("cough", 3),
        (" cough", 3),
        ("·cough", 3),
        ("▁cough", 3),
        ("Ġcough", 3),
        ("\n", 7),
        ("↵", 7),
    ):
        assert stratoscope.top(file, token_text=text)["position"].tolist() == [position], text
    with pytest.raises(InputError, match=r"2 places of a\. .*: 2 \(Stop \[the\] cough,…\); 6 \(…the") as caught:
        stratoscope.top(file, token_text="the")
    assert caught.value.where == "token_text"
    with pytest.raises(InputError, match="Did you mean '·cough'"):
        stratoscope.top(file, token_text="cuogh")


def test_rows_of_a_csv_are_ranked_by_size_and_say_nothing_of_writes(tmp_path: Path) -> None:
    a = rows(
        tmp_path / "a.csv", "1,Hot,22,5,9", "2, cat,22,7,-3", "2, cat,22,7,2", "2, cat,31,5,1.5", "3, sat,31,5,1.25"
    )
    b = rows(tmp_path / "b.csv", "1,Hot,22,5,9", "2, dog,31,5,-4", "3, sat,22,8,0.5")
    found = stratoscope.top([a, b])
    of_a = found[found["prompt"] == "a"]
    assert of_a[["position", "layer", "neuron", "value"]].values.tolist() == [[2, 22, 7, -3], [2, 31, 5, 1.5]]
    assert of_a["in_prompts"].tolist() == [1, 2], "the first token, at position 1, is left out of the counts too"
    assert of_a["elsewhere"].tolist() == [[], ["Hot [dog] sat (−4, b)", "Hot cat [sat] (1.25, a)"]]
    assert found["write_norm"].isna().all()
    assert found["share"].isna().all()
    assert found.attrs["strongest_by"] == "value"
    assert found.attrs["axis"] == "unknown"
    assert any("how much a neuron writes is not known" in note["text"] for note in found.attrs["notes"])


def test_only_peaks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stratoscope.trace.read.stored_rows import StoredRows

    path = tmp_path / "run.trace"
    stratoscope.simulate(path, tokens=5, **{**SIZES, "record": "peaks,neurons"})
    monkeypatch.setattr(StoredRows, "_read", lambda *_: pytest.fail("every activation was read"))
    assert len(stratoscope.top(path)) == 5


def test_without_peaks_it_says_what_to_record() -> None:
    with pytest.raises(InputError, match="--record peaks"):
        stratoscope.top(stratoscope.simulate(**{**SIZES, "record": "norms"}))
