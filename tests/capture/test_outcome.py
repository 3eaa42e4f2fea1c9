"""The outcome: how likely openers are at the answer's place, and whether an answer opens as a refusal."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_generate import NEW, run
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope import defaults, open_trace
from stratoscope.errors import InputError
from stratoscope.model.from_object import given_model
from stratoscope.recorder.answers.outcome import log_odds
from stratoscope.recorder.answers.refusals import _words, checked_patterns, opening
from stratoscope.recorder.answers.settings import Answers
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.recording import Recording
from stratoscope.trace import outcome
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.write.from_dataset import write_dataset

OPENERS = ("No", "N", "Yes", "é")


def plain_log_odds(model: Any, text: str, opener: str) -> float:
    """Token by token, each from its own forward over everything before it, in float64."""
    tokenizer, log_p = byte_tokenizer(), 0.0
    ids = tokenizer(text)["input_ids"]
    for token in tokenizer(opener, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        log_p += float(logits.log_softmax(-1)[token])
        ids = [*ids, token]
    return log_p - math.log1p(-math.exp(log_p))


@pytest.mark.parametrize("generate", [0, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "Mistral", "OPT"])
def test_log_odds_are_those_of_all_tokens_of_an_opener(
    tmp_path: Path, family: str, batch_size: int, generate: int
) -> None:
    model = tiny(family)
    trace = run(tmp_path / "t", model=model, batch_size=batch_size, generate=generate, openers=OPENERS)
    wanted = [[plain_log_odds(model, text, opener) for opener in OPENERS] for text in TEXTS]
    found = trace.opener_log_odds.values
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max()
    assert (found[:, 0] < found[:, 1] - 0.1).all(), "'No' is as likely as its first letter"
    assert trace.attrs["plan"]["openers"][3] == {"text": "é", "token_ids": byte_tokenizer()("é")["input_ids"]}


def test_openers_can_be_chosen_by_their_text_and_survive_a_copy(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", generate=2, openers=OPENERS)
    write_dataset(trace, tmp_path / "copy")
    copy = open_trace(tmp_path / "copy")
    for name in ("opener_log_odds", "opens_as_refusal", "char_start", "char_end"):
        assert np.array_equal(trace[name].values, copy[name].values), name
    assert copy.opener.values.tolist() == list(OPENERS)
    assert np.array_equal(copy.opener_log_odds.sel(opener="Yes").values, trace.opener_log_odds.values[:, 2])


def test_log_odds_are_finite_and_exact_where_an_opener_is_nearly_certain() -> None:
    logits = torch.tensor([[[60.0, 0.0, 0.0]]])
    assert log_odds(logits, (0,))[0] == pytest.approx(60 - math.log(2), rel=1e-12)
    assert log_odds(logits, (1,))[0] == pytest.approx(-60, rel=1e-9)


def test_openers_change_nothing_of_what_is_recorded(tmp_path: Path) -> None:
    without, with_ = run(tmp_path / "0", openers=()), run(tmp_path / "1", openers=OPENERS)
    assert set(with_.data_vars) - set(without.data_vars) == {"opener_log_odds"}
    for name in without.data_vars:
        assert np.array_equal(without[name].values, with_[name].values, equal_nan=True), name
    assert without.attrs["receipt"] == with_.attrs["receipt"]


def test_default_openers_come_with_answers_and_only_with_them(tmp_path: Path) -> None:
    assert run(tmp_path / "1").opener.values.tolist() == list(defaults.OPENERS)
    assert "opener_log_odds" not in run(tmp_path / "0", generate=0)
    alone = run(tmp_path / "2", generate=0, openers=["No"])
    assert "opens_as_refusal" not in alone
    assert alone.attrs["plan"]["padding_side"] == "left"


def test_openers_that_cannot_be_measured_are_refused(tmp_path: Path) -> None:
    for openers, words in (
        (["No", ""], "opener '': has no token"),
        (["No", "No"], "the openers 'No' and 'No': are the same tokens"),
        ("No", "openers are one text, not several"),
    ):
        with pytest.raises(InputError, match=words):
            run(tmp_path / "t", openers=openers)
    assert not (tmp_path / "t").exists()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        ("I'm sorry, but no", "I'm * sorry"),
        ("I’m really\nsorry", "I'm * sorry"),
        ("I'm very, very sorry", None),
        ("  **I  cannot** do this", "I (cannot|can't)"),
        ("\"i can't", "I (cannot|can't)"),
        ("👋 ¡_I_ can`t_", "I (cannot|can't)"),
        ("<think>I can't say that.\n</think>\n\nI cannot", "I (cannot|can't)"),
        ("I can't <think>x</think> wait", "I (cannot|can't)"),
        (" " * 100_000 + "I can't", "I (cannot|can't)"),
        ("I can't wait", None),
        ("I can't waiter", "I (cannot|can't)"),
        ("I cannothing", None),
        ("Well, then, I am happy to help. But no", None),
        ("Well... then — no.", "well ... no"),
        ("Well, I know", None),
        ("Well then! No.", "well ... no"),
        ("Well it was so! No.", None),
        ("很抱歉，我无法回答", "抱歉|很抱歉"),
        ("抱歉我无法回答", "抱歉|很抱歉"),
        ("Я не могу", "Я не (могу|буду)"),
        ("", None),
        ("...", None),
    ],
)
def test_an_opening_is_told_by_its_words_whatever_stands_around_them(answer: str, pattern: str | None) -> None:
    patterns = ["! I can't wait", "I'm * sorry", "I (cannot|can't)", "well ... no", "抱歉|很抱歉", "Я не (могу|буду)"]
    found = opening(answer, patterns)
    assert (patterns[found] if found >= 0 else None) == pattern


def test_the_page_names_every_sentence_that_the_english_patterns_take_wrongly() -> None:
    """What is wrong is known and stands in docs/answers.md, as do the two halves that they were tried on."""
    folder = Path(__file__).parent
    with (folder / "data" / "openings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    patterns = checked_patterns()
    wrong = {row["opening"] for row in rows if (opening(row["opening"], patterns) >= 0) != (row["refusal"] == "yes")}
    page = (folder.parents[1] / "docs" / "answers.md").read_text("utf-8")
    told = set(re.findall(r"^\| (?:missed|false) \| (.+) \|$", page, re.MULTILINE))
    assert wrong == told
    assert f"{len(rows)} openings" in page


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("# nothing\n\n", "there is no refusal pattern"),
        ("! I can't wait\n", "there is no refusal pattern"),
        ("Sorry\n(I|we can't\n", r"f.txt:2: a bracket is not closed"),
        ("I|we) can't\n", r"f.txt:1: a bracket is closed that was not opened"),
        ("Sorry\n...\n", r"f.txt:2: holds no word"),
        ("I (am|’m) sorry\n", r"f.txt:1: a word does not begin with an apostrophe"),
        (b"Sorry\n\xff\n", r"f.txt:2: is not UTF-8"),
        (None, "no such file of refusal patterns"),
    ],
)
def test_wrong_refusal_patterns_are_refused_with_their_line(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    file = tmp_path / "f.txt"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=words):
        checked_patterns(file)


def test_refusal_patterns_of_a_file_are_used_and_stored(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("# whatever it is\nnever said\n", "utf-8")
    trace = run(tmp_path / "t", generate=1, refusal_patterns=tmp_path / "all.txt")
    assert trace.attrs["plan"]["refusal_patterns"] == ["never said"]
    with pytest.raises(InputError, match=r"refusal_patterns: .* none is generated"):
        run(tmp_path / "0", generate=0, refusal_patterns=["no"])


def test_refusals_are_stored_with_the_pattern_that_told_them(tmp_path: Path) -> None:
    model, tokenizer = tiny("Llama"), byte_tokenizer()
    free = outcome.answers(run(tmp_path / "0", model=model, generate=8))
    wanted = next(words[0] for answer in free if (words := _words(answer).lstrip(". ").split()))
    patterns = ("never said", wanted)
    recording = Recording(
        given_model(model, tokenizer),
        [Prompt(f"p{number}", text=text) for number, text in enumerate(TEXTS)],
        record=("residual",),
        top_k=1,
        batch_size=3,
        chat=False,
        answers=Answers(new_tokens=8, patterns=patterns),
        progress=lambda *_: None,
    )
    recording.run(tmp_path / "1", resume=False, overwrite=False)
    trace = open_trace(tmp_path / "1")
    told = [opening(answer, patterns) for answer in outcome.answers(trace)]
    assert 1 in told
    assert trace.refusal_pattern.values.tolist() == told
    assert trace.opens_as_refusal.values.tolist() == [int(index >= 0) for index in told]
    assert trace.attrs["plan"]["refusal_patterns"] == list(patterns)


def test_info_says_what_was_answered(tmp_path: Path) -> None:
    prompts = [Prompt("first", text="The river"), Prompt("second", text="No.")]
    trace = run(tmp_path / "t", prompts=prompts)
    facts = info(trace)["outcome"]
    assert (facts["answered"], facts["open_as_refusal"]) == (2, 0)
    assert list(facts["openers"]) == list(defaults.OPENERS)
    assert [one["prompt"] for one in facts["answers"]] == ["first", "second"]
    assert [one["answer"] for one in facts["answers"]] == outcome.answers(trace)
    tokens = trace.text.values[(trace.prompt.values == 1) & (trace.span.values == 5)]
    assert outcome.answers(trace)[1].encode("utf-8", "surrogateescape") == "".join(tokens).encode(
        "utf-8", "surrogateescape"
    )
    assert len(tokens) == NEW
    text = info_text(info(trace))
    assert "0 of 2 answers open as a refusal" in text
    assert "log-odds in nats" in text
    assert info(run(tmp_path / "0", generate=0))["outcome"] is None
