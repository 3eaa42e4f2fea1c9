"""A figure as a PNG, SVG or PDF file: whole or not at all, the same bytes every time, and no word about who made it where."""  # noqa: E501

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stratoscope.disk import write_file
from stratoscope.errors import InputError
from stratoscope.names import PICTURES
from stratoscope.replacing import new_files, refused
from stratoscope.trace.export.output import check_place
from stratoscope.view.sheet.items import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "stratoscope"
_FRAME = {  # how a file begins and ends
    ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".svg": (b"<?xml", b"</svg>"),
    ".pdf": (b"%PDF-", b"%%EOF"),
}
_OWN_STYLE = {
    "hatch.linewidth": 0.6,
    "text.hinting": "none",  # glyphs fitted to pixels make a line up to 5 % wider than `sheet.fonts` says
    "svg.fonttype": "none",
    "svg.hashsalt": KEY,
    "pdf.fonttype": 42,
}
_FONT_FAMILY = re.compile(rb"(font-family: [^;\"<>]+)")  # of the text of an SVG
_ELSEWHERE = b"'Bitstream Vera Sans', Verdana, sans-serif"  # where a reader lacks our font: the nearest in width
_ENDS: dict[str, Literal["left", "center", "right"]] = {"top": "right", "center": "center", "bottom": "left"}
_SIDES: dict[str, Literal["top", "center", "bottom"]] = {"left": "top", "center": "center", "right": "bottom"}
_SESSION = ("backend", "interactive", "toolbar", "webagg", "figure.hooks")  # settings that are no style


def check(out: str | os.PathLike[str], *, overwrite: bool, inputs: Any = (), caption: bool = False) -> Path:
    """The path of an output that may be written, or an `InputError`; called before any work is done.

    Parameters
    ----------
    caption
        Whether a file with its caption is to stand beside it.
    """
    path = Path(out)
    if path.suffix.lower() not in PICTURES:
        raise InputError(
            "a picture is a .png, .svg or .pdf file", where=str(path), fix=f"Name it {path.stem or 'picture'}.png."
        )
    check_place(path, overwrite=overwrite, inputs=inputs)
    if caption:
        _check_caption(caption_beside(path), overwrite=overwrite, inputs=inputs)
    return path


def caption_beside(picture: Path) -> Path:
    """The file of a picture's caption."""
    return picture.with_suffix(".txt")


def _check_caption(path: Path, *, overwrite: bool, inputs: Any) -> None:
    """Raise `InputError` where the caption of a picture may not be put: above all where a text of somebody's own is."""
    check_place(path, overwrite=overwrite, inputs=inputs)
    with refused(path):
        ours = not path.exists() or KEY in path.read_text("utf-8", errors="replace").rstrip().rpartition("\n")[2]
    if not ours:
        fix = "Give the picture another name, or move that file away."
        raise InputError("is no caption of a picture, so it is not replaced", where=str(path), fix=fix)


def write(
    figure: Figure, out: Path, metadata: str, *, overwrite: bool, caption: str | None = None, dots: int = DPI
) -> None:
    """Write a figure with its metadata, and its caption beside it: both, or neither.

    Parameters
    ----------
    metadata
        JSON; stored in the PNG text chunk `stratoscope`, as the description of an SVG and the subject of a PDF.
    caption
        What the file beside it says; None = there is none.
    dots
        Of a bitmap, to an inch.
    """
    path = check(out, overwrite=overwrite, caption=caption is not None)
    suffix = path.suffix.lower()
    contents = {path: picture_bytes(figure, suffix, metadata, dots=dots)}
    if caption is not None:
        contents[caption_beside(path)] = caption.encode()
    with new_files(list(contents), overwrite=overwrite) as files:
        for (target, content), file in zip(contents.items(), files, strict=True):
            with refused(target):
                write_file(file, content)
            if target == path:
                _opens(file, suffix)


def _opens(file: Path, suffix: str) -> None:
    """Raise `InputError` where a picture does not begin and end as one."""
    content = file.read_bytes()
    begin, end = _FRAME[suffix]
    if not (content.startswith(begin) and content.rstrip().endswith(end)):
        raise InputError("was not written as a whole", where=str(file), fix="Free some space, or write elsewhere.")


def picture_bytes(figure: Figure, suffix: str, metadata: str, *, dots: int = DPI) -> bytes:
    """The bytes of a picture file."""
    import matplotlib as mpl

    across = float(figure.get_size_inches()[0])
    resolution = int(across * dots + 1e-6) / across  # whole dots are as wide as the figure
    options: dict[str, Any] = {
        ".png": {
            "dpi": dots,
            "metadata": {"Software": None, KEY: metadata},
            "pil_kwargs": {"compress_level": 3, "dpi": (resolution, resolution)},
        },
        ".svg": {"dpi": DPI, "metadata": {"Date": None, "Creator": None, "Description": f"{KEY}: {metadata}"}},
        ".pdf": {
            "dpi": DPI,
            "metadata": {"Creator": None, "Producer": None, "CreationDate": None, "Keywords": KEY, "Subject": metadata},
        },
    }[suffix]
    buffer = io.BytesIO()
    readied = {".svg": _anchored, ".pdf": _outlines}.get(suffix, nullcontext)
    with mpl.rc_context(style()), readied(figure):
        figure.savefig(buffer, format=suffix[1:], facecolor=figure.get_facecolor(), **options)
    if suffix == ".svg":
        return _FONT_FAMILY.sub(rb"\1, " + _ELSEWHERE, buffer.getvalue())
    return buffer.getvalue()


@contextmanager
def _anchored(figure: Figure) -> Iterator[None]:
    """Hold turned labels at the end that is near the map: in a reader's own, wider font they grow away from it."""
    from matplotlib.text import Text

    turned = [one for one in figure.findobj(Text) if one.get_rotation() == 90 and one.get_rotation_mode() != "anchor"]
    before = [(one.get_horizontalalignment(), one.get_verticalalignment()) for one in turned]
    for one, (across, along) in zip(turned, before, strict=True):
        one.set(rotation_mode="anchor", ha=_ENDS[along], va=_SIDES[across])
    try:
        yield
    finally:
        for one, (across, along) in zip(turned, before, strict=True):
            one.set(rotation_mode="default", ha=across, va=along)


@contextmanager
def _outlines(figure: Figure) -> Iterator[None]:
    """Texts that another family than the usual one helps out are outlines while this lasts.

    In a PDF matplotlib loses the glyphs of OpenType fonts such as Noto Sans CJK as Type 42, and takes one glyph for all
    beyond U+FFFF as Type 3.
    """
    from matplotlib.patheffects import Normal
    from matplotlib.text import Text

    from stratoscope.view.sheet import fonts

    texts = [one for one in figure.findobj(Text) if isinstance(one, Text) and fonts.is_helped_out(one.get_text())]
    for one in texts:
        one.set_path_effects([Normal()])
    try:
        yield
    finally:
        for one in texts:
            one.set_path_effects([])


def style() -> Any:
    """Settings for `matplotlib.rc_context`: a picture looks the same whatever a user's own style says."""
    import matplotlib as mpl

    plain = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith(_SESSION)}
    return plain | _OWN_STYLE
