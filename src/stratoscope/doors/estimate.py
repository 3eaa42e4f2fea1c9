"""What `capture --plan` prints."""

from __future__ import annotations

import math

from stratoscope import names
from stratoscope.doors import console, failures
from stratoscope.recorder.estimate.estimate import Cost, Estimate
from stratoscope.words import size_text

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def show(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a recording takes; leave with status 1 where it does not fit."""
    if as_json:
        console.tell_json(estimate.to_json())
    else:
        _print_table(estimate)
    if not estimate.fits:
        failures.fail(" ".join(["this recording does not fit here.", *estimate.advice]))


def _print_table(estimate: Estimate) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    with_card = estimate.has_card
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for title in ("disk", "memory", *(["accelerator"] if with_card else []), "time"):
        table.add_column(title, justify="right")
    rows = {"the model and the tokens": estimate.model, **{f"+ {k}": v for k, v in estimate.groups.items()}}
    for name, cost in rows.items():
        table.add_row(name, *_cells(cost, with_card=with_card))
    table.add_section()
    table.add_row("the recording", *_cells(estimate.total, with_card=with_card), style="bold")
    free = [estimate.disk_free, estimate.memory_free, *([estimate.card_memory_free] if with_card else [])]
    table.add_row("free here", *[size_text(size) if size is not None else "unknown" for size in free], "")
    Console(highlight=False).print(table)
    for line in _notes(estimate):
        console.tell(line)


def _cells(cost: Cost, *, with_card: bool) -> list[str]:
    memory = "unknown" if cost.memory_bytes is None else size_text(cost.memory_bytes)
    card = [size_text(cost.card_memory_bytes)] if with_card else []
    return [size_text(cost.disk_bytes), memory, *card, duration_text(cost.seconds)]


def _notes(estimate: Estimate) -> list[str]:
    found = [
        f"{estimate.prompts:,} prompts, {estimate.tokens:,} tokens, {estimate.batches:,} batches; to begin, "
        f"{duration_text(estimate.begin_seconds)} of the time. Measured on the largest batch and a typical one.",
        "Groups share work and memory, so together they take less than their sum.",
    ]
    if estimate.answers_at_most:
        found.append(f"Reckoned with answers of {estimate.answers_at_most} tokens each, the most that is asked for.")
    if estimate.calibration_seconds:
        taken = duration_text(estimate.calibration_seconds)
        found.append(f"Of the time for {names.EFFECTS}, {taken} go into really ablating a sample (--calibration).")
    found += estimate.batching
    if estimate.was_split:
        found.append("The largest batch did not fit into memory: such batches are run in parts.")
    return found


def duration_text(seconds: float) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    for unit, name, part, part_name in (
        (_MINUTE, "min", 1, "s"),
        (_HOUR, "h", _MINUTE, "min"),
        (_DAY, "d", _HOUR, "h"),
    ):
        if whole < unit * (_MINUTE if unit != _HOUR else 24) or unit == _DAY:
            return f"{whole // unit} {name} {whole % unit // part} {part_name}"
    raise AssertionError
