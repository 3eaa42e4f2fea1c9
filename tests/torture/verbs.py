"""Everything that can be asked of a trace, each of which must give an answer or the project's own error, in silence.

`python tests/torture/verbs.py 3000` asks every verb of that many odd Datasets in all; `make torture` runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xarray as xr
from odd_traces import Odd, some

import stratoscope
from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.trace.write.from_dataset import write_dataset

Verb = Callable[[xr.Dataset, Odd, Path, random.Random], Any]


class Heard(logging.Handler):
    """What libraries would have printed on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("no installed font has"):  # said once, of the fonts of this machine
            self.lines.append(record.getMessage())


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Warnings are errors, and so is a line on stderr, whoever writes it."""
    heard, stderr = Heard(), io.StringIO()
    logging.getLogger().addHandler(heard)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(stderr):
            warnings.simplefilter("error")
            yield
    finally:
        logging.getLogger().removeHandler(heard)
    printed = [line for line in stderr.getvalue().splitlines() if not line.startswith("no installed font has")]
    said = [*heard.lines, *printed]
    assert not said, f"on stderr: {said}"


def _picture(chance: random.Random, dataset: xr.Dataset) -> dict[str, Any]:
    options: dict[str, Any] = {
        "scale": chance.choice(names.SCALES),
        "first_token": chance.random() < 0.3,
        "all_prompts": chance.random() < 0.4,
    }
    if chance.random() < 0.2:
        options["span"] = chance.choice(names.SPANS)
    if chance.random() < 0.2:
        options["layers"] = [int(dataset["layer"].values[0])]
    return options


def _file(folder: Path, chance: random.Random) -> Path | None:
    """A picture is drawn; one in four is also written."""
    return folder / f"a{chance.choice(('.png', '.svg', '.pdf'))}" if chance.random() < 0.25 else None


def heatmap(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    from stratoscope.view.choose.quantities import drawable_quantities

    there = drawable_quantities(dataset)
    options = _picture(chance, dataset)
    stratoscope.heatmap(
        dataset,
        _file(folder, chance),
        quantity=chance.choice(there) if there and chance.random() < 0.8 else None,
        **options,
    )


def engagement(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    options = _picture(chance, dataset)
    stratoscope.engagement(dataset, _file(folder, chance), head=chance.choice(("mean", "max", 0)), **options)


def peaks3d(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    options = _picture(chance, dataset)
    stratoscope.peaks3d(
        dataset,
        folder / "a.html" if chance.random() < 0.3 else None,
        quantity=chance.choice((None, "peak_value")),
        threshold=chance.choice((0.0, 0.5)),
        **options,
    )


def top(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    stratoscope.top(
        dataset,
        all_prompts=chance.random() < 0.5,
        token=chance.choice((None, None, 0, 2)),
        layers=[int(dataset["layer"].values[0])] if chance.random() < 0.2 else None,
        first_token=chance.random() < 0.3,
        n=chance.choice((1, 5, 100)),
    )


def compare(dataset: xr.Dataset, made_of: Odd, folder: Path, chance: random.Random) -> None:
    from stratoscope.view.choose.quantities import drawable_quantities

    there = drawable_quantities(dataset)
    inputs = [dataset, made_of.dataset(other=1)] if chance.random() < 0.3 else dataset
    options: dict[str, Any] = {"scale": chance.choice(names.SCALES[:1] + names.SCALES[2:])}
    if chance.random() < 0.2:
        options["prompt_class"] = ["critical", "neutral"]
    else:
        options["prompt"] = chance.choice((None, [0, 1], [1, 0]))
        options["peaks_table"] = folder / "n.csv" if chance.random() < 0.3 else None
    stratoscope.compare(
        inputs,
        _file(folder, chance),
        quantity=chance.choice(there) if there and chance.random() < 0.8 else None,
        span=chance.choice(names.SPANS) if chance.random() < 0.2 else None,
        first_token=chance.random() < 0.3,
        table=folder / "t.csv" if chance.random() < 0.3 else None,
        **options,
    )


def contrast(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    result = stratoscope.contrast(
        dataset,
        **({"a": "critical", "b": "neutral"} if chance.random() < 0.8 else {}),
        permutations=99,
        statistic=chance.choice(("prompt_mean", "prompt_mean", "prompt_max")),
        unequal=chance.choice(names.UNEQUAL),
        held_out=chance.choice((0.0, 0.0, 0.4)),
        groups=chance.random() < 0.5,
        alpha=chance.choice((0.05, 0.5)),
    )
    _saved(result, folder, chance)


def diff(dataset: xr.Dataset, made_of: Odd, folder: Path, chance: random.Random) -> None:
    other = dataset if chance.random() < 0.3 else made_of.dataset(other=1)
    _saved(stratoscope.diff(dataset, other), folder, chance)


def anomalies(dataset: xr.Dataset, made_of: Odd, folder: Path, chance: random.Random) -> None:
    reference = made_of.dataset(other=1) if chance.random() < 0.3 else None
    _saved(stratoscope.anomalies(dataset, reference=reference), folder, chance)


def lint(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    stratoscope.lint(dataset)


def info(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    from stratoscope.trace.info.facts import info_text

    info_text(stratoscope.info(dataset))


def export(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    parquet = chance.random() < 0.3
    stratoscope.export_csv(dataset, folder / ("a.parquet" if parquet else "a.csv"), parquet=parquet)


def portable(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    stratoscope.portable(dataset).load()


def attention(dataset: xr.Dataset, _: Odd, folder: Path, chance: random.Random) -> None:
    stratoscope.attention_matrix(dataset, 0, int(dataset["layer"].values[0]), 0)


VERBS: tuple[Verb, ...] = (
    heatmap, heatmap, heatmap, engagement, engagement, peaks3d, peaks3d, top, top, compare, compare, contrast, contrast,
    diff, diff, anomalies, anomalies, lint, lint, info, export, portable, attention,
)  # fmt: skip


def _saved(result: xr.DataTree, folder: Path, chance: random.Random) -> None:
    """The report, one time in four; what it says and draws, always."""
    from stratoscope.view.report.save import contents_of

    if chance.random() < 0.25:
        stratoscope.save_result(result, folder / "result")
        stratoscope.open_result(folder / "result").load()
    else:
        contents_of(result).figures()


def ask(made_of: Odd, chance: random.Random, verb: Verb | None = None) -> str:
    """Ask one verb of an odd Dataset, in memory or written and opened; gives what came of it."""
    chosen = verb or chance.choice(VERBS)
    folder = Path(tempfile.mkdtemp(prefix="odd-"))
    try:
        with silence():
            dataset = made_of.dataset()
            if chance.random() < 0.3:
                write_dataset(dataset, folder / "t.trace")
                dataset = stratoscope.open_trace(folder / "t.trace")
            chosen(dataset, made_of, folder, chance)
    except StratoscopeError:
        return f"{chosen.__name__}: refused"
    finally:
        shutil.rmtree(folder)
        _close_figures()
    return f"{chosen.__name__}: answered"


def _close_figures() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def where(error: BaseException) -> str:
    """The line of the package that an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/stratoscope/" in frame.filename and "tests" not in frame.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the first question; the n-th has this seed + n")
    parser.add_argument("--verb", default="", help="only this one")
    arguments = parser.parse_args()
    came, failures, spent = Counter[str](), Counter[str](), Counter[str]()
    started, wanted = time.monotonic(), [verb for verb in VERBS if arguments.verb in verb.__name__]
    for number in range(arguments.seed, arguments.seed + arguments.questions):
        chance, begun = random.Random(number), time.process_time()
        verb = chance.choice(wanted)
        try:
            came[ask(some(chance.choice, fit=verb.__name__), chance, verb)] += 1
        except Exception as error:  # whatever it is: that is what is looked for
            what = f"{verb.__name__}: {type(error).__name__} at {where(error)}: {str(error)[:120]}"
            if not failures[what]:
                print(f"FAILED {what}\n  again with: {verb.__name__} 1 --seed {number} --verb {arguments.verb!r}")
            failures[what] += 1
        spent[verb.__name__] += time.process_time() - begun
    for what, count in sorted(came.items()):
        print(f"{count:6} {what}")
    for what, count in failures.most_common():
        print(f"{count:6} FAILED {what}")
    print(f"seconds of CPU: {', '.join(f'{verb} {seconds:.0f}' for verb, seconds in spent.most_common())}")
    print(f"{arguments.questions} odd Datasets, {failures.total()} failures, {time.monotonic() - started:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
