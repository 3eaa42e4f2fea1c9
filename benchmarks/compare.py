"""Two prompts of 1,000 tokens × 32 layers: `compare`, yardstick and all, against a heatmap of the same two.

Whole processes, from a trace on disk to a PNG. The trace holds eight prompts, so that there are other pairs to measure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from _timing import interleaved, parser, report

import stratoscope

PROMPTS, TOKENS, LAYERS, GOAL = 8, 1_000, 32, 2.0
CHOSEN = ("critical-1", "neutral-1")
SCRIPT = """
import sys, stratoscope
verb, trace, out, *prompts = sys.argv[1:]
getattr(stratoscope, verb)(trace, out, prompt=prompts, overwrite=True)
"""


def draw(verb: str, trace: Path, picture: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, verb, str(trace), str(picture), *CHOSEN], check=True)


def main() -> None:
    pairs = parser(__doc__).parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        trace, out = Path(name) / "run.trace", Path(name) / "out.png"
        stratoscope.simulate(trace, prompts=PROMPTS, tokens=TOKENS, layers=LAYERS)
        found = stratoscope.comparison(trace, prompt=CHOSEN).attrs["summary"]
        print(f"{found['columns']['all']:,} columns, {found['others']['measured']} other pairs measured")
        times = interleaved(lambda: draw("compare", trace, out), lambda: draw("heatmap", trace, out), pairs=pairs)
    report(times, ours="stratoscope compare", theirs="stratoscope heatmap of the same", goal=GOAL)


if __name__ == "__main__":
    main()
