"""The verb `publish`: what a level keeps of a trace, a result, a table or a picture, as a new file; or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from stratoscope import defaults
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.names import LEVELS, NO_TEXT, PROVENANCE, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish import inputs
from stratoscope.publish.explained import Explanation, explained
from stratoscope.publish.inputs import Kind, kind_of
from stratoscope.publish.levels import PROMISES
from stratoscope.trace.format.schema import PUBLISHED

WITH_TOKENS = (PROVENANCE, NO_TEXT)  # levels that keep a trace token by token
_NOT_OFFERED = {
    "coarse": "two bits of each norm still gave 43 % of the tokens back",
    "permuted": "from other text of its kind 32 to 69 % of all neurons were put back in their places",
    "rounded": "of four digits of one norm five candidates were left for a token",
}


@dataclass(frozen=True)
class Publication:
    """What was published.

    Attributes
    ----------
    out
        The new file or folder.
    kind
        What it is.
    level, promise
        The level and what it promises.
    told
        What a person should know about it, in sentences.
    """

    out: Path
    kind: Kind
    level: Level
    promise: str
    told: tuple[str, ...] = ()


def publish(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    level: Level = defaults.LEVEL,
    chat_template: bool = defaults.CHAT_TEMPLATE,
    private_model: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Publication:
    """Rewrite a trace, a CSV file or a result so that others may have it, at a stated level.

    Only what a level lists is written, into a new file with a new identity. Whatever is refused is refused before
    anything is written.

    Parameters
    ----------
    source
        The original, which is only read.
    out
        What to write.
    level
        "provenance", "no-text", "aggregate" or "private": each keeps less than the one before.
    chat_template
        Keep the chat template at "provenance"; no other level does.
    private_model
        The model's weights are private: leave out what names it, and all from which columns of its weights follow.
    overwrite
        Replace what is already there.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    Publication
        Where it is, and what it promises.

    Raises
    ------
    InputError
        It is nothing that can be published, or not at this level, or the output may not be written.
    TraceError
        A trace cannot be read or written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate("mine.trace", prompts=4, layers=3)
    >>> done = stratoscope.publish("mine.trace", "public.trace", level="no-text")
    >>> done.promise
    'Not readable by eye. Whoever has the model, or similar prompts, can recover it.'
    >>> stratoscope.open_trace("public.trace").attrs["published"]["level"]
    'no-text'
    """
    path, target, say = Path(source), Path(out), progress or silent
    original, kind = _read(path, level)
    _refuse_place(target, path)
    public = _public(original, kind, level, chat_template=chat_template, private_model=private_model)
    if kind == inputs.CSV:
        from stratoscope.publish.csv_files import write_csv

        write_csv(public, target, overwrite=overwrite)
    else:
        from stratoscope.publish.traces import write_published

        write_published(public, target, overwrite=overwrite, progress=say)
    return Publication(target, kind, level, PROMISES[level], tuple(_remarks(explained(original, public, level))))


def explain_publication(
    source: str | os.PathLike[str],
    *,
    level: Level = defaults.LEVEL,
    chat_template: bool = defaults.CHAT_TEMPLATE,
    private_model: bool = False,
) -> Explanation:
    """What `publish` would write and what it would leave out, name by name with the reason; nothing is written.

    Parameters
    ----------
    source, level, chat_template, private_model
        As in `publish`.
    """
    original, kind = _read(Path(source), level)
    if level not in WITH_TOKENS:
        return explained(original, None, level)
    public = _public(original, kind, level, chat_template=chat_template, private_model=private_model)
    return explained(original, public, level)


def refuse_level(level: str) -> None:
    """Raise where there is no such level; of one that others offer, say why there is none here."""
    if level in _NOT_OFFERED:
        fix = f"It promises nothing: {_NOT_OFFERED[level]}. Choose one of: {', '.join(LEVELS)}."
        raise UsageError(f"there is no level '{level}'", where="level", fix=fix)
    refuse_unknown(level, LEVELS, "level")


def _read(path: Path, level: str) -> tuple[xr.Dataset, Kind]:
    """The Dataset that is to be published, and what it came from."""
    refuse_level(level)
    kind = kind_of(path)
    if kind not in (inputs.TRACE, inputs.CSV):
        raise InputError(f"a {kind} cannot be published yet", where=str(path), fix="Publish the trace.")
    from stratoscope.trace.opened import opened

    dataset = opened(path)
    refuse_again(dataset.attrs, level, path)
    return dataset, kind


def refuse_again(attrs: Mapping[str, Any], level: str, path: Path) -> None:
    """Raise where what is to be published was published already and cannot be, or need not be, at this level."""
    before = attrs.get(PUBLISHED)
    known = before.get("level") if isinstance(before, Mapping) else None
    if known not in LEVELS:
        return
    if LEVELS.index(level) <= LEVELS.index(known):
        fix = "Copy it as it is." if level == known else "Publish the original: what is gone does not come back."
        raise InputError(f"was published already at '{known}'", where=str(path), fix=fix)
    if known != PROVENANCE:
        what = f"was published at '{known}', so that nobody can tell which of its prompts are alike"
        raise InputError(what, where=str(path), fix="Publish the original.")


def _public(dataset: xr.Dataset, kind: Kind, level: Level, *, chat_template: bool, private_model: bool) -> xr.Dataset:
    """What one of the first two levels keeps."""
    if level not in WITH_TOKENS:
        raise InputError(f"the level '{level}' is not there yet", where="level", fix=f"Take one of {WITH_TOKENS}.")
    if kind == inputs.CSV:
        from stratoscope.publish.csv_files import published_csv

        return published_csv(dataset, level, private_model=private_model)
    from stratoscope.publish.traces import published_trace

    return published_trace(dataset, level, chat_template=chat_template, private_model=private_model)


def _refuse_place(out: Path, source: Path) -> None:
    """Raise where the output would be the original, lie in it, or hold it."""
    here, there = out.absolute().resolve(), source.absolute().resolve()
    if here == there or there in here.parents or here in there.parents:
        raise InputError(
            f"is, holds or lies in what is published ({source})", where=str(out), fix="Choose another output."
        )


def _remarks(explanation: Explanation) -> list[str]:
    """What a person should know about what went out."""
    found = []
    if explanation.of_weights:
        which = ", ".join(explanation.of_weights)
        found.append(
            f"Whoever has these can solve for columns of the model's weights: {which}. If its weights are private, "
            "use --private-model."
        )
    if explanation.classes:
        found.append(f"The names of classes are published as they are: {', '.join(explanation.classes)}.")
    return found
