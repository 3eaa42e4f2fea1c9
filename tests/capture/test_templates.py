"""A chat template from a stranger cannot run away: it is stopped by its size and its time."""

from __future__ import annotations

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
