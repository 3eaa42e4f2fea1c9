"""Chat templates that cannot run away: rendered as transformers renders them, within a size and a time.

A template comes with a model, so from a stranger. transformers runs it in Jinja2's sandbox, which keeps it from files
and objects but lets it write `'x' * 3000000000` or loop for a year. Here whatever makes a larger value out of smaller
ones is weighed before it is made, and whatever repeats looks at the clock.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, wraps
from typing import Any

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST_VALUE = 2**22  # characters that a template may write, and that any value in it may have
LONGEST_TEMPLATE = 2**17  # characters of a template itself; the largest of known models have 20,000
MOST_WORDS = 25_000  # that Jinja2 reads in a template, blanks apart: what makes compiling it long
LARGEST_COUNT = 100_000  # that anything is asked for, as Jinja2 bounds its ranges
LARGEST_NUMBER = 2**128
SECONDS = 1.0  # of one rendering, as the processor counts them; real ones take a thousandth

_PERCENT = re.compile(r"%[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(?s:.)")  # what % replaces; of `%(name)s` only `%(`
_AFTER_NAME = re.compile(r"\)[-#0 +]*(\d*)(?:\.(\d*))?")
_BRACES = re.compile(r"\{([^{}]*)(\{?)")  # what .format replaces, and whether another one is in it
_UNBOUNDED = ("pprint", "urlize")  # filters that no prompt needs, and that take long over what is small
_CONCAT, _STEPS, _WEIGHED = "stratoscope_concat", "stratoscope_steps", "stratoscope_weighed"


class TooCostly(Exception):
    """A template wants to write too much, or takes too long."""


def render_bounded(source: str, variables: Mapping[str, Any]) -> str:
    """What a template writes; transformers' own template is not touched, so other threads are not either.

    Raises
    ------
    TooCostly
        The template is too large, or with these variables it writes too much or takes too long.
    """
    if len(source) > LONGEST_TEMPLATE:
        raise TooCostly(f"it has {len(source):,} characters; a template may have {LONGEST_TEMPLATE:,}")
    _spent.deadline, _spent.written = time.thread_time() + SECONDS, 0
    try:
        template = _compiled(source)
        _spent.deadline, _spent.written = time.thread_time() + SECONDS, 0
        return str(template.render(variables))
    except MemoryError:
        raise TooCostly("with this prompt it fills the memory") from None


class _Spent(threading.local):
    """What the rendering in this thread may still take, and what it has written."""

    deadline = 0.0
    written = 0


_spent = _Spent()


@lru_cache(64)
def _compiled(source: str) -> Any:
    """The template as transformers sets it up, in an environment with bounds."""
    from transformers.utils import chat_template_utils

    usual = chat_template_utils._compile_jinja_template("").environment
    environment = usual.overlay()
    environment.__class__ = _Bounded
    environment.cache = None
    environment.globals = {name: one for name, one in usual.globals.items() if name != "lipsum"}  # text of any length
    environment.finalize = environment.output
    environment.concat = environment.joined
    filters = {name: one for name, one in usual.filters.items() if name not in _UNBOUNDED}
    environment.filters = {name: _bounded_filter(environment, one) for name, one in filters.items()}
    environment.filters[_CONCAT] = lambda values: environment.joined(map(str, environment.weighed(values)))
    environment.filters[_STEPS] = environment.steps
    environment.filters[_WEIGHED] = environment.weighed
    for extension in environment.extensions.values():
        extension.environment = environment
    words = sum(kind != "whitespace" for _, kind, _ in environment.lex(source))
    if words > MOST_WORDS:
        raise TooCostly(f"it has {words:,} words and signs of Jinja2; a template may have {MOST_WORDS:,}")
    return environment.from_string(source)


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox in which values, numbers, output and time are bounded."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = _Weighing().visit(super()._parse(source, name, filename))
        assert isinstance(tree, nodes.Template)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.check_time()
        if operator == "*":
            _refuse_beyond(_weight(left) * (abs(right) if isinstance(right, int) else 1))
            _refuse_beyond(_weight(right) * (abs(left) if isinstance(left, int) else 1))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if max(left.bit_length(), 1) * abs(right) > LARGEST_NUMBER.bit_length():
                raise TooCostly("it makes a number that is too large")
        elif operator == "%":
            _refuse_percent(left, right)
            _refuse_beyond(_weight(left) + _weight(right))
        elif operator == "+":
            _refuse_beyond(_weight(left) + _weight(right))
        return self.weighed(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_time()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            self.check_text_method(owner, name, args)
        self.check_arguments(args, kwargs)
        return self.weighed(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        usual = super().wrap_str_format(value)
        if usual is None:
            return None

        @wraps(usual)
        def bounded(*args: Any, **kwargs: Any) -> str:
            self.check_time()
            _refuse_braces(value.__self__, [*args, *kwargs.values()])
            return usual(*args, **kwargs)

        return bounded

    def check_text_method(self, owner: str, name: str, args: tuple[Any, ...]) -> None:
        """Refuse a method of a text that makes more of it than there may be."""
        if name == "replace" and len(args) >= 2:
            _refuse_beyond(_replaced(owner, str(args[0]), str(args[1])))
        elif name == "expandtabs":
            _refuse_beyond(owner.count("\t") * (args[0] if args and isinstance(args[0], int) else LARGEST_COUNT))
        elif name == "translate":
            raise TooCostly("it translates letters into texts of any length")
        elif name == "join" and args:
            _refuse_beyond(_weight(args[0]) + len(owner) * _length(args[0]))

    def check_arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse what is called with a number that could be a width or a count of nobody."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, int | float) and abs(value) > LARGEST_COUNT:
                raise TooCostly(f"it asks for {value:.3g} of something")

    def weighed(self, value: Any) -> Any:
        """The value, if it is none that only grows."""
        self.check_time()
        _refuse_beyond(_weight(value))
        return value

    def output(self, value: Any) -> Any:
        """What is written, into the prompt or into a block that may be; a macro's text is written more than once."""
        _spent.written += _weight(value)
        _refuse_beyond(_spent.written / 4)
        return self.weighed(value)

    def joined(self, texts: Iterable[str]) -> str:
        """All texts as one."""
        parts, size = [], 0
        for text in texts:
            self.check_time()
            size += len(text)
            _refuse_beyond(size)
            parts.append(text)
        return "".join(parts)

    def steps(self, values: Any) -> Any:
        """What a loop goes through; each step looks at the clock."""
        if not isinstance(values, Iterable):
            return values  # which jinja2 then refuses in its own words
        return _Steps(self, values) if hasattr(values, "__len__") else self._each(values)

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        size = 0
        for value in values:
            self.check_time()
            _refuse_beyond(size := size + _weight(value))
            yield value

    def check_time(self) -> None:
        """Refuse to go on after the time that a rendering may take."""
        if time.thread_time() > _spent.deadline:
            raise TooCostly(f"with this prompt it takes longer than {SECONDS:g} second")


class _Steps:
    """A list that a loop goes through, with its length."""

    def __init__(self, environment: _Bounded, values: Any) -> None:
        self._environment, self._values = environment, values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return self._environment._each(self._values)


class _Weighing(NodeTransformer):
    """Makes the places that Jinja2 lets nobody look at into filters that look."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno, environment=node.environment), _CONCAT)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _STEPS)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _filtered(self.generic_visit(node), _WEIGHED)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return _filtered(self.generic_visit(node), _WEIGHED)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _WEIGHED) if node.ctx == "load" else node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _bounded_filter(environment: _Bounded, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        environment.check_time()
        environment.check_arguments(args, kwargs)
        given = [value for value in args if isinstance(value, str | list | tuple | dict)]
        name = function.__name__
        if name == "do_format" and given:
            _refuse_percent(given[0], [*args[1:], *kwargs.values()])
        if name == "do_replace" and len(given) >= 3:
            _refuse_beyond(_replaced(*map(str, given[:3])))
        if name in ("do_join", "sync_do_join"):
            args = tuple(list(environment.steps(one)) if isinstance(one, Iterator) else one for one in args)
            between = max((len(one) for one in (*args[1:], *kwargs.values()) if isinstance(one, str)), default=0)
            _refuse_beyond(between * max(map(_length, args)))
        if name == "do_indent":
            width = next((one for one in args[1:2] if isinstance(one, int)), len(str(kwargs.get("width", ""))) or 4)
            widest = kwargs.get("width", width)
            each = widest if isinstance(widest, int) else len(str(widest))
            text = str(args[0])
            _refuse_beyond(len(text) + (text.count("\n") + 1) * max(each, max(map(len, given[1:]), default=0)))
        if name == "do_wordwrap":
            lengths = sorted(len(one) for one in (*args, *kwargs.values()) if isinstance(one, str))
            _refuse_beyond(lengths[-1] * lengths[-2] if len(lengths) > 1 else 0)
        found = function(*args, **kwargs)
        return environment.steps(found) if isinstance(found, Iterator) else environment.weighed(found)

    return bounded


def _replaced(text: str, old: str, new: str) -> int:
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _refuse_percent(form: Any, values: Any) -> None:
    """Refuse `form % values` where the widths, or values that are named again and again, make too much of it."""
    if not isinstance(form, str):
        return
    widths = [width for found in (_PERCENT, _AFTER_NAME) for both in found.findall(form) for width in both]
    _refuse_widths(widths)
    _refuse_beyond(len(form) + form.count("%(") * _weight(values))


def _refuse_braces(form: Any, values: Any) -> None:
    """Refuse `form.format(values)` where the widths, or values that are named again and again, make too much of it."""
    if not isinstance(form, str):
        return
    fields = _BRACES.findall(form.replace("{{", "").replace("}}", ""))
    specified = [(field.partition(":")[2], nested) for field, nested in fields if ":" in field]
    _refuse_widths(["*" if nested else "" for _, nested in specified])
    _refuse_widths([width for words, _ in specified for width in re.findall(r"\d+", words)])
    _refuse_beyond(len(form) + len(fields) * _weight(values))


def _refuse_widths(widths: Iterable[str]) -> None:
    given = [width for width in widths if width]
    if "*" in given:
        raise TooCostly("it formats to a width that comes from elsewhere")
    _refuse_beyond(sum(int(width) if len(width) < 8 else LARGEST_VALUE + 1 for width in given))


def _refuse_beyond(size: float) -> None:
    if size > LARGEST_VALUE:
        raise TooCostly(f"with this prompt it makes a text or a list of more than {LARGEST_VALUE:,} characters")


def _weight(value: Any) -> int:
    """Characters and items of a value; one that stands in it twice counts twice, as it would when written."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_NUMBER:
        raise TooCostly("it makes a number that is too large")
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 1
    total, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, list | tuple | dict):
            total += len(one)
            left.extend(one.values() if isinstance(one, dict) else one)
        if total > LARGEST_VALUE:
            break
    return total
