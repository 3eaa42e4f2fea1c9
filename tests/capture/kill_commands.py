"""Kills every command that writes, at random moments and at random operations on the disk.

It writes over an output, or where there is none. What then stands at the target is, bit by bit, the whole old or the
whole new one, and running the command again gives the new one and leaves nothing behind. `make torture` runs it as a
program; the tests run a few kills of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import _OF_ONE_RUN, SHORT, assert_same_values
from tiny import byte_tokenizer, tiny

import stratoscope
from stratoscope import disk, open_result, open_trace
from stratoscope.errors import StratoscopeError
from stratoscope.recorder import batched
from stratoscope.replacing import MARK
from stratoscope.trace.export import csv as csv_write
from stratoscope.trace.format.schema import COMPLETE
from stratoscope.trace.write import row_stream
from stratoscope.trace.write.writer import TraceWriter

State = dict[str, bytes]  # the files of an output and what is in them
SIGNALS = (signal.SIGKILL,) * 8 + (signal.SIGINT, signal.SIGTERM)
SHAPE: dict[str, Any] = {"layers": 3, "d_model": 16, "d_ff": 32, "heads": 2, "tokens": 8, "top_k": 3}


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes
    ----------
    target
        Name of what it writes; of an export also the beginning of its files' names.
    old, new
        Write another output to a target, and this one, which may replace it.
    resume
        Go on with the new one after a kill, where there is something to go on with.
    """

    name: str
    target: str
    old: Callable[[Path], object]
    new: Callable[..., object]
    resume: Callable[[Path], object] | None = None

    def is_written(self, path: Path) -> bool:
        """Whether a file or folder is an output, and not what is left of making it."""
        stem, suffix = Path(self.target).stem, Path(self.target).suffix
        return path.name == self.target or (path.name.startswith(f"{stem}-") and path.suffix == suffix)


def commands(folder: Path) -> dict[str, Command]:
    """Every command that writes, with small inputs in `folder`, by name."""
    shape = {**SHAPE, "prompts": 12}
    trace = stratoscope.simulate(folder / "a.trace", **shape)
    other = stratoscope.simulate(folder / "b.trace", **shape, anomaly=False)
    small = stratoscope.simulate(folder / "few.trace", **{**SHAPE, "prompts": 2}, seed=1)
    for name, rows in (("one", 40), ("two", 3_000)):
        lines = (f"{row // 8},t{row // 8},{row % 8},{row % 5},{row / 7}" for row in range(rows))
        header = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm"
        (folder / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    batched._WINDOW_BATCHES = 1
    model, tokenizer = tiny("Llama"), byte_tokenizer()

    def record(out: Path, prompts: int = 8, **options: Any) -> object:
        return stratoscope.capture(model, SHORT[:prompts], out, tokenizer=tokenizer, batch_size=2, **options)

    @cache
    def parts() -> list[Path]:
        made = [folder / f"part{number}" for number in (1, 2)]
        for number, out in enumerate(made, 1):
            record(out, part=(number, 2))
        return made

    @cache
    def result(name: str, which: str) -> Any:
        layers = [0] if which == "old" else None
        if name == "contrast":
            return stratoscope.contrast(trace, groups=False, permutations=99, layers=layers)
        if name == "diff":
            return stratoscope.diff(trace, other, layers=layers)
        return stratoscope.anomalies(small if which == "old" else trace)

    def export(dataset: Any, out: Path, *, overwrite: bool = False) -> object:
        return stratoscope.export_csv(dataset, out, overwrite=overwrite)

    few = partial(stratoscope.simulate, **{**SHAPE, "prompts": 2}, seed=1)
    found = [
        Command("capture", "t.trace", few, record, lambda out: record(out, resume=True)),
        Command(
            "import",
            "t.trace",
            lambda out: stratoscope.import_csv(folder / "one.csv", out),
            lambda out, **more: stratoscope.import_csv(folder / "two.csv", out, **more),
        ),
        Command("simulate", "t.trace", few, lambda out, **more: stratoscope.simulate(out, **shape, **more)),
        Command("merge", "t.trace", few, lambda out, **more: stratoscope.merge(parts(), out, **more)),
        Command(
            "export", "t.csv", lambda out: [export(other, out), [_change(one) for one in out.parent.glob("t-*")]],
            partial(export, trace),
        ),
        *(
            Command(
                name,
                "result",
                lambda out, name=name: stratoscope.save_result(result(name, "old"), out),
                lambda out, name=name, **more: stratoscope.save_result(result(name, "new"), out, **more),
            )
            for name in ("contrast", "diff", "anomalies")
        ),
        *(
            Command(name, target, partial(verb, other, theme="dark"), partial(verb, trace))
            for name, verb, target in (
                ("heatmap", stratoscope.heatmap, "t.svg"),
                ("engagement", stratoscope.engagement, "t.png"),
                ("peaks3d", stratoscope.peaks3d, "t.html"),
            )
        ),
    ]  # fmt: skip
    return {one.name: one for one in found}


def _change(path: Path) -> None:
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")


# --- what is there --------------------------------------------------------------------------------------------------


def state(path: Path) -> State:
    """The content of an output; of a trace's root document without what tells of one run."""
    if path.is_file():
        return {"": path.read_bytes()}
    files = {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}
    files.pop(MARK, None)
    root = json.loads(files.get("zarr.json", b"{}"))
    if root:
        root["attributes"] = {key: one for key, one in root["attributes"].items() if key not in _OF_ONE_RUN}
        files["zarr.json"] = json.dumps(root).encode()
    return files


def states(command: Command, folder: Path) -> dict[str, State]:
    """The content of each output of a command, by name."""
    return {path.name: state(path) for path in folder.iterdir() if command.is_written(path)}


# --- killing --------------------------------------------------------------------------------------------------------


@dataclass
class Killer:
    """Kills one command again and again, and checks what is left each time."""

    command: Command
    folder: Path
    chance: random.Random
    left: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for name, write in (("old", self.command.old), ("new", self.command.new)):
            (self.folder / name).mkdir()
            write(self.folder / name / self.command.target)
        (self.folder / "timed").mkdir()
        started = time.monotonic()
        status, self.steps = self._run(self.folder / "timed", 0, signal.SIGKILL, seconds=None)
        assert status == 0, f"{self.command.name} fails by itself"
        self.seconds = time.monotonic() - started
        self.old, self.new = (states(self.command, self.folder / name) for name in ("old", "new"))
        assert states(self.command, self.folder / "timed") == self.new, f"{self.command.name} gives other bytes"
        assert self.old.keys() == self.new.keys()

    def kill(self, number: int) -> None:
        """Kill it once, look at what is there, and run it again."""
        here, over = self.folder / str(number), self.chance.random() < 0.7
        if over:
            shutil.copytree(self.folder / "old", here)
        else:
            here.mkdir()
        number_of_signal = self.chance.choice(SIGNALS)
        if self.chance.random() < 0.6:
            at, seconds = self.chance.randrange(1, self.steps + 1), None
        else:
            at, seconds = 0, self.chance.uniform(0, self.seconds)
        exchanges = self.chance.random() < 0.7
        renameat2, disk._renameat2 = disk._renameat2, disk._renameat2 if exchanges else None
        try:
            status, _ = self._run(here, at, number_of_signal, seconds=seconds, overwrite=over)
            self._check(here, over, exchanges)
            self._again(here)
        finally:
            disk._renameat2 = renameat2
        how = "ended before" if status == 0 else f"{number_of_signal.name} {'at an operation' if at else 'at a time'}"
        self.left[how] += 1
        shutil.rmtree(here)

    def _run(
        self, folder: Path, at: int, number: signal.Signals, *, seconds: float | None, overwrite: bool = False
    ) -> tuple[int, int]:
        """Run it in a forked process, stopped at an operation or after a time: its status, and operations."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os._exit(self._write(folder, at, number, writing, overwrite))
        os.close(writing)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, number)
        with os.fdopen(reading, "rb") as pipe:
            steps = len(pipe.read())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 1, -number), f"{self.command.name} failed by itself with {status}"
        return status, steps

    def _write(self, folder: Path, at: int, number: signal.Signals, pipe: int, overwrite: bool) -> int:
        left = at

        def step(*_: object) -> None:
            nonlocal left
            os.write(pipe, b".")
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        disk.step = row_stream.step = csv_write.step = step  # type: ignore[attr-defined]
        TraceWriter._is_time = lambda _: True  # type: ignore[method-assign]
        try:
            self.command.new(folder / self.command.target, overwrite=overwrite)
        except KeyboardInterrupt:
            return 1
        except BaseException:  # whatever it is, the parent must know, and nothing of the parent may go on here
            traceback.print_exc()
            return 3
        return 0

    def _check(self, here: Path, over: bool, exchanges: bool) -> None:
        """Each output is whole: the old or the new one; where there was none, the new one or nothing."""
        found = states(self.command, here)
        for name, new in self.new.items():
            if name in found and found[name] in ([self.old[name], new] if over else [new]):
                self.left["the old one" if found[name] != new else "the new one"] += 1
            elif name in found:
                assert self.command.resume, f"{self.command.name}: {name} is neither the old nor the new one"
                assert not over, f"{self.command.name}: {name} is neither the old nor the new one"
                self._check_begun(here)
            elif over:
                assert not exchanges, f"{self.command.name}: {name} is gone"
                self._check_waits(here / name)
            else:
                self.left["nothing"] += 1

    def _check_begun(self, here: Path) -> None:
        """A recording that can be gone on with is the beginning of the whole."""
        begun, whole = (open_trace(one / self.command.target) for one in (here, self.folder / "new"))
        assert begun.attrs["state"] != COMPLETE
        assert_same_values(whole, begun, "what was recorded so far")
        self.left["the beginning"] += 1

    def _check_waits(self, target: Path) -> None:
        """Between two renames: the old one waits beside, and whoever reads is told so."""
        assert state(target.with_name(f".{target.name}.old")) == self.old[target.name]
        with pytest.raises(StratoscopeError, match="interrupted"):
            (open_result if target.name == "result" else open_trace)(target)
        self.left["the old one, beside"] += 1

    def _again(self, here: Path) -> None:
        """The next run gives the new one, and leaves nothing behind."""
        if self.command.resume and self.chance.random() < 0.5 and self._can_resume(here):
            self.command.resume(here / self.command.target)
        else:
            self.command.new(here / self.command.target, overwrite=True)
        assert states(self.command, here) == self.new, f"{self.command.name} gave something else the second time"
        names = {path.name for path in here.iterdir()}
        assert names == self.new.keys(), f"{self.command.name} left {names - self.new.keys()}"

    def _can_resume(self, here: Path) -> bool:
        target = here / self.command.target
        waits = target.with_name(f".{target.name}.recording")
        begun = waits if (waits / MARK).exists() else target
        return not begun.exists() or open_trace(begun).attrs["source"] == "real"


SHARES: Mapping[str, int] = {  # of 100 kills
    "capture": 16, "import": 14, "simulate": 14, "merge": 12, "export": 14, "contrast": 6, "diff": 6, "anomalies": 3,
    "heatmap": 9, "engagement": 3, "peaks3d": 3,
}  # fmt: skip


def kill_all(
    folder: Path, kills: Mapping[str, int], *, seed: int = 0, say: Callable[[str], object] = str
) -> dict[str, Counter[str]]:
    """Kill each command that many times; AssertionError when anything is lost. Gives what was found, by command."""
    (folder / "inputs").mkdir()
    known, found = commands(folder / "inputs"), {}
    for name, times in kills.items():
        (folder / name).mkdir()
        killer = Killer(known[name], folder / name, random.Random(f"{seed} {name}"))
        number = 0
        while killed([killer.left]) < times:
            killer.kill(number := number + 1)
        found[name] = killer.left
        words = ", ".join(f"{count} {what}" for what, count in sorted(killer.left.items()))
        say(f"{name}: {number} runs of {killer.steps} disk operations and {killer.seconds:.1f} s; {words}")
    return found


def shared(total: int, shares: Mapping[str, int] = SHARES) -> dict[str, int]:
    """That many kills, shared among the commands."""
    counts = {name: total * share // sum(shares.values()) for name, share in shares.items()}
    return {
        name: count + (number < total - sum(counts.values())) for number, (name, count) in enumerate(counts.items())
    }


def killed(found: Iterable[Counter[str]]) -> int:
    """How many runs were stopped before they had ended."""
    return sum(count for one in found for what, count in one.items() if what.startswith("SIG"))


def main() -> None:
    """`python kill_commands.py 100`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    print(f"{given.kills} kills, --seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = kill_all(Path(folder), shared(given.kills), seed=given.seed, say=lambda line: print(line, flush=True))
    print(f"{killed(found.values())} runs were stopped and lost nothing; {time.monotonic() - started:.0f} s.")
    sys.exit(0)


if __name__ == "__main__":
    main()
