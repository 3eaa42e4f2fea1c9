"""The verb `audit`: a written file opened as a stranger would, never the plan by which it was written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stratoscope import defaults, names
from stratoscope.errors import InputError, refuse_unknown
from stratoscope.names import LEVELS, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish import inputs
from stratoscope.publish.audit import files as on_disk
from stratoscope.publish.audit.allowed import kind_of, unlisted
from stratoscope.publish.audit.claims import Claims
from stratoscope.publish.audit.needles import GONE_AT, Needles, of_original
from stratoscope.publish.audit.outcome import Audit, Audited, Finding, Looked
from stratoscope.publish.audit.own_words import OwnWords, without_libraries
from stratoscope.publish.audit.patterns import IDENTIFIERS, PATTERNS
from stratoscope.publish.audit.search import Search, add_machine
from stratoscope.publish.audit.unpack import Budget, Piece, pieces
from stratoscope.words import listed, quoted

NO_LEVEL, TWO_LEVELS, NOT_SEARCHED = "no level", "two levels", "what could not be searched"
_AGAIN = "Do not share it: publish the original again, at this level or a stricter one."
_EXAMPLES = 4  # of what was found that are shown


def audit(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    original: str | os.PathLike[str] | None = None,
    level: Level | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Open published files as a stranger would, and look for what their level does not allow.

    Every byte is searched, also of what is packed or encoded in a file, and of what no reader opens. What is not found
    may be there all the same, spelt in a way that is not looked for.

    Parameters
    ----------
    files
        What was published: a trace, a Result, a table, a picture, a page, or a folder with any of them.
    original
        The trace or CSV file that it was made of: its texts, ids and numbers are searched for. Without it only the
        forms of paths, names, addresses, keys, times and identifiers are.
    level
        Hold the files against this level, whatever they say; by default against what each says of itself.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    Audit
        What was opened, what was looked for, and what was found.

    Raises
    ------
    InputError
        A file does not exist, or is neither a file nor a folder.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate("mine.trace", prompts=4, layers=3)
    >>> sorted({one.kind for one in stratoscope.audit("mine.trace").findings})
    ['no level', 'times', 'what its level does not list']
    >>> done = stratoscope.publish("mine.trace", "public.trace", level="no-text")
    >>> stratoscope.audit("public.trace", original="mine.trace").last_line
    'Not found by these attacks.'
    """
    if level is not None:
        refuse_unknown(level, LEVELS, "level")
    roots = [Path(one) for one in ([files] if isinstance(files, str | os.PathLike) else files)]
    if not roots:
        raise InputError("nothing is given", fix="Give what was published.")
    needles = _needles(original)
    search, say = Search(needles), progress or silent
    seen = [_search(root, search, say) for root in roots]
    judged = [_Judged(one, level) for one in seen]
    return Audit(
        tuple(one.audited for one in judged),
        tuple(_looked(needles, judged)),
        tuple(finding for one in judged for finding in one.findings()),
    )


def _needles(original: str | os.PathLike[str] | None) -> Needles:
    own = OwnWords()
    if original is None:
        needles = Needles()
    else:
        from stratoscope.trace.opened import opened

        needles = of_original(opened(original), own)
    add_machine(needles, own)
    return needles


@dataclass
class _Seen:
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


def _search(root: Path, search: Search, say: Progress) -> _Seen:
    """Look at everything in a file or folder."""
    entries = list(on_disk.files_in(root))
    there = [one for one in entries if isinstance(one, on_disk.Found)]
    seen = _Seen(root, kind_of(root), len(there), sum(one.size for one in there))
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


class _Judged:
    """What was seen, held against a level."""

    def __init__(self, seen: _Seen, level: Level | None) -> None:
        self.seen = seen
        self.level = level or seen.claims.level or defaults.LEVEL
        self.audited = Audited(
            str(seen.root), seen.kind, self.level, bool(seen.claims.levels), seen.files, seen.stored, seen.unpacked
        )

    def allows(self, kind: str, shown: str) -> bool:
        """Whether the level keeps such a thing."""
        if kind == IDENTIFIERS and shown in self.seen.claims.identities:
            return True
        gone_at = GONE_AT.get(kind, names.PROVENANCE)
        return LEVELS.index(self.level) < LEVELS.index(gone_at)

    def findings(self) -> list[Finding]:
        """What should not be there."""
        wrong = unlisted(self.seen.root, self.seen.kind, self.level)
        return [*self._of_claims(), *wrong, *self.seen.findings, *self._of_hits()]

    def _of_claims(self) -> list[Finding]:
        levels, root = self.seen.claims.levels, str(self.seen.root)
        if len(levels) > 1:
            said = listed(sorted(levels, key=LEVELS.index))
            return [Finding(TWO_LEVELS, f"parts of it say different levels: {said}", root, _AGAIN)]
        if levels or self.seen.kind == inputs.CSV:  # which has no place for it
            return []
        fix = f"Publish it: stratoscope publish {root} --level {self.level}."
        return [Finding(NO_LEVEL, "it says no level: nothing published it", root, fix)]

    def _of_hits(self) -> list[Finding]:
        found = []
        for (kind, _), things in self.seen.hits.items():
            wrong = [shown for shown in things if not self.allows(kind, shown)]
            if wrong:
                some = ", ".join(quoted(one) for one in wrong[:_EXAMPLES])
                more = f", … ({len(wrong):,} in all)" if len(wrong) > _EXAMPLES else ""
                found.append(Finding(kind, f"{some}{more}", things[wrong[0]], _AGAIN))
        return found


def _looked(needles: Needles, judged: Sequence[_Judged]) -> list[Looked]:
    """Each kind of thing that was looked for, and how many were there."""
    kinds = {**needles.sought, **dict.fromkeys(one.kind for one in PATTERNS)}
    rows = []
    for kind, sought in kinds.items():
        there = [
            (one.allows(kind, shown), shown)
            for one in judged
            for (other, _), things in one.seen.hits.items()
            if other == kind
            for shown in things
        ]
        wrong = {shown for allowed, shown in there if not allowed}
        rows.append(
            Looked(kind, sought, needles.too_short[kind], len(wrong), len({shown for _, shown in there} - wrong))
        )
    return rows
