"""How long `stratoscope --help` takes, beside an empty Python and one that imports Typer.

The last line is the ratio of `stratoscope --help` to the goal of 0.25 s.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from _timing import interleaved, parser, report

GOAL_SECONDS = 0.25


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    pairs = parser(__doc__).parse_args().pairs
    help_ = ("-m", "stratoscope", "--help")
    empty = interleaved(lambda: run(*help_), lambda: run("-c", "pass"), pairs=pairs)
    typer = interleaved(lambda: run(*help_), lambda: run("-c", "import typer"), pairs=pairs)
    ours = np.concatenate([empty[:, 0], typer[:, 0]])
    for name, times in (("python -c pass", empty[:, 1]), ("python -c 'import typer'", typer[:, 1])):
        print(f"{name:<40} median {np.median(times):8.4f} s")
    report(
        np.column_stack([ours, np.full_like(ours, GOAL_SECONDS)]),
        ours="stratoscope --help",
        theirs="goal",
        goal=1.0,
    )


if __name__ == "__main__":
    main()
