"""The proof by canaries: markers that are found where they are left in must not be found in what is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.names import LEVELS, Level
from stratoscope.progress import Progress
from stratoscope.publish.audit.canary.inputs import Input, inputs_of
from stratoscope.publish.audit.canary.markers import GIVEN, Canaries
from stratoscope.publish.audit.outcome import Canary
from stratoscope.publish.audit.search.needles import GONE_AT
from stratoscope.publish.audit.search.reading import read
from stratoscope.publish.audit.search.search import Search
from stratoscope.publish.levels import OF_MEANS

if TYPE_CHECKING:
    import xarray as xr

_SEED = 4711
_DRAWN = (*names.PICTURES, ".html")  # what publishing draws anew of its trace


def canaries(original: xr.Dataset, level: Level, say: Progress) -> Iterator[Canary]:
    """Publish a copy with markers in it, as every kind of input, and look for them in what comes out.

    Parameters
    ----------
    original
        A trace or CSV file as it is opened; it is only read.
    level
        At which the copy is published.
    say
        Called with (stage, done, total or None).
    """
    from stratoscope.trace.write.from_dataset import write_dataset

    markers = Canaries.drawn(_SEED)
    search = Search(markers.needles)
    with TemporaryDirectory(prefix="stratoscope-") as folder:
        trace = Path(folder, "marked.trace")
        planted = markers.planted(original)
        write_dataset(planted, trace)
        for number, one in enumerate(inputs_of(planted, trace, Path(folder), markers)):
            say(f"canaries: {one.kind}", number, None)
            yield _tried(one, trace, level, search, markers)


def _tried(one: Input, trace: Path, level: Level, search: Search, markers: Canaries) -> Canary:
    """One kind of input, published and searched."""
    if one.missing:
        return Canary(one.kind, level, 0, 0, 0, (), f"cannot be made of this trace: {one.missing}")
    before = _found(one.path, search, markers)
    out = one.path.with_name(f"public-{one.path.name}")
    refused = ""
    for path in dict.fromkeys((one.path, one.plain)):
        try:
            made = _published(path, out, level, trace)
        except StratoscopeError as error:
            refused = refused or error.what
        else:
            break
    else:
        return Canary(one.kind, level, len(markers.all), len(before), 0, (), f"refused: {refused}")
    after = _found(made, search, markers)
    kept = {shown for shown, kind in after.items() if _keeps(level, kind)}
    said = f"published without what was put into the file itself, which {refused}" if refused else ""
    return Canary(one.kind, level, len(markers.all), len(before), len(kept), tuple(sorted(set(after) - kept)), said)


def _keeps(level: Level, kind: str) -> bool:
    """Whether a level keeps what such a marker stands for."""
    gone_at = GONE_AT.get(kind, names.NO_TEXT if kind == GIVEN else names.PROVENANCE)
    return LEVELS.index(level) < LEVELS.index(gone_at)


def _published(path: Path, out: Path, level: Level, trace: Path) -> Path:
    """Where the publication of an input is: by the verb that everybody uses."""
    from stratoscope.publish.publish import publish

    if path.suffix == ".csv" and level in OF_MEANS:
        out = out.with_suffix("")
    drawn_of = trace if path.suffix in _DRAWN else None
    return publish(path, out, level=level, trace=drawn_of, allow_overlap=True).out


def _found(path: Path, search: Search, markers: Canaries) -> dict[str, str]:
    """Each marker that is in a file or folder, and its kind."""
    known = {one: kind for kind, some in markers.of_kind.items() for one in some}
    hits = {shown for things in read(path, search).hits.values() for shown in things}
    return {shown: known[shown] for shown in sorted(hits & known.keys())}
