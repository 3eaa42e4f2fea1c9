"""What tells who, where and when without anyone knowing the original: paths, addresses, keys, times, identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """Texts of a form that tells something.

    Attributes
    ----------
    kind
        What they are, as the report says it.
    found
        Their form.
    """

    kind: str
    found: re.Pattern[bytes]


IDENTIFIERS = "identifiers"
_WORD = rb"[A-Za-z0-9._~+-]"
_FOLDERS = rb"(?:home|Users|root|mnt|media|data|scratch|work|workspace|tmp|var|opt|srv|private|gpfs|lustre|nfs)"
_HEX, _BYTE = rb"[0-9a-fA-F]", rb"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
# each begins with a letter that is rare, which is why what must stand before it is looked at behind it
PATTERNS = tuple(
    Pattern(kind, re.compile(form))
    for kind, form in (
        ("paths", rb"/(?<![\w.:/<]/)" + _FOLDERS + rb"/" + _WORD + rb"{2,}[^\s\"'<>|*?,;)]*"),
        ("paths", rb"~/(?<![\w.:/<]~/)" + _WORD + rb"{2,}/" + _WORD + rb"{2,}[^\s\"'<>|*?,;)]*"),
        ("paths", rb"file:///?[^\s\"'<>]{3,}"),
        ("paths", rb":\\(?<=[A-Za-z]:\\)\\*(?:Users|Documents|Program|Data|Projects|Temp)[^\s\"'<>|*?]*"),
        ("paths", rb"\\\\(?<=[\"'\s=(]\\\\)(?!u[0-9A-Fa-f]{4})" + _WORD + rb"{2,}\\{1,2}" + _WORD + rb"{2,}"),
        ("e-mail addresses", rb"@(?<=[A-Za-z0-9._+-]{2}@)(?:[a-z][a-z0-9-]+\.)+[a-z]{2,24}(?![\w.])"),
        ("keys and passwords", rb"sk-(?<![A-Za-z0-9]sk-)[A-Za-z0-9_-]{20,}"),
        ("keys and passwords", rb"gh[pousr]_[A-Za-z0-9]{30,}"),
        ("keys and passwords", rb"github_pat_\w{30,}"),
        ("keys and passwords", rb"hf_(?<![A-Za-z0-9]hf_)[A-Za-z0-9]{30,}"),
        ("keys and passwords", rb"AKIA(?<![A-Za-z0-9]AKIA)[0-9A-Z]{16}"),
        ("keys and passwords", rb"AIza[\w-]{35}"),
        ("keys and passwords", rb"xox[abprs]-[\w-]{10,}"),
        ("keys and passwords", rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
        ("keys and passwords", rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
        ("times", rb"20(?<![\d.-]20)\d\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d"),
        ("times", rb"D:20\d\d[01]\d[0-3]\d[0-2]\d"),
        ("addresses of computers", rb"(?<![\w.])(?:" + _BYTE + rb"\.){3}" + _BYTE + rb"(?![\w.])"),
        ("addresses of computers", rb"\.(?<=[A-Za-z0-9]\.)(?:lan|local|localdomain|internal|intranet|corp)(?![\w.-])"),
        (IDENTIFIERS, rb"-(?<=" + _HEX + rb"{8}-)(?:" + _HEX + rb"{4}-){3}" + _HEX + rb"{12}(?![\w-])"),
    )
)  # fmt: skip


def found_in(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Each pattern's kind with the whole word that holds what it matched."""
    for pattern in PATTERNS:
        for match in pattern.found.finditer(text):
            before = _BEFORE.search(text, max(0, match.start() - _LONGEST), match.start())
            yield pattern.kind, (before[0] if before else b"") + match[0]


_LONGEST = 64  # characters before a match that belong to it
_BEFORE = re.compile(rb"[A-Za-z0-9._+-]+\Z")


def hidden(text: str, mark: str = "…") -> str:
    """A text with a mark in place of everything that tells who, where or when by its form."""
    found = {whole for _, whole in found_in(text.encode("utf-8", "surrogateescape"))}
    for whole in sorted(found, key=len, reverse=True):
        text = text.replace(whole.decode("utf-8", "surrogateescape"), mark)
    return text
