"""What a picture was asked to show, what of it there was, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selected:
    """What a picture shows of a trace.

    Attributes
    ----------
    prompts
        Ids of the prompts that are shown.
    classes
        Classes that were asked for; none = all.
    layers
        Numbers of the layers (or depths) that are shown.
    spans
        Spans that were asked for; none = all.
    left_out
        What there is besides them, in words; "" = nothing.
    """

    prompts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    spans: tuple[str, ...] = ()
    left_out: str = ""
