"""The command `ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, tables
from stratoscope.doors.progress import progress
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

if TYPE_CHECKING:
    pass

Neurons = Annotated[
    str | None,
    typer.Option(
        "--neurons",
        metavar="LAYER:NEURON,…",
        help="Neurons to ablate: 22:394,23:4036. In a mixture of experts they are numbered through, experts one after "
        "the other.",
    ),
]
Heads = Annotated[str | None, typer.Option("--heads", metavar="LAYER:HEAD,…", help="Attention heads to ablate: 5:3.")]
How = Annotated[
    names.How,
    typer.Option(
        "--how",
        help="What they are set to: their mean over all tokens but first ones, what they are in another prompt at the "
        "same distance from its end, or zero.",
    ),
]
Positions = Annotated[
    names.Positions, typer.Option("--positions", help="At all tokens of a prompt but its first, or at its last alone.")
]
FirstToken = Annotated[bool, typer.Option("--first-token", help="At first tokens, too, where they are all ablated.")]
Cumulative = Annotated[
    int | None,
    typer.Option(
        "--cumulative",
        metavar="K",
        min=1,
        help="Ablate the K strongest one after the other: of those named, or, where none is, of all neurons.",
    ),
]
MeanOf = Annotated[
    Path | None,
    typer.Option("--mean-of", metavar="TRACE", help="Set neurons to the means of this trace, not of these prompts."),
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws", metavar="N", min=1, help="How many random neurons, directions, orders, and other prompts are drawn."
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed draws the same.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="A table of every prompt, .csv, or a picture: .png, .svg, .pdf."),
]


def ablate(
    model: options.Model,
    prompts: options.PromptsFile,
    out: Out = None,
    neurons: Neurons = None,
    heads: Heads = None,
    how: How = defaults.HOW,
    positions: Positions = defaults.ABLATED_POSITIONS,
    first_token: FirstToken = defaults.FIRST_TOKEN,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    openers: options.Openers = None,
    cumulative: Cumulative = None,
    mean_of: MeanOf = None,
    draws: Draws = defaults.ABLATION_DRAWS,
    seed: Seed = defaults.SEED,
    column: options.Column = None,
    chat: options.Chat = False,
    date: options.Date = None,
    batch_size: options.BatchSize = defaults.BATCH_SIZE,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    theme: options.ColourTheme = defaults.THEME,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Ablate neurons and heads, and measure what changes.

    Beside it stand random neurons and heads like them, random directions of equal norm, and what another batch size
    changes. No text is generated and no weight is touched.
    """
    asked = options.given(locals(), "out", "theme", "as_json", "overwrite")
    asked |= {"openers": options.several_texts(openers), "targets": options.several_texts(targets)}
    from stratoscope.probe.ablation.asked import AblateArguments
    from stratoscope.recorder.arguments import prompts_as_given

    if out is not None:
        _check(out, overwrite=overwrite, inputs=[model, prompts])
    AblateArguments(**asked).settings()  # mistakes show before the prompts are read, and those before torch is imported
    read = prompts_as_given(prompts, column, None)
    for remark in read.remarks:
        console.remark(remark)
    with progress() as show:
        found = stratoscope.ablate(**{**asked, "prompts": read, "column": None}, progress=show)
    if out is not None:
        _write(found, out, theme, overwrite=overwrite)
    if as_json:
        console.tell_json(_as_json(found) | {"written": [] if out is None else [str(out)]})
        return
    _tell(found)
    if out is not None:
        console.tell_path(out)


# --- files ------------------------------------------------------------------------------------------------------------


def _check(out: Path, *, overwrite: bool, inputs: Sequence[str | Path]) -> None:
    """Refuse a file that may not be written, before any work is done."""
    from stratoscope.errors import InputError
    from stratoscope.trace.export.table import check_table

    if out.suffix.lower() == ".csv":
        check_table(out, overwrite=overwrite, inputs=inputs)
        return
    if out.suffix.lower() not in names.PICTURES:
        fix = f"Name it {out.stem or 'ablation'}.csv or {out.stem or 'ablation'}.png."
        raise InputError("it is written as .csv, .png, .svg or .pdf", where=str(out), fix=fix)
    from stratoscope.view.matplotlib import save

    save.check(out, overwrite=overwrite, inputs=inputs)


def _write(found: xr.Dataset, out: Path, theme: names.Theme, *, overwrite: bool) -> None:
    if out.suffix.lower() == ".csv":
        from stratoscope.probe.ablation.table import rows_of
        from stratoscope.trace.export.table import write_table

        write_table(*rows_of(found), out, overwrite=overwrite)
        return
    from stratoscope.view.charts.ablation import ablation_spec
    from stratoscope.view.matplotlib.render import render
    from stratoscope.view.spec.look import Look

    render(lambda look: ablation_spec(found, look), out, Look(theme=theme), overwrite=overwrite)


# --- words ------------------------------------------------------------------------------------------------------------

_WORDS = (
    "Effects are what ablating takes away: a positive one promotes its target. Measured: mean over prompts, with its "
    "95 % t interval; first order and direct are no measurements. Random: mean over draws, and the largest size of "
    "one. All are logits, of openers log-odds."
)


def _tell(found: xr.Dataset) -> None:
    """Tables of effects and of curves, and what was found."""
    width = tables.terminal_width()
    made = [_effects(found)]
    if "completeness" in found:
        made.append(_curves(found))
    for heading, rows in made:
        console.tell_text(f"{tables.table(heading, rows, right=heading[2:], width=width)}\n")
    for line in (found.attrs["found"], *found.attrs["remarks"], _WORDS):
        console.tell_text(tables.wrapped(console.one_line(line), width))


def _effects(found: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """One row for each set and target, and for each set and opener."""
    measured = "measured" if "opener_measured" in found else "measured (logits)"
    heading = ["ablated", "of", measured, "interval", "first order", "direct", "random ones", "directions", "floor"]
    rows = []
    for kind, one in (("target", ""), ("opener", "opener_")):
        if f"{one}measured" not in found:
            continue
        for row in range(found.sizes["set"]):
            for place, name in enumerate(found[kind].values):
                here = found.isel({"set": row, kind: place})
                low, high = (float(here[f"{one}measured_{end}"]) for end in ("low", "high"))
                rows.append([
                    str(here["set"].values),
                    str(name) if kind == "target" else f"begins {name!r}",
                    number(here[f"{one}measured_mean"]),
                    f"{number(low)} to {number(high)}" if low == low else "",
                    *("" if one else number(here[f"{what}_mean"]) for what in ("first_order", "direct")),
                    _random(here[f"{one}control"].sel(control_kind="matched")) or "no match",
                    _random(here[f"{one}control"].sel(control_kind="direction")),
                    number(here[f"{one}floor"]),
                ])  # fmt: skip
    kept = [column for column in range(len(heading)) if any(row[column] for row in rows)]
    return [heading[column] for column in kept], [[row[column] for column in kept] for row in rows]


def _random(control: xr.DataArray) -> str:
    """Mean over draws of the means over prompts, and the largest size of these; "" where there is none."""
    means = control.mean("prompt", skipna=False).dropna("draw").values
    return f"{number(means.mean())} (≤ {number(abs(means).max())})" if len(means) else ""


def _curves(found: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """One row for each step, of the first target."""
    from stratoscope.probe.ablation.table import added

    heading = ["taken", "added", "without them", "random", "with them alone", "random "]
    one, rows = found.isel(target=0), []
    for place, step in enumerate(one["step"].values):
        cells = []
        for what in ("completeness", "faithfulness"):
            shares = one[what].isel(step=place).values
            cells += [number(shares[0]), f"{number(shares[1:].min())} to {number(shares[1:].max())}"]
        rows.append([str(step), added(found, 0, place), *cells])
    return heading, rows


def _as_json(found: xr.Dataset) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    attrs = {name: value for name, value in found.attrs.items() if name != "tokenizer"}
    sizes = {str(name): size for name, size in found.sizes.items()}
    values = {
        str(name): {"dims": list(map(str, one.dims)), "values": one.values.tolist()}
        for name, one in found.variables.items()
    }
    return {**attrs, "sizes": sizes, "variables": values}
