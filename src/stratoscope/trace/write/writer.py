"""The committed writer: whole prompts in, a trace that is whole at every moment out."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr

from stratoscope import defaults, names
from stratoscope.disk import is_full
from stratoscope.errors import TraceError
from stratoscope.names import ROW
from stratoscope.trace.format import place, schema
from stratoscope.trace.format.attributes import software, to_json
from stratoscope.trace.format.checksums import by_place
from stratoscope.trace.format.document import check_files, read_document, remove_leftovers
from stratoscope.trace.format.part import recording_digest
from stratoscope.trace.format.schema import COMPLETE, RECORDING, RECORDING_DIGEST, Block
from stratoscope.trace.read.reader import read_back, reading
from stratoscope.trace.write import resume
from stratoscope.trace.write.block import BlockPlan, Prepared, Totals
from stratoscope.trace.write.column import Column
from stratoscope.trace.write.row_stream import RowStream, close_all
from stratoscope.trace.write.store import StagingStore
from stratoscope.trace.write.uninterrupted import uninterrupted

_MOST_OPEN_FILES = 32  # of streamed arrays: a process may have some hundreds


class TraceWriter:
    """Records a trace; use it as a context manager.

    The trace appears at `path` with its first commit, complete or not. Where it is to replace another one, it does so
    only when it is complete and has been opened again; until then it can be resumed from where it waits beside it.
    Leaving the `with` block, for whatever reason, commits the whole prompts appended so far; only `finish` makes the
    trace complete.

    Parameters
    ----------
    path
        The trace directory.
    attrs
        Attributes of the root group (docs/format.md); `source` is needed. Anything JSON can hold.
    layers
        Block numbers of the `layer` axis.
    sizes
        Lengths of the other fixed dimensions that the variables use: `head`, `peak`, `neuron`, `opener` (and `depth`
        unless it is len(layers) + 1).
    variables
        Names of `names.QUANTITIES` and `schema.MAYBE_TOKEN_COORDS`; every block must hold them all.
    streams
        Names of streamed quantities, with their dtype ("bfloat16" is one): their rows are written with `stream`.
    fixed
        Further ones that do not grow with the prompts (`floor_*`), with their values.
    row_columns
        Original names of the extra text columns of an import, `column_0`, ….
    overwrite, resume
        Replace a trace that is there, or go on after its last commit.
    at_once
        The trace appears at `path` only when it is complete.
    commit_seconds
        About how often to commit; longer where commits would take more than `defaults.COMMIT_SHARE` of the time.

    Attributes
    ----------
    committed_prompts : int
        How many are safe on disk: a resumed recording goes on after them.
    complete : bool
        Whether the trace is finished.

    Raises
    ------
    TraceError
        When the output is occupied, locked, cannot be written, or resuming would mix two recordings.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        attrs: Mapping[str, Any],
        layers: Sequence[int],
        sizes: Mapping[str, int],
        variables: Sequence[str],
        streams: Mapping[str, str] | None = None,
        fixed: Mapping[str, np.ndarray] | None = None,
        row_columns: Sequence[str] = (),
        overwrite: bool = False,
        resume: bool = False,
        at_once: bool = False,
        commit_seconds: float = defaults.COMMIT_SECONDS,
    ) -> None:
        self.path = Path(path).resolve()  # through a link, the trace it leads to
        self._plan = BlockPlan.of(
            layers, sizes, variables, row_columns, source=attrs["source"], fixed=fixed or {}, streams=streams or {}
        )
        self._streams: dict[str, RowStream] = {}
        self._at_once = at_once
        self._commit_seconds = commit_seconds
        self._commit_cost = 0.0
        self._usable = True
        self._pending: list[Prepared] = []
        place.refuse_without_parent(self.path)
        self._lock = place.Lock(self.path, place.TRACE)
        try:
            with _disk_errors(self.path):
                place.recover(self.path, overwrite=overwrite)
                self._open(to_json(attrs), overwrite=overwrite, go_on=resume)
        except BaseException:
            self._lock.release()
            raise
        self._inode = self._store.root.stat().st_ino  # stays when the folder takes its place
        self._last_commit = time.monotonic()

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self, attrs: dict[str, Any], *, overwrite: bool, go_on: bool) -> None:
        begun = place.recorded_at(self.path) if go_on else self.path
        self._resumable = go_on and place.is_trace(begun)  # it stands where a resumed recording finds it
        if not self._resumable:
            place.refuse_occupied(self.path, overwrite=overwrite)
            self._create(attrs)
            return
        if begun != self.path:
            place.refuse_occupied(self.path, overwrite=True)
        self._resume(begun, attrs)
        if self.complete and begun != self.path:  # it was stopped just before
            self._take_place()

    def _create(self, attrs: dict[str, Any]) -> None:
        self._attrs = {**_new_attributes(self._plan), **_now_as("created", attrs), **attrs, "state": RECORDING}
        self._attrs["software"] = {**_software(), **attrs.get("software", {})}
        self._attrs[RECORDING_DIGEST] = recording_digest(attrs)
        self._committed = Totals()
        self._store = StagingStore(place.making(self.path))
        try:
            place.begin(self._store.root)
            arrays = self._create_arrays(Totals())
            for name, values in self._plan.axes.items():
                Column(arrays.pop(name)).stage([values])
            self._store.check_root(self._attrs, self._check_root)  # what cannot be opened is refused before any work
        except BaseException:
            place.remove_trace(self._store.root)
            raise
        self._take(arrays)

    def _resume(self, begun: Path, attrs: dict[str, Any]) -> None:
        document = read_document(begun)
        resume.refuse_other_version(document)
        check_files(document)
        self._attrs = dict(document.attrs)
        self._committed = Totals({name: array.shape[0] for name, array in document.arrays.items()})
        self._store = StagingStore(begun)
        for name, packed in document.checksums.items():
            self._store.checksums[name] = by_place(packed, document.settled_grid(name))
        arrays = self._create_arrays(self._committed)
        resume.refuse_other_recording(document, attrs)
        resume.refuse_other_layout(document, self._store.arrays())
        resume.refuse_other_axes(begun, arrays, self._plan.axes)
        remove_leftovers(document)
        self._take({name: array for name, array in arrays.items() if name not in self._plan.axes})
        if not self.complete:
            self._attrs["resumed"] = [*self._attrs.get("resumed", []), {"at": _now(), "software": _software()}]

    def _create_arrays(self, totals: Totals) -> dict[str, zarr.Array[Any]]:
        layouts, sizes = self._plan.layouts, self._plan.sizes
        return {
            name: self._store.create(layout, sizes, totals.lengths.get(name, 0)) for name, layout in layouts.items()
        }

    def _take(self, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        """Get ready to write the arrays that grow."""
        plan = self._plan
        self._columns = {name: _column(name, array) for name, array in arrays.items() if name not in plan.streams}
        self._streams = {
            name: RowStream(
                arrays[name],
                self._store,
                dtype,
                plan.layouts[name].shards(plan.sizes),
                str(self._attrs[RECORDING_DIGEST]),
                self._guard,
            )
            for name, dtype in plan.streams.items()
            if not self.complete
        }

    def _guard(self) -> AbstractContextManager[None]:
        """Around whatever writes: says what the system refused, and whether there is something to go on from."""
        return _disk_errors(self.path, lambda: self._resumable and not self._at_once)

    # --- recording --------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether the trace is finished: it never changes again."""
        return bool(self._attrs["state"] == COMPLETE)

    @property
    def folder(self) -> Path:
        """Where the trace is at present: at `path`, or beside it until it is complete."""
        return Path(self._store.root)

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The root attributes, as the next commit stores them."""
        return self._attrs

    def describe(self, **attrs: Any) -> None:
        """Change root attributes of a trace that is being recorded, such as `receipt`; the next commit stores them."""
        self._refuse_unusable()
        self._attrs = {**self._attrs, **to_json(attrs)}

    @property
    def committed_prompts(self) -> int:
        """Prompts that are safe on disk; a resumed recording goes on after them."""
        return self._committed.prompts

    @property
    def committed_tokens(self) -> int:
        """Tokens that are safe on disk."""
        return self._committed.tokens

    def stream(self, name: str) -> RowStream:
        """Where rows of a streamed array are written; those of a prompt before the prompt is appended."""
        self._refuse_unusable()
        return self._streams[name]

    def append(self, block: Block) -> None:
        """Take whole prompts; commits when it is time.

        Raises
        ------
        TraceError
            When the block is not what the writer was opened for, or the disk refuses.
        """
        self._refuse_unusable()
        before = self._pending[-1].after if self._pending else self._committed
        prepared = self._plan.prepare(block, before)
        with uninterrupted(), self._guard():  # streams and blocks never disagree about what is appended
            self._usable = False
            for name, rows in self._plan.streamed_rows(block).items():
                self._streams[name].append(rows)
            self._pending.append(prepared)
            self._usable = True
        if self._is_time():
            self.commit()

    def _is_time(self) -> bool:
        if self._pending[-1].after.bytes - self._committed.bytes > defaults.COMMIT_BYTES:
            return True
        if self._at_once:  # nobody could go on after a commit
            return sum(stream.open_files for stream in self._streams.values()) > _MOST_OPEN_FILES
        interval = max(self._commit_seconds, self._commit_cost * (1 / defaults.COMMIT_SHARE - 1))
        return time.monotonic() - self._last_commit >= interval

    def commit(self) -> None:
        """Make every prompt appended so far safe on disk.

        Raises
        ------
        TraceError
            When the disk refuses; what was committed before stays whole.
        """
        self._refuse_unusable()
        started = time.monotonic()
        self._write(self._attrs)
        self._last_commit = time.monotonic()
        self._commit_cost = self._last_commit - started

    def finish(self, **attrs: Any) -> None:
        """Commit, and mark the trace as complete. Does nothing to a trace that is complete already.

        Parameters
        ----------
        **attrs
            Root attributes known only at the end, such as `receipt` and `notes`.
        """
        if self.complete:
            return
        self._refuse_unusable()
        now = _now_as("finished", self._attrs)
        self._write({**self._attrs, **to_json(attrs), "state": COMPLETE, **now})

    def _write(self, attrs: dict[str, Any]) -> None:
        self._usable = False  # until it is known to have worked
        with uninterrupted():
            self._commit(attrs)

    def _commit(self, attrs: dict[str, Any]) -> None:
        with self._guard(), self._store.discarding():
            self._refuse_taken_away()
            for name, column in self._columns.items():
                column.stage([prepared.arrays.pop(name) for prepared in self._pending])  # frees memory on the way
            for stream in self._streams.values():
                stream.commit(last=attrs["state"] == COMPLETE)
            complete = attrs["state"] == COMPLETE
            if not self._resumable or complete:
                self._store.stage_documents()
            self._store.publish()
            self._store.write_root(attrs, self._check_root)
            if not self._resumable and not self._at_once and os.path.lexists(self.path):
                self._store.root, self._resumable = place.wait_there(self.path), True
            if self.folder != self.path and (complete or not (self._resumable or self._at_once)):
                self._take_place()
        self._attrs = attrs
        self._committed = self._pending[-1].after if self._pending else self._committed
        self._pending = []
        self._usable = True

    def _check_root(self, file: str) -> None:
        with _opens_again(self.path):
            read_document(self.folder, file)

    def _take_place(self) -> None:
        """Open what was written, as anybody will, and only then put it in place of what is there."""
        with _opens_again(self.path):
            read_back(self.folder)
        try:
            place.take_place(self.folder, self.path, place.TRACE)
        finally:  # it may stand there when what comes after is refused
            if not self._store.root.exists():
                self._store.root, self._resumable = self.path, True

    def _refuse_taken_away(self) -> None:
        """Nothing is written where another writer may be, or into a folder that is not the trace that was begun."""
        if not self._lock.is_ours():
            raise TraceError(
                "its lock file was removed or replaced while it was being recorded, so another process may be writing",
                where=str(self.path),
                fix="See that nothing else is recording it, then use --resume; what was committed is whole.",
            )
        if not self._store.root.exists() or self._store.root.stat().st_ino != self._inode:
            raise TraceError(
                "it was moved, removed or replaced while it was being recorded",
                where=str(self.path),
                fix="Where it is now, what was committed is whole: use --resume with that path.",
            )

    def _refuse_unusable(self) -> None:
        if self.complete:
            raise TraceError("it is complete and never changes", where=str(self.path), fix="Choose another output.")
        if not self._usable:
            raise TraceError("writing it has failed or ended", where=str(self.path), fix="Resume it in a new run.")

    # --- leaving ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Commit what is there and let go of the trace; called on leaving the `with` block."""
        if not self._lock.held:
            return
        with uninterrupted():
            try:
                if self._usable and self._pending:
                    self.commit()
            finally:
                self._usable = False
                close_all([*self._streams.values()])
                try:
                    if not self._resumable and self._lock.is_ours():
                        with self._guard():
                            place.remove_trace(place.making(self.path))
                finally:
                    self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TraceError as failed:
            if error is None:
                raise
            error.add_note(f"and the last prompts could not be saved: {failed}")


def _column(name: str, array: zarr.Array[Any]) -> Column:
    with reading(name):  # what is committed since the last whole chunk
        return Column(array)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _now_as(attribute: str, attrs: Mapping[str, Any]) -> dict[str, str]:
    """The attribute that says the time, which a published trace does not have."""
    return {} if schema.PUBLISHED in attrs else {attribute: _now()}


def _software() -> dict[str, str]:
    return {"python": platform.python_version(), **software("numpy", "zarr")}


def _new_attributes(plan: BlockPlan) -> dict[str, Any]:
    coordinates = [name for name in plan.layouts if name not in names.QUANTITIES and not name.startswith(ROW)]
    return {
        "format": schema.FORMAT,
        "format_version": schema.FORMAT_VERSION,
        "uuid": str(uuid.uuid4()),
        "coordinates": " ".join(coordinates),  # so that plain xarray tells coordinates from quantities
    }


@contextmanager
def _opens_again(path: Path) -> Iterator[None]:
    """Say of what the reader refuses that it was not put in place."""
    try:
        yield
    except TraceError as error:
        raise TraceError(
            f"what was to be written could not be opened again, so it is not put there: {error.what}",
            where=str(path),
            fix="Take fewer or shorter things of the kind it names; what was there before is as it was.",
        ) from error


@contextmanager
def _disk_errors(path: Path, is_committed: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Say what the operating system refused in one line, and whether there is something to go on from."""
    try:
        yield
    except OSError as error:
        fix = "Free some space" if is_full(error) else "Check the folder and its permissions"
        raise TraceError(
            f"cannot be written ({error.strerror or error})",
            where=str(path),
            fix=f"{fix}, then " + ("use --resume; what was committed is whole." if is_committed() else "run it again."),
        ) from None
