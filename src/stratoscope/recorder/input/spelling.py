"""The bytes that a token stands for, as its tokenizer spells them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def literals(ids: Sequence[int], tokenizer: Any) -> list[bytes]:
    """The bytes that each token stands for; none for an id that has no token."""
    added, spelled = tokenizer.added_tokens_decoder, _byte_reader(tokenizer)
    spellings = tokenizer.convert_ids_to_tokens(list(ids))
    return [
        str(added[index]).encode() if index in added else spelled(spelling or "")
        for index, spelling in zip(ids, spellings, strict=True)
    ]


def _byte_reader(tokenizer: Any) -> Callable[[str], bytes]:
    """How this tokenizer spells bytes: byte-level BPE, SentencePiece or WordPiece."""
    decoder = tokenizer.backend_tokenizer.decoder
    kinds = _kinds(json.loads(decoder.__getstate__())) if decoder is not None else set()
    if "ByteLevel" in kinds:
        return _byte_level
    if "WordPiece" in kinds:
        return lambda token: token.removeprefix("##").encode()
    return _sentencepiece


def _kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder["type"]}.union(*(_kinds(child) for child in decoder.get("decoders", [])))


def _byte_level(token: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes([table[character] for character in token])
    except KeyError:  # not of the byte-level alphabet: it stands for itself
        return token.encode()


def _sentencepiece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (Radford et al. 2019, GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
