"""How what is written takes its place: made beside its target, made durable, and put there in one stroke.

At every instant the old or the new stands at the target. Beside a target `<name>` may stand, while it is written and
after a program that was killed: `.<name>.new` (a folder that is being made), `.<name>.old` (one that was replaced, or
waits while the new one takes its place), `.<name>.<8 digits>.partial` (a file that is being made) and `<name>.lock`.
The next program that writes there tidies them up, and removes nothing but its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stratoscope.disk import PARTIAL, exchange_paths, is_full, replace_path, sync_file, write_file
from stratoscope.errors import InputError, StratoscopeError

MARK = ".stratoscope-unfinished"  # stands in a folder that is being made or removed, so that it is known to be ours
_OF_THE_DESKTOP = {".DS_Store", "desktop.ini", "Thumbs.db"}  # files that nobody misses
_MODEL = "config.json"  # of a folder that is a model
_ALLOWED = "Choose a folder you may write to."
_PARTIAL_NAME = re.compile(rf"[0-9a-f]{{8}}{re.escape(PARTIAL)}")


# --- folders that are replaced as a whole ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of folder that is made and replaced as a whole.

    Attributes
    ----------
    name
        "trace".
    document
        Path in the folder of the file by which one is known; it is removed after all that it stands for.
    is_one
        Whether a folder is one by what is in it.
    is_part
        Whether a file or folder, named relative to the folder, is part of it; whatever is not is somebody's own.
    error
        What is raised.
    """

    name: str
    document: str
    is_one: Callable[[Path], bool]
    is_part: Callable[[Path, Path], bool]
    error: type[StratoscopeError]


def making(target: Path) -> Path:
    """Folder where a new one is made."""
    return target.with_name(f".{target.name}.new")


def former(target: Path) -> Path:
    """Folder where the one that is replaced waits to be removed, or to be put back."""
    return target.with_name(f".{target.name}.old")


def refuse_without_folder(target: Path, error: type[StratoscopeError]) -> None:
    """Raise when the folder that something is to stand in does not exist: it is likelier misspelt than wanted."""
    if target.parent.is_dir():
        return
    if target.parent.exists():
        raise error("its folder is a file", where=str(target), fix="Choose another place.")
    raise error("its folder does not exist", where=str(target), fix=f"Make {target.parent} first.")


def begin(folder: Path) -> None:
    """Make an empty folder that is known to be ours from the start."""
    folder.mkdir()
    write_file(folder / MARK, b"")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is being made, or was when the program that made it was stopped."""
    return os.path.lexists(folder) and not folder.is_symlink() and (folder / MARK).is_file()  # no OSError of long names


def remove(folder: Path, kind: Kind) -> None:
    """Remove a folder of this kind, or one that was left unfinished; refuse any other."""
    if not os.path.lexists(folder):
        return
    refuse_others(folder, kind)
    if not _is_unfinished_or_empty(folder):
        with suppress(OSError):  # a full disk
            write_file(folder / MARK, b"")  # what a kill leaves of it is removed the next time
    _empty(folder, folder / kind.document)
    folder.rmdir()


def refuse_others(folder: Path, kind: Kind) -> None:
    """Raise when what is there is neither of this kind, nor one that was left unfinished, nor empty."""
    if folder.is_symlink() or not folder.is_dir() or not (_is_unfinished_or_empty(folder) or kind.is_one(folder)):
        raise kind.error(
            f"this is not a {kind.name}, so it is not removed",
            where=str(folder),
            fix="Move it away or choose another output.",
        )


def _empty(folder: Path, document: Path) -> None:
    """Remove what is in a folder; the mark last, before it the document: by either, what is left of it is known."""
    for entry in sorted(folder.iterdir(), key=lambda one: (one.name == MARK, one in (document, *document.parents))):
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif entry in document.parents:
            _empty(entry, document)
            entry.rmdir()
        else:
            shutil.rmtree(entry)


def recover(target: Path, kind: Kind) -> None:
    """Tidy up after a program that was stopped while it wrote there; call it with the lock held."""
    old = former(target)
    if old.exists() and not is_unfinished(old) and kind.is_one(old):
        if not os.path.lexists(target):
            replace_path(old, target)
            sync_file(target.parent)
        elif not kind.is_one(target):
            raise kind.error(
                f"something else is in the place of a {kind.name} that waits as {old.name}",
                where=str(target),
                fix=f"Move it away, or move {old} to where you want it.",
            )
    remove(old, kind)
    remove(making(target), kind)
    if is_unfinished(target) and kind.is_one(target):
        (target / MARK).unlink()


def refuse_absent(target: Path, name: str, error: type[StratoscopeError]) -> None:
    """Raise when nothing is at `target`, but beside it one that waits to be put back."""
    if not target.exists() and former(target.absolute()).exists():
        raise error(
            f"replacing this {name} was interrupted",
            where=str(target),
            fix=f"Run it again, or rename {former(target.absolute())} back.",
        )


def refuse_foreign(target: Path, kind: Kind) -> None:
    """Raise when a folder holds something that is no part of it and that would be lost with it."""
    for path in _inside(target, kind):
        raise kind.error(
            f"there is a {kind.name}, and in it something that is not part of it: {path.relative_to(target)}",
            where=str(target),
            fix="Move that away, or choose another output: it would be lost.",
        )


def take_place(new: Path, target: Path, kind: Kind) -> None:
    """Put a finished folder, durable with all that is in it, at `target`; what was there is removed."""
    if not os.path.lexists(target):
        replace_path(new, target)
    else:
        refuse_foreign(target, kind)
        if not exchange_paths(new, target):
            replace_path(target, former(target))
            replace_path(new, target)
    sync_file(target.parent)
    (target / MARK).unlink(missing_ok=True)
    if new.exists():  # they were exchanged
        replace_path(new, former(target))
    remove(former(target), kind)


def _is_unfinished_or_empty(folder: Path) -> bool:
    return is_unfinished(folder) or not any(folder.iterdir())


def _inside(target: Path, kind: Kind) -> Iterator[Path]:
    """What is in a folder of this kind and not part of it."""
    for folder, folders, files in os.walk(target):
        here = Path(folder).relative_to(target)
        for name in [*files, *(name for name in folders if (Path(folder) / name).is_symlink())]:
            if name not in _OF_THE_DESKTOP and name != MARK and not kind.is_part(target, here / name):
                yield target / here / name


class Lock:
    """Lets one program at a time write a folder: a lock file beside it, which a killed process cannot leave locked.

    Raises
    ------
    StratoscopeError
        Of the kind, when another process (or this one) is writing there, or the folder cannot be written.
    """

    def __init__(self, target: Path, kind: Kind) -> None:
        self.path = target.with_name(target.name + ".lock")
        self._descriptor = self._acquire(target, kind)

    def _acquire(self, target: Path, kind: Kind) -> int:
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                raise kind.error(
                    f"cannot write here ({error.strerror})", where=str(target), fix=how_to_write(error, target)
                ) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise kind.error(
                    f"another process is writing this {kind.name}",
                    where=str(target),
                    fix="Wait until it has finished, or choose another output.",
                ) from None
            if _is_at(descriptor, self.path):
                return descriptor
            os.close(descriptor)  # its holder removed the file between our open and our lock

    def is_ours(self) -> bool:
        """Whether the file is still the one that was locked: without it, another writer would not be refused."""
        return self.held and _is_at(self._descriptor, self.path)

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Remove the lock file and let others write."""
        if self.held:
            if self.is_ours():  # another's is left to it
                with suppress(OSError):  # a file without its lock hinders nobody
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# --- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def new_files(targets: Sequence[Path], *, overwrite: bool) -> Iterator[Iterator[Path]]:
    """Make files beside their targets, where they are put when the block ends well; else nothing is left.

    Each is durable before the first takes its place. While it is made it is locked, so that what a killed program left
    is told from what another one is writing.

    Parameters
    ----------
    targets
        Where the files are to stand.
    overwrite
        Whether what is there by then may be replaced.

    Yields
    ------
    iterator of pathlib.Path
        Empty files, to be written by name, one after the other.

    Raises
    ------
    InputError
        A file came to a target in the meantime and may not be replaced, or the disk refuses.
    OSError
        What the block raises of other files than these.
    """
    made: list[tuple[Path, int]] = []
    in_hand = targets[0]

    def one_after_the_other() -> Iterator[Path]:
        nonlocal in_hand
        for (path, _), target in zip(made, targets, strict=True):
            in_hand = target
            yield path

    try:
        for target in targets:
            with refused(target):
                _remove_leftovers(target)
                made.append(_new_partial(target))
        try:
            yield one_after_the_other()
        except OSError as error:
            ours = {os.fspath(path): target for (path, _), target in zip(made, targets, strict=True)}
            target = ours.get(str(error.filename), in_hand)
            if str(error.filename) in ours or (error.filename is None and is_full(error)):
                raise cannot_write(target, error) from None
            raise
        for (path, _), target in zip(made, targets, strict=True):
            with refused(target):
                sync_file(path)
                if not overwrite and os.path.lexists(target):
                    raise InputError("already exists", where=str(target), fix="Give another name, or --overwrite.")
        for (path, _), target in zip(made, targets, strict=True):
            with refused(target):
                replace_path(path, target)
        for target in {target.parent: target for target in targets}.values():
            with refused(target):
                sync_file(target.parent)
    finally:
        for path, descriptor in made:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def write_whole(target: Path, content: bytes, *, overwrite: bool, check: Callable[[Path], None] | None = None) -> None:
    """Write a file: the old or the new is there, never a part; `check` may refuse the new one before."""
    with new_files([target], overwrite=overwrite) as (path,):
        with refused(target):
            write_file(path, content)
        if check:
            check(path)


@contextmanager
def refused(target: Path) -> Iterator[None]:
    """Tell in one line what the operating system refuses while a file is made or put at `target`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from None


def cannot_write(path: Path, error: OSError) -> InputError:
    """What to raise when the operating system refused."""
    return InputError(f"cannot be written: {error.strerror or error}", where=str(path), fix=how_to_write(error, path))


def how_to_write(error: OSError, path: Path) -> str:
    """What to do where the operating system refused to write `path`."""
    if is_full(error):
        return "Free some space, or write elsewhere."
    return {
        errno.ENOENT: f"Make the folder {path.parent} first.",
        errno.ENOTDIR: "Check the path: a part of it is a file, not a folder.",
        errno.EISDIR: "Give the name of a file: this is a folder.",
        errno.ENAMETOOLONG: "Give a shorter name.",
        errno.EACCES: _ALLOWED,
        errno.EPERM: _ALLOWED,
        errno.EROFS: _ALLOWED,
    }.get(error.errno or 0, "Check the disk, or write elsewhere.")


def refuse_input(out: Path, inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Raise when what is to be written is one of the files it is made of, or is among a model's, by whatever name."""
    for given in inputs:
        with suppress(OSError):
            if _is_of_model(out, Path(given)):
                fix = "Write it elsewhere: a model is never changed."
                raise InputError(f"is among the files of the model ({os.fspath(given)})", where=str(out), fix=fix)
            if out.samefile(given):
                raise InputError(
                    f"is what it would be made of ({os.fspath(given)})", where=str(out), fix="Choose another output."
                )


def _is_of_model(out: Path, folder: Path) -> bool:
    """Whether a path is, or would be, a file of a model's folder; also by a link, as the Hub's cache has them."""
    if not (folder / _MODEL).is_file():
        return False
    return out.parent.resolve() == folder.resolve() or (
        out.exists() and any(out.samefile(one) for one in folder.iterdir() if one.exists())
    )


def _new_partial(target: Path) -> tuple[Path, int]:
    """An empty file beside a target, and the descriptor that keeps it locked."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            ours = _locked(descriptor) and _is_at(descriptor, path)
        except OSError:
            ours = True  # a file system without locks: nobody tidies up there
        if ours:
            return path, descriptor
        os.close(descriptor)  # another program took it for a leftover before it was locked


def _remove_leftovers(target: Path) -> None:
    """Remove the partial files that killed programs left beside a target."""
    begins = f".{target.name}."
    for path in [entry for entry in target.parent.iterdir() if entry.name.startswith(begins)]:
        if not _PARTIAL_NAME.fullmatch(path.name.removeprefix(begins)) or path.is_symlink() or not path.is_file():
            continue
        with suppress(OSError):  # gone by now, or not ours to open
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _locked(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Lock an open file; False where somebody else has, OSError where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
