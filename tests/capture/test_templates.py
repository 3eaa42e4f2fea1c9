"""A chat template from a stranger cannot run away: it is stopped by its size and its time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from tiny import byte_tokenizer

from stratoscope.recorder.input import bounded
from stratoscope.recorder.input.bounded import TooCostly
from stratoscope.recorder.input.template import Template

_GROWS = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}{{ n.x }}"
RUNAWAYS = {
    "a product": "{{ 'x' * 3000000000 }}",
    "a list": "{{ ([1] * 1000000000)|length }}",
    "a power": "{{ 10**10**8 }}",
    "a width": "{{ 'x'|center(1000000000) }}{{ 'x'.center(1000000000) }}",
    "a format": "{{ '%2000000000d' % 1 }}",
    "a width from elsewhere": "{{ '{:{}}'.format(1, '2000000000') }}",
    "many widths": "{{ ('%(a)999999d' * 9000)|format(a=1) }}",
    "many widths in braces": "{{ ('{0:999999}' * 30000).format(1) }}",
    "a format kept for later": "{% set g = ('{0:999999}' * 30000).format %}{{ g(1) }}",
    "a value again and again": "{{ ('%(a)s' * 9000)|format(a='x' * 9000) }}",
    "many places": "{{a}}" * 10_001,
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


def test_a_usual_template_writes_what_transformers_writes() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{%- for m in messages if m.role != 'x' %}{{ loop.index ~ '/' ~ loop.length }}<{{ m['role'] }}>"
        "{{ m.content | trim }}{{ '%s' % m.role + '!' }}{{ {'a': [1, (2, 3)]} | tojson }}"
        "{% if not loop.last %}, {% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    messages = [{"role": "user", "content": " hé "}, {"role": "assistant", "content": "b"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Template(tokenizer, date(2026, 1, 1), waiting=True).render(messages) == expected


def test_formats_that_are_no_widths_are_usual() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '**%s**' % m.role }}{{ '**{}**'.format(m.content) }}{{ 'id 12345678 %s' % m.role }}"
        '{{ \'{"name": "%s", "arguments": {%s}}\' % (m.role, m.content) }}{{ "%5d|{:>8}" % 3 }}{% endfor %}'
    )
    messages = [{"role": "user", "content": "hello"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert Template(tokenizer, date(2026, 1, 1), waiting=False).render(messages) == expected


def test_a_prompt_that_is_too_long_does_not_speak_against_the_template() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    template = Template(tokenizer, date(2026, 1, 1), waiting=False)
    with pytest.raises(TooCostly, match="with this prompt"):
        template.render([{"role": "user", "content": "x" * (bounded.LARGEST_VALUE + 1)}])
    assert template.render([{"role": "user", "content": "x"}]) == "x"


def test_templates_of_two_threads_write_each_its_own() -> None:
    def rendered(name: str) -> set[str]:
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = name + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        template = Template(tokenizer, date(2026, 1, 1), waiting=False)
        return {template.render([{"role": "user", "content": str(number)}])[: len(name)] for number in range(50)}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rendered, "ABCD")) == [{"A"}, {"B"}, {"C"}, {"D"}]
