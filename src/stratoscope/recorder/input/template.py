"""A tokenizer's chat template: what it writes, what it can be told, and with what it ends an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

_CLOCK = "strftime_now"  # how a template asks for the time


@dataclass
class Template:
    """A tokenizer's chat template, told a day, with or without an answer to wait for."""

    tokenizer: Any
    day: date
    waiting: bool
    told: list[str] = field(default_factory=list)  # what it was told when it asked for the time

    def render(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """The prompt that it writes; whatever it raises is raised."""
        if _CLOCK in self._source:
            settings[_CLOCK] = self._tell
        return str(
            self.tokenizer.apply_chat_template(
                [{**message, "content": _as_parts(message["content"])} for message in messages],
                tokenize=False,
                add_generation_prompt=self.waiting,
                **settings,
            )
        )

    @property
    def _source(self) -> str:
        return str(self.tokenizer.chat_template)

    def _tell(self, words: str) -> str:
        self.told.append(datetime.combine(self.day, time()).strftime(words))
        return self.told[-1]


def _as_parts(content: str | tuple[str, ...]) -> str | list[dict[str, str]]:
    return content if isinstance(content, str) else [{"type": "text", "text": text} for text in content]


def switches(tokenizer: Any, day: date) -> list[str]:
    """Settings of the chat template that change the prompt and that are left at the template's own defaults."""
    from jinja2 import Environment, meta

    template = Template(tokenizer, day, waiting=True)
    source = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", str(tokenizer.chat_template))
    messages = [{"role": "user", "content": "hello"}]
    try:
        environment = Environment(extensions=["jinja2.ext.loopcontrols"])
        names = meta.find_undeclared_variables(environment.parse(source))
        usual = template.render(messages)
    except Exception:  # not a template that jinja2 reads alone: nothing is known about its settings
        return []
    given = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", _CLOCK}
    given |= {*tokenizer.special_tokens_map, *environment.globals}
    return [name for name in sorted(names - given) if _matters(name, template, messages, usual)]


def end_of_answer(tokenizer: Any, day: date) -> int | None:
    """The special token that the template writes behind an answer; None where it writes none, or refuses to."""
    word = "qzxq"
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": word}]
    try:
        after = Template(tokenizer, day, waiting=False).render(messages).partition(word)[2]
    except Exception:  # a template may raise anything
        return None
    added = tokenizer.added_tokens_decoder
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after.strip() else []
    return next((index for index in ids if index in added and str(added[index]).strip()), None)


def _matters(name: str, template: Template, messages: list[dict[str, str]], usual: str) -> bool:
    for value in (True, False):
        try:
            if template.render(messages, **{name: value}) != usual:
                return True
        except Exception:  # it wants something else than yes or no
            return True
    return False
