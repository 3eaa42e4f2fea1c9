"""A picture drawn again, by the verb that drew it, of its trace as a level keeps it: nothing of the file goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.errors import InputError, StratoscopeError, first_line
from stratoscope.names import Level
from stratoscope.publish.pictures.about import About
from stratoscope.publish.pictures.keys import OPTIONS_BESIDE
from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.prompts import Prompts
from stratoscope.view.matplotlib.save import caption_beside
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

_OF_TRACES = {  # verb → where it is: what it draws is made of nothing but the trace
    "heatmap": "stratoscope.view.maps.heatmap",
    "engagement": "stratoscope.view.maps.engagement",
    "lens": "stratoscope.view.lens.lens",
    "routes": "stratoscope.view.routes.routes",
    "peaks3d": "stratoscope.view.peaks3d.peaks3d",
}
_COMPARE = {"compare": "stratoscope.view.maps.compare"}  # of two prompts, aligned by their texts, or of two classes
_OF_RESULTS = {  # verb → where it is: its figures are made of a Result, which is published as such
    "contrast": "stratoscope.analysis.contrast.contrast",
    "suppression": "stratoscope.analysis.suppression.suppression",
    "anomalies": "stratoscope.analysis.anomalies.anomalies",
}
_OTHERWISE = "Draw something else of the trace, or publish the trace itself."
_SHOW_ONE = ("lens", "routes")  # verbs that show the first prompt where nobody chooses …
_SHOW_SOME = ("heatmap", "engagement", "peaks3d")  # … and some prompts


@dataclass(frozen=True)
class Redrawn:
    """A file that was drawn again, and its caption; None = there is none beside it."""

    content: bytes
    caption: bytes | None


def redrawn(
    said: About | ViewSpec, suffix: str, trace: xr.Dataset, level: Level, where: Path, *, private_model: bool = False
) -> Redrawn:
    """A picture or page as its verb draws it of the trace at a level that keeps tokens.

    Parameters
    ----------
    said
        What the original says of itself.
    suffix
        The ending of its file.
    trace
        The trace that it was drawn of.
    level
        "provenance" or "no-text".
    where
        The original, for errors.
    private_model
        As in `publish`.

    Raises
    ------
    InputError
        It was drawn of another trace, or of something that this level does not keep.
    """
    refuse_other_trace(said, trace, where)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"picture{suffix}"
        try:
            if said.drawn_by.verb in _OF_RESULTS:
                _draw_figure(said, trace, level, file, where, private_model=private_model)
            else:
                _draw_trace(said, trace, level, file, where, private_model=private_model)
        except StratoscopeError as error:
            if error.where == str(where):
                raise
            what = f"cannot be drawn at {level!r}: {error.where + ': ' if error.where else ''}{error.what}"
            raise InputError(what, where=str(where), fix=_OTHERWISE) from error
        except (TypeError, ValueError, LookupError) as error:  # a stranger's picture may ask for anything
            what = f"cannot be drawn again as it says: {first_line(error)}"
            raise InputError(what, where=str(where), fix=_OTHERWISE) from error
        return taken(file)


def _draw_trace(
    said: About | ViewSpec, trace: xr.Dataset, level: Level, file: Path, where: Path, *, private_model: bool
) -> None:
    """Draw the published trace."""
    from stratoscope.publish.tokens.traces import published_trace

    draw = _verb(said.drawn_by, level, where)
    public = published_trace(trace, level, private_model=private_model)
    draw(public, file, **_options(said, trace, public, level, where))


def _draw_figure(
    said: About | ViewSpec, trace: xr.Dataset, level: Level, file: Path, where: Path, *, private_model: bool
) -> None:
    """Draw a figure of a report of the published Result, which is made of the trace itself."""
    from stratoscope.publish.tokens.results import published_result
    from stratoscope.view.matplotlib.render import render
    from stratoscope.view.report import contents_of
    from stratoscope.view.spec.drawn_by import drawn_by_result

    how = said.drawn_by
    verb = getattr(import_module(_OF_RESULTS[how.verb]), how.verb)
    beside = [name for name in OPTIONS_BESIDE if how.options.get(name)]
    options = {name: value for name, value in how.options.items() if name not in OPTIONS_BESIDE}
    public = None if beside else published_result(verb(trace, **options), level, private_model=private_model)
    figures = [] if public is None else [one for one in contents_of(public).figures() if one.name == how.figure]
    if public is None or not figures:
        fix = "Publish the folder of its report."
        raise InputError("is a figure that cannot be drawn again of this trace alone", where=str(where), fix=fix)
    spec = replace(figures[0].spec, drawn_by=drawn_by_result(public, how.figure))
    render(lambda look: replace(spec, look=look), file, said.look, overwrite=False)


def taken(file: Path) -> Redrawn:
    """A file that was drawn, and what stands beside it."""
    beside = caption_beside(file)
    return Redrawn(file.read_bytes(), beside.read_bytes() if beside.exists() else None)


def refuse_other_trace(said: About | ViewSpec, trace: xr.Dataset, where: Path) -> None:
    """Raise unless the picture was drawn of this trace and of no other."""
    if said.drawn_by.traces != 1 or not said.drawn_by.verb:
        of = "two traces" if said.drawn_by.traces > 1 else "no trace"
        fix = "Publish the folder of its report, or take --level provenance without --trace."
        raise InputError(f"was drawn of {of}, so that it cannot be drawn again", where=str(where), fix=fix)
    if not said.provenance.uuid or said.provenance.uuid != trace.attrs.get("uuid"):
        fix = "Give the trace that it was drawn of."
        raise InputError("was not drawn of this trace", where=str(where), fix=fix)


def _verb(how: DrawnBy, level: Level, where: Path) -> Callable[..., object]:
    """The function that draws it."""
    prompts = how.options.get("prompt")
    two = isinstance(prompts, list | tuple) and len(prompts) == 2
    aligned = (how.verb in _COMPARE and "prompt_class" not in how.options) or (how.verb == "routes" and two)
    if aligned and level != names.PROVENANCE:
        fix = "Draw one prompt or compare classes; only provenance, which keeps all texts, can align them."
        raise InputError("aligns tokens by their texts, which are not kept", where=str(where), fix=fix)
    module = {**_OF_TRACES, **_COMPARE}.get(how.verb)
    if module is None:
        fix = "Publish the folder of its report, or take --level provenance without --trace."
        raise InputError(f"what {how.verb!r} draws cannot be drawn again here", where=str(where), fix=fix)
    found: Callable[..., object] = getattr(import_module(module), how.verb)
    return found


def _options(
    said: About | ViewSpec, trace: xr.Dataset, public: xr.Dataset, level: Level, where: Path
) -> Mapping[str, Any]:
    """What the verb is asked, of the published trace: prompts by their numbers, and nothing that a person wrote."""
    options: dict[str, Any] = dict(said.drawn_by.options)
    prompts, renamed = Prompts(trace), Prompts(public)
    if level != names.PROVENANCE:
        if options.get("span") is not None:
            fix = "Draw it without --span."
            raise InputError(
                "shows some spans only, and which token is in which is not kept", where=str(where), fix=fix
            )
        if options.get("title") != "none":
            options.pop("title", None)
    if (shown := shown_prompts(said, trace)) is not None:
        options["prompt"] = shown[0] if len(shown) == 1 else list(shown)
        options.pop("prompt_class", None)
    elif options.get("prompt_class") is not None:
        again = dict(zip(prompts.classes, renamed.classes, strict=True))
        asked = options["prompt_class"]
        options["prompt_class"] = [again.get(one, one) for one in ([asked] if isinstance(asked, str) else asked)]
    if options.get("target") is not None:
        from stratoscope.trace.targets import Targets

        options["target"] = Targets(trace).find(options["target"])
    return options


def shown_prompts(said: About | ViewSpec, trace: xr.Dataset) -> tuple[int, ...] | None:
    """Numbers of the prompts that it shows, where some were chosen; None = all, those of classes, or nobody knows."""
    how = said.drawn_by
    asked: Any = how.options.get("prompt")
    if asked is None:
        if how.verb in _SHOW_ONE:
            return (0,)
        if how.verb not in _SHOW_SOME or any(how.options.get(name) for name in ("all_prompts", "profile", "rows")):
            return None
        asked = said.selected.prompts
    prompts = Prompts(trace)
    return tuple(prompts.find(one) for one in (asked if isinstance(asked, list | tuple) else [asked]))


def shown_quantities(said: About | ViewSpec) -> tuple[str, ...]:
    """Names of the quantities that it shows, as far as it says them."""
    shown = said.shown if isinstance(said, About) else said.content.shown(said.look)
    found = [*objects_in(shown.get("quantities")), shown.get("quantity"), shown.get("weight")]
    named = [one["name"] for one in found if isinstance(one, Mapping) and "name" in one]
    asked = said.drawn_by.options.get("quantity") or []
    return tuple(map(str, named or (asked if isinstance(asked, list | tuple) else [asked])))
