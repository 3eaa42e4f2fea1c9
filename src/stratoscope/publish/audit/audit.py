"""The verb `audit`: a written file opened as a stranger would, never the plan by which it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.names import LEVELS, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish import inputs
from stratoscope.publish.audit.allowed.allowed import unlisted
from stratoscope.publish.audit.attacked import attacked, opened_published
from stratoscope.publish.audit.canary.canary import canaries
from stratoscope.publish.audit.outcome import Attacked, Audit, Audited, Canary, Finding, Looked
from stratoscope.publish.audit.search.files import kind_of
from stratoscope.publish.audit.search.needles import GONE_AT, Needles, of_original
from stratoscope.publish.audit.search.own_words import own_words
from stratoscope.publish.audit.search.reading import Reading, read
from stratoscope.publish.audit.search.search import Search, add_machine
from stratoscope.publish.patterns import IDENTIFIERS, PATTERNS
from stratoscope.trace.opened import opened
from stratoscope.words import counted, listed, quoted

if TYPE_CHECKING:
    import xarray as xr

CANARIES = "canaries"
NO_LEVEL, TWO_LEVELS = "no level", "two levels"
_AGAIN = "Do not share it: publish the original again, at this level or a stricter one."
_EXAMPLES = 4  # of what was found that are shown


def audit(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    original: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    earlier: Sequence[str | os.PathLike[str]] | None = None,
    level: Level | None = None,
    canary: bool = False,
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
    reference
        A trace of other prompts, recorded with the same model: what an attacker may have. With the original, tokens are
        looked up in it and members told from others.
    earlier
        What was published before of prompts that may be the same: it is compared with this.
    level
        Hold the files against this level, whatever they say; by default against what each says of itself.
    canary
        Put 100 markers into a copy of the original, publish that at the same level as every kind of input, and look for
        them in what comes out.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    Audit
        What was opened, what was looked for, and what was found.

    Raises
    ------
    InputError
        A file does not exist, or is neither a file nor a folder; the reference is the original.

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
    if canary and original is None:
        raise UsageError("needs the original", where="canary", fix="Name it with --original.")
    opened_original = None if original is None else opened(original)
    others = None if reference is None else opened(reference)
    if opened_original is not None and others is not None and _same(opened_original, others):
        fix = "Give a trace of the same model and other prompts: with the same ones every attack would look stronger."
        raise InputError("is the original itself", where="reference", fix=fix)
    needles = _needles(opened_original)
    search, say = Search(needles), progress or silent
    seen = [read(root, search, say) for root in roots]
    judged = [_Judged(one, level) for one in seen]
    levels = dict.fromkeys(one.level for one in judged)
    marked = opened_original if canary else None
    tried = [] if marked is None else [one for level in levels for one in canaries(marked, level, say)]
    attacks = _attacks(judged, opened_original, others, earlier or (), say)
    findings = [finding for one in judged for finding in one.findings()]
    return Audit(
        tuple(one.audited for one in judged),
        tuple(_looked(needles, judged)),
        (*findings, *_of_canaries(tried)),
        tuple(tried),
        tuple(attacks),
    )


def _attacks(
    judged: Sequence[_Judged],
    original: xr.Dataset | None,
    reference: xr.Dataset | None,
    earlier: Sequence[str | os.PathLike[str]],
    say: Progress,
) -> list[Attacked]:
    """Every attack on every file that holds numbers, with what the attacker has."""
    before = [found for one in map(Path, earlier) if (found := opened_published(one, kind_of(one))) is not None]
    return [
        row
        for one in judged
        for row in attacked(
            one.seen.root, one.seen.kind, one.level, original=original, reference=reference, earlier=before, say=say
        )
    ]


def _same(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether both are one recording; CSV files say nothing of it."""
    return bool(one.attrs.get("uuid")) and one.attrs["uuid"] == other.attrs.get("uuid")


def _needles(original: xr.Dataset | None) -> Needles:
    own = own_words()
    needles = Needles() if original is None else of_original(original, own)
    add_machine(needles, own)
    return needles


def _of_canaries(tried: Sequence[Canary]) -> Iterator[Finding]:
    """What markers show: that some came through, or that the search does not find its own."""
    for one in tried:
        where = f"{one.kind} at {one.level}"
        if one.left:
            what = f"{counted(len(one.left), 'marker')} came through: {listed(map(quoted, one.left), _EXAMPLES)}"
            yield Finding(CANARIES, what, where, "Share nothing of this kind, and report it: publishing is broken.")
        if one.found < one.planted:
            what = f"the search finds {one.found} of {one.planted} markers where they are left in"
            yield Finding(CANARIES, what, where, "Do not rely on the search of such files, and report it.")


class _Judged:
    """What was seen, held against a level."""

    def __init__(self, seen: Reading, level: Level | None) -> None:
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
