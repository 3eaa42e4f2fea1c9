"""Text columns as bytes and ends: lossless for byte fragments, without an object type on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stratoscope.errors import TraceError
from stratoscope.trace.format.bounds import LONGEST_TEXT, too_long_a_text

_STRAY_BYTE = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte that is no UTF-8


def spelled(text: str) -> str:
    """Stray bytes of a token in SentencePiece's spelling, `<0xE4>`, for files that hold only UTF-8."""
    return _STRAY_BYTE.sub(lambda found: f"<0x{ord(found[0]) - 0xDC00:02X}>", text)


def encode_texts(texts: Sequence[str], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of all texts end to end, and where each one ends.

    Parameters
    ----------
    texts
        Texts as UTF-8 decoded with `surrogateescape`.
    column
        Name for the message of an error.

    Returns
    -------
    tuple of numpy.ndarray
        uint8 of shape (sum of lengths,) and int64 of shape (len(texts),).
    """
    try:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    except (UnicodeEncodeError, AttributeError) as error:
        raise TraceError(
            f"a text of column '{column}' is no UTF-8: {error}",
            fix="Decode bytes with errors='surrogateescape' and give str only.",
        ) from None
    lengths = np.fromiter((len(item) for item in encoded), np.int64, len(encoded))
    if len(lengths) and lengths.max() > LONGEST_TEXT:
        raise too_long_a_text(column, int(lengths.max()))
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths, dtype=np.int64)


def decode_texts(data: np.ndarray, ends: np.ndarray, start: int) -> np.ndarray:
    """Texts as an object array of str; `data` begins at byte `start` and `ends` are counted from byte 0."""
    raw = data.data
    out = np.full(len(ends), "", dtype=object)
    begins, ends = np.concatenate([[0], ends[:-1] - start]), ends - start
    for index in np.flatnonzero(ends > begins).tolist():
        out[index] = str(raw[begins[index] : ends[index]], "utf-8", "surrogateescape")
    return out
