"""`capture --record effects`: what a trace holds of it, what it is counted from, what is refused, what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_capture import run
from tiny import byte_tokenizer, tiny

from stratoscope.errors import CaptureError, InputError, OutOfMemory, StratoscopeError
from stratoscope.recorder.effects import recording
from stratoscope.recorder.effects.gradients import Gradients
from stratoscope.trace.format.token_texts import token_texts

KNOWN = len(byte_tokenizer())  # rows of the unembedding that are tokens
PROMPTS = ["The river.", "No.", "é→x of a clock"]
ASKED: dict[str, Any] = {"record": "effects", "targets": ("A",), "against": "B", "prompts": PROMPTS, "calibration": 0}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tmp_path_factory.mktemp("effects") / "t", **ASKED)


def test_the_strongest_are_told_by_where_they_are_what_they_do_and_what_they_write(plain: Any) -> None:
    lengths = np.bincount(plain.prompt)
    position = plain.strongest_position.values[:, 0]
    assert ((position >= 0) & (position < lengths[:, None])).all()
    starts = np.cumsum(lengths) - lengths
    for prompt in range(len(PROMPTS)):
        for rank in (0, 10):  # the strongest of either sign is among those of its token and layer
            token = starts[prompt] + position[prompt, rank]
            layer = int(plain.strongest_layer[prompt, 0, rank])
            place = int(
                np.flatnonzero(plain.effect_neuron[token, layer, 0] == plain.strongest_neuron[prompt, 0, rank])[0]
            )
            assert plain.neuron_effect[token, layer, 0, place] == plain.strongest_effect[prompt, 0, rank]
    direct = plain.strongest_logit.values[:, 0]
    earlier = position < lengths[:, None] - 1
    assert (direct[earlier] == 0).all()
    assert (direct[~earlier] != 0).all()
    logit = plain.write_logit.values
    assert (np.diff(logit[..., :5]) <= 0).all()
    assert (np.diff(logit[..., 5:]) >= 0).all()
    texts = token_texts(plain.attrs)
    assert set(np.unique(plain.write_token).tolist()) <= {*texts}
    assert any(
        text.encode("utf-8", "surrogateescape") == b"\xe2" for text in texts.values()
    )  # a byte that is no character


def test_at_the_answer_the_written_logit_of_the_targets_is_the_direct_contribution(tmp_path: Path) -> None:
    """In the last layer both read the same column: the written logits of both targets differ by the contribution."""
    trace = run(tmp_path / "t", **{**ASKED, "prompts": PROMPTS[:1]})
    model = tiny("Llama")
    weight, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    token, against = int(trace.target_token[0, 0]), int(trace.against_token[0, 0])
    place = next(n for n in range(20) if trace.strongest_logit[0, 0, n] != 0)
    layer, neuron = int(trace.strongest_layer[0, 0, place]), int(trace.strongest_neuron[0, 0, place])
    column = model.model.layers[layer].mlp.down_proj.weight.detach()[:, neuron].double() * gain
    unit = (weight @ column - weight[:KNOWN].mean(0) @ column).numpy()
    written, ids = trace.write_logit.values[0, 0, place], trace.write_token.values[0, 0, place]
    times = written[0] / unit[ids[0]]
    along = float((weight[token] - weight[against]) @ column)
    assert float(trace.strongest_logit[0, 0, place]) == pytest.approx(times * along, rel=1e-3)


def test_means_of_another_trace_are_those_of_a_first_pass_for_neurons(tmp_path: Path, plain: Any) -> None:
    run(tmp_path / "means", record="prompts", prompts=PROMPTS)
    given = run(tmp_path / "given", **ASKED, baseline="mean", mean_of=tmp_path / "means")
    first = run(tmp_path / "first", **ASKED, baseline="mean")
    np.testing.assert_allclose(given.neuron_effect, first.neuron_effect, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(given.head_effect, plain.head_effect)  # a trace has no means of them
    assert not np.allclose(first.head_effect, plain.head_effect)
    assert given.attrs["plan"]["baseline"] == "mean"
    assert len(given.attrs["plan"]["mean_of"]) == 36
    assert any("heads and attention are counted from zero" in note["text"] for note in given.attrs["notes"])


def test_means_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "other", record="prompts", prompts=PROMPTS, model=tiny("Qwen3"))
    run(tmp_path / "none", record="norms", prompts=PROMPTS)
    for name, why in (("other", "of another model"), ("none", "no means of neurons")):
        with pytest.raises(InputError, match=why):
            run(tmp_path / "t", **ASKED, baseline="mean", mean_of=tmp_path / name)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"effect_steps": 0}, "effect_steps"),
        ({"baseline": "mean", "part": (1, 2)}, "a part does not run all of them"),
        ({"baseline": "median"}, "baseline"),
        ({"mean_of": "x.trace"}, "means are compared with nothing else"),
        ({"baseline": "mean", "mean_of": "nowhere.trace"}, "nowhere.trace"),
        ({"record": "norms", "targets": None, "against": None, "baseline": "zero"}, "no total effects are recorded"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_runs(tmp_path: Path, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(StratoscopeError, match=why):
        run(tmp_path / "t", model="no such model", **{**ASKED, **asked})


def test_what_does_not_fit_is_cut_and_then_computed_block_by_block(
    tmp_path: Path, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Gradients.run

    def small(self: Gradients, batch: Any, *args: Any, recompute: bool = False, **more: Any) -> Any:
        if len(batch.input_ids) > 1 or not recompute:
            raise OutOfMemory("it does not fit")
        return whole(self, batch, *args, recompute=recompute, **more)

    monkeypatch.setattr(Gradients, "run", small)
    trace = run(tmp_path / "t", **{**ASKED, "calibration": 2})  # what is ablated is differentiated first, too
    np.testing.assert_allclose(trace.neuron_effect, plain.neuron_effect, rtol=1e-3, atol=1e-5)
    assert trace.attrs["receipt"]["calibration"]["agreement"]
    limits = " ".join(trace.attrs["receipt"]["limits"])
    assert "taken in parts, down to 1" in limits
    assert "computed once more, backward" in limits


def test_a_forward_that_gives_other_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recording.EffectsRecorder.of_batch
    monkeypatch.setattr(
        recording.EffectsRecorder,
        "of_batch",
        lambda self, prompts, ids, logits, make_batch: whole(self, prompts, ids, logits * 1.01, make_batch),
    )
    with pytest.raises(CaptureError, match="the forward with gradients gives other logits than were recorded"):
        run(tmp_path / "t", **ASKED)


def test_a_prompt_of_one_token_has_effects_and_reads(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", **{**ASKED, "record": "logits,effects", "prompts": ["S"]})
    assert trace.sizes["token"] == 1
    read = trace.neuron_read[0] + trace.read_component[0, ..., -1]
    np.testing.assert_allclose(read, trace.read_component[0].sum("component", skipna=False), atol=1e-5)
    assert trace.attrs["receipt"]["contributions"]["sources_error"] < 1e-5
