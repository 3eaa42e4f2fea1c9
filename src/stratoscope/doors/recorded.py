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
_NOT_OF_A_TRACE = "is an option of a model that is recorded, and this is a trace"


def is_trace(given: str) -> bool:
    """Whether an argument is a trace, and no model: a folder with a root document of Zarr."""
    from stratoscope.trace.format.schema import ROOT_DOCUMENT

    return (Path(given) / ROOT_DOCUMENT).is_file()


def asked_of_a_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command that are a model's, as `capture` takes them."""
    return {name: given[name] for name in OF_A_MODEL} | {"targets": several_texts(given["targets"])}


@contextmanager
def trace_of(given: str, text: str | None, record: Sequence[str], options: Mapping[str, Any]) -> Iterator[str | Path]:
    """The trace that is given, or one of a model and a text, for as long as it is needed.

    Parameters
    ----------
    record
        The groups that are recorded of a model.
    options
        What a model is loaded and recorded with, by the names that `capture` has for it; those of another value than
        None or False were given.
    """
    if is_trace(given):
        asked = [name for name, value in options.items() if value not in (None, False)]
        if text is not None:
            fix = "Leave the text away, or give a model in place of the trace."
            raise UsageError("a text is recorded of a model, and this is a trace", where="TEXT", fix=fix)
        if asked:
            raise UsageError(_NOT_OF_A_TRACE, where=f"--{asked[0].replace('_', '-')}", fix="Leave it away.")
        yield given
        return
    if text is None:
        fix = 'Give a trace; or a model and a text, such as "How do I sharpen a knife?".'
        if not Path(given).exists():
            raise UsageError("does not exist, and without a text no model is recorded", where=given, fix=fix)
        raise UsageError("is no trace, and without a text no model is recorded", where=given, fix=fix)
    import stratoscope
    from stratoscope.doors.progress import progress

    with TemporaryDirectory() as folder:
        trace = Path(folder) / "prompt.trace"
        with progress() as show:
            stratoscope.capture(given, [text], trace, record=[*record], **options, progress=show)
        yield trace


def stem(given: str) -> str:
    """What a trace or a model is called in the name of a file."""
    name = given.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".gguf").removesuffix(".trace")
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)[:60].strip(".") or "model"
