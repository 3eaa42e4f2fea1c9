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
    of_trace
        How much of the trace that is, in words; "" where it is all of it, or nothing was selected. A picture says it as
        "Shown: …".
    """

    prompts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    spans: tuple[str, ...] = ()
    of_trace: str = ""
