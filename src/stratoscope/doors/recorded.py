"""A trace, or else a model and a text, which are recorded into a trace that is removed at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stratoscope.doors.options import several_texts
from stratoscope.errors import UsageError

# what a model is loaded and recorded with
OF_A_MODEL = ("targets", "against", "answer_prefix", "chat", "dtype", "device", "revision", "trust_remote_code")
OF_TARGETS = ("targets", "against", "answer_prefix")  # of these, those with which logits of targets are recorded
_LONGEST = 48  # characters of a text in the place of a name
_NOT_OF_A_TRACE = "is an option of a model that is recorded, and this is a trace"


def is_trace(given: str) -> bool:
    """Whether an argument is a trace, and no model: a folder with a root document of Zarr."""
    from stratoscope.trace.format.schema import ROOT_DOCUMENT

    return (Path(given) / ROOT_DOCUMENT).is_file()


def asked_of_a_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command that are a model's, as `capture` takes them."""
    return {name: given[name] for name in OF_A_MODEL} | {"targets": several_texts(given["targets"])}


def check(given: str, text: str | None, options: Mapping[str, Any], target: str | None) -> None:
    """Refuse what belongs to the other one of a trace and a model, and a model without a text.

    Parameters
    ----------
    options
        As those of `trace_of`.
    target
        The recorded target that is asked for.

    Raises
    ------
    UsageError
        It says what to do.
    """
    if not is_trace(given):
        if text is None:
            fix = 'Give a trace; or a model and a text, such as "How do I sharpen a knife?".'
            if not Path(given).exists():
                raise UsageError("does not exist, and without a text no model is recorded", where=given, fix=fix)
            raise UsageError("is no trace, and without a text no model is recorded", where=given, fix=fix)
        if target is not None and not any(options[name] for name in OF_TARGETS):
            fix = f"Of a model, name it with --targets: --targets {target!r}."
            raise UsageError(f"{target!r} is not recorded yet", where="--target", fix=fix)
        return
    if text is not None:
        fix = "Leave the text away, or give a model in place of the trace."
        raise UsageError("a text is recorded of a model, and this is a trace", where="TEXT", fix=fix)
    for name, value in options.items():
        if value not in (None, False):
            raise UsageError(_NOT_OF_A_TRACE, where=f"--{name.replace('_', '-')}", fix="Leave it away.")


@contextmanager
def trace_of(given: str, text: str | None, record: Sequence[str], options: Mapping[str, Any]) -> Iterator[str | Path]:
    """The trace that is given, or one of a model and a text, for as long as it is needed; both are checked already.

    Parameters
    ----------
    record
        The groups that are recorded of a model.
    options
        What a model is loaded and recorded with, by the names that `capture` has for it; those of another value than
        None or False were given.
    """
    if text is None:
        yield given
        return
    import stratoscope
    from stratoscope.doors.progress import progress

    prompt = {"id": _called(text), "text": text}
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "prompt.trace"
        with progress() as show:
            stratoscope.capture(given, [prompt], trace, record=[*record], **options, progress=show)
        yield trace


def _called(text: str) -> str:
    """What the prompt of a text is called: the text itself, of a long one its end, from which the model answers."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return f"“{line}”"
    end = line[-_LONGEST:]
    return f"“…{end.partition(' ')[2] or end}”"


def stem(given: str) -> str:
    """What a trace or a model is called in the name of a file."""
    name = given.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".gguf").removesuffix(".trace")
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)[:60].strip(".") or "model"
