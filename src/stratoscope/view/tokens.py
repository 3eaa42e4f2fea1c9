"""How a token is written in a picture: every space, byte and control character visible, and nothing that can harm.

A label is plain text. Draw it without mathtext (`parse_math=False`), or escape it with `html_label` for Plotly.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable

EMPTY = "∅"
WIDTH = 14  # characters of a label; longer ones lose their middle
_RUN = 4  # so many equal blanks are counted instead of repeated
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = _ISOLATES = "\u2068\u2069"
_BLANKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # they shape the visible characters beside them


def readable(text: str, *, spelling: str = "text", width: int = WIDTH) -> str:
    """The label of one token.

    Parameters
    ----------
    text
        The token's text, decoded with `surrogateescape`, so that a byte fragment is a lone surrogate.
    spelling
        "text": `text` is what the token stands for. "tokenizer": as a tokenizer spells it (`▁Explain`, `<0x0A>`).
    width
        The most characters of a label; a longer one is shortened in the middle.

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
    parts = [*_blanks(head), *_visible(core), *_blanks(tail)]
    return isolate(_shorten(parts, width))


def readable_all(texts: Iterable[str], *, spelling: str = "text", width: int = WIDTH) -> list[str]:
    """`readable` of each text."""
    return [readable(text, spelling=spelling, width=width) for text in texts]


def drawable(label: str, has_glyph: Callable[[str], bool], *, width: int = WIDTH) -> str:
    """A label for a renderer that has only some fonts: a glyph that none of them has becomes its code point."""
    if all(map(has_glyph, label)):
        return label
    parts: list[str] = []
    for char in label.strip(_ISOLATES):
        _append(parts, _legible(char, has_glyph))
    return isolate(_shorten(parts, width))


def drawable_line(text: str, has_glyph: Callable[[str], bool]) -> str:
    """A title or sentence in which no character is invisible, reorders others or lacks a glyph; blanks stay blanks."""
    if all(has_glyph(char) and not _hidden(char) for char in text):
        return text
    kept = _ISOLATES if _is_balanced(text) else ""
    return "".join(char if char in kept else _legible(char, has_glyph) for char in text)


def visible(text: str) -> str:
    """A text for a page: no character is invisible or reorders what is outside of the text; blanks stay blanks."""
    return drawable_line(text, lambda char: char >= " " and char != "\x7f")


def _is_balanced(text: str) -> bool:
    """Whether every bidi isolate that begins in a text ends in it, so that none of its neighbours' does."""
    depth = 0
    for char in text:
        depth += (char == _FIRST_STRONG_ISOLATE) - (char == _POP_ISOLATE)
        if depth < 0:
            return False
    return depth == 0


def html_label(label: str) -> str:
    """A text that Plotly may draw, which reads markup in it: escaped, and nothing in it invisible."""
    return html.escape(visible(label), quote=True)


def isolate(label: str) -> str:
    """A label that cannot reorder its neighbours: right-to-left text set between bidi isolates."""
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in label):
        return f"{_FIRST_STRONG_ISOLATE}{label}{_POP_ISOLATE}"
    return label


def _legible(char: str, has_glyph: Callable[[str], bool]) -> str:
    """A character or, where it cannot be drawn or seen, what stands for it."""
    shown = _character(char, first=False)
    if all(has_glyph(part) for part in shown):
        return shown
    return _code_point(ord(char) - 0x2400 if "\u2400" <= char < "\u2420" else ord(char))


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


def _visible(core: str) -> list[str]:
    """Each character, or each run of line breaks or tabs, as something that can be seen; no entry is ever cut."""
    parts: list[str] = []
    for run in re.findall(r"\n+|\t+|.", core, flags=re.DOTALL):
        if run[0] in "\n\t":
            parts += _blanks(run)
        else:
            _append(parts, _character(run, first=not parts))
    return parts


def _append(parts: list[str], part: str) -> None:
    """Add a part, set apart from the one before it where both are code points."""
    apart = " " if parts and part.startswith("U+") and parts[-1].lstrip().startswith("U+") else ""
    parts.append(apart + part)


def _character(char: str, *, first: bool) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is no character by itself
        return f"⟨{code - 0xDC00:02X}⟩"
    if _hidden(char):
        return _code_point(code)
    if first and unicodedata.combining(char):
        return f"◌{char}"
    return _picture(char)


def _picture(char: str) -> str:
    """What stands for a blank or a control character."""
    if char in _BLANKS and char != " ":  # a blank inside a token stays a blank
        return _BLANKS[char]
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else char


def _hidden(char: str) -> bool:
    """Whether a character would leave no mark, or reorder what is around it."""
    if char in _BLANKS or char in _JOINERS or ord(char) < 0x20 or ord(char) == 0x7F:
        return False
    return unicodedata.category(char) in _INVISIBLE or 0xD800 <= ord(char) <= 0xDFFF


def _code_point(code: int) -> str:
    return f"U+{code:04X}"


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
    return "".join(head) + "…" + "".join(tail).lstrip(" ")


def _take(parts: list[str], room: int) -> list[str]:
    """The longest run of parts from the start that fits, never fewer than one."""
    taken: list[str] = []
    for part in parts:
        if taken and len("".join(taken)) + len(part) > room:
            break
        taken.append(part)
    return taken
