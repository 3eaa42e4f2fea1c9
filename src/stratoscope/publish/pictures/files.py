"""Pictures and pages as files: read, rewritten at a level, and put where they are wanted, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.names import Level
from stratoscope.publish.pictures import page, pdf, png, svg
from stratoscope.publish.pictures.about import About, NotOurs, read_about
from stratoscope.publish.pictures.keys import at_level
from stratoscope.publish.pictures.redraw import redrawn
from stratoscope.replacing import new_files, refused
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

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
    path: Path, out: Path, level: Level, *, trace: xr.Dataset | None = None, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a picture or a page as a level keeps it.

    Parameters
    ----------
    path
        A .png, .svg or .pdf file or a page that was written here.
    out
        What to write, of the same kind.
    level
        "provenance" or "no-text".
    trace
        The trace that it was drawn of: it is drawn again, with nothing taken over from the file. Without it only the
        metadata are rewritten, which is enough for "provenance" alone.
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
        return _published(path, out, level, trace, overwrite=overwrite)
    except NotOurs as error:
        what = f"is no picture or page as this version writes it: {error}"
        raise InputError(what, where=str(path), fix=_DRAW_AGAIN) from None


def _published(path: Path, out: Path, level: Level, trace: xr.Dataset | None, *, overwrite: bool) -> tuple[str, ...]:
    data = _content(path)
    kind = next((one for one in _FORMATS if data.startswith(one.begin)), None)
    suffix = _PAGE if kind is None else kind.suffix
    _check_place(out, suffix, overwrite=overwrite)
    said: About | ViewSpec = page.read_spec(data) if kind is None else read_about(kind.said(data))
    _refuse_again(said, path)
    caption, told = None, ()
    if trace is not None:
        again = redrawn(said, suffix, trace, level, path)
        data, caption = again.content, again.caption
        said = page.read_spec(data) if kind is None else read_about(kind.said(data))
    elif level != names.PROVENANCE:
        raise InputError(f"a picture can be published at {level!r} only drawn anew", where=str(path), fix=_NEEDS_TRACE)
    else:
        told = (_KEPT,)
    public = at_level(said, level)
    if kind is None:
        assert isinstance(public, ViewSpec)
        content = page.rewritten(public)
    else:
        assert isinstance(public, About)
        content = kind.rewritten(data, public.as_json())
    _write(out, content, caption, overwrite=overwrite)
    return told


def _content(path: Path) -> bytes:
    try:
        if os.path.getsize(path) > _MOST:
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
