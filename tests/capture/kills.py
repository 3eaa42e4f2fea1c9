"""Kills real captures with SIGKILL at random moments, opens what is there, resumes, and compares with one left alone.

`make torture` runs it as a program; the tests run fewer kills of it. Only two things are not as usual: a commit
comes after every window, so that a recording of a second has many, and the killer hears of every disk operation.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tiny import RECORDED, byte_tokenizer, tiny

from stratoscope import capture, disk, names, open_trace
from stratoscope.errors import StratoscopeError
from stratoscope.recorder import batched
from stratoscope.recorder.input import grouping
from stratoscope.trace.format.schema import COMPLETE
from stratoscope.trace.write import row_stream
from stratoscope.trace.write.writer import TraceWriter

PHASES = (
    "loading and proving",
    "before the first commit",
    "during the first commit",
    "between commits",
    "during a commit",
    "during the finish",
    "after the finish",
)
_LOADING, _BEFORE, _FIRST, _BETWEEN, _COMMIT, _FINISH, _AFTER = range(len(PHASES))
_OF_ONE_RUN = ("uuid", "created", "finished", "resumed", "digest")  # attributes that two equal recordings may differ in
BATCH, DISK = b"b", b"d"
GROWING = (names.TOKEN, names.PROMPT, names.EDGE)

SHORT = [f"prompt number {number}" + "!" * (number % 7) for number in range(24)]
MIXED = [("many words " * 7 if number % 5 == 0 else f"a few words {number}")[: 20 + number] for number in range(18)]


@dataclass(frozen=True)
class Configuration:
    """What is recorded of which tiny model; equal configurations give equal traces."""

    name: str
    prompts: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    family: str = "Llama"
    dtype: torch.dtype = torch.float32
    window_batches: int = 1
    window_tokens: int = grouping.WINDOW_TOKENS

    def record(self, out: Path, *, resume: bool = False, **more: Any) -> xr.Dataset:
        """Record it to the end."""
        batched._WINDOW_BATCHES, grouping.WINDOW_TOKENS = self.window_batches, self.window_tokens
        settings: dict[str, Any] = {"top_k": 5, "batch_size": 2, **self.options, **more}
        model, tokenizer = tiny(self.family, self.dtype), byte_tokenizer()
        return capture(model, self.prompts, out, tokenizer=tokenizer, resume=resume, **settings)


EVERYTHING = {"record": RECORDED}
SAMPLED = {"generate": 5, "generation": {"do_sample": True, "temperature": 1.5}, "seed": 3}
CONFIGURATIONS = (
    Configuration("default groups", SHORT, window_batches=2),
    Configuration("every group", SHORT, EVERYTHING),
    Configuration("sampled answers", SHORT[:12], {**EVERYTHING, **SAMPLED}),
    Configuration("long prompts", MIXED, {**EVERYTHING, "batch_size": 3}, window_tokens=120),
    Configuration("floors, one by one", SHORT[:10], {**EVERYTHING, "floor": True, "batch_size": 1}),
    Configuration("experts, bfloat16", SHORT[:14], EVERYTHING, "Qwen2-MoE", torch.bfloat16),
)


# --- a recording that can be killed ---------------------------------------------------------------------------------


class Child:
    """A configuration being recorded in a forked process, which tells where it is.

    Attributes
    ----------
    events
        A pipe with one byte for each batch and each disk operation: BATCH or DISK.
    """

    def __init__(self, configuration: Configuration, out: Path) -> None:
        self._shared = mmap.mmap(-1, 5)
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            os._exit(self._run(configuration, out))
        os.close(self._writing)
        self.events = os.fdopen(reading, "rb", buffering=0)

    def kill(self) -> bool:
        """SIGKILL; False if it was done before."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Wait until it ends, reading its events."""
        self.counts = Counter[int]()
        while found := self.events.read(4096):
            self.counts.update(found)
        self.events.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status in (0, -signal.SIGKILL), f"the recording failed by itself with {status}"
        return status

    @property
    def phase(self) -> int:
        """Where it is, or was when it was killed."""
        return self._shared[0]

    @property
    def acknowledged(self) -> int:
        """Prompts that it knew to be committed."""
        return int(struct.unpack("i", self._shared[1:5])[0])

    def _run(self, configuration: Configuration, out: Path) -> int:
        try:
            self._watch()
            configuration.record(out, resume=out.exists(), progress=lambda *_: self._tell(BATCH))
        except BaseException:  # whatever it is, the parent must know, and no test of the parent may go on here
            traceback.print_exc()
            return 3
        return 0

    def _tell(self, event: bytes) -> None:
        os.write(self._writing, event)

    def _watch(self) -> None:
        """Commit after every window, count the disk operations, and say which of them belong to a commit."""
        disk.step = row_stream.step = lambda *_: self._tell(DISK)
        open_writer, write, shared = TraceWriter._open, TraceWriter._write, self._shared

        def watched_open(writer: TraceWriter, *args: Any, **options: Any) -> None:
            open_writer(writer, *args, **options)
            shared[0] = _BETWEEN if writer.committed_prompts else _BEFORE
            shared[1:5] = struct.pack("i", writer.committed_prompts)

        def watched_write(writer: TraceWriter, attrs: dict[str, Any], **options: Any) -> None:
            finishing = attrs["state"] == COMPLETE
            shared[0] = _FINISH if finishing else _COMMIT if writer.committed_prompts else _FIRST
            write(writer, attrs, **options)
            shared[1:5] = struct.pack("i", writer.committed_prompts)
            shared[0] = _AFTER if finishing else _BETWEEN

        TraceWriter._open, TraceWriter._write = watched_open, watched_write  # type: ignore[method-assign]
        TraceWriter._is_time = lambda _: True  # type: ignore[method-assign]


# --- what must be true ----------------------------------------------------------------------------------------------


def assert_same_values(whole: xr.Dataset, part: xr.Dataset, what: str) -> None:
    """Every array of `part` is, byte by byte, the beginning of the same array of `whole`."""
    begun = whole.isel({dim: slice(part.sizes[dim]) for dim in GROWING if dim in part.sizes})
    assert set(whole.variables) == set(part.variables), what
    for name in part.variables:
        one, other = begun[name].values, part[name].values
        assert (one.dtype, one.shape) == (other.dtype, other.shape), f"{what}: {name}"
        same = one.tolist() == other.tolist() if one.dtype == object else one.tobytes() == other.tobytes()
        assert same, f"{what}: {name} has other values"


def assert_same_recording(whole: xr.Dataset, other: xr.Dataset, what: str) -> None:
    """Equal in every value, and in every attribute that does not tell of one run."""
    assert other.attrs["state"] == COMPLETE, what
    assert other.sizes == whole.sizes, what
    assert_same_values(whole, other, what)
    attrs, wanted = (
        {key: value for key, value in one.attrs.items() if key not in _OF_ONE_RUN} for one in (other, whole)
    )
    assert attrs == wanted, what


def committed(out: Path) -> xr.Dataset | None:
    """What is there; None where nothing is, and nothing but that may be the reason."""
    if out.exists():
        return open_trace(out)
    try:
        open_trace(out)
    except StratoscopeError:
        return None
    raise AssertionError


# --- killing --------------------------------------------------------------------------------------------------------


@dataclass
class Killer:
    """Kills recordings of one configuration again and again, and checks what is left each time."""

    configuration: Configuration
    folder: Path
    chance: random.Random
    fell: Counter[int] = field(default_factory=Counter)
    resumed: int = 0
    finished: int = 0

    def __post_init__(self) -> None:
        started = time.monotonic()
        child = Child(self.configuration, self.folder / "whole")
        assert child.wait() == 0
        self._seconds, self._events = time.monotonic() - started, child.counts
        self._whole = open_trace(self.folder / "whole")
        self._prompts = self._whole.sizes[names.PROMPT]

    def kill(self, times: int) -> None:
        """Kill that many recordings, each going on with what the one before left, and let the last one end."""
        kept, out, killed = 0, self._fresh(), 0
        while killed < times:
            child = Child(self.configuration, out)
            self._wait_a_while(child, 1 - kept / self._prompts)
            was_killed = child.kill()
            if was_killed:
                killed += 1
                self.fell[child.phase] += 1
            kept = self._check(out, max(kept, child.acknowledged))
            if not was_killed or child.phase == _AFTER:
                assert_same_recording(self._whole, open_trace(out), self.configuration.name)
                self.finished += 1
                kept, out = 0, self._fresh()
            self.resumed += kept > 0
        assert Child(self.configuration, out).wait() == 0
        assert_same_recording(self._whole, open_trace(out), self.configuration.name)
        self.finished += 1
        left = {entry.name for entry in self.folder.iterdir()}
        assert left == {"whole", out.name}, f"something was left behind: {left}"
        assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]

    def _fresh(self) -> Path:
        for path in self.folder.glob("killed*"):
            shutil.rmtree(path)
        return self.folder / f"killed {self.finished} é"

    def _wait_a_while(self, child: Child, share: float) -> None:
        """Some time; or some batches or some disk operations, and perhaps a moment more."""
        event = self.chance.choice((None, BATCH, DISK))
        if event is None:
            time.sleep(self.chance.uniform(0, self._seconds * max(share, 0.3)))
            return
        left = self.chance.randrange(1, max(2, int(self._events[event[0]] * share)))
        while left:
            if not (found := child.events.read(1)):
                return
            left -= found == event
        time.sleep(self.chance.choice((0, self.chance.uniform(0, 0.003))))

    def _check(self, out: Path, least: int) -> int:
        trace = committed(out)
        kept = 0 if trace is None else trace.sizes[names.PROMPT]
        assert kept >= least, f"{self.configuration.name}: of {least} committed prompts {kept} are left"
        if trace is not None:
            assert_same_values(self._whole, trace, self.configuration.name)
        return kept


def kill_all(
    folder: Path,
    times: int,
    *,
    seed: int = 0,
    configurations: Iterable[Configuration] = CONFIGURATIONS,
    say: Callable[[str], object] = str,
) -> list[Killer]:
    """Share kills among configurations; raises AssertionError when a committed prompt is lost or a value differs."""
    chosen, killers = list(configurations), []
    for number, configuration in enumerate(chosen):
        place = folder / str(number)
        place.mkdir()
        killer = Killer(configuration, place, random.Random(seed * 1000 + number))
        killer.kill(times * (number + 1) // len(chosen) - times * number // len(chosen))
        say(f"{configuration.name}: {killer.fell.total()} kills, {killer.resumed} of a recording with commits")
        killers.append(killer)
    return killers


def table(killers: Sequence[Killer]) -> str:
    """Where the kills fell, by configuration."""
    heads = ["", *(killer.configuration.name for killer in killers), "all"]
    rows = [heads]
    for phase, name in enumerate(PHASES):
        counts = [killer.fell[phase] for killer in killers]
        rows.append([name, *map(str, counts), str(sum(counts))])
    totals = [killer.fell.total() for killer in killers]
    rows.append(["kills", *map(str, totals), str(sum(totals))])
    finished = [killer.finished for killer in killers]
    rows.append(["recordings brought to their end", *map(str, finished), str(sum(finished))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = [" | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main() -> None:
    """`python kills.py 100`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.kills} kills, --seed {given.seed}", file=sys.stderr)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        killers = kill_all(
            Path(folder), given.kills, seed=given.seed, say=lambda line: print(line, file=sys.stderr, flush=True)
        )
    print(table(killers))
    print(f"No committed prompt was lost and no value differs; {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
