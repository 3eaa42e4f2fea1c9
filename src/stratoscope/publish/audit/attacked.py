"""The attacks on what was published, held against what its level promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.names import LEVELS, Level
from stratoscope.publish import inputs
from stratoscope.publish.attacks.attacks import attacks_on
from stratoscope.publish.attacks.differencing import NAME as DIFFERENCING
from stratoscope.publish.attacks.outcome import Attack
from stratoscope.publish.audit.outcome import Attacked, Verdict
from stratoscope.publish.averaged import KIND

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.progress import Progress

# an attack, by how its name begins → the first level that promises anything against it; of weights no level does
_PROMISED_FROM: tuple[tuple[str, Level], ...] = (
    ("look-up", names.AGGREGATE),
    ("permutation", names.AGGREGATE),
    ("norm matching", names.AGGREGATE),
    (DIFFERENCING, names.AGGREGATE),
    ("membership", names.PRIVATE),
)


def opened_published(path: Path, kind: str) -> xr.Dataset | xr.DataTree | None:
    """What can be attacked of a published file: a trace, or class profiles; None of anything else."""
    with suppress(StratoscopeError):  # what cannot be opened is told as a finding
        if kind == inputs.TRACE:
            from stratoscope.trace.read.reader import open_trace

            return open_trace(path)
        if kind == inputs.RESULT:
            from stratoscope.analysis.results.result import open_result

            result = open_result(path)
            return result if result.attrs["kind"] == KIND else None
    return None


def attacked(
    path: Path,
    kind: str,
    level: Level,
    *,
    original: xr.Dataset | None,
    reference: xr.Dataset | None,
    earlier: Sequence[xr.Dataset | xr.DataTree],
    say: Progress,
) -> list[Attacked]:
    """Every attack on a published file, and what its outcome means at a level."""
    published = opened_published(path, kind)
    if published is None:
        return []
    found = attacks_on(published, original=original, reference=reference, earlier=earlier, progress=say)
    return judged(path, level, found)


def judged(path: Path, level: Level, attacks: Iterable[Attack]) -> list[Attacked]:
    """What the outcome of each attack means at a level."""
    return [Attacked(str(path), one, _verdict(one, level)) for one in attacks]


def _verdict(attack: Attack, level: Level) -> Verdict:
    if attack.recovered is None or attack.baseline is None:
        return "did not run"
    if attack.recovered.low <= attack.baseline.high:
        return "not found"
    promised = next((first for name, first in _PROMISED_FROM if attack.name.startswith(name)), None)
    if promised is None or LEVELS.index(level) < LEVELS.index(promised):
        return "as the level says"
    return "found"
