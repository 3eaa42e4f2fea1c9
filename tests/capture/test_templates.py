"""A chat template from a stranger cannot run away: it is stopped by its size and its time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial

import pytest
from tiny import byte_tokenizer

from stratoscope.errors import InputError
from stratoscope.recorder.input import bounded
from stratoscope.recorder.input.bounded import TooCostly
from stratoscope.recorder.input.chat import render_chat
from stratoscope.recorder.input.template import Template

_GROWS = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}{{ n.x }}"
RUNAWAYS = {
    "a product": "{{ 'x' * 3000000000 }}",
    "a list": "{{ ([1] * 1000000000)|length }}",
    "a power": "{{ 10**10**8 }}",
    "a width": "{{ 'x'|center(1000000000) }}{{ 'x'.center(1000000000) }}",
    "a format": "{{ '%2000000000d' % 1 }}",
    "a width from elsewhere": "{{ '{:{}}'.format(1, '2000000000') }}",
    "a width that is counted": "{{ '{:2000000000}'.format(1) }}",
    "a width as an argument": "{{ '%*d' % (2000000000, 1) }}",
    "many widths": "{{ ('%999999d' * 9000) % ([1] * 9000) }}",
    "a width behind a name": "{{ '%(a(b))2000000000d' % {'a(b)': 1} }}",
    "one value many times": "{{ ('{0}' * 9000).format('x' * 9000) }}",
    "one named value many times": "{{ ('%(a)s' * 9000) % {'a': 'x' * 9000} }}",
    "a format as a filter": "{{ '%2000000000d'|format(1) }}",
    "a format kept for later": "{% set g = ('{0:999999}' * 30000).format %}{{ g(1) }}",
    "much to compile": "{{a}}" * 10_001,
    "a long list to compile": "{{ [" + "a," * 60_000 + "] }}",
    "a long template": "x" * (2**17 + 1),
    "doubling by ~": _GROWS.replace("STEP", "n.x ~ n.x"),
    "doubling by +": _GROWS.replace("STEP", "n.x + n.x"),
    "doubling by replace": _GROWS.replace("STEP", "n.x|replace('a', 'aaaa')"),
    "doubling by lists": _GROWS.replace("STEP", "[n.x, n.x]"),
    "long separators": "{{ range(90000)|map('string')|join('a' * 1000000) }}",
    "much output": "{% for i in range(99999) %}{{ 'x' * 4000000 }}{% endfor %}",
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("source", RUNAWAYS.values(), ids=RUNAWAYS)
def test_a_template_that_runs_away_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.2)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = source
    with pytest.raises(TooCostly):
        Template(tokenizer, date(2026, 1, 1), waiting=True).render([{"role": "user", "content": "hello"}])


USUAL = {
    "a loop": "{%- for m in messages if m.role != 'x' %}{{ loop.index ~ '/' ~ loop.length }}<{{ m['role'] }}>"
    "{{ m.content | trim }}{{ '%s' % m.role + '!' }}{{ {'a': [1, (2, 3)]} | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
    "bold by %": "{% set x = messages[0].content %}{{ '**%s** 5%% * %5.1f' % (x, 2) }}",
    "bold by braces": "{% set x = messages[0].content %}{{ '**{}** {{}} {:>12}'.format(x, 1) }}",
    "a call of a tool": """{{ '{"name": "%s", "arguments": {%s}}' % ('f', messages[0].content) }}""",
    "a long number": "{% set b = messages[0].content %}{{ 'id 12345678 %s' % b }}{{ '{0} 12345678'.format(b) }}",
    "ChatML": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "special tokens": "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}",
    "tools": "{% if tools %}T{% else %}{{ tools is none }}{{ documents is none }}{{ date is defined }}{% endif %}"
    "{%- if not enable_thinking is defined %}\n<think></think>{% endif %}",
    "a generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
    "a macro and a namespace": "{% macro w(m) %}<{{ m.role|upper }}>{{ m.content }}{% endmacro %}"
    "{% set n = namespace(k=0) %}"
    "{% for m in messages[::-1] %}{% set n.k = n.k + 1 %}{{ w(m) }}{% if n.k > 1 %}{% break %}{% endif %}{% endfor %}",
    "parts": "{% for m in messages %}{% if m.content is string %}{{ m.content.split('</think>')[-1].strip() }}"
    "{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{{ m|tojson(indent=2) }}{% endfor %}",
}


@pytest.mark.parametrize("source", USUAL.values(), ids=USUAL)
def test_a_usual_template_writes_what_transformers_writes(source: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = source
    messages = [{"role": "user", "content": " hé "}, {"role": "assistant", "content": "b"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Template(tokenizer, date(2026, 1, 1), waiting=True).render(messages) == expected


def test_a_short_prompt_is_rendered_after_one_that_was_too_long() -> None:
    with pytest.raises(InputError, match=r"with this prompt it makes .* more than 4,194,304 characters"):
        render_chat([{"role": "user", "content": "x" * 4_300_000}], byte_tokenizer(), "p", date(2026, 1, 1))
    short = render_chat([{"role": "user", "content": "x"}], byte_tokenizer(), "p", date(2026, 1, 1))
    assert "".join(part.text for part in short.parts) == "<s>user:x\n<s>"


def test_threads_neither_take_each_others_template_nor_that_of_transformers() -> None:
    def bounded_and_usual(name: str) -> set[tuple[str, str]]:
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = name + "{% for i in range(300) %}{{ messages[0].content }}{% endfor %}"
        messages = [{"role": "user", "content": name}]
        template = Template(tokenizer, date(2026, 1, 1), waiting=True)
        usual = partial(tokenizer.apply_chat_template, messages, tokenize=False)
        return {(template.render(messages), usual()) for _ in range(100)}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(bounded_and_usual, "ab"))
    assert found == [{(one * 301, one * 301)} for one in "ab"]
