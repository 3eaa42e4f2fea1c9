"""What was published of which prompts, kept beside the original: two publications of one prompt give away more.

`<name>.published.jsonl` holds a secret key in its first line, then a line for each publication. A prompt is kept as
digests under that key: whoever has the file can test whether a prompt was published, so that only its owner may read
it. A line is durable before what it tells of appears: a program that is killed in between counts one too many.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from stratoscope import names
from stratoscope.disk import write_file
from stratoscope.errors import InputError, ascii_json
from stratoscope.publish.ledger.overlap import Entry, Overlap, Published, costs, overlap
from stratoscope.publish.ledger.prompt_keys import Contents, keyed
from stratoscope.replacing import Kind, Lock, new_files, refused
from stratoscope.trace.format import strict_json
from stratoscope.trace.opened import input_name
from stratoscope.words import agreeing, counted

ENDING = ".published.jsonl"
FORMAT, FORMAT_VERSION = "stratoscope-published", "1.0"
_KEY_BYTES = 32
_KIND = Kind("list of publications", "", lambda _: False, lambda *_: False, InputError)


@dataclass(frozen=True)
class Ledger:
    """The publications of one original. Those of its neighbours in the folder are looked up too.

    Attributes
    ----------
    path
        Its file, which need not be there.
    folders
        Where ledgers are looked up too: of originals that are published together with this one.

    Examples
    --------
    >>> import stratoscope, tempfile
    >>> from stratoscope.publish.ledger.prompt_keys import prompt_contents
    >>> prompts = prompt_contents(stratoscope.simulate(prompts=4, layers=2))
    >>> ledger = Ledger.beside(Path(tempfile.mkdtemp(), "words.trace"))
    >>> going = Published("aggregate", ("mlp_write_ratio",))
    >>> ledger.record(going, prompts[:3])
    ()
    >>> ledger.check(going, prompts, allow_overlap=True)
    ('The two together give the mean of 1 prompt exactly, to about 1e-6.',)
    """

    path: Path
    folders: tuple[Path, ...] = ()

    @classmethod
    def beside(cls, original: Path, folders: tuple[Path, ...] = ()) -> Ledger:
        """The ledger of a trace or of a CSV file."""
        path = original.resolve()
        return cls(path.with_name(input_name(path) + ENDING), folders)

    def check(self, going: Published, contents: Sequence[Contents], *, allow_overlap: bool = False) -> tuple[str, ...]:
        """Refuse to publish prompts again where the two together give away more than either promises.

        Parameters
        ----------
        going
            What is to be published.
        contents
            Its prompts, as `prompt_contents` gives them.
        allow_overlap
            Only say what it costs.

        Returns
        -------
        tuple of str
            What it costs, in sentences; none where no promise is broken.

        Raises
        ------
        InputError
            Some were published before, or a ledger in the folder is damaged.
        """
        overlaps = [one for one in self._overlaps(contents) if one.matters(going.level)]
        told = costs(going, overlaps)
        if not overlaps or allow_overlap:
            return told
        most = max(overlaps, key=lambda one: one.count)
        others = f", and some in {counted(len(overlaps) - 1, 'other publication')}" if len(overlaps) > 1 else ""
        was = agreeing(most.count, "was", "were")
        raise InputError(
            f"{most.count:,} of these {counted(len(contents), 'prompt')} {was} published {most.name}{others}",
            where=str(most.path),
            fix="Publish other prompts; what belongs together, in one command. --allow-overlap publishes all the same, "
            f"at this cost: {' '.join(told[:2])}",
        )

    def record(self, going: Published, contents: Sequence[Contents], *, allow_overlap: bool = False) -> tuple[str, ...]:
        """Check as `check` does, and write down what is about to appear: call it before it does."""
        with Lock(self.path.with_name(ENDING), _KIND):  # one a folder: while one publishes, no neighbour does
            told = self.check(going, contents, allow_overlap=allow_overlap)
            key, entries = _read(self.path) if self.path.exists() else (secrets.token_bytes(_KEY_BYTES), [])
            entries.append(Entry(going, date.today().isoformat(), tuple(keyed(contents, key))))
            with new_files([self.path], overwrite=True) as (path,), refused(self.path):
                path.chmod(0o600)
                write_file(path, _text(key, entries))
        return told

    def _overlaps(self, contents: Sequence[Contents]) -> list[Overlap]:
        """All publications of any ledger in the folder: a trace, its parts and their CSV files have one each."""
        found = []
        folders = sorted({self.path.parent, *self.folders})
        for path in (one for folder in folders for one in sorted(folder.glob(f"*{ENDING}"))):
            key, entries = _read(path)
            prompts = keyed(contents, key)
            found += [overlap(path, line, entry, prompts) for line, entry in enumerate(entries, start=2)]
        return found


def _text(key: bytes, entries: Sequence[Entry]) -> bytes:
    """The content of a ledger."""
    first = {"format": FORMAT, "format_version": FORMAT_VERSION, "key": key.hex()}
    lines = [
        {**asdict(one.published), "day": one.day, "prompts": [sorted(keys) for keys in one.prompts]} for one in entries
    ]
    return "".join(f"{ascii_json(line)}\n" for line in (first, *lines)).encode("ascii")


def _read(path: Path) -> tuple[bytes, list[Entry]]:
    """The key and the entries of a ledger.

    Raises
    ------
    InputError
        It is damaged, so that nobody knows what was published; also where only its last line is torn.
    """
    line = 1
    if path.exists() and not path.is_file():  # a pipe would never end
        raise InputError("is no list of publications", where=str(path), fix="Move it elsewhere.")
    try:
        first, *rest = path.read_bytes().splitlines(keepends=True)
        head = strict_json.load(first)
        key = bytes.fromhex(head["key"])
        if (head["format"], head["format_version"], len(key)) != (FORMAT, FORMAT_VERSION, _KEY_BYTES):
            raise ValueError
        entries = []
        for text in rest:
            line += 1
            entries.append(_entry(text))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="Make it readable to you.") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        fix = "Bring it back from a backup. If you move it away, what was published before is no longer known."
        raise InputError(f"this list of publications is damaged in line {line}", where=str(path), fix=fix) from None
    return key, entries


def _entry(line: bytes) -> Entry:
    """What a line says; ValueError, KeyError, TypeError or OverflowError where it is none, or no whole one."""
    row = strict_json.load(line)
    if not line.endswith(b"\n"):
        raise ValueError
    level, spent = row["level"], [row["epsilon"], row["delta"]]
    if level not in names.LEVELS or any(type(one) not in (int, float) or one < 0 for one in spent):
        raise ValueError
    prompts = tuple(frozenset(bytes.fromhex(key).hex() for key in keys) for keys in row["prompts"])
    if not prompts or not all(prompts):
        raise ValueError
    published = Published(level, tuple(map(str, row["fields"])), *map(float, spent))
    return Entry(published, date.fromisoformat(row["day"]).isoformat(), prompts)
