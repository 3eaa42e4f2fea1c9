"""A tokenizer's chat template: what it writes, what it can be told, and with what it ends an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from stratoscope.recorder.input.bounded import TooCostly, render_bounded

_CLOCK, _DATES = "strftime_now", "dates_in_words"  # how a template asks for the time, and what it is answered
_TELL = (
    f"{{% macro {_CLOCK}(words) %}}{{{{ {_DATES}[words] if words in {_DATES} else words if '%' not in words else "
    "raise_exception('it asks for the time in words that are not written out in it: ' ~ words) }}{% endmacro +%}"
)
_FORMAT = re.compile(r"""(['"])((?:(?!\1)[^%\n])*%(?:(?!\1).)*)\1""")  # a string that may say in which words
_OTHER_DAY = timedelta(days=-396)  # another year, month, day and day of the week


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template, told a day, with or without an answer to wait for."""

    tokenizer: Any
    day: date
    waiting: bool

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, part_key: str = "", settings: Mapping[str, Any] | None = None
    ) -> str:
        """The prompt that it writes; whatever it raises is raised. `part_key`: a further key of a content's parts."""
        dated = {_DATES: self._dates()} if self.asks_for_time else {}
        variables = {  # those of transformers' apply_chat_template
            "messages": [{**message, "content": _as_parts(message["content"], part_key)} for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": self.waiting,
            **self.tokenizer.special_tokens_map,
            **dated,
            **(settings or {}),
        }
        return render_bounded(_TELL + self.source if self.asks_for_time else self.source, variables)

    @property
    def source(self) -> str:
        """As its author wrote it."""
        return str(self.tokenizer.get_chat_template())

    @property
    def asks_for_time(self) -> bool:
        """Whether the time may stand in what it writes."""
        return _CLOCK in self.source

    def date_lines(self, written: str, messages: Sequence[Mapping[str, Any]]) -> list[str] | None:
        """How the day stands in a prompt; None where the prompt is the same on other days."""
        another = replace(self, day=self.day + _OTHER_DAY)
        if not self.asks_for_time or another.render(messages) == written:
            return None
        return [text for text in dict.fromkeys(self._dates().values()) if text in written]

    def _dates(self) -> dict[str, str]:
        moment = datetime.combine(self.day, time())
        return {words: moment.strftime(words) for _, words in _FORMAT.findall(self.source)}


def _as_parts(content: str | tuple[str, ...], key: str) -> str | list[dict[str, str]]:
    more = {key: ""} if key else {}
    return content if isinstance(content, str) else [{"type": "text", "text": text, **more} for text in content]


def switches(tokenizer: Any, day: date) -> list[str]:
    """Settings of the chat template that change the prompt and that are left at the template's own defaults."""
    from jinja2 import Environment, meta

    template = Template(tokenizer, day, waiting=True)
    messages = [{"role": "user", "content": "hello"}]
    try:
        usual = template.render(messages)
        source = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template.source)
        environment = Environment(extensions=["jinja2.ext.loopcontrols"])
        names = meta.find_undeclared_variables(environment.parse(source))
    except Exception:  # not a template that jinja2 reads alone: nothing is known about its settings
        return []
    given = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", _CLOCK}
    given |= {*tokenizer.special_tokens_map, *environment.globals}
    try:
        return [name for name in sorted(names - given) if _matters(name, template, messages, usual)]
    except TooCostly:  # one that runs away is not begun again for each of its names
        return []


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
            if template.render(messages, settings={name: value}) != usual:
                return True
        except TooCostly:
            raise
        except Exception:  # it wants something else than yes or no
            return True
    return False
