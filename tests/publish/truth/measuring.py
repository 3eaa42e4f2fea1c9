"""What the measurements of publishing share: the two recordings, tables for the page, claims that must hold."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from corpus import CLASSES, CORPUS, REFERENCE

import stratoscope
from stratoscope.trace.arrays import Floats, Ints

PAGE = Path(__file__).parents[3] / "docs" / "publishing.md"
FOLDER = PAGE.with_suffix("")  # of its figures
RECORDED = "norms,residual,peaks,prompts,attention"


@dataclass(frozen=True)
class Table:
    """A table of the page: a sentence over it, names of columns, rows of words."""

    said: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([_wrapped(self.said), "", *(f"| {' | '.join(line)} |" for line in lines)])


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 128, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Claim:
    """A sentence, and whether what was measured bears it out."""

    said: str
    holds: bool


@dataclass(frozen=True)
class Measured:
    """What a section has to say."""

    tables: Sequence[Table]
    claims: Sequence[Claim] = ()

    def write(self, name: str, page: Path = PAGE) -> None:
        """Put the tables and the claims into their place of the page, which never holds a claim that failed."""
        text = page.read_text(encoding="utf-8")
        begin, end = f"<!-- Measured by `make truth`: {name}. -->", "<!-- End. -->"
        before, found, rest = text.partition(begin)
        assert found, f"{page.name} has no place for {name}"
        parts = [str(table) for table in self.tables] + [
            "\n".join(_wrapped(f"- {one.said}", "  ") for one in self.claims)
        ]
        _, _, after = rest.partition(end)
        page.write_text("\n\n".join([before + begin, *filter(None, parts), end]) + after, encoding="utf-8")


@dataclass(frozen=True)
class Lab:
    """A model, and a folder with recordings of the corpus and of the reference prompts, which are made if need be."""

    model: Path
    folder: Path
    tell: Callable[[str], None] = print

    @property
    def corpus_path(self) -> Path:
        return self._recorded(CORPUS)

    @property
    def reference_path(self) -> Path:
        return self._recorded(REFERENCE)

    @cached_property
    def corpus(self) -> xr.Dataset:
        return stratoscope.open_trace(self.corpus_path)

    @cached_property
    def reference(self) -> xr.Dataset:
        return stratoscope.open_trace(self.reference_path)

    def _recorded(self, name: str) -> Path:
        trace = self.folder / f"{name}.trace"
        if not trace.is_dir():
            if not (self.folder / f"{name}.jsonl").is_file():
                run("python", Path(__file__).with_name("corpus.py"), self.folder)
            self.tell(f"recording {trace.name}")
            prompts = self.folder / f"{name}.jsonl"
            stratoscope_command("capture", self.model, "--prompts", prompts, "--record", RECORDED, "-o", trace)
        return trace


def run(program: str, *arguments: object) -> str:
    """What a program prints; `python` is the one that runs this."""
    called = [sys.executable if program == "python" else program, *map(str, arguments)]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(called)}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def stratoscope_command(*arguments: object) -> str:
    """What a command prints."""
    return run("python", "-m", "stratoscope", *arguments)


def classes_of(trace: xr.Dataset) -> dict[str, Ints]:
    """The prompts of each class, by index."""
    names = trace["prompt_class"].values
    return {name: np.flatnonzero(names == name) for name in CLASSES}


def of_prompts(trace: xr.Dataset, prompts: Ints) -> xr.Dataset:
    """A trace of some of its prompts, as if no others had been recorded."""
    chosen = trace.isel(token=np.isin(trace["prompt"].values, prompts), prompt=prompts)
    return chosen.assign_coords(prompt=("token", np.searchsorted(prompts, chosen["prompt"].values)))


def share(value: float, low: float | None = None, high: float | None = None, *, digits: int = 0) -> str:
    """A share in percent, with its interval."""
    told = f"{100 * value:.{digits}f} %"
    return told if low is None or high is None else f"{told} ({100 * low:.{digits}f}–{100 * high:.{digits}f})"


def number(value: float, low: float | None = None, high: float | None = None, *, digits: int = 2) -> str:
    """A number, with its interval."""
    told = f"{value:.{digits}f}"
    return told if low is None or high is None else f"{told} ({low:.{digits}f}–{high:.{digits}f})"


def interval(drawn: Floats) -> tuple[float, float]:
    """What holds 95 % of the draws of a bootstrap."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
