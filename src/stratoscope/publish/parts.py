"""What is published of one input: read and refused before anything is written, and then written in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import defaults
from stratoscope.errors import InputError, StratoscopeError
from stratoscope.names import AGGREGATE, PROVENANCE
from stratoscope.publish import inputs
from stratoscope.publish.asked import Asked, refuse_again
from stratoscope.publish.explained import (
    Explanation,
    classes_named,
    explained,
    explained_picture,
    explained_result,
)
from stratoscope.publish.inputs import Kind, kind_of
from stratoscope.publish.levels import NOISE, WITH_TOKENS, is_promise
from stratoscope.publish.pictures.keys import KEYS
from stratoscope.trace.notes import WARNING

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from stratoscope.publish.pictures.files import Public

_NOT_LOOKED_UP = "Whether its prompts were published before is not known: give the trace it was made of, with --trace."


@dataclass(frozen=True)
class Original:
    """The prompts of which something is published.

    Attributes
    ----------
    path
        The trace or CSV file that holds them.
    dataset
        What is in it.
    prompts
        Which of its prompts are published; None = all.
    fields
        What of them.
    """

    path: Path
    dataset: xr.Dataset
    prompts: np.ndarray | None
    fields: tuple[str, ...]

    def with_more(self, other: Original) -> Original:
        """The same, of which more is published together."""
        import numpy as np

        of_both = [one for one in (self.prompts, other.prompts) if one is not None]
        prompts = np.union1d(*of_both) if len(of_both) == 2 else None
        return replace(self, prompts=prompts, fields=tuple(dict.fromkeys((*self.fields, *other.fields))))


@dataclass(frozen=True)
class Part:
    """One input, ready to be published.

    Attributes
    ----------
    kind
        What comes out.
    suffix
        The ending that its name must have; "" = any.
    check
        Refuses a place where it may not be written.
    write
        Writes it to a place, whole or not at all; gives what a person should know of it, in sentences.
    originals
        Whose prompts it shows, as far as that is known.
    """

    kind: Kind
    suffix: str
    check: Callable[[Path], None]
    write: Callable[[Path], tuple[str, ...]]
    originals: tuple[Original, ...] = ()


def part_of(path: Path, asked: Asked) -> Part:
    """An input as it would be published.

    Raises
    ------
    InputError
        It is nothing that is published, or not at this level.
    TraceError
        A trace cannot be read.
    """
    kind = kind_of(path)
    if kind in (inputs.TRACE, inputs.CSV):
        dataset = _opened(path, asked)
        if asked.level not in WITH_TOKENS:
            return _means(path, dataset, asked)
        return _table(path, dataset, asked) if kind == inputs.CSV else _trace(path, dataset, asked)
    if kind == inputs.RESULT:
        return _result(path, asked)
    if kind in (inputs.PICTURE, inputs.PAGE):
        return _picture(path, kind, asked)
    raise InputError("is a folder of several", where=str(path), fix="Publish it by itself.")


def explanation_of(path: Path, asked: Asked) -> Explanation:
    """What would become of each name that an input holds."""
    kind = kind_of(path)
    if kind == inputs.FOLDER:
        raise InputError("is a folder of several", where=str(path), fix="Ask about each by itself.")
    if kind == inputs.RESULT:
        return explained_result(*_results(path, asked), asked.level)
    if kind in (inputs.PICTURE, inputs.PAGE):
        trace, _ = _trace_of(path, asked)
        _picture(path, kind, asked)  # refuses what it would refuse
        keys = [name for name, levels in KEYS.items() if asked.level in levels]
        return explained_picture(keys, asked.level, drawn_anew=trace is not None)
    dataset = _opened(path, asked)
    if asked.level not in WITH_TOKENS:
        return _explained_means(dataset, asked)
    return explained(dataset, _rows(dataset, asked) if kind == inputs.CSV else _tokens(dataset, asked), asked.level)


def _explained_means(dataset: xr.Dataset, asked: Asked) -> Explanation:
    """What becomes of a trace of which class means are published, or why none are: they are made, and not kept."""
    try:
        averaged = means_of(dataset, asked, asked.quantities).attrs["parameters"]["quantity"]
    except StratoscopeError as error:
        return replace(explained(dataset, None, asked.level), refused=str(error))
    return explained(dataset, None, asked.level, averaged=averaged)


def _opened(path: Path, asked: Asked) -> xr.Dataset:
    from stratoscope.trace.opened import opened

    dataset = opened(path)
    refuse_again(dataset.attrs, asked.level, path)
    return dataset


# --- token by token ---------------------------------------------------------------------------------------------------


def _tokens(dataset: xr.Dataset, asked: Asked) -> xr.Dataset:
    from stratoscope.publish.tokens.traces import published_trace

    return published_trace(dataset, asked.level, chat_template=asked.chat_template, private_model=asked.private_model)


def _rows(dataset: xr.Dataset, asked: Asked) -> xr.Dataset:
    from stratoscope.publish.tokens.csv_files import published_csv

    return published_csv(dataset, asked.level, private_model=asked.private_model)


def _trace(path: Path, dataset: xr.Dataset, asked: Asked) -> Part:
    from stratoscope.publish.tokens.traces import write_published
    from stratoscope.trace.format import place

    public = _tokens(dataset, asked)

    def check(out: Path) -> None:
        place.refuse_without_parent(out.absolute())
        place.refuse_inside(out.absolute())
        place.refuse_occupied(out.resolve(), overwrite=asked.overwrite)

    def write(out: Path) -> tuple[str, ...]:
        write_published(public, out, overwrite=asked.overwrite, progress=asked.progress)
        return _remarks(explained(dataset, public, asked.level))

    fields = tuple(map(str, public.data_vars))
    return Part(inputs.TRACE, "", check, write, (Original(path, dataset, None, fields),))


def _table(path: Path, dataset: xr.Dataset, asked: Asked) -> Part:
    from stratoscope.publish.tokens.csv_files import refuse_place, write_csv

    public = _rows(dataset, asked)

    def write(out: Path) -> tuple[str, ...]:
        write_csv(public, out, overwrite=asked.overwrite)
        return ()

    return Part(
        inputs.CSV,
        ".parquet" if path.suffix.lower() == ".parquet" else ".csv",
        lambda out: refuse_place(out, overwrite=asked.overwrite),
        write,
        (Original(path, dataset, None, tuple(map(str, public.data_vars))),),
    )


def _remarks(explanation: Explanation) -> tuple[str, ...]:
    """What a person should know about what went out."""
    found = []
    if explanation.of_weights:
        which = ", ".join(explanation.of_weights)
        found.append(
            f"Whoever has these can solve for columns of the model's weights: {which}. If its weights are private, "
            "use --private-model."
        )
    return (*found, *explanation.named)


# --- results and pictures ---------------------------------------------------------------------------------------------


def _result(path: Path, asked: Asked) -> Part:
    if asked.level not in WITH_TOKENS:
        return _contrast(path, asked)
    original, result = _results(path, asked)
    originals = _made_of(original, asked)
    told = () if len(originals) == len(original.attrs["sources"]) else (_NOT_LOOKED_UP,)
    return _saved(result, told, originals, asked)


def _saved(result: xr.DataTree, told: tuple[str, ...], originals: tuple[Original, ...], asked: Asked) -> Part:
    """A Result that is written as a folder."""
    from stratoscope.view.report.save import check_folder, save_result

    def check(out: Path) -> None:
        check_folder(out, overwrite=asked.overwrite)

    def write(out: Path) -> tuple[str, ...]:
        save_result(result, out, overwrite=asked.overwrite, progress=asked.progress)
        return told

    return Part(inputs.RESULT, "", check, write, originals)


def _made_of(result: xr.DataTree, asked: Asked) -> tuple[Original, ...]:
    """The traces that a Result was made of, as far as they are given."""
    found = []
    for uuid in [one.get("uuid") for one in result.attrs["sources"]]:
        trace, dataset = _trace_with(uuid, asked)
        if trace is not None and dataset is not None and dataset.attrs.get("uuid") == uuid:
            found.append(Original(trace, dataset, None, (str(result.attrs["kind"]),)))
    return tuple(found)


def _contrast(path: Path, asked: Asked) -> Part:
    """Of a contrast the means of its classes, which are made of its trace."""
    from stratoscope.analysis.results.result import open_result
    from stratoscope.publish.tokens.results import compared_classes

    original = open_result(path)
    refuse_again(original.attrs, asked.level, path)
    try:
        classes, quantities = compared_classes(original)
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=error.fix) from None
    uuid = original.attrs["sources"][0].get("uuid")
    trace, dataset = _trace_with(uuid, asked)
    if trace is None or dataset is None:
        what = "of a contrast only means of its classes are published, and those are made of its trace"
        raise InputError(what, where=str(path), fix="Give the trace too, with --trace TRACE.")
    if dataset.attrs.get("uuid") != uuid:
        raise InputError("is not the trace of this contrast", where=str(trace), fix="Give the one it was made of.")
    return _means(trace, dataset, replace(asked, prompt_class=classes, quantity=asked.quantity or quantities))


def _results(path: Path, asked: Asked) -> tuple[xr.DataTree, xr.DataTree]:
    """A Result, and what is published of it."""
    from stratoscope.analysis.results.result import open_result
    from stratoscope.publish.tokens.results import published_result

    original = open_result(path)
    refuse_again(original.attrs, asked.level, path)
    if asked.level not in WITH_TOKENS:
        fix = "Publish the trace at this level, or the result at provenance or no-text."
        raise InputError("a result is not averaged over classes", where=str(path), fix=fix)
    return original, published_result(original, asked.level, private_model=asked.private_model)


def _picture(path: Path, kind: Kind, asked: Asked) -> Part:
    import numpy as np

    from stratoscope.publish.pictures.files import public_picture

    trace, dataset = _trace_of(path, asked)

    made: list[xr.DataTree] = []

    def profiles(of: xr.Dataset, quantities: Sequence[str]) -> xr.DataTree:
        made.append(means_of(of, asked, quantities))
        return made[-1]

    def public_of(dataset: xr.Dataset | None) -> Public:
        return public_picture(
            path,
            asked.level,
            trace=dataset,
            profiles=profiles,
            private_model=asked.private_model,
        )

    told: tuple[str, ...] = ()
    try:
        public = public_of(dataset)
    except InputError as error:
        if dataset is None or asked.level != PROVENANCE:
            raise
        trace, dataset, public = None, None, public_of(None)  # it loses who and where all the same
        told = (f"{path.name} is not drawn anew: it {error.what}.",)

    if asked.level not in WITH_TOKENS:
        told = told_of_means(made[-1])
    elif dataset is not None:
        told = explained(dataset, _tokens(dataset, asked), asked.level).named

    def check(out: Path) -> None:
        public.check(out, overwrite=asked.overwrite)

    def write(out: Path) -> tuple[str, ...]:
        public.write(out, overwrite=asked.overwrite)
        return (*public.told, *told, *(() if originals else (_NOT_LOOKED_UP,)))

    originals: tuple[Original, ...] = ()
    if trace is not None and dataset is not None:
        prompts = _averaged(dataset, asked) if asked.level not in WITH_TOKENS else public.prompts
        shown = None if prompts is None else np.asarray(prompts, np.int64)
        originals = (Original(trace, dataset, shown, public.quantities),)
    return Part(kind, public.suffix, check, write, originals)


def _trace_of(path: Path, asked: Asked) -> tuple[Path | None, xr.Dataset | None]:
    """The trace that a picture was drawn of."""
    from stratoscope.publish.pictures.files import drawn_of

    return _trace_with(drawn_of(path), asked)


def _trace_with(uuid: str | None, asked: Asked) -> tuple[Path | None, xr.Dataset | None]:
    """The trace of that uuid among those that are given; where none is it, the first, to be refused."""
    from stratoscope.trace.opened import opened

    first = None
    for trace in asked.traces:
        dataset = opened(trace)
        if dataset.attrs.get("uuid") == uuid:
            return trace, dataset
        first = first or (trace, dataset)
    return first or (None, None)


# --- means over classes -----------------------------------------------------------------------------------------------


def _means(path: Path, dataset: xr.Dataset, asked: Asked) -> Part:
    try:
        result = means_of(dataset, asked, asked.quantities)
    except InputError as error:
        where = str(path) if error.where in ("", "trace", "class") else error.where
        raise InputError(error.what, where=where, fix=error.fix) from None

    fields = tuple(result.attrs["parameters"]["quantity"]) + (("neurons",) if asked.neurons else ())
    original = Original(path, dataset, _averaged(dataset, asked), fields)
    return _saved(result, told_of_means(result), (original,), asked)


def _averaged(dataset: xr.Dataset, asked: Asked) -> np.ndarray:
    """Which prompts class means are made of."""
    import numpy as np

    from stratoscope.publish.profiles.classes import members

    return np.concatenate([*members(dataset, asked.prompt_class).values()])


def means_of(dataset: xr.Dataset, asked: Asked, quantities: Sequence[str] | None) -> xr.DataTree:
    """The class profiles of a trace at the level that is asked for."""
    from stratoscope.publish.model import model_told

    dataset = dataset.assign_attrs(model=model_told(dataset.attrs.get("model"), private=asked.private_model))
    if asked.level == AGGREGATE:
        from stratoscope.publish.profiles.profiles import class_profiles

        return class_profiles(
            dataset,
            quantities=quantities,
            prompt_class=asked.prompt_class,
            neurons=asked.neurons,
            progress=asked.progress,
        )
    from stratoscope.analysis.results.result import open_result
    from stratoscope.publish.private.private import private_profiles

    epsilon, delta = asked.budget
    return private_profiles(
        dataset,
        epsilon=epsilon,
        delta=delta,
        quantities=quantities,
        prompt_class=asked.prompt_class,
        centre=None if asked.centre is None else open_result(asked.centre),
        clip=defaults.CLIP if asked.clip is None else asked.clip,
        bands=asked.bands,
        progress=asked.progress,
    )


def told_of_means(result: xr.DataTree) -> tuple[str, ...]:
    """What a person should know about class profiles: how many prompts, how much noise, and what is warned of."""
    table = result["classes"].to_dataset()
    classes = [str(name) for name in table["prompt_class"].values.tolist()]
    counts = zip(classes, table["prompts"].values.tolist(), strict=True)
    named = [classes_named(classes)] if any(classes) else []
    about = "; ".join(f"{name or 'all prompts'}: about {count} prompts" for name, count in counts) + "."
    noise = [one["text"] for one in result.attrs["notes"] if one["id"] == NOISE]
    warned = [one["text"] for one in result.attrs["notes"] if one["severity"] == WARNING]
    warned = [text for text in warned if not is_promise(text, result.attrs["summary"]["level"])]  # which is told first
    return (*(noise or [about]), *warned, *named)
