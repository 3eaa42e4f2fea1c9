"""The command `audit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress
from stratoscope.errors import UsageError
from stratoscope.names import Level
from stratoscope.words import percent, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stratoscope.progress import Progress
    from stratoscope.publish.attacks.outcome import Attack, Share
    from stratoscope.publish.audit.outcome import Attacked, Audit, Finding

FOUND = 3  # exit status where something was found
_MOST_ROWS = 20  # findings of one kind that are printed

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="What was published: files, or folders.")]
Original = Annotated[
    Path | None,
    typer.Option(
        "--original",
        metavar="TRACE",
        help="The trace or CSV file that it was made of: its texts, ids and numbers are searched for.",
    ),
]
Others = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        metavar="TRACE",
        help="A trace of other prompts, recorded with the same model: with it an attacker looks up tokens and members.",
    ),
]
Earlier = Annotated[
    list[Path] | None,
    typer.Option(
        "--earlier", metavar="FILE", help="What was published before of perhaps the same prompts; repeatable."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The model: it is run over its vocabulary to match published norms, of "
        f"{defaults.ATTACK_TOKENS} tokens, some 16 s each. Give --original too.",
    ),
]
HeldAgainst = Annotated[
    Level | None,
    typer.Option("--level", help="Hold the files against this level; by default against what each says of itself."),
]

Canary = Annotated[
    bool,
    typer.Option(
        "--canary",
        help="Put 100 markers into a copy of the original, publish that as every kind of input, and look for them in "
        "what comes out.",
    ),
]


def audit(
    files: Files,
    original: Original = None,
    reference: Others = None,
    earlier: Earlier = None,
    model: Model = None,
    level: HeldAgainst = None,
    canary: Canary = False,
    as_json: options.Json = False,
) -> None:
    """Look for what published files still tell.

    It opens them as a stranger would and searches every byte, also of what is packed in a file, for what their level
    does not allow. It ends with status 3 where something is found.
    """
    asked = options.given(locals(), "as_json", "model")
    if model and original is None:
        raise UsageError("needs the original", where="--model", fix="Name it with --original.")
    with progress() as show:
        done = stratoscope.audit(**asked, progress=show)
        if model and original:
            done = replace(done, attacks=(*done.attacks, *_by_norms(done, original, model, show)))
    if as_json:
        console.tell_json(done.to_json())
    else:
        _tell(done)
    if done.found:
        raise typer.Exit(FOUND)


def _tell(done: Audit) -> None:
    """Print what was opened and looked for, what was found, and what it comes to."""
    from stratoscope.doors.tables import table, terminal_width

    width = terminal_width()
    opened = [
        (one.path, one.kind or "not known", f"{one.level}{'' if one.claims else ' (not said)'}", f"{one.files:,}",
         size_text(one.stored), size_text(one.unpacked))
        for one in done.audited
    ]  # fmt: skip
    numbers = ("files", "bytes", "unpacked")
    console.tell_text(table(("opened", "is", "level", *numbers), opened, right=numbers, width=width))
    looked = [
        (one.kind, "any" if one.sought is None else f"{one.sought:,}", f"{one.too_short:,}", f"{one.allowed:,}",
         f"{one.found:,}")
        for one in done.looked
    ]  # fmt: skip
    counts = ("different", "not telling", "allowed", "found")
    console.tell_text("\n" + table(("looked for", *counts), looked, right=counts, width=width))
    if done.canaries:
        tried = [
            (one.kind, f"{one.planted}", f"{one.found}", f"{one.kept}", f"{len(one.left)}", one.refused or "published")
            for one in done.canaries
        ]
        counts = ("markers", "found left in", "kept by the level", "came through")
        console.tell_text("\n" + table(("canaries", *counts, "what publish said"), tried, right=counts, width=width))
    if done.attacks:
        console.tell_text("\n" + table(*attack_rows(done.attacks), right=(), width=width))
    if rows := _finding_rows(done.findings):
        console.tell_text("\n" + table(("found", "what", "where", "what to do"), rows, right=(), width=width))
    console.tell_text("")
    if left := left_open(done.attacks):
        console.tell(left)
    console.tell(done.last_line)


def left_open(attacks: Sequence[Attacked]) -> str:
    """What was recovered although nothing is "found", since the level promises nothing against it; "" = nothing."""
    said = [f"{one.attack.name} {_share(one.attack.recovered, one.attack)}" for one in attacks
            if one.verdict == "as the level says" and one.attack.recovered is not None]  # fmt: skip
    return f"Recovered all the same, which the level does not promise against: {'; '.join(said)}." if said else ""


def _share(share: Share, attack: Attack) -> str:
    """A share in words; of membership the area under the ROC curve, which is no share of prompts."""
    return percent(share.value) if attack.at_one_percent is None else f"AUC {share.value:.2f}"


def _finding_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """A row for each finding; of a kind that is there very often the first, and how many more."""
    by_kind: dict[str, list[Finding]] = {}
    for one in findings:
        by_kind.setdefault(one.kind, []).append(one)
    rows = []
    for kind, some in by_kind.items():
        rows += [(kind, one.what, one.where, one.fix) for one in some[:_MOST_ROWS]]
        if len(some) > _MOST_ROWS:
            rows.append((kind, f"… and {len(some) - _MOST_ROWS:,} more", "", "--json lists them all."))
    return rows


def _by_norms(done: Audit, original: Path, model: str, show: Progress) -> Iterator[Attacked]:
    """Norm matching on every audited file that holds numbers: `publish` does not run models."""
    from stratoscope.doors.norm_attack import norm_attack
    from stratoscope.publish.audit.attacked import judged, opened_published
    from stratoscope.trace.opened import opened

    trace = opened(original)
    for one in done.audited:
        path = Path(one.path)
        if (published := opened_published(path, one.kind)) is not None:
            yield from judged(path, one.level, [norm_attack(published, trace, model, progress=show)])


def attack_rows(attacks: Sequence[Attacked]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns and the rows of a table of attacks: what each recovered beside the best guess without the file."""
    rows: list[tuple[str, ...]] = []
    for one in attacks:
        attack = one.attack
        if attack.recovered is None or attack.baseline is None:
            rows.append((attack.name, "", "", "", f"{one.verdict}: {attack.reason}"))
            continue
        recovered, guess = (_interval(share, attack) for share in (attack.recovered, attack.baseline))
        rows.append((attack.name, f"{attack.count:,} {attack.unit}", recovered, guess, one.verdict))
    columns = ("attack", "of", "recovered", "without the file", "verdict")
    if len({one.path for one in attacks}) < 2:
        return columns, rows
    return ("on", *columns), [(one.path, *row) for one, row in zip(attacks, rows, strict=True)]


def _interval(share: Share, attack: Attack) -> str:
    """A share with its interval, as `_share` says it."""
    if attack.at_one_percent is not None:
        return f"{_share(share, attack)} ({share.low:.2f} to {share.high:.2f})"
    return f"{_share(share, attack)} ({percent(share.low)} to {percent(share.high)})"
