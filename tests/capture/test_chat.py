"""Chat templates as they are met in the wild, exact places of tokens, and beginning-of-text tokens."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from test_tokens import EXACT, TEXTS, byte_level, joined, sentencepiece, spans_of, trimming_offsets
from tiny import byte_tokenizer, tiny

from stratoscope import capture
from stratoscope.errors import InputError
from stratoscope.names import SPANS
from stratoscope.recorder.input import chat, template
from stratoscope.recorder.input.remarks import notes as notes_of
from stratoscope.recorder.input.tokens import TokenisedPrompt, encode
from stratoscope.recorder.prompts.prompt import Prompt

GENERATION = "{% if add_generation_prompt %}"
TEMPLATES = {
    "ChatML": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        + GENERATION
        + "<|im_start|>assistant\n{% endif %}"
    ),
    "Llama 3": (
        "{{ '<s>' }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
        + GENERATION
        + "<|start|>assistant<|end|>\n\n{% endif %}"
    ),
    "Mistral": (
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
        "{% else %}{% set rest = messages %}{% endif %}<s>{% for m in rest %}{% if m.role == 'user' %}"
        "{% if loop.first and s is defined %}[INST] {{ s }}\n\n{{ m.content }} [/INST]{% else %}"
        "[INST] {{ m.content }} [/INST]{% endif %}{% else %} {{ m.content | trim }}</s>{% endif %}{% endfor %}"
    ),
    "Gemma": (
        "<s>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end>\n"
        "{% endfor %}" + GENERATION + "<turn>model\n{% endif %}"
    ),
    "Phi 3": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        + GENERATION
        + "<|assistant|>\n{% else %}</s>{% endif %}"
    ),
    "Qwen 3": (  # thinks by default; what was thought earlier is cut out of the conversation
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% set c = m.content.split('</think>')[-1].lstrip('\n') %}<|im_start|>assistant\n"
        "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ c }}<|im_end|>\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        + GENERATION
        + "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
        "<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
}
TOKENIZERS = {
    "byte-level": byte_level,
    "trimmed offsets": trimming_offsets,
    "Llama 2": lambda: sentencepiece(prefix=True),
    "Gemma": lambda: sentencepiece(prefix=False),
}
QUESTION = 'Is the fox "kind", user? é\n[INST]'
CONVERSATION = (
    {"role": "user", "content": "the quick"},
    {"role": "assistant", "content": "fox is"},
    {"role": "user", "content": QUESTION},
)


def with_template(kind: str, template: str) -> Any:
    tokenizer = TOKENIZERS[kind]()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def rendered(tokens: TokenisedPrompt) -> str:
    """The rendered prompt again: tokens that the tokenizer added are not part of it."""
    own = [text for text, start in zip(tokens.texts, tokens.starts, strict=True) if start >= 0]
    return "".join(own).encode("utf-8", "surrogateescape").decode("utf-8")


def stretches(tokens: TokenisedPrompt, span: str) -> list[str]:
    """What the tokens of a span say, one text for each run; a token may take a space of the template with it."""
    return [joined([text]).strip() for text, name in spans_of(tokens) if name == span]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_message_of_a_known_template_has_its_span(template: str, kind: str) -> None:
    tokenizer = with_template(kind, template)
    tokens = encode(Prompt("a", messages=CONVERSATION), tokenizer, chat=False)
    wanted = tokenizer.apply_chat_template(list(CONVERSATION), tokenize=False, add_generation_prompt=True)
    assert rendered(tokens) == wanted
    assert stretches(tokens, "user") == ["the quick", QUESTION]
    assert stretches(tokens, "answer") == ["fox is"]
    assert not stretches(tokens, "unknown")
    assert tokens.answers


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "Gemma"])
def test_a_system_message_has_its_span(template: str) -> None:
    messages = ({"role": "system", "content": "be kind"}, *CONVERSATION)
    tokens = encode(Prompt("a", messages=messages), with_template("byte-level", template), chat=False)
    assert stretches(tokens, "system") == ["be kind"]
    assert stretches(tokens, "user") == ["the quick", QUESTION]


def test_a_role_that_a_template_does_not_know_is_refused_in_its_words() -> None:
    messages = ({"role": "system", "content": "be kind"}, *CONVERSATION)
    with pytest.raises(InputError, match=r"prompt a: the chat template refuses.*System role not supported"):
        encode(Prompt("a", messages=messages), with_template("byte-level", "Gemma"), chat=False)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_that_ends_with_an_answer_opens_no_other_one(template: str) -> None:
    tokenizer = with_template("byte-level", template)
    messages = list(CONVERSATION[:2])
    tokens = encode(Prompt("a", messages=tuple(messages)), tokenizer, chat=False)
    assert rendered(tokens) == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    assert stretches(tokens, "answer") == ["fox is"]
    assert not tokens.answers


def test_thinking_that_a_template_cuts_out_is_said_and_the_rest_keeps_its_spans() -> None:
    tokenizer = with_template("byte-level", "Qwen 3")
    messages = [CONVERSATION[0], {"role": "assistant", "content": "<think>hm</think>\n\nfox is"}, CONVERSATION[2]]
    tokens = encode(Prompt("a", messages=tuple(messages)), tokenizer, chat=False)
    assert rendered(tokens) == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "hm" not in rendered(tokens)
    assert stretches(tokens, "user") == ["the quick", QUESTION]
    assert stretches(tokens, "answer") == ["fox is"]
    (warning,) = (remark for remark in tokens.remarks if remark.severity == "warning")
    assert "a part of the assistant message is in no token" in warning.what


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXACT)
@settings(deadline=None, max_examples=40)
@given(text=TEXTS)
def test_places_are_those_of_the_tokens_own_characters(kind: str, text: str) -> None:
    tokens = encode(Prompt("a", text=text), EXACT[kind], chat=False)
    cursor = 0
    for piece, start, end in zip(tokens.texts, tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        data = piece.encode("utf-8", "surrogateescape")
        if start < 0:
            assert (piece, end) == ("<s>", -1)
            continue
        before = len(text[:start].encode())
        assert text[start:end].encode()[cursor - before :].startswith(data)
        assert cursor + len(data) > len(text[: max(start, end - 1)].encode()) or not data
        cursor += len(data)
    assert cursor == len(text.encode())


def test_fragments_of_one_character_all_have_its_place() -> None:
    tokens = encode(Prompt("a", text="a👩b"), byte_tokenizer(), chat=False)
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == [
        (0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_places_in_a_chat_count_from_the_start_of_the_rendered_prompt(template: str) -> None:
    tokenizer = with_template("byte-level", template)
    tokens = encode(Prompt("a", messages=CONVERSATION), tokenizer, chat=False)
    whole = tokenizer.apply_chat_template(list(CONVERSATION), tokenize=False, add_generation_prompt=True)
    user = tokens.spans == SPANS.index("user")
    for text, start, end, mine in zip(tokens.texts, tokens.starts, tokens.ends, user, strict=True):
        if mine and text.isascii():
            assert whole[start:end] == text


@pytest.mark.model
def test_places_skip_a_character_that_a_real_tokenizer_drops(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokens = encode(Prompt("a", text="one\x06two"), AutoTokenizer.from_pretrained(smollm2), chat=False)
    assert tokens.texts == ["one", "two"]
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == [(0, 3), (4, 7)]


# --- beginning of text ------------------------------------------------------------------------------------------------


def count_of_bos(tokens: TokenisedPrompt) -> int:
    return tokens.texts.count("<s>")


def test_a_beginning_of_text_stands_once_however_it_comes() -> None:
    tokenizer = byte_level()  # adds one itself
    assert count_of_bos(encode(Prompt("a", text="hi"), tokenizer, chat=False)) == 1
    assert count_of_bos(encode(Prompt("a", text="<s>hi"), tokenizer, chat=False)) == 1
    tokenizer.chat_template = TEMPLATES["Llama 3"]  # so does this
    assert count_of_bos(encode(Prompt("a", text="hi"), tokenizer, chat=True)) == 1


def test_a_beginning_of_text_of_ones_own_is_noted_and_two_are_warned_of() -> None:
    tokenizer = byte_level()

    def notes(*texts: str, chat: bool = False) -> list[tuple[str, str]]:
        tokens = [encode(Prompt("a", text=text), tokenizer, chat=chat) for text in texts]
        found = notes_of([one.remarks for one in tokens], [f"p{n}" for n in range(len(texts))])
        return [(note["severity"], note["text"]) for note in found if note["id"] == "L17"]

    assert notes("hi", "ho") == []
    own = "the text brings its own beginning-of-text token: the tokenizer's was not added to it."
    assert notes("<s>hi", "ho") == [("info", f"In 1 of 2 prompts (p0) {own}")]
    assert notes("<s>hi", "<s>ho", "x") == [("info", f"In 2 of 3 prompts (p0, p1) {own}")]
    twice = "the text begins with two beginning-of-text tokens, because they stand in it."
    assert notes("<s><s>hi") == [("warning", f"In the prompt {twice}")]
    tokenizer.chat_template = TEMPLATES["Llama 3"]
    assert notes("hi", chat=True) == []
    tokenizer.chat_template = "<s>{{ messages[0].content }}"
    assert notes("<s>hi", chat=True) == [("warning", f"In the prompt {twice}")]


def test_the_trace_carries_the_note(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tokenizer": byte_tokenizer(), "record": ("residual",)}
    trace = capture(tiny("Llama"), ["<s>one", "two"], tmp_path / "t", **options)
    assert [(note["id"], note["severity"]) for note in trace.attrs["notes"]] == [("L17", "info")]
    assert trace.attrs["notes"][0]["text"].startswith("In 1 of 2 prompts (p0001) the text brings its own")


# --- nothing ----------------------------------------------------------------------------------------------------------


def test_empty_prompts_and_messages_are_refused_even_where_a_token_is_added() -> None:
    tokenizer = byte_level()
    with pytest.raises(InputError, match="prompt a1: has no token"):
        encode(Prompt("a1", text=""), tokenizer, chat=False)
    tokenizer.chat_template = TEMPLATES["ChatML"]
    with pytest.raises(InputError, match="prompt a1: has no token"):
        encode(Prompt("a1", text=""), tokenizer, chat=True)
    empty = ({"role": "user", "content": "x"}, {"role": "assistant", "content": ""})
    with pytest.raises(InputError, match="prompt a1: message 2 is empty"):
        encode(Prompt("a1", messages=empty), tokenizer, chat=False)
    with pytest.raises(InputError, match="prompt a1: has no message"):
        encode(Prompt("a1", messages=()), tokenizer, chat=False)


@pytest.mark.parametrize(
    ("pattern", "text"), [(chat._THINKING, "<" + "think" * 6000), (template._FORMAT, "'" + "%" * 20_000)]
)
def test_what_is_looked_for_in_a_long_text_is_soon_found_or_not(pattern: re.Pattern[str], text: str) -> None:
    begun = time.perf_counter()
    assert not pattern.search(text)
    assert time.perf_counter() - begun < 0.5, "it took seconds"
