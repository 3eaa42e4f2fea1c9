"""Models that count positions otherwise once the longest prompt of a batch passes a length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def short_until(config: Any) -> int | None:
    """The most tokens for which a model with two sets of rotary frequencies (LongRoPE, as Phi-3's) uses the short set.

    It chooses one set for a whole batch, by the longest prompt in it. None where a model has only one.
    """
    for name in ("rope_parameters", "rope_scaling"):
        for settings in _settings(getattr(config, name, None)):
            if "long_factor" in settings:
                given = settings.get("original_max_position_embeddings")
                known = given or getattr(config, "original_max_position_embeddings", None)
                return int(known) if known else None
    return None


def _settings(rope: Any) -> Iterator[Mapping[str, Any]]:
    """Of all layers, or of each kind of them."""
    if isinstance(rope, Mapping):
        yield rope
        for one in rope.values():
            yield from _settings(one)
