"""How a token is written in a picture: every space, byte and control character visible, and nothing that can harm.

A label is plain text. Draw it without mathtext (`parse_math=False`), or escape it with `html_label` for a page.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable

EMPTY = "∅"
WIDTH = 14  # characters of a label; longer ones lose their middle
_RUN = 4  # so many equal blanks are counted instead of repeated
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_BLANKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # they shape the visible characters beside them

HasGlyph = Callable[[str], bool]


def readable(text: str, *, spelling: str = "text", width: int = WIDTH, has_glyph: HasGlyph | None = None) -> str:
    """The label of one token.

    Parameters
    ----------
    text
        The token's text, decoded with `surrogateescape`, so that a byte fragment is a lone surrogate.
    spelling
        "text": `text` is what the token stands for. "tokenizer": as a tokenizer spells it (`▁Explain`, `<0x0A>`).
    width
        The most characters of a label; a longer one is shortened in the middle.
    has_glyph
        Whether the font that will draw the label has a character; one it lacks is written as its code point. None
        for pages, where the browser finds a font.

    Returns
    -------
    str
        Blanks as `·`, `↵`, `⇥`; bytes as `⟨E4⟩`; control characters as their pictures (`␀`); other invisible
        characters as code points; `∅` for an empty token.
    """
    if spelling == "tokenizer":
        text = _from_tokenizer(text)
    if not text:
        return EMPTY
    head, core, tail = _split_blanks(text)
    parts = [*_blanks(head), *_visible(core, has_glyph), *_blanks(tail)]
    return isolate(_shorten(parts, width))


def readable_all(
    texts: Iterable[str], *, spelling: str = "text", width: int = WIDTH, has_glyph: HasGlyph | None = None
) -> list[str]:
    """`readable` of each text."""
    return [readable(text, spelling=spelling, width=width, has_glyph=has_glyph) for text in texts]


def html_label(label: str) -> str:
    """A label that a page may hold: markup escaped."""
    return html.escape(label, quote=True)


def isolate(label: str) -> str:
    """A label that cannot reorder its neighbours: right-to-left text set between bidi isolates."""
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in label):
        return f"{_FIRST_STRONG_ISOLATE}{label}{_POP_ISOLATE}"
    return label


def _from_tokenizer(text: str) -> str:
    """Undo the spelling of sentencepiece (`▁`, `<0x0A>`) and of byte-level BPE (`Ġ`, `Ċ`)."""
    byte = _BYTE_TOKEN.fullmatch(text)
    if byte:
        return bytes.fromhex(byte[1]).decode("utf-8", "surrogateescape")
    return text.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def _split_blanks(text: str) -> tuple[str, str, str]:
    """Leading blanks, the rest, trailing blanks."""
    body = text.lstrip(" ")
    head = text[: len(text) - len(body)]
    core = body.rstrip(" ")
    return head, core, body[len(core) :]


def _blanks(run: str) -> list[str]:
    """Blanks made visible, long runs counted: `·`, `··`, `·×8`."""
    if len(run) >= _RUN:
        return list(f"{_BLANKS[run[0]]}×{len(run)}")
    return [_BLANKS[blank] for blank in run]


def _visible(core: str, has_glyph: HasGlyph | None) -> list[str]:
    """Each character, or each run of line breaks or tabs, as something that can be seen; one entry never to be cut."""
    parts: list[str] = []
    for run in re.findall(r"\n+|\t+|\r+|.", core, flags=re.DOTALL):
        if run[0] in "\n\t" and len(run) >= _RUN:
            parts += _blanks(run)
            continue
        for char in run:
            part = _character(char, has_glyph, first=not parts)
            apart = " " if parts and _is_code_point(part) and _is_code_point(parts[-1]) else ""
            parts.append(apart + part)
    return parts


def _character(char: str, has_glyph: HasGlyph | None, *, first: bool) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is no character by itself
        return f"⟨{code - 0xDC00:02X}⟩"
    shown = _picture(char)
    drawable = has_glyph is None or all(has_glyph(part) for part in shown)
    if _hidden(char, has_glyph) or not drawable:
        return _code_point(code)
    if first and unicodedata.combining(char):
        return f"◌{shown}"
    return shown


def _picture(char: str) -> str:
    """What stands for a blank or a control character."""
    if char in _BLANKS and char != " ":
        return _BLANKS[char]
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else char


def _hidden(char: str, has_glyph: HasGlyph | None) -> bool:
    """Whether a character would leave no mark, or reorder what is around it."""
    if char == " " or char in _BLANKS or ord(char) < 0x20 or ord(char) == 0x7F:
        return False
    if has_glyph is None and char in _JOINERS:
        return False
    return unicodedata.category(char) in _INVISIBLE or 0xD800 <= ord(char) <= 0xDFFF


def _code_point(code: int) -> str:
    return f"U+{code:04X}"


def _is_code_point(part: str) -> bool:
    return part.lstrip().startswith("U+")


def _shorten(parts: list[str], width: int) -> str:
    """The parts joined, with the middle ones left out where they are longer than `width`."""
    whole = "".join(parts)
    if len(whole) <= width or len(parts) == 1:
        return whole
    room = width - 1
    head = _take(parts, (room + 1) // 2)
    tail = _take(parts[len(head) :][::-1], room - len("".join(head)))[::-1]
    while tail and unicodedata.combining(tail[0][0]):  # a mark belongs to the letter before it
        tail = tail[1:]
    return "".join(head) + "…" + "".join(tail)


def _take(parts: list[str], room: int) -> list[str]:
    """The longest run of parts from the start that fits, never fewer than one."""
    taken: list[str] = []
    for part in parts:
        if taken and len("".join(taken)) + len(part) > room:
            break
        taken.append(part)
    return taken
