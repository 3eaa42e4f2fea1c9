"""The model reads what the user wrote, or it is said: what templates, tokenizers and generation add, drop, change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from test_chat import CONVERSATION, GENERATION, TEMPLATES, rendered, stretches, with_template
from test_tokens import EXACT, TEXTS, WORDS, byte_level, fast, joined, normalising, sentencepiece, wordpiece
from tiny import byte_tokenizer, tiny
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from stratoscope import capture
from stratoscope.doors.cli import app
from stratoscope.errors import InputError, TraceError
from stratoscope.recorder.input.remarks import Remark, notes
from stratoscope.recorder.input.template import end_of_answer, switches
from stratoscope.recorder.input.tokens import TokenisedPrompt, encode
from stratoscope.recorder.prompts.prompt import Prompt, given_prompts
from stratoscope.trace.info.facts import info, info_text

DAY = date(2026, 3, 5)
SYSTEM = {"role": "system", "content": "Be kind to <all>"}
ASKED = {"role": "user", "content": "Is the  fox quick?"}
TALK = [SYSTEM, {"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}, ASKED]
TURN = "[{{ m.role }}]{{ m.content }}"


def turns(content: str, condition: str = "true") -> str:
    """A template that writes each message's content in some way, where a condition holds."""
    return "{% for m in messages %}{% if " + condition + " %}[{{ m.role }}]" + content + "{% endif %}{% endfor %}"


def written(template: str, messages: list[Any], **options: Any) -> TokenisedPrompt:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    return encode(given_prompts([{"id": "a", "messages": messages}])[0], tokenizer, chat=False, **options)


def said(tokens: TokenisedPrompt) -> list[str]:
    """The remarks as they stand in the notes, those on tokens that a tokenizer usually adds left out."""
    found = notes([[one for one in tokens.remarks if "adds a token in front" not in one.what]], ["a"])
    return [f"{note['severity']}: {note['text'].removeprefix('In the prompt ')}" for note in found]


# --- templates --------------------------------------------------------------------------------------------------------


DROPPED = [
    ("the system role", turns("{{ m.content }}", "m.role != 'system'"), ["the system message is in no token"]),
    (
        "all but the last two",
        turns("{{ m.content }}", "loop.revindex <= 2"),
        ["the system message is in no token", "a user message is in no token"],
    ),
    (
        "all but the last",
        "<s>{{ messages[-1].content }}",
        [f"{name} message is in no token" for name in ("the system", "a user", "the assistant")],
    ),
    ("the ends of long messages", turns("{{ m.content[:12] }}"), ["a part of the system", "a part of a user message"]),
    ("letters", turns("{{ m.content | replace('k', 'c') }}"), ["writes the system message", "writes a user message"]),
    ("case", turns("{{ m.content | lower }}"), ["system message otherwise than given, in other case", "user message"]),
    (
        "blanks",
        turns("{{ m.content.split() | join(' ') }}"),
        ["writes a user message otherwise than given, with other"],
    ),
    (
        "markup",
        turns("{{ m.content | e }}"),
        ["writes the system message otherwise than given, with characters escaped"],
    ),
]


@pytest.mark.parametrize(("template", "words"), [case[1:] for case in DROPPED], ids=[case[0] for case in DROPPED])
def test_what_a_template_drops_or_changes_is_a_warning(template: str, words: list[str]) -> None:
    warnings = [line for line in said(written(template, TALK)) if line.startswith("warning")]
    assert len(warnings) == len(words)
    for line, part in zip(warnings, words, strict=True):
        assert part in line


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "messages", [CONVERSATION, CONVERSATION[:1], CONVERSATION[:2]], ids=["talk", "one", "answered"]
)
def test_a_template_that_keeps_every_word_is_not_warned_of(template: str, messages: Any) -> None:
    tokens = encode(Prompt("a", messages=messages), with_template("byte-level", template), chat=False)
    assert not [line for line in said(tokens) if line.startswith("warning")]


@settings(deadline=None, max_examples=40)
@given(text=TEXTS)
def test_a_template_that_writes_the_text_as_it_is_has_no_remark_whatever_the_text(text: str) -> None:
    assert said(written(turns("{{ m.content }}"), [{"role": "user", "content": text}])) == []


def test_words_that_also_stand_in_a_role_header_are_not_taken_for_the_message() -> None:
    messages = [{"role": "system", "content": "user"}, {"role": "user", "content": "user"}]
    lines = said(written(turns("{{ m.content }}", "m.role != 'system'"), messages))
    assert lines == ["warning: the system message is in no token: the chat template writes nothing of it."]


def test_blanks_at_the_ends_that_a_template_trims_are_no_warning() -> None:
    lines = said(written(turns("{{ m.content | trim }}"), [{"role": "user", "content": " the fox\n"}]))
    assert lines == ["info: the chat template leaves out blanks at the ends of the user message."]


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (turns("{{ m.content }}", "m.role == 'system'"), "hello"),
        ("<s>{{ messages[0].content }}", "hello"),
        (turns("{{ m.content | trim }}"), " \n "),
        (turns("{{ m.content | replace('hello', '') }}"), "hello"),
    ],
    ids=["role", "first only", "blanks", "replaced"],
)
def test_a_prompt_without_a_word_of_the_last_user_message_is_refused(template: str, content: str) -> None:
    with pytest.raises(InputError, match=r"prompt a, message 2: no token is of the last user message"):
        written(template, [SYSTEM, {"role": "user", "content": content}])


def test_another_order_and_a_turn_of_two_messages_are_said() -> None:
    template = (
        "{% set s = messages[0].content %}{% for m in messages[1:] %}[{{ m.role }}]"
        "{% if loop.last %}{{ s }}\n\n{% endif %}{{ m.content }}{% endfor %}"
    )
    assert said(written(template, TALK)) == [
        "info: the chat template writes the messages in another order than given, as user, assistant, system, user.",
        r"info: the chat template writes the system and the user message as one turn, with '\n\n' between.",
    ]
    one_turn = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert "the user and the user message as one turn" in said(written(one_turn, [ASKED, ASKED]))[0]
    twice = said(written(turns("{{ m.content }}, {{ m.content }}"), [ASKED]))
    assert twice == ["info: the chat template writes the user message more than once."]


def test_what_a_template_adds_is_said_with_its_words() -> None:
    vicuna = "A chat between a curious user and an assistant. {% for m in messages %}USER: {{ m.content }} {% endfor %}"
    assert "adds a text that is in no message: 'A chat between" in said(written(vicuna, [ASKED]))[0]
    default = "{% if messages[0].role != 'system' %}<s>system\nBe kind.</s>{% endif %}" + turns("{{ m.content }}")
    default = default.replace("[{{ m.role }}]", "<s>{{ m.role }}\n").replace(
        "{% endif %}{% endfor", "</s>{% endif %}{% endfor"
    )
    lines = said(written(default, [ASKED]))
    assert lines == ["info: the chat template adds a system text that is in no message: 'Be kind.'."]
    assert said(written(default, [SYSTEM, ASKED])) == []
    thinking = turns("{{ m.content }}") + GENERATION + "[assistant]<think>\n{% endif %}"
    assert said(written(thinking, [ASKED])) == [r"info: the chat template opens the answer: '<think>\n'."]


def test_settings_of_a_template_that_nobody_set_are_found_by_what_they_change() -> None:
    tokenizer = with_template("byte-level", "Qwen 3")
    assert switches(tokenizer, DAY) == ["enable_thinking"]
    tokenizer.chat_template += "{% if colour is defined %}{% endif %}{% generation %}x{% endgeneration %}"
    assert switches(tokenizer, DAY) == ["enable_thinking"], "a setting that changes nothing is not named"


def test_where_some_messages_are_rewritten_the_others_keep_their_spans() -> None:
    tokens = written(turns("{{ m.content.split('>')[-1] }}"), [ASKED, {"role": "assistant", "content": "a>b"}, ASKED])
    assert stretches(tokens, "user") == [ASKED["content"]] * 2
    assert stretches(tokens, "answer") == ["b"]


# --- the day ----------------------------------------------------------------------------------------------------------


DATED = "<s>Today: {{ strftime_now('%d %b %Y') }}.</s>" + turns("{{ m.content }}")


def test_a_template_is_told_one_day_which_is_said() -> None:
    tokens = written(DATED, [ASKED], day=DAY)
    assert rendered(tokens).startswith("<s>Today: 05 Mar 2026.</s>")
    assert tokens.dated
    assert any("was told that today is 2026-03-05" in line and "'05 Mar 2026'" in line for line in said(tokens))
    unused = "{% set d = strftime_now('%Y') %}" + turns("{{ m.content }}")
    assert not written(unused, [ASKED], day=DAY).dated


def test_a_date_in_words_that_are_put_together_is_refused_not_left_out() -> None:
    with pytest.raises(InputError, match="asks for the time in words that are not written out in it: %d%m"):
        written("{{ strftime_now('%d' ~ '%m') }}" + turns("{{ m.content }}"), [ASKED], day=DAY)


def test_today_is_what_transformers_would_write() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = DATED
    theirs = tokenizer.apply_chat_template([ASKED], add_generation_prompt=True, return_dict=False)
    assert encode(Prompt("a", messages=(ASKED,)), tokenizer, chat=False, day=date.today()).ids.tolist() == theirs


def test_a_recording_keeps_its_day_when_it_is_resumed(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = DATED
    model, texts = tiny("Llama"), ["hello", "fox"]
    options: dict[str, Any] = {"tokenizer": tokenizer, "record": ("residual",), "chat": True}
    begun = capture(model, texts, tmp_path / "t", **options, date="2026-03-05")
    assert begun.attrs["plan"]["date"] == "2026-03-05"
    resumed = capture(model, texts, tmp_path / "t", **options, resume=True)
    assert resumed.attrs["plan"]["date"] == "2026-03-05"
    with pytest.raises(TraceError, match=r"plan\.date"):
        capture(model, texts, tmp_path / "t", **options, date="2026-03-06", resume=True)
    with pytest.raises(InputError, match="no prompt holds the date"):
        capture(model, texts, tmp_path / "u", **{**options, "chat": False}, date="2026-03-05")
    with pytest.raises(InputError, match=r"there is no day 'today'\. Write YYYY-MM-DD"):
        capture(model, texts, tmp_path / "u", **options, date="today")


# --- parts of a content -----------------------------------------------------------------------------------------------


PARTS = [{"role": "user", "content": [{"type": "text", "text": "one."}, {"type": "text", "text": "two"}]}]
LISTS = (
    "[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}"
    "{% endfor %}{% endif %}"
)
TAKES_TEXT = "joined by a line end, as the chat template takes only one text"


@pytest.mark.parametrize(
    ("content", "became", "words"),
    [
        (LISTS, "[user]one.two", "joins the parts of the user message with nothing between"),
        (LISTS.replace("{{ c.text }}", "{{ c.text }} / "), "[user]one. / two / ", "with ' / ' between"),
        (TURN, "[user]one.\ntwo", TAKES_TEXT),
        (TURN.replace("m.content", "m.content | tojson"), '[user]"one.\\ntwo"', TAKES_TEXT),
        (TURN.replace("m.content", "m.content | e"), "[user]one.\ntwo", TAKES_TEXT),
        (TURN.replace("m.content", "m.content | trim"), "[user]one.\ntwo", TAKES_TEXT),
        (LISTS.replace("for c in m.content", "for c in m.content[:1]"), "[user]one.\ntwo", TAKES_TEXT),
        (LISTS.replace("m.content is string", "m.content == 'x'").replace("c.text", "c"), "", ""),
    ],
    ids=["joined", "joined with more", "texts", "JSON", "escaped", "Python", "first part", "refused"],
)
def test_text_parts_are_joined_as_the_template_does_it_or_by_a_line_end(content: str, became: str, words: str) -> None:
    tokens = written("{% for m in messages %}" + content + "{% endfor %}", PARTS)
    if became:
        assert rendered(tokens) == became
        assert any(words in line for line in said(tokens))
    assert "type" not in rendered(tokens)
    assert "{" not in rendered(tokens)


def test_one_part_is_the_same_prompt_as_its_text() -> None:
    template = "{% for m in messages %}" + LISTS + "{% endfor %}"
    part = [{"role": "user", "content": [{"type": "text", "text": "one"}]}]
    for form in (template, turns("{{ m.content }}")):
        tokens = written(form, part)
        assert rendered(tokens) == "[user]one"
        assert stretches(tokens, "user") == ["one"]
        assert said(tokens) == []


def test_a_template_that_reads_only_lists_gets_every_text_as_one() -> None:
    only_lists = "{% for m in messages %}[{{ m.role }}]{% for c in m.content %}{{ c['text'] }}{% endfor %}{% endfor %}"
    by_type = only_lists.replace("{{ c['text'] }}", "{% if c['type'] == 'text' %}{{ c.text }}{% endif %}")
    raising = only_lists.replace("{% for c", "{{ m.content[0].text[:0] }}{% for c")
    for template in (only_lists, by_type, raising):
        tokens = written(template, TALK)
        assert rendered(tokens) == "".join(f"[{one['role']}]{one['content']}" for one in TALK)
        assert stretches(tokens, "user") == ["hello", ASKED["content"]]
        assert said(tokens) == []


# --- tokenizers -------------------------------------------------------------------------------------------------------


def normalised(normalizer: Any) -> Any:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizer
    return tokenizer


def bare(unknown: bool) -> Any:
    """Few letters; the others are dropped, or one unknown token each."""
    vocabulary = {piece: number for number, piece in enumerate([*WORDS, *"efhox "])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], **({"unk_token": "<unk>"} if unknown else {})))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(WORDS)
    return fast(tokenizer)


def unigram() -> Any:
    """Like T5's: compatible characters, one blank for several, an end-of-text token behind."""
    pieces = [
        *((word, 0.0) for word in WORDS),
        ("▁", -2.0),
        *((letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(WORDS)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return fast(tokenizer)


def stripping() -> Any:
    tokenizer = byte_level()
    markup = AddedToken("<|x|>", rstrip=True, special=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [markup]})
    return tokenizer


SPACE = "info: the tokenizer puts a space in front of a text that begins without one."
BLANKS = "info: the tokenizer drops blanks, or writes them otherwise."
UNKNOWN = "warning: characters that the tokenizer does not know become '<unk>': "
REWRITES = "the tokenizer rewrites the text"
AT_END = "warning: the tokenizer adds a token at the end, so that what comes next comes after it: '</s>'."
LOSSES: list[tuple[str, Callable[[], Any], str, list[str]]] = [
    ("a space in front", lambda: sentencepiece(prefix=True), "the fox", [SPACE]),
    ("none in front", lambda: sentencepiece(prefix=False), "the fox", []),
    ("▁ of one's own", lambda: sentencepiece(prefix=False), "a▁b", [f"warning: {REWRITES}: '▁' as ' '."]),
    ("composed", normalising, "e\u0301", [f"info: {REWRITES}, composing characters (Unicode NFC): 'e\u0301' as 'é'."]),
    (
        "compatible",
        lambda: normalised(normalizers.NFKC()),
        "ﬁx ①",
        [f"warning: {REWRITES} in another Unicode form: 'ﬁ' as 'fi' and '①' as '1'."],
    ),
    ("lower case", lambda: normalised(normalizers.Lowercase()), "The Fox", [f"warning: {REWRITES} in lower case."]),
    ("stripped", lambda: normalised(normalizers.Strip()), " the fox ", [BLANKS]),
    ("no accents", wordpiece, "é", [f"warning: {REWRITES}: 'é' as 'e'."]),
    ("unknown", lambda: bare(unknown=True), "the fox!", [UNKNOWN + "'t' and '!'."]),
    (
        "dropped",
        lambda: bare(unknown=False),
        "the fox!",
        ["warning: the tokenizer drops characters, which are in no t"],
    ),
    ("T5", unigram, "a  b", [AT_END, SPACE, BLANKS]),
    ("T5's unknown", unigram, "the É", [UNKNOWN + "'É'.", AT_END, SPACE]),
    (
        "blanks beside markup",
        stripping,
        "a<|x|>\n b",
        [BLANKS, "info: the text holds what the tokenizer reads as special"],
    ),
]


@pytest.mark.parametrize(("make", "text", "lines"), [case[1:] for case in LOSSES], ids=[case[0] for case in LOSSES])
def test_what_a_tokenizer_drops_changes_or_adds_is_said(make: Callable[[], Any], text: str, lines: list[str]) -> None:
    found = said(encode(Prompt("a", text=text), make(), chat=False))
    assert len(found) == len(lines), found
    for line in lines:
        assert any(one.startswith(line) for one in found), found


@pytest.mark.parametrize("kind", EXACT)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_a_tokenizer_that_keeps_every_byte_is_not_warned_of(kind: str, text: str) -> None:
    tokens = encode(Prompt("a", text=text.replace("▁", "_")), EXACT[kind], chat=False)
    assert not [line for line in said(tokens) if line.startswith("warning")] or kind == "composing"


def test_a_dropped_character_does_not_shift_what_the_tokens_say() -> None:
    tokens = encode(Prompt("a", text="the fox!"), bare(unknown=False), chat=False)
    assert tokens.texts == list("he fox")
    assert "'t' and '!'" in said(tokens)[0]


def test_a_tokenizers_own_limit_cuts_nothing() -> None:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=30, pad_id=3, pad_token="<pad>")
    tokenizer.model_max_length = 2
    tokens = encode(Prompt("a", text="the quick brown fox"), tokenizer, chat=False)
    assert rendered(tokens) == "the quick brown fox"
    assert said(tokens) == []


def test_text_that_becomes_a_special_token_is_said() -> None:
    raw = said(encode(Prompt("a", text="one</s>two"), byte_level(), chat=False))
    assert raw == ["info: the text holds what the tokenizer reads as special tokens, not as words: '</s>'."]
    words = "warning: a message holds what the tokenizer reads as special tokens, not as words: '</s>'."
    user = {"role": "user", "content": "one</s>two"}
    assert said(written("<s>" + turns("{{ m.content }}</s>"), [user])) == [words]
    assert said(written("<s>" + turns("{{ m.content }}</s>"), [ASKED])) == []
    assert words in said(written(turns("{{ m.content | replace('o', 'u') }}</s>"), [user])), (
        "also where it is rewritten"
    )
    tokenizer = byte_level()
    tokenizer.add_tokens(["<think>", "foxes"])
    found = said(encode(Prompt("a", text="<think> foxes"), tokenizer, chat=False))
    assert found == ["info: the text holds what the tokenizer reads as special tokens, not as words: '<think>'."]


def test_a_message_that_the_tokenizer_drops_is_in_no_token() -> None:
    tokenizer = bare(unknown=False)
    tokenizer.chat_template = "{% for m in messages %}h{{ m.content }}{% endfor %}"
    talk = given_prompts(
        [{"id": "a", "messages": [{"role": "system", "content": "zz"}, {"role": "user", "content": "fox"}]}]
    )
    lines = said(encode(talk[0], tokenizer, chat=False))
    assert "warning: the system message is in no token: the tokenizer drops all of it." in lines
    with pytest.raises(InputError, match="no token is of the last user message"):
        encode(Prompt("a", text="zz"), tokenizer, chat=True)


# --- notes ------------------------------------------------------------------------------------------------------------


def test_a_note_counts_the_prompts_and_names_the_first_of_them() -> None:
    gone = Remark("warning", "the system message is in no token", ("'x'",))
    ids = [f"p{number}" for number in range(12)]
    remarks: list[list[Remark]] = [[] for _ in ids]
    for number in range(3, 10):
        remarks[number] = [gone]
    (note,) = notes(remarks, ids)
    assert note == {
        "id": "L26",
        "severity": "warning",
        "text": "In 7 of 12 prompts (p3, p4, p5, p6, p7, …) the system message is in no token: 'x'.",
    }
    assert notes([[gone]] * 2, ids[:2])[0]["text"].startswith("In each of the 2 prompts the system")
    many = Remark("info", "more", tuple(map(str, range(20))))
    assert notes([[many]], ["a"])[0]["text"].endswith("5, 6, 7 and 12 more.")


def test_a_trace_its_info_and_the_command_line_say_that_a_message_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = turns("{{ m.content }}", "m.role != 'system'")
    prompts = [{"id": "a", "messages": [SYSTEM, ASKED]}, {"id": "b", "messages": [ASKED]}]
    trace = capture(tiny("Llama"), prompts, tmp_path / "t", tokenizer=tokenizer, record=("residual",))
    words = "In 1 of 2 prompts (a) the system message is in no token: the chat template writes nothing of it."
    assert {"id": "L26", "severity": "warning", "text": words} in trace.attrs["notes"]
    text = " ".join(info_text(info(trace)).split())
    assert words in text
    assert "as written no: see L26 in the notes" in text
    monkeypatch.setattr("stratoscope.capture", lambda *_, **__: trace, raising=False)
    (tmp_path / "p.txt").write_text("x")
    run = CliRunner().invoke(app, ["capture", "m", "--prompts", str(tmp_path / "p.txt"), "-o", str(tmp_path / "u")])
    assert f"[L26] {words}" in run.stderr


def test_a_chat_without_the_beginning_of_text_that_raw_text_gets_is_said(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.chat_template = turns("{{ m.content }}")
    options: dict[str, Any] = {"tokenizer": tokenizer, "record": ("residual",), "chat": True}
    trace = capture(tiny("Llama"), ["hello"], tmp_path / "t", **options)
    assert any("no beginning-of-text token stands in front" in note["text"] for note in trace.attrs["notes"])


# --- answers ----------------------------------------------------------------------------------------------------------


def test_settings_of_the_model_that_an_answer_is_written_without_are_named(tmp_path: Path) -> None:
    tokenizer, model = byte_tokenizer(), tiny("Llama")
    tokenizer.chat_template = turns("{{ m.content }}<pad>")
    model.generation_config.update(repetition_penalty=1.3, forced_bos_token_id=7, max_length=90, num_beams=1)
    options: dict[str, Any] = {"tokenizer": tokenizer, "record": ("residual",), "generate": 3, "chat": True}
    trace = capture(model, ["hello"], tmp_path / "t", **options)
    texts = [note["text"] for note in trace.attrs["notes"]]
    named = (
        "without the generation settings that the model brings along: forced_bos_token_id 7 and repetition_penalty 1.3."
    )
    assert any(text.endswith(named) for text in texts)
    assert end_of_answer(tokenizer, DAY) == 0
    assert any("does not end at the token with which the chat template ends answers: '<pad>'" in text for text in texts)
    ids, spans = trace["token_id"].values, trace["span"].values
    cut = int((ids[spans == 5] != 1).all())
    assert info(trace)["outcome"]["cut"] == cut == 1
    assert "cut short" in info_text(info(trace))


def test_an_opener_that_the_vocabulary_lacks_is_refused() -> None:
    from stratoscope.recorder.answers.outcome import tokenised_openers

    with pytest.raises(InputError, match="opener 'fox!': holds a character that the tokenizer does not know"):
        tokenised_openers(["fox!"], bare(unknown=True))


# --- a real tokenizer -------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_a_real_chat_says_what_its_template_adds_and_its_tokenizer_drops(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert said(encode(Prompt("a", text="Hi é 漢字 👩"), tokenizer, chat=False)) == []
    assert said(encode(Prompt("a", text="!\x06!"), tokenizer, chat=False)) == [
        r"warning: the tokenizer drops characters, which are in no token: '\x06'."
    ]
    (added,) = said(encode(Prompt("a", text="Hi"), tokenizer, chat=True))
    assert added.startswith("info: the chat template adds a system text that is in no message: 'You are a helpful AI")
    assert joined(encode(Prompt("a", text="?\x06!\x06?"), tokenizer, chat=False).texts) == "?!?"
