"""Make the figures of docs/papers.md again, by the commands that stand on that page."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parents[1]
PAGE, FIGURES = DOCS / "papers.md", DOCS / "papers"


def commands() -> list[list[str]]:
    """The words of every command of the page, without the program's name."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def draw(demo: Path, hundred: Path) -> None:
    """Run every command beside the inputs that the page names, and keep what they wrote.

    Parameters
    ----------
    demo
        The folder of the demo, with its trace and CSV files.
    hundred
        A trace of 100 prompts.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, source in (
            ("run.trace", demo / "smollm2.trace"),
            ("hundred.trace", hundred),
            ("critical.csv", demo / "critical.csv"),
            ("neutral.csv", demo / "neutral.csv"),
        ):
            (folder / file).symlink_to(source.resolve())
        for words in commands():
            subprocess.run([sys.executable, "-m", "stratoscope", *words], cwd=folder, check=True, capture_output=True)
        FIGURES.mkdir(exist_ok=True)
        for picture in sorted(folder.glob("*.svg")):
            shutil.copy(picture, FIGURES)
        caption = (folder / "heatmap-85.txt").read_text("utf-8")
    text = PAGE.read_text("utf-8")
    quoted = "\n".join(f"> {line}\\" for line in caption.splitlines()).removesuffix("\\")
    PAGE.write_text(
        re.sub(r"(says what was done:\n\n)(?:>.*\n)+", lambda found: f"{found[1]}{quoted}\n", text), "utf-8"
    )
