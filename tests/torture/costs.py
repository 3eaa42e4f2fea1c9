"""What full-size hostile files cost beside the same command on a small sound one; `make torture` runs it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hostile_files import change_root, copy_of, fifo, long_text
from measure import Cost, cost

import stratoscope

MOST_SECONDS, MOST_MEMORY = 1.0, 100 * 2**20  # above the same command on a small sound file
HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
ROOTS: dict[str, dict[str, Any]] = {
    "27 MB of {}": {"planted": [{}] * 6_900_000},
    "32 MB of keys": {"plan": {str(number): 0 for number in range(2_400_000)}},
    "490,000 numbers": {"plan": {"x": [0] * 490_000}},
    "97,000 objects": {"planted": [{}] * 97_000},
    "a note of 30 MB": {"notes": [{"id": "L01", "severity": "info", "text": "word " * 6_000_000}]},
    "a note of 200 kB": {"notes": [{"id": "L01", "severity": "info", "text": "w" * 200_000}]},
    "10,000 notes": {"notes": [{"id": "L01", "severity": "warning", "text": f"note {n}"} for n in range(10_000)]},
}


def main() -> int:
    """Print the table; the exit code is the number of rows beyond what they may cost."""
    with tempfile.TemporaryDirectory() as folder:
        return _table(Path(folder))


def _table(folder: Path) -> int:
    good, table, beyond = folder / "good.trace", folder / "good.csv", 0
    stratoscope.simulate(good, prompts=4, tokens=6, layers=3)
    table.write_text(f"{HEADER}0,a,0,1,0.5\n1,b,0,1,0.5\n")
    commands = {"info": [], "heatmap": ["-o", folder / "out.png", "--overwrite"]}
    usual = {name: cost(name, good, *rest) for name, rest in commands.items()}
    usual["import"] = cost("import", table, "-o", folder / "good2.trace")
    for name, attributes in ROOTS.items():
        trace = copy_of(good, folder / name)
        change_root(trace, lambda content, new=attributes: content["attributes"].update(new))
        for command, rest in commands.items():
            beyond += _row(f"{name}, {command}", cost(command, trace, *rest), usual[command])
    trace = copy_of(good, folder / "inflates")
    long_text(trace, "prompt_class", 2**30)
    for command, rest in commands.items():
        beyond += _row(f"a class of 1 GiB, {command}", cost(command, trace, *rest), usual[command])
    for name, path in _tables(folder).items():
        beyond += _row(f"{name}, import", cost("import", path, "-o", folder / f"{name}.trace"), usual["import"])
    return beyond


def _tables(folder: Path) -> dict[str, Path]:
    wide, endless = folder / "wide.csv", folder / "endless.csv"
    names = ",".join(f"c{number}" for number in range(20_000))
    wide.write_text(f"{HEADER.strip()},{names}\n0,a,0,1,0.5{',x' * 20_000}\n")
    with endless.open("w") as stream:
        for _ in range(500):
            stream.write("a" * 1_000_000)
    return {"20,000 columns": wide, "a line of 500 MB": endless, "a pipe": fifo(folder / "pipe")}


def _row(name: str, found: Cost, usual: Cost) -> int:
    seconds, memory = found.seconds - usual.seconds, found.memory - usual.memory
    beyond = seconds > MOST_SECONDS or memory > MOST_MEMORY or found.code not in (0, 1)
    print(f"{name:32} {seconds:+7.2f} s {memory / 2**20:+8.0f} MB  {'TOO MUCH' if beyond else ''}", flush=True)
    return beyond


if __name__ == "__main__":
    sys.exit(main())
