from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from tiny import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stratoscope.errors import InputError, ModelError
from stratoscope.names import SPANS
from stratoscope.recorder.input.tokens import TokenisedPrompt, cut, encode
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof.floor import _CUTS, _shortened

ODD = "Hi é漢字 👩‍👩‍👧\r\n\t  x\u200f שלום \x00<|im_start|>\u0301\n"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
WORDS = ["<s>", "</s>", "<unk>", "<pad>"]

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<s>system\nBe kind.</s>{% endif %}"
    "<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
TRIMMING = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}[assistant]"
ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<s>{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>"
)
MERGING = (
    "<s>{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}[INST] {% if loop.last and s %}{{ s }}\n\n{% endif %}{{ m.content }}[/INST]{% endfor %}"
)
REWRITING = "<s>{% for m in messages %}{{ m.content | upper }}{% endfor %}"


def spans_of(tokens: TokenisedPrompt) -> list[tuple[str, str]]:
    """Runs of tokens of one span, joined."""
    runs: list[tuple[str, str]] = []
    for text, span in zip(tokens.texts, tokens.spans, strict=True):
        name = SPANS[span] if span >= 0 else "unknown"
        if runs and runs[-1][1] == name != "special":
            runs[-1] = (runs[-1][0] + text, name)
        else:
            runs.append((text, name))
    return runs


def joined(texts: list[str]) -> str:
    return "".join(texts).encode("utf-8", "surrogateescape").decode("utf-8")


def fast(tokenizer: Tokenizer, **options: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", **options
    )


def bos_first(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])


def trained(tokenizer: Tokenizer, alphabet: list[str] = ()) -> Tokenizer:
    corpus = ["the quick brown fox is kind and the fox is quick", "user system assistant model"] * 3
    tokenizer.train_from_iterator(corpus, BpeTrainer(special_tokens=WORDS, initial_alphabet=alphabet, vocab_size=400))
    return tokenizer


def byte_level() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))
    bos_first(tokenizer)
    return fast(tokenizer)


def normalising() -> Any:
    """Byte-level like Qwen2's: composes characters before it cuts them up."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def trimming_offsets() -> Any:
    """Byte-level like GPT-2's: the offsets it reports leave out spaces."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def sentencepiece(prefix: bool) -> Any:
    """Like Llama 2's (a space put in front) and Gemma's (none): ▁ for spaces, bytes for unknown characters."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [*WORDS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters, "▁t", "th", "the", "▁th", "▁the"]
    merges = [("▁", "t"), ("t", "h"), ("▁t", "h"), ("▁th", "e"), ("th", "e")]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    tokenizer.add_special_tokens(WORDS)
    bos_first(tokenizer)
    return fast(tokenizer)


def wordpiece() -> Any:
    """Like BERT's: lower case, no spaces, ## for what goes on."""
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = {
        piece: i for i, piece in enumerate([*WORDS, *letters, *(f"##{x}" for x in letters), "fox", "##es", "."])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return fast(tokenizer)


EXACT = {
    "byte-level": byte_level(),
    "composing": normalising(),
    "trimmed offsets": trimming_offsets(),
    "Llama 2": sentencepiece(prefix=True),
    "Gemma": sentencepiece(prefix=False),
}


@pytest.fixture(scope="session")
def smol(smollm2: Path) -> Any:
    return AutoTokenizer.from_pretrained(smollm2)


def own(tokens: TokenisedPrompt, tokenizer: Any) -> list[str]:
    """Texts without the beginning-of-text token that the tokenizer added."""
    return tokens.texts[1:] if tokenizer.bos_token_id is not None and tokens.texts[0] == "<s>" else tokens.texts


KNOWN_TO_SMOL = st.text(  # its vocabulary lacks a few control characters and the unused planes
    st.characters(exclude_categories=["Cs"], exclude_characters="\x04\x06\x13\x14\x16\x1d", max_codepoint=0x3FFFF),
    min_size=1,
    max_size=40,
)


@pytest.mark.model
@settings(deadline=None)
@given(text=KNOWN_TO_SMOL)
def test_the_texts_of_a_real_tokenizer_join_to_the_prompt(text: str, smol: Any) -> None:
    tokens = encode(Prompt("a", text=text), smol, chat=False)
    assert joined(tokens.texts) == text
    assert tokens.ids.tolist() == smol(text)["input_ids"]


@pytest.mark.model
def test_a_character_the_tokenizer_drops_is_in_no_token(smol: Any) -> None:
    assert encode(Prompt("a", text="one\x06two\x06"), smol, chat=False).texts == ["one", "two"]


@pytest.mark.model
def test_emoji_and_newlines_survive_a_real_tokenizer_as_bytes(smol: Any) -> None:
    tokens = encode(Prompt("a", text=ODD), smol, chat=False)
    assert joined(tokens.texts) == ODD
    assert not any("\ufffd" in text for text in tokens.texts)
    assert any(0xDC80 <= ord(text[0]) <= 0xDCFF for text in tokens.texts), "no token is a fragment of a character"


@pytest.mark.parametrize("kind", EXACT)
@settings(deadline=None)
@given(text=TEXTS)
@example("<s>")
def test_the_texts_of_every_kind_of_tokenizer_join_to_the_prompt(kind: str, text: str) -> None:
    tokens = encode(Prompt("a", text=text), EXACT[kind], chat=False)
    added = "<s>" if EXACT[kind]("")["input_ids"] and not text.startswith("<s>") else ""
    assert joined(tokens.texts) == added + text


@pytest.mark.parametrize("kind", EXACT)
def test_texts_are_what_each_token_stands_for(kind: str) -> None:
    tokens = encode(Prompt("a", text="the é"), EXACT[kind], chat=False)
    texts = own(tokens, EXACT[kind])
    assert texts[0] == "the"
    assert texts[-2:] == ["\udcc3", "\udca9"]
    assert "".join(texts[:-2]) == "the "


def test_a_tokenizer_that_loses_case_still_gives_the_words_as_they_were_written() -> None:
    tokens = encode(Prompt("a", text="The  FOXES."), wordpiece(), chat=False)
    assert tokens.texts == ["T", "h", "e", "FOX", "ES", "."]


def test_only_the_tokens_the_tokenizer_added_are_special_in_raw_text() -> None:
    tokens = encode(Prompt("a", text="the fox</s>"), byte_level(), chat=False)
    assert [name for _, name in spans_of(tokens)] == ["special", "user", "special"]
    assert [text for text, _ in spans_of(tokens)] == ["<s>", "the fox", "</s>"]


def test_a_beginning_of_text_that_is_written_out_is_not_doubled() -> None:
    tokens = encode(Prompt("a", text="<s>the fox"), byte_level(), chat=False)
    assert tokens.texts.count("<s>") == 1
    assert joined(tokens.texts) == "<s>the fox"


def test_a_chat_template_that_writes_the_beginning_of_text_does_not_double_it() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TRIMMING
    tokens = encode(Prompt("a", text="hi"), tokenizer, chat=True)
    assert tokens.texts.count("<s>") == 1


@pytest.mark.parametrize("template", [CHATML, TRIMMING, ALTERNATING, MERGING, REWRITING])
def test_ids_are_those_of_the_tokenizers_own_chat_template(template: str) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    messages = ({"role": "user", "content": " the quick "},)
    tokens = encode(Prompt("a", messages=messages), tokenizer, chat=False)
    theirs = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
    assert tokens.ids.tolist() == theirs


def test_every_part_of_a_conversation_has_its_span() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    roles = ("system", "user", "assistant", "user")
    messages = tuple({"role": role, "content": role} for role in roles)  # each content also stands in its header
    found = spans_of(encode(Prompt("a", messages=messages), tokenizer, chat=False))
    expected = []
    for role, span in zip(roles, ("system", "user", "answer", "user"), strict=True):
        expected += [("<s>", "special"), (f"{role}\n", "template"), (role, span), ("</s>", "special")]
    assert found == [*expected, ("<s>", "special"), ("assistant\n", "template")]


def test_a_default_system_text_is_system_not_template() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    found = spans_of(encode(Prompt("a", text="hi"), tokenizer, chat=True))
    assert ("Be kind.", "system") in found
    assert ("hi", "user") in found
    assert ("system\n", "template") in found


def test_content_that_the_template_trims_or_moves_keeps_its_span() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TRIMMING
    assert ("the fox", "user") in spans_of(encode(Prompt("a", text=" the fox\n"), tokenizer, chat=True))
    tokenizer.chat_template = MERGING
    messages = ({"role": "system", "content": "Be kind"}, {"role": "user", "content": "INST"})
    found = spans_of(encode(Prompt("a", messages=messages), tokenizer, chat=False))
    assert found[1:] == [("[INST] ", "template"), ("Be kind", "system"), ("\n\n", "template"), ("INST", "user"), ("[/INST]", "template")]  # fmt: skip # noqa: E501


def test_spans_are_unknown_where_the_template_rewrites_the_content() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = REWRITING
    tokens = encode(Prompt("a", text="the fox"), tokenizer, chat=True)
    assert spans_of(tokens) == [("<s>", "special"), ("THE FOX", "unknown")]


def test_raw_text_stays_raw_where_the_model_has_a_template() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    assert spans_of(encode(Prompt("a", text="hi"), tokenizer, chat=False)) == [("<s>", "special"), ("hi", "user")]


@pytest.mark.model
def test_the_spans_of_a_real_chat(smol: Any) -> None:
    found = spans_of(encode(Prompt("a", text="Hi there"), smol, chat=True))
    assert found[2] == ("You are a helpful AI assistant named SmolLM, trained by Hugging Face", "system")
    assert ("Hi there", "user") in found
    assert found[-1] == ("assistant\n", "template")


def test_messages_without_a_template_are_refused() -> None:
    with pytest.raises(InputError, match=r"prompt a1: needs a chat template.*without --chat"):
        encode(Prompt("a1", text="hi"), byte_level(), chat=True)


def test_what_a_template_refuses_is_said() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = ALTERNATING
    with pytest.raises(InputError, match=r"prompt a1: the chat template refuses.*System role not supported"):
        encode(Prompt("a1", messages=({"role": "system", "content": "x"},)), tokenizer, chat=False)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="prompt a1: has no token"):
        encode(Prompt("a1", text=" "), wordpiece(), chat=False)


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="no fast tokenizer"):
        encode(Prompt("a", text="x"), Slow(), chat=False)


def test_the_first_tokens_of_a_prompt_keep_all_that_is_known_of_each() -> None:
    whole = encode(Prompt("p", text="The river was low."), byte_tokenizer(), chat=False)
    first = cut(whole, 5)
    for name in ("ids", "texts", "spans", "starts", "ends"):
        assert list(getattr(first, name)) == list(getattr(whole, name))[:5], name
    assert first.remarks == whole.remarks


def test_what_the_floor_is_measured_on_is_cut_with_all_that_is_known_of_each_token() -> None:
    prompts = [encode(Prompt("p", text="The river was low. " * 9), byte_tokenizer(), chat=False)] * len(_CUTS)
    for equal in (False, True):
        for prompt in _shortened(prompts, equal=equal):
            sizes = {len(of) for of in (prompt.ids, prompt.texts, prompt.spans, prompt.starts, prompt.ends)}
            assert len(sizes) == 1
