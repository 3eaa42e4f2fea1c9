"""Pictures and pages as files: read, rewritten at a level, and put where they are wanted, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stratoscope import names
from stratoscope.errors import InputError, first_line
from stratoscope.names import Level
from stratoscope.publish.levels import WITH_TOKENS
from stratoscope.publish.pictures import page, pdf, png, svg
from stratoscope.publish.pictures.about import About, NotOurs, read_about
from stratoscope.publish.pictures.keys import at_level
from stratoscope.publish.pictures.profiles import drawn_profiles, profiled_in
from stratoscope.publish.pictures.redraw import redrawn, shown_prompts, shown_quantities
from stratoscope.replacing import new_files, refused
from stratoscope.trace.export.output import check_place
from stratoscope.view.matplotlib.save import caption_beside
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

Profiles: TypeAlias = "Callable[[xr.Dataset, Sequence[str]], xr.DataTree]"

_MOST = 2**28  # bytes of a file
_KEPT = (
    "The picture itself is as it was, and only what the file says beside it is rewritten. What is drawn on it stays: "
    "titles, names of prompts and of the model, the beginning of the trace's uuid. With --trace it is drawn anew."
)
_NEEDS_TRACE = (
    "Give the trace that it was drawn of with --trace. Of a picture of CSV files: `stratoscope import` them, draw it "
    "of that trace, and give that. At provenance alone the picture stays as it is, with all that can be read on it."
)
_PROFILES = "In the place of the picture stands the class profile of what it shows: no token and no prompt is drawn."
_DRAW_AGAIN = "Draw it again with this version, or publish the trace."


@dataclass(frozen=True)
class _Format:
    """How a kind of picture file is read and rebuilt."""

    suffix: str
    begin: bytes
    said: Callable[[bytes], str]
    rewritten: Callable[[bytes, str], bytes]


_FORMATS = (
    _Format(".png", b"\x89PNG", png.said, png.rewritten),
    _Format(".svg", b"<?xml", svg.said, svg.rewritten),
    _Format(".pdf", b"%PDF-", pdf.said, pdf.rewritten),
)
_PAGE = ".html"


@dataclass(frozen=True)
class Public:
    """A picture or page as it is published, ready to be written.

    Attributes
    ----------
    suffix
        The ending of its name.
    content, caption
        Its bytes, and those of its caption; None = none stands beside it.
    told
        What a person should know of it, in sentences.
    prompts
        Numbers of the prompts in the trace that it shows; None = all, or it is not known which.
    quantities
        What it shows of them.
    """

    suffix: str
    content: bytes
    caption: bytes | None
    told: tuple[str, ...]
    prompts: tuple[int, ...] | None
    quantities: tuple[str, ...]

    def check(self, out: Path, *, overwrite: bool) -> None:
        """Raise `InputError` where it may not be written."""
        if out.suffix.lower() != self.suffix:
            fix = f"Name it {out.stem or 'public'}{self.suffix}."
            raise InputError(f"would be a {self.suffix} file", where=str(out), fix=fix)
        for place in self._contents(out):
            check_place(place, overwrite=overwrite, inputs=())

    def write(self, out: Path, *, overwrite: bool) -> None:
        """Write it, and its caption beside it: both, or neither."""
        contents = self._contents(out)
        with new_files(list(contents), overwrite=overwrite) as files:
            for (target, data), file in zip(contents.items(), files, strict=True):
                with refused(target):
                    file.write_bytes(data)

    def _contents(self, out: Path) -> dict[Path, bytes]:
        return {out: self.content} | ({} if self.caption is None else {caption_beside(out): self.caption})


def public_picture(
    path: Path,
    level: Level,
    *,
    trace: xr.Dataset | None = None,
    profiles: Profiles | None = None,
    private_model: bool = False,
) -> Public:
    """A picture or a page as a level keeps it; nothing is written.

    Parameters
    ----------
    path
        A .png, .svg or .pdf file or a page that was written here.
    level
        At "aggregate" and "private" the class profile of its quantity is drawn in its place.
    trace
        The trace that it was drawn of: it is drawn again, with nothing taken over from the file. Without it only the
        metadata are rewritten, which is enough for "provenance" alone.
    profiles
        Gives the class profiles of quantities of the trace, as they may be published at those levels.
    private_model
        As in `publish`.

    Raises
    ------
    InputError
        It is no file of ours, or cannot be drawn again at this level.
    """
    with _ours(path):
        return _public(path, level, trace, profiles, private_model=private_model)


def drawn_of(path: Path) -> str:
    """The uuid of the trace that a picture or page was drawn of; "" where it does not say.

    Raises
    ------
    InputError
        It is no file of ours.
    """
    with _ours(path):
        data = _content(path)
        return _said(data, _kind(data)).provenance.uuid


def rebuilt(path: Path, level: Level) -> bytes:
    """A published picture or page built again of what is known of it: the same bytes, if it holds nothing else.

    Raises
    ------
    InputError
        It is no file of ours.
    """
    with _ours(path):
        data = _content(path)
        kind = _kind(data)
        return _rewritten(data, kind, _said(data, kind), level)


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    """Tell in one line why a file is none of ours."""
    try:
        yield
    except (NotOurs, RecursionError) as error:  # of parts in parts without end
        what = f"is no picture or page as this version writes it: {first_line(error)}"
        raise InputError(what, where=str(path), fix=_DRAW_AGAIN) from None


def _public(
    path: Path, level: Level, trace: xr.Dataset | None, profiles: Profiles | None, *, private_model: bool
) -> Public:
    data = _content(path)
    kind = _kind(data)
    suffix = _PAGE if kind is None else kind.suffix
    said = _said(data, kind)
    _refuse_again(said, path)
    at_level(said, level)  # refuses what no picture says before any of it is used
    if trace is None:
        if level != names.PROVENANCE:
            what = f"a picture can be published at {level!r} only drawn anew"
            raise InputError(what, where=str(path), fix=_NEEDS_TRACE)
        return Public(suffix, _rewritten(data, kind, said, level), None, (_KEPT,), None, ())
    if level in WITH_TOKENS:
        again = redrawn(said, suffix, trace, level, path, private_model=private_model)
        prompts, quantities = shown_prompts(said, trace), shown_quantities(said)
    else:
        quantities = profiled_in(said, trace, path)
        if profiles is None or suffix == _PAGE:
            fix = "Publish the trace at this level."
            raise InputError(f"cannot be published at {level!r}", where=str(path), fix=fix)
        again, prompts = drawn_profiles(said, suffix, profiles(trace, quantities)), None
    told = () if level in (names.PROVENANCE, names.NO_TEXT) else (_PROFILES,)
    public = _rewritten(again.content, kind, _said(again.content, kind), level)
    return Public(suffix, public, again.caption, told, prompts, quantities)


def _rewritten(data: bytes, kind: _Format | None, said: About | ViewSpec, level: Level) -> bytes:
    """A file rebuilt, with what a level keeps of what it says."""
    if isinstance(said, ViewSpec):
        return page.rewritten(at_level(said, level))
    assert kind is not None
    return kind.rewritten(data, at_level(said, level).as_json())


def _kind(data: bytes) -> _Format | None:
    """The kind of a picture's file; None = it is a page, or none of ours."""
    return next((one for one in _FORMATS if data.startswith(one.begin)), None)


def _said(data: bytes, kind: _Format | None) -> About | ViewSpec:
    """What a picture says of itself, or the view of a page."""
    return page.read_spec(data) if kind is None else read_about(kind.said(data))


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST:
            raise NotOurs("it is too large")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="Make it readable.") from None


def _refuse_again(said: About | ViewSpec, path: Path) -> None:
    """Raise where a picture was published already, or drawn of what was published."""
    if before := said.provenance.published:
        fix = "Share it as it is, or publish the original at another level."
        raise InputError(f"was published already, at {before!r}", where=str(path), fix=fix)
