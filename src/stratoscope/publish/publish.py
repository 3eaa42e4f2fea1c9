"""The verb `publish`: what a level keeps of a trace, a result, a table or a picture, as a new file; or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from stratoscope import defaults
from stratoscope.errors import InputError, UsageError
from stratoscope.names import PRIVATE, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish.asked import Asked
from stratoscope.publish.explained import Explanation
from stratoscope.publish.inputs import FOLDER, Kind, kind_of
from stratoscope.publish.ledger.ledger import Ledger
from stratoscope.publish.ledger.overlap import Published
from stratoscope.publish.ledger.prompt_keys import Contents, prompt_contents
from stratoscope.publish.levels import OF_MEANS, PROMISES, private_promise
from stratoscope.publish.parts import Original, explanation_of, part_of
from stratoscope.publish.several import refuse_folder, several
from stratoscope.words import agreeing


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
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    level: Level = defaults.LEVEL,
    trace: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    chat_template: bool = defaults.CHAT_TEMPLATE,
    private_model: bool = False,
    quantity: str | Sequence[str] | None = None,
    prompt_class: str | Sequence[str] | None = None,
    neurons: bool = False,
    epsilon: float | None = None,
    delta: float | None = None,
    clip: float | None = None,
    centre: str | os.PathLike[str] | None = None,
    bands: int | None = None,
    allow_overlap: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Publication:
    """Rewrite a trace, a result, a CSV file, a picture or a page so that others may have it, at a stated level.

    Only what a level lists is written, into a new file with a new identity. Whatever is refused is refused before
    anything is written. What was published of which prompts is noted beside the original, in
    `<name>.published.jsonl`, since two publications of the same prompts give away more than each promises.

    Parameters
    ----------
    source
        The original, or several, or a folder of them; they are only read.
    out
        What to write: a file or folder as the original is one; of a trace at the last two levels the folder of a
        result; of several inputs, or of a folder that is no trace and no result, a new folder.
    level
        "provenance", "no-text", "aggregate" or "private": each keeps less than the one before.
    trace
        The traces of which pictures and pages were drawn, which are drawn again. Without, the picture itself stays as
        it is, which is enough for "provenance" alone. Also those that results were made of: what was published of
        their prompts is looked up.
    chat_template
        Keep the chat template at "provenance"; no other level does.
    private_model
        The model's weights are private: leave out what names it, and all from which columns of its weights follow.
    quantity
        Of which quantities class means are published, at "aggregate" and "private"; without it the usual ones.
    prompt_class
        Of which classes; without it of all.
    neurons
        Publish the mean of each neuron too, at "aggregate", which tells far more.
    epsilon, delta
        The promise of "private", for the whole publication; 1 and 1e-5 without them.
    clip
        How far from the centre a prompt may lie, at "private", as a multiple of how far prompts lie usually; 1 without
        it.
    centre
        A result that was published of other prompts, around which is clipped at "private".
    bands
        Into how many runs of layers the layers are put at "private"; without it each layer is one.
    allow_overlap
        Publish prompts that were published before; what that costs is told.
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
    asked = Asked(
        level,
        _paths(trace),
        chat_template=chat_template,
        private_model=private_model,
        quantity=quantity,
        prompt_class=prompt_class,
        neurons=neurons,
        epsilon=epsilon,
        delta=delta,
        clip=clip,
        centre=None if centre is None else Path(centre),
        bands=bands,
        allow_overlap=allow_overlap,
        overwrite=overwrite,
        progress=progress or silent,
    )
    paths, target = _paths(source), Path(out)
    for path in (*paths, *asked.traces):
        _refuse_place(target, path)
    said = private_promise(*asked.budget) if level == PRIVATE else PROMISES[level]
    if len(paths) == 1 and kind_of(paths[0]) != FOLDER:
        part = part_of(paths[0], asked)
        part.check(target)
        cost = _recorded(part.originals, asked)
        return Publication(target, part.kind, level, said, (*part.write(target), *cost))
    refuse_folder(target)
    together = several(paths, asked)
    cost = _recorded(together.originals, asked)
    return Publication(target, FOLDER, level, said, (*together.write(target), *cost))


def explain_publication(
    source: str | os.PathLike[str],
    *,
    level: Level = defaults.LEVEL,
    trace: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    chat_template: bool = defaults.CHAT_TEMPLATE,
    private_model: bool = False,
) -> Explanation:
    """What `publish` would write and what it would leave out, name by name with the reason; nothing is written.

    Parameters
    ----------
    source, level, trace, chat_template, private_model
        As in `publish`.
    """
    asked = Asked(level, _paths(trace), chat_template=chat_template, private_model=private_model)
    return explanation_of(Path(source), asked)


def _paths(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> tuple[Path, ...]:
    """The paths that a person gave, one or several or none."""
    if given is None:
        return ()
    if isinstance(given, Mapping):  # a Dataset or a Result, which would be taken for a list of paths
        raise UsageError("is no path", where="publish", fix="Write it to a file first, and give the path of that.")
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(map(Path, given))


def _refuse_place(out: Path, source: Path) -> None:
    """Raise where the output would be the original, lie in it, or hold it."""
    here, there = out.absolute().resolve(), source.absolute().resolve()
    if here == there or there in here.parents or here in there.parents:
        raise InputError(
            f"is, holds or lies in what is published ({source})", where=str(out), fix="Choose another output."
        )


def _recorded(originals: Sequence[Original], asked: Asked) -> tuple[str, ...]:
    """Note what is about to appear beside each original; refuse prompts that were published before, or say the cost."""
    spent = asked.budget if asked.level == PRIVATE else (0.0, 0.0)
    folders = tuple({one.path.resolve().parent for one in originals})
    going = [
        (Ledger.beside(one.path, folders), Published(asked.level, one.fields, *spent), _contents(one))
        for one in originals
    ]
    if asked.level in OF_MEANS and not asked.allow_overlap:
        _refuse_shared([(one.path, contents) for one, (_, _, contents) in zip(originals, going, strict=True)])
    for ledger, published, contents in going:
        ledger.check(published, contents, allow_overlap=asked.allow_overlap)
    told = [
        cost
        for ledger, published, contents in going
        for cost in ledger.record(published, contents, allow_overlap=asked.allow_overlap)
    ]
    return tuple(dict.fromkeys(told))


def _refuse_shared(going: Sequence[tuple[Path, Sequence[Contents]]]) -> None:
    """Raise where two originals that are published together hold the same prompts: no ledger knows of either yet."""
    for (first, theirs), (second, own) in combinations(going, 2):
        known = frozenset[bytes]().union(*theirs)
        if count := sum(not known.isdisjoint(one) for one in own):
            fix = "Publish one of the two, or accept with --allow-overlap what both together give away."
            was = agreeing(count, "is", "are")
            raise InputError(f"{count:,} of its prompts {was} in {first} too", where=str(second), fix=fix)


def _contents(original: Original) -> list[Contents]:
    """By what each of the prompts that are published is known again."""
    contents = prompt_contents(original.dataset)
    return contents if original.prompts is None else [contents[place] for place in original.prompts.tolist()]
