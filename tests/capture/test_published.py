"""A real recording, published: every name that it holds is stated, and it loses its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stratoscope
from stratoscope import names
from stratoscope.publish.fields import listed
from stratoscope.publish.tokens.traces import told
from stratoscope.trace.info.facts import info_text


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recording with all that a trace can hold of a model without experts."""
    pytest.importorskip("torch")
    from tiny import TEXTS, byte_tokenizer, tiny

    out = tmp_path_factory.mktemp("published") / "all.trace"
    return stratoscope.capture(
        tiny("Llama"), TEXTS[:3], out, record=names.RECORD_GROUPS, tokenizer=byte_tokenizer("right"), generate=2,
        openers=["Sorry"], targets=["a"], floor=True, calibration=2,
    )  # fmt: skip


def test_every_name_of_a_recording_is_stated(everything: Any) -> None:
    assert [name for name in told(everything) if listed(name) is None] == []


def test_experts_too(record: Callable[..., Any]) -> None:
    _, trace = record("Mixtral", ("norms", "peaks"))
    assert [name for name in told(trace) if listed(name) is None] == []


def test_a_recording_without_text_holds_none_of_its_words(everything: Any, tmp_path: Path) -> None:
    stratoscope.publish(everything.encoding["source"], tmp_path / "p.trace", level="no-text")
    there = stratoscope.open_trace(tmp_path / "p.trace")
    assert {*there["text"].values} == {""}
    assert not {"chat_template", "bos_token"} & {*there.attrs["tokenizer"]}
    assert "prompts_sha256" not in there.attrs["plan"]
    assert there.attrs["receipt"]["receipt_line"] == everything.attrs["receipt"]["receipt_line"]
    assert "published" in info_text(stratoscope.info(there))
