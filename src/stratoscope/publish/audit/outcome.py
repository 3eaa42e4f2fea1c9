"""What an audit found: each leak with its place and what to do, what was looked for, and the last line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from stratoscope.names import Level
from stratoscope.publish.attacks.outcome import Attack
from stratoscope.words import counted

NOT_FOUND = "Not found by these attacks."


@dataclass(frozen=True)
class Finding:
    """Something that the level of a file does not allow, or that could not be looked at.

    Attributes
    ----------
    kind
        What it is a case of: "rare words of the prompts", "links", …
    what
        What was found.
    where
        The file, and the place in it.
    fix
        What to do about it.
    """

    kind: str
    what: str
    where: str
    fix: str


@dataclass(frozen=True)
class Looked:
    """One kind of thing that was looked for in every byte.

    Attributes
    ----------
    kind
        "rare words of the prompts", "e-mail addresses", …
    sought
        How many different ones; None = a form, of which there are any number.
    too_short
        How many of the original are too short or too common to tell anything, and were left out.
    found
        How many of them are there.
    allowed
        How many of those the level allows.
    """

    kind: str
    sought: int | None
    too_short: int
    found: int
    allowed: int


@dataclass(frozen=True)
class Audited:
    """One file or folder that was opened.

    Attributes
    ----------
    path
        As it was given.
    kind
        "trace", "result", "picture", …; "" = nothing that Stratoscope writes.
    level
        The level that it says it keeps to, or that it was held against.
    claims
        Whether it says so itself.
    files, stored, unpacked
        Files in it, their bytes, and the bytes that were packed in them.
    """

    path: str
    kind: str
    level: Level
    claims: bool
    files: int
    stored: int
    unpacked: int


@dataclass(frozen=True)
class Canary:
    """What became of the markers in one kind of input.

    Attributes
    ----------
    kind
        "trace", "CSV", "PNG", …
    level
        At which it was published.
    planted
        How many markers were put into it.
    found
        How many of them the search finds where they are left in: all, or it proves nothing.
    kept
        How many the level keeps: at provenance, those in texts and names.
    left
        Those that are in what was published and should not be.
    refused
        Why nothing was published of it, or only without what was put into the file itself; "" = it was.
    """

    kind: str
    level: Level
    planted: int
    found: int
    kept: int
    left: tuple[str, ...]
    refused: str


Verdict = Literal["did not run", "not found", "as the level says", "found"]


@dataclass(frozen=True)
class Attacked:
    """An attack on one of the files, and what its outcome means at the file's level.

    Attributes
    ----------
    path
        The file or folder.
    attack
        What was recovered, and the best guess without the file.
    verdict
        "found": more than by the best guess without the file, and the level promises against it.
    """

    path: str
    attack: Attack
    verdict: Verdict


@dataclass(frozen=True)
class Audit:
    """What was opened, what was looked for and what was found.

    Attributes
    ----------
    audited
        The files and folders.
    looked
        What was looked for.
    findings
        What should not be there.
    canaries
        What became of markers; none where none were asked for.
    attacks
        What the attacks recovered, those that could not run with the reason.
    """

    audited: tuple[Audited, ...]
    looked: tuple[Looked, ...]
    findings: tuple[Finding, ...]
    canaries: tuple[Canary, ...] = ()
    attacks: tuple[Attacked, ...] = ()

    @property
    def found(self) -> bool:
        """Whether something is there that should not be, or was recovered though the level promises against it."""
        return bool(self.findings or self.successes)

    @property
    def successes(self) -> list[str]:
        """The attacks that find what the level promises they do not."""
        return [one.attack.name for one in self.attacks if one.verdict == "found"]

    @property
    def last_line(self) -> str:
        """What it comes to; never that a file is safe."""
        if not self.found:
            return NOT_FOUND
        kinds = dict.fromkeys(one.kind for one in self.findings)
        said = (
            [f"{counted(len(self.findings), 'thing')} that should not be there ({', '.join(kinds)})"] if kinds else []
        )
        said += [f"more than by guessing, by {', '.join(dict.fromkeys(self.successes))}"] if self.successes else []
        return f"Found: {'; '.join(said)}."

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "found": self.found, "last_line": self.last_line}
