"""Pages of HTML: the one place where a template becomes a page, and the only one that may call a text markup.

Every value of a template is escaped, and what would not be seen in it, or would reorder its neighbours, made visible.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from stratoscope.words import isolate, line_parts, visible

_WEB = files("stratoscope.view") / "web"
_COMMAND = re.compile(r"`((?:--|stratoscope )[^`]*)`")
_UNBROKEN = Markup('<span class="unbroken">{}</span>')
_UNSAFE_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def render(template: str, **values: Any) -> str:
    """A page.

    Parameters
    ----------
    template
        The name of a template in `view/web`.
    values
        What stands in it. All of it is text, but for what `own` and `inert` give.
    """
    return _environment().get_template(template).render(values)


def own(text: str) -> Markup:
    """CSS or a script of ours or of Plotly, which stands in a page as it is; never anything that came from a file."""
    return Markup(text)


def sentence(text: str) -> Markup:
    """A text in which no line ends within L4 n116, p ≤ 0.05 or 5 %, and an option or command of ours is code."""
    whole = Markup()
    for place, part in enumerate(_COMMAND.split(str(_finalize(text)))):
        words = [_UNBROKEN.format(word) if " " in word else escape(word) for word in line_parts(part)]
        whole += Markup("<code>{}</code>").format(part) if place % 2 else Markup(" ").join(words)
    return whole


def inert(json_text: str) -> Markup:
    """JSON of `ascii_json` as text that cannot end the script element it stands in."""
    return Markup(json_text.translate(_UNSAFE_IN_SCRIPT))


def web_file(name: str) -> str:
    """The text of a file in `view/web`."""
    return (_WEB / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    templates = {one.name: one.read_text("utf-8") for one in _WEB.iterdir() if one.name.endswith(".html")}
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = sentence
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    text = str(value)
    return text if text.isascii() and text.isprintable() else isolate(visible(text))
