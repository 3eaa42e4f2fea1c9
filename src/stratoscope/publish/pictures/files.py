"""Pictures and pages as files: read, rewritten at a level, and put where they are wanted, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.names import Level
from stratoscope.publish.pictures import page, pdf, png, svg
from stratoscope.publish.pictures.about import About, NotOurs, read_about
from stratoscope.publish.pictures.keys import at_level
from stratoscope.publish.pictures.profiles import drawn_profiles, profiled_in
from stratoscope.publish.pictures.redraw import Redrawn, redrawn
from stratoscope.replacing import new_files, refused
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

Profiles: TypeAlias = "Callable[[xr.Dataset, Sequence[str]], xr.DataTree]"

_MOST = 2**30  # bytes of a file
_KEPT = (
    "The picture itself is as it was, and only what the file says beside it is rewritten. What is drawn on it stays: "
    "titles, names of prompts and of the model, the beginning of the trace's uuid. With --trace it is drawn anew."
)
_NEEDS_TRACE = "Give the trace that it was drawn of with --trace, or take --level provenance."
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


def publish_picture(
    path: Path,
    out: Path,
    level: Level,
    *,
    trace: xr.Dataset | None = None,
    profiles: Profiles | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write a picture or a page as a level keeps it.

    Parameters
    ----------
    path
        A .png, .svg or .pdf file or a page that was written here.
    out
        What to write, of the same kind.
    level
        Of "aggregate" and "private" the class profile of its quantity is drawn in its place.
    trace
        The trace that it was drawn of: it is drawn again, with nothing taken over from the file. Without it only the
        metadata are rewritten, which is enough for "provenance" alone.
    profiles
        Gives the class profiles of quantities of the trace, as they may be published at those levels.
    overwrite
        Whether what is there may be replaced.

    Returns
    -------
    tuple of str
        What a person should know of what was written, in sentences.

    Raises
    ------
    InputError
        It is no file of ours, cannot be drawn again at this level, or may not be written there.
    """
    try:
        return _published(path, out, level, trace, profiles, overwrite=overwrite)
    except NotOurs as error:
        what = f"is no picture or page as this version writes it: {error}"
        raise InputError(what, where=str(path), fix=_DRAW_AGAIN) from None


def _published(
    path: Path, out: Path, level: Level, trace: xr.Dataset | None, profiles: Profiles | None, *, overwrite: bool
) -> tuple[str, ...]:
    data = _content(path)
    kind = next((one for one in _FORMATS if data.startswith(one.begin)), None)
    suffix = _PAGE if kind is None else kind.suffix
    _check_place(out, suffix, overwrite=overwrite)
    said = _said(data, kind)
    _refuse_again(said, path)
    if trace is None and level != names.PROVENANCE:
        raise InputError(f"a picture can be published at {level!r} only drawn anew", where=str(path), fix=_NEEDS_TRACE)
    caption = None
    if trace is not None:
        again = _again(said, suffix, trace, level, path, profiles)
        data, caption = again.content, again.caption
        said = _said(data, kind)
    if isinstance(said, ViewSpec):
        content = page.rewritten(at_level(said, level))
    else:
        assert kind is not None
        content = kind.rewritten(data, at_level(said, level).as_json())
    _write(out, content, caption, overwrite=overwrite)
    return () if trace is not None else (_KEPT,)


def _said(data: bytes, kind: _Format | None) -> About | ViewSpec:
    """What a picture says of itself, or the view of a page."""
    return page.read_spec(data) if kind is None else read_about(kind.said(data))


def _again(
    said: About | ViewSpec, suffix: str, trace: xr.Dataset, level: Level, path: Path, profiles: Profiles | None
) -> Redrawn:
    """What is drawn in the place of the original."""
    if level in (names.PROVENANCE, names.NO_TEXT):
        return redrawn(said, suffix, trace, level, path)
    quantities = profiled_in(said, trace, path)
    if profiles is None or suffix == _PAGE:
        raise InputError(f"cannot be published at {level!r}", where=str(path), fix="Publish the trace at this level.")
    return drawn_profiles(said, suffix, profiles(trace, quantities))


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


def _check_place(out: Path, suffix: str, *, overwrite: bool) -> None:
    from stratoscope.trace.export.output import check_place

    if out.suffix.lower() != suffix:
        raise InputError(f"would be a {suffix} file", where=str(out), fix=f"Name it {out.stem or 'public'}{suffix}.")
    check_place(out, overwrite=overwrite, inputs=())


def _write(out: Path, content: bytes, caption: bytes | None, *, overwrite: bool) -> None:
    """Write a file, and its caption beside it: both, or neither."""
    contents = {out: content}
    if caption is not None:
        from stratoscope.view.matplotlib.save import caption_beside

        contents[caption_beside(out)] = caption
    with new_files(list(contents), overwrite=overwrite) as files:
        for (target, data), file in zip(contents.items(), files, strict=True):
            with refused(target):
                file.write_bytes(data)
