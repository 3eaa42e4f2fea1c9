"""Everything in a file or folder read and searched, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stratoscope.progress import Progress, silent
from stratoscope.publish import inputs
from stratoscope.publish.audit.outcome import Finding
from stratoscope.publish.audit.search import files as on_disk
from stratoscope.publish.audit.search.claims import Claims
from stratoscope.publish.audit.search.files import kind_of
from stratoscope.publish.audit.search.own_words import without_libraries
from stratoscope.publish.audit.search.search import Search
from stratoscope.publish.audit.search.unpack import Budget, Piece, pieces

NOT_SEARCHED = "what could not be searched"


@dataclass
class Reading:
    """What was seen in one of the files or folders given.

    Attributes
    ----------
    hits
        (kind, file) → each thing that was found, and where it was first.
    """

    root: Path
    kind: str
    files: int = 0
    stored: int = 0
    unpacked: int = 0
    claims: Claims = field(default_factory=Claims)
    hits: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def take(self, file: str, search: Search, piece: Piece) -> None:
        """Search a piece, and keep what is found."""
        for hit in search.hits(piece, self.claims):
            self.hits.setdefault((hit.kind, file), {}).setdefault(hit.shown, hit.where)


def read(root: Path, search: Search, say: Progress = silent) -> Reading:
    """Look at everything in a file or folder."""
    entries = list(on_disk.files_in(root))
    there = [one for one in entries if isinstance(one, on_disk.Found)]
    seen = Reading(root, kind_of(root), len(there), sum(one.size for one in there))
    seen.findings += [one for one in entries if isinstance(one, Finding)]
    budget = Budget.of_files(seen.stored)
    names_of_files = "\n".join(one.name for one in there).encode("utf-8", "surrogateescape")
    seen.take(root.name, search, Piece(f"{root.name}: names of files", names_of_files))
    done = 0
    for one in there:
        say(f"searching {root.name}", done, seen.stored)
        done += one.size
        try:
            with on_disk.opened(one) as parts:
                for start, data in parts:
                    place = f"{one.name} from byte {start:,}" if start else one.name
                    known = without_libraries(data) if kind_of(one.path) == inputs.PAGE else data
                    for piece in pieces(place, known, budget):
                        seen.take(one.name, search, piece)
        except OSError as error:
            what = error.strerror or str(error)
            seen.findings.append(Finding(on_disk.UNREADABLE, what, str(one.path), "Make it readable, and audit again."))
    say(f"searching {root.name}", seen.stored, seen.stored)
    seen.unpacked = budget.unpacked
    fix = "Share nothing of which you do not know what is in it."
    seen.findings += [Finding(NOT_SEARCHED, why, where, fix) for where, why in budget.unopened]
    return seen
