"""Numbers, counts, lists, values and tokens as people read them: each is written one way, in all pictures and messages.

`view/web/words.js` writes numbers in the same way. Token labels are plain text, in which every space, byte and control
character is visible and nothing can harm: draw them without mathtext (`parse_math=False`), or escape them with
`html_label`.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, SupportsFloat

_MIRRORED = {ord("<"): ">", ord(">"): "<"}
EMPTY = "∅"
WIDTH = 14  # characters of a label; longer ones lose their middle
_RUN = 4  # so many equal blanks are counted instead of repeated
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = _ISOLATES = "\u2068\u2069"
_BLANKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_INVISIBLE = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")
_UNBROKEN = re.compile(  # no line ends within it
    r"\bL\d+ n\d+\b|[^ ]+ [≤≥=<>] [^ ]+|[−\d.,]+ […→] [−\d.,]+|[\d.,]+ %"
)
_WHOLE = re.compile(
    r"⟨[0-9A-F]{2}⟩|U\+[0-9A-F]{4,6}|[·↵⇥]×\d+|.[\u0300-\u036f\u200c\u200d\ufe0f]*", re.DOTALL
)  # of a label
_LEAST_PART = 4  # characters of what stands for one: ⟨E4⟩
_JOINERS = "\u200c\u200d"  # they shape the visible characters beside them
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))  # they choose a form of the character before them


def number(value: SupportsFloat, digits: int = 3) -> str:
    """A number with about three digits (0.012, 3.45, 678, 9,012, 3.4e6), ties rounded away from zero.

    Parameters
    ----------
    digits
        Of a number below 10 ** digits; a larger one is rounded to a whole number, one from a million on to two digits.
    """
    value = float(value)
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else "∞" if value > 0 else "−∞"
    size, sign = abs(value), "−" if value < 0 else ""
    if size == 0:
        return "0"
    if size >= 999_999.5 or size < 9.95e-4:  # what is rounded to a million or to 0.001 is written like it
        mantissa, exponent = f"{_rounded(size, 2):.1e}".split("e")
        return f"{sign}{mantissa.removesuffix('.0')}e{int(exponent)}".replace("e-", "e−")
    text = f"{_rounded(size, digits) if size < 10**digits else _fixed(size, 0):,f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def percent(share: SupportsFloat) -> str:
    """A share: 0 %, <0.1 %, 12.0 %, >99.9 %, 100 %. What is nearly nothing or all is not called so."""
    share = float(share)
    if not math.isfinite(share):
        return "not known" if math.isnan(share) else f"{number(share)} %"
    size, bound = abs(100 * share), ""
    if 0 < size < 0.05:
        size, bound = 0.1, "<"
    elif 99.95 <= size < 100:
        size, bound = 99.9, ">"
    elif size >= 1e6:
        return f"{number(100 * share)} %"
    text = str(int(size)) if size in (0, 100) else f"{_fixed(size, 1):,f}"
    return f"{bound}{text} %" if share >= 0 else f"{bound.translate(_MIRRORED)}−{text} %"


def size_text(size: float) -> str:
    """A number of bytes: 1 byte, 512 bytes, 1.23 MB."""
    if size < 999.5:
        return counted(int(_fixed(size, 0)), "byte")
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{number(size)} {unit}"
    return f"{number(size / 1000)} TB"


def times(ratio: float) -> str:
    """A ratio: ×1.4, ×7, ×63, ×1.2k, ×3.4e6."""
    if ratio < 0.05 or not math.isfinite(ratio):
        return f"×{number(ratio)}"
    if ratio >= 999_500:
        return f"×{number(max(ratio, 1e6))}"
    if ratio >= 999.5:
        return f"×{number(ratio / 1000, 2)}k"
    return f"×{_fixed(ratio, 0 if ratio >= 3 else 1)}"


def counted(count: int, noun: str) -> str:
    """So many of something: 0 prompts, 1 prompt, 1,234 prompts."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith(("ch", "s", "x")):
        return f"{count:,} {noun}es"
    return f"{count:,} {noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{count:,} {noun}s"


def agreeing(count: int, one: str, many: str) -> str:
    """The form of a verb that goes with so many: 1 differs, 2 differ."""
    return one if count == 1 else many


def listed(items: Iterable[object], most: int = 8, *, joined: str = "and") -> str:
    """Items in a sentence, of many the first: a, b and c; a, b and 7 more."""
    texts = [str(item) for item in items]
    if len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most:,} more"]
    return f" {joined} ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def number_ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges, as `--layers` reads them: 0-29, or 0-3, 22-31."""
    runs: list[list[int]] = []
    for item in sorted(set(numbers)):
        if runs and item == runs[-1][1] + 1:
            runs[-1][1] = item
        else:
            runs.append([item, item])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def capital(text: str) -> str:
    """A text that begins a sentence or stands alone; one that begins with a symbol, such as cos(…), stays as it is."""
    return text if "(" in text.split(" ")[0] else text[:1].upper() + text[1:]


def neuron_name(layer: int, neuron: int) -> str:
    """A neuron, as pictures, tables and sentences call it: L4 n116."""
    return f"L{layer} n{neuron}"


def head_name(layer: int, head: int) -> str:
    """An attention head, as tables and sentences call it: head 3 of L5."""
    return f"head {head} of L{layer}"


def line_parts(text: str) -> list[str]:
    """A text cut where its lines may end: at blanks, but not within L4 n116, p ≤ 0.05 or 5 %."""
    whole = [range(found.start(), found.end()) for found in _UNBROKEN.finditer(text)]
    parts, start = [], 0
    for blank in re.finditer(" ", text):
        if not any(blank.start() in run for run in whole):
            parts.append(text[start : blank.start()])
            start = blank.end()
    return [*parts, text[start:]]


def shortened(text: str, most: int = 40) -> str:
    """The beginning of a text, with an ellipsis where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: Any, most: int = 40) -> str:
    """A value of a file or an argument in a message: a text in quotes, anything else as JSON, shortened."""
    if isinstance(value, str):
        return repr(shortened(value, most))
    return shortened(json.dumps(value, default=repr, ensure_ascii=False), most)


def noted(identity: str, text: str) -> str:
    """A note as it is printed: the number of its line in docs/pitfalls.md stands first."""
    return f"[{identity}] {text}"


def _rounded(size: float, digits: int) -> Decimal:
    return Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(size)


def _fixed(size: float, decimals: int) -> Decimal:
    return Decimal(size).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


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
    text = plain_text(text, spelling)
    if not text:
        return EMPTY
    word = text[1:] if text[0] == " " else text
    if len(text) <= width and word.isascii() and word.isprintable() and " " not in word and word:  # nearly all are so
        return text.replace(" ", _BLANKS[" "])
    head, core, tail = _split_blanks(text)
    parts = [*_blanks(head), *_visible(core), *_blanks(tail)]
    return isolate(_shorten(parts, width))


def readable_all(texts: Iterable[str], *, spelling: str = "text", width: int = WIDTH) -> list[str]:
    """`readable` of each text."""
    given = list(texts)
    labels = {text: readable(text, spelling=spelling, width=width) for text in dict.fromkeys(given)}
    return [labels[text] for text in given]


def narrower(label: str, width: int) -> str:
    """A label with its middle left out where it is longer than `width`; bytes, code points and accents stay whole."""
    if len(label) <= width:
        return label
    return isolate(_shorten(_WHOLE.findall(label.strip(_ISOLATES)), width))


def first_part(label: str) -> str:
    """The first byte or code point of a label that has more of them, with an ellipsis; "" = it begins with neither."""
    parts = _WHOLE.findall(label.strip(_ISOLATES))
    return f"{parts[0]}…" if len(parts) > 1 and len(parts[0]) >= _LEAST_PART else ""


def drawable(label: str, has_glyph: Callable[[str], bool], *, width: int = WIDTH) -> str:
    """A label for a renderer that has only some fonts: a glyph that none of them has becomes its code point."""
    if all(map(has_glyph, label)):
        return label
    parts: list[str] = []
    for char in label.strip(_ISOLATES):
        if not _leaves_out(char, parts, has_glyph):
            _append(parts, _legible(char, has_glyph))
    return isolate(_shorten(parts, width))


def drawable_line(text: str, has_glyph: Callable[[str], bool]) -> str:
    """A title or sentence in which no character is invisible, reorders others or lacks a glyph; blanks stay blanks."""
    if all(has_glyph(char) and not _hidden(char) for char in text):
        return text
    kept = _ISOLATES if _is_balanced(text) else ""
    parts: list[str] = []
    for char in text:
        if not _leaves_out(char, parts, has_glyph):
            parts.append(char if char in kept else _legible(char, has_glyph))
    return "".join(parts)


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


def is_selector(char: str) -> bool:
    """Whether a character chooses a form of the one before it, and is none itself: U+FE0F asks for a coloured emoji."""
    return any(ord(char) in run for run in _SELECTORS)


def _leaves_out(char: str, before: list[str], has_glyph: Callable[[str], bool]) -> bool:
    """Whether a character is one that only shapes a neighbour, and has none here or cannot shape it."""
    if not before:
        return False
    return before[-1].lstrip().startswith("U+") if char in _JOINERS else is_selector(char) and not has_glyph(char)


def _legible(char: str, has_glyph: Callable[[str], bool]) -> str:
    """A character or, where it cannot be drawn or seen, what stands for it."""
    shown = _character(char, first=False)
    if all(has_glyph(part) for part in shown):
        return shown
    return _code_point(ord(char) - 0x2400 if "\u2400" <= char < "\u2420" else ord(char))


def plain_text(text: str, spelling: str) -> str:
    """What a token stands for: undoes the spelling of sentencepiece (`▁`, `<0x0A>`) and of byte-level BPE (`Ġ`, `Ċ`).

    Parameters
    ----------
    spelling
        "tokenizer": spelled so; "text": plain already.
    """
    if spelling != "tokenizer":
        return text
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
    """Add a part, set apart from the one before it where both are code points, which nothing joins."""
    if part.startswith("U+") and parts and parts[-1] in _JOINERS:
        parts.pop()
    apart = " " if parts and part.startswith("U+") and parts[-1].lstrip().startswith("U+") else ""
    parts.append(apart + part)


def _character(char: str, *, first: bool) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is no character by itself
        return f"⟨{code - 0xDC00:02X}⟩"
    if _hidden(char) or (first and (char in _JOINERS or is_selector(char))):
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
