"""Targets: one token each, refused with what to write instead; their directions give the model's own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_capture import Stop
from tiny import TEXTS, byte_tokenizer, tiny, tiny_model

from stratoscope import merge, names, open_trace
from stratoscope.errors import InputError, ModelError, TraceError
from stratoscope.model.from_object import given_model
from stratoscope.model.head import Unproved
from stratoscope.model.search.find import find_sites
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.recording import Recording
from stratoscope.recorder.targets.asked import TargetSettings, target_settings
from stratoscope.recorder.targets.directions import Directions
from stratoscope.recorder.targets.tokens import MEAN, tokenised_targets
from stratoscope.trace.targets import Targets

IDS = torch.arange(5, 25)[None]


def words(*more: str) -> Any:
    """The byte tokenizer with some words as tokens of their own."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([*more])
    return tokenizer


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"targets": ("",)}, "targets: it is empty"),
    ({"targets": ()}, "targets: there is none"),
    ({"targets": ("a", "a")}, "targets: 'a' stands there twice"),
    ({"targets": "a|b"}, r"targets are one text, not several. Use \['a', 'b'\]"),
    ({"targets": (1,)}, "targets: 1 is no text"),
    ({"targets": ("a",), "against": "a"}, "against: the target 'a' is compared with itself"),
    ({"against": "a"}, "against: it is compared with no target"),
    ({"targets": ("a",), "against": ""}, "against: it is empty"),
    ({"answer_prefix": ""}, "answer_prefix: it is empty"),
    ({"positions": "some"}, "no positions called 'some'"),
]


@pytest.mark.parametrize(("given", "what"), REFUSED)
def test_what_cannot_be_asked_of_targets_is_refused_before_anything_is_loaded(given: dict[str, Any], what: str) -> None:
    given = {"targets": None, "against": None, "answer_prefix": None, "positions": None, **given}
    with pytest.raises(InputError, match=what):
        target_settings(["logits"], **given)


@pytest.mark.parametrize(
    "given", [{"targets": ("a",)}, {"against": "a"}, {"answer_prefix": "I"}, {"positions": "answer"}]
)
def test_targets_that_nothing_uses_are_refused(given: dict[str, Any]) -> None:
    given = {"targets": None, "against": None, "answer_prefix": None, "positions": None, **given}
    with pytest.raises(InputError, match=rf"{next(name for name in given if given[name])}: nothing that is recorded"):
        target_settings([], **given)
    assert target_settings([], None, None, None, None) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (" Sorry", r"target ' Sorry': is 2 tokens: ' ', 'Sorry'. Use 'Sorry', which is one token"),
        ("sorry", r"is 5 tokens: 's', 'o', 'r', 'r', 'y'. Use 'Sorry'"),
        ("No", r"is 2 tokens: 'N', 'o'. Name the last, .*: --answer-prefix \"N\" --targets \"o\""),
        ("é", r"is 2 tokens: '\\\\xc3', '\\\\xa9'"),
        ("<s>", "is a special token"),
        ("Sure", "is token 259, and the model has only 259"),
    ],
)
def test_a_target_is_one_token_of_the_model_or_refused_with_its_pieces(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        tokenised_targets(TargetSettings((text,)), words("Sorry", "Sure"), 259)


def test_targets_are_the_tokens_that_their_texts_are() -> None:
    found = tokenised_targets(TargetSettings(("Sorry", "N"), "Y"), words("Sorry"), 300)
    ids = [byte_tokenizer()(letter)["input_ids"][0] for letter in "NY"]
    assert [(one.token_id, one.against_id) for one in found] == [(258, ids[1]), (ids[0], ids[1])]
    assert tokenised_targets(TargetSettings(("N",)), words(), 300)[0].against_id == MEAN
    with pytest.raises(InputError, match="against: 'N' and 'N' are the same token"):
        tokenised_targets(TargetSettings(("N",), "N"), words(), 300)


# --- directions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "GPT2", "Cohere", "Granite", "Phi"])
def test_directions_and_constants_give_the_models_own_logits(family: str) -> None:
    """Of RMSNorm with 1 + weight and a soft-cap, LayerNorm with β, a head with a bias, factors of the logits."""
    more = {"residual_multiplier": 0.22, "logits_scaling": 3.0, "embedding_multiplier": 2.0}
    model = tiny(family) if family != "Granite" else granite(more)
    sites = find_sites(model, IDS)
    assert not isinstance(sites.head, Unproved)
    real = 290  # rows beyond are padding of the vocabulary
    directions = Directions(model, sites.head, real)
    token, against = torch.tensor([[7, 8, 299]]), torch.tensor([[9, MEAN, 4]])
    kept: list[Any] = []
    last = model.get_submodule(sites.layers[-1].block_out.module)
    handle = last.register_forward_hook(lambda _m, _i, y: kept.append(y[0] if isinstance(y, tuple) else y))
    with torch.no_grad():
        logits = model(IDS, use_cache=False).logits[:, -1]
    handle.remove()
    x = kept[0][:, -1]
    along = torch.einsum("ptd,pd->pt", directions.of(token, against), x)
    found = (along * directions.scale(x) + sum(directions.constants(token, against))).double()
    cap = sites.head.soft_cap
    raw = logits.double() if cap is None else torch.atanh(logits.double() / cap) * cap
    wanted = [raw[0, 7] - raw[0, 9], raw[0, 8] - raw[0, :real].mean(), raw[0, 299] - raw[0, 4]]
    assert torch.allclose(found[0], torch.stack(wanted), atol=2e-5)
    assert torch.allclose(directions.values(logits, token, against)[0], torch.stack(wanted), atol=1e-9)
    assert directions.has_norm_bias == (family in ("GPT2", "Phi"))
    assert directions.has_head_bias == (family == "Phi")


def granite(more: dict[str, float]) -> Any:
    from tiny import ALL_FAMILIES

    return tiny_model("GraniteConfig", {**ALL_FAMILIES["Granite"].options, **more})


# --- recorded ---------------------------------------------------------------------------------------------------------


def recording(asked: TargetSettings, *, model: Any = None, prompts: Any = TEXTS, tokenizer: Any = None, **more: Any):
    settings: dict[str, Any] = {"record": ("norms",), "top_k": 1, "batch_size": 3, "chat": False, **more}
    made = [one if isinstance(one, Prompt) else Prompt(f"p{number}", text=one) for number, one in enumerate(prompts)]
    return Recording(
        given_model(model or tiny("Llama"), tokenizer or byte_tokenizer()),
        made,
        targets=asked,
        progress=lambda *_: None,
        **settings,
    )


def recorded(out: Path, asked: TargetSettings, **more: Any) -> Any:
    recording(asked, **more).run(out, resume=False, overwrite=False)
    return open_trace(out)


def plain_logits(model: Any, text: str) -> Any:
    with torch.no_grad():
        return model(torch.tensor([byte_tokenizer()(text)["input_ids"]]), use_cache=False).logits[0, -1].double()


@pytest.mark.parametrize("against", ["x", None])
def test_the_answers_logit_is_the_models_own_at_the_last_token(tmp_path: Path, against: str | None) -> None:
    model = tiny("Llama")
    trace = recorded(tmp_path / "t", TargetSettings(("N", "Y"), against), model=model)
    letters = {letter: byte_tokenizer()(letter)["input_ids"][0] for letter in "NYx"}
    for number, text in enumerate(TEXTS):
        logits = plain_logits(model, text)
        base = logits[:258].mean() if against is None else logits[letters["x"]]
        wanted = [float(logits[letters[letter]] - base) for letter in "NY"]
        assert trace.answer_logit.values[number] == pytest.approx(wanted, abs=1e-4)
    assert (trace.target_token.values == [letters["N"], letters["Y"]]).all()
    assert (trace.against_token.values == (MEAN if against is None else letters["x"])).all()
    assert trace.answer_logit.dims == ("prompt", "target")
    assert trace.target.values.tolist() == ["N", "Y"]
    plan = trace.attrs["plan"]
    assert plan["padding_side"] == "left"
    assert [one["token_id"] for one in plan["targets"]] == [letters["N"], letters["Y"]]
    assert "answer_prefix" not in plan
    assert plan["positions"] == "answer"


@pytest.mark.parametrize("new", [0, 2])
def test_without_targets_the_likeliest_token_is_explained_against_the_second(tmp_path: Path, new: int) -> None:
    from stratoscope.recorder.answers.settings import Answers

    model = tiny("Llama")
    trace = recorded(tmp_path / "t", TargetSettings(), model=model, answers=Answers(new_tokens=new))
    for number, text in enumerate(TEXTS):
        best = plain_logits(model, text)[:258].topk(2)
        assert [trace.target_token.values[number, 0], trace.against_token.values[number, 0]] == best.indices.tolist()
        assert trace.answer_logit.values[number, 0] == pytest.approx(float(best.values.diff().abs()), abs=1e-4)
    assert trace.attrs["plan"]["targets"] == names.TOP
    assert [note["id"] for note in trace.attrs["notes"] if "likeliest next token" in note["text"]] == ["L24"]
    assert "top" in str(trace.target.values[0])
    tokens = {*np.ravel([trace.target_token, trace.against_token]).tolist()}
    assert {*map(str, tokens)} <= trace.attrs["token_texts"].keys()
    label = Targets(trace).label_in(0, 0)
    assert " against “" in label
    assert "token" not in label


@pytest.mark.parametrize("chat", [False, True])
def test_the_beginning_of_an_answer_stands_behind_the_prompt(tmp_path: Path, chat: bool) -> None:
    asked = TargetSettings(("N",), answer_prefix="I can")
    trace = recorded(tmp_path / "t", asked, prompts=TEXTS[:2], chat=chat)
    tokenizer = byte_tokenizer()
    for number, text in enumerate(TEXTS[:2]):
        whole = text
        if chat:
            whole = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        own = trace.prompt.values == number
        assert trace.token_id.values[own].tolist() == tokenizer(whole + "I can")["input_ids"]
        spans = [names.SPANS[span] for span in trace.span.values[own]]
        assert spans[-5:] == ["answer"] * 5
        assert "answer" not in spans[:-5]
    assert trace.attrs["plan"]["answer_prefix"] == "I can"


def test_a_conversation_that_was_answered_has_no_next_token_to_explain() -> None:
    said = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    with pytest.raises(InputError, match="prompt p: ends with an assistant's message"):
        recording(TargetSettings(("N",)), prompts=[Prompt("p", messages=said)])


def test_a_model_without_a_proved_head_is_refused_by_name() -> None:
    model = tiny("Llama")
    model.lm_head.register_forward_hook(lambda _m, _i, output: output + 0.01 * output.square())
    with pytest.raises(ModelError, match="its logits cannot be explained: lm_head"):
        recording(TargetSettings(("N",)), model=model)


def test_another_target_is_another_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = tiny("Llama"), tmp_path / "t"
    prompts = [f"{text} {number}" for number in range(6) for text in TEXTS]
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            recorded(path, TargetSettings(("N",)), model=model, prompts=prompts)
    others = [TargetSettings(("Y",)), TargetSettings(("N",), "x"), TargetSettings(("N",), every_position=True)]
    for other in [*others, TargetSettings()]:
        with pytest.raises(TraceError, match=r"plan\.(targets|positions)"):
            recording(other, model=model, prompts=prompts).run(path, resume=True, overwrite=False)
    recording(TargetSettings(("N",)), model=model, prompts=prompts).run(path, resume=True, overwrite=False)
    whole = recorded(tmp_path / "whole", TargetSettings(("N",)), model=model, prompts=prompts)
    parts = [tmp_path / f"part {number}" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        recorded(part, TargetSettings(("N",)), model=model, prompts=prompts, part=(number, 2))
    for other in (open_trace(path), merge(parts, tmp_path / "merged")):
        np.testing.assert_array_equal(other.answer_logit.values, whole.answer_logit.values)
