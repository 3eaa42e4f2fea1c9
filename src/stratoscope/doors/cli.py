"""The command line: each command calls the public function of the same name, which is imported only then."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stratoscope import defaults
from stratoscope.doors import cli_anomalies, cli_contrast, cli_diff, cli_lint, console, options
from stratoscope.version import __version__

app = typer.Typer(
    cls=console.Commands,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: Rich would cost 60 ms
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_TOKENS = options.tokens_text(defaults.SIMULATED_TOKENS)
_RECORD, _EVERYTHING = ",".join(defaults.RECORD), ",".join(defaults.SIMULATED_RECORD)


def _version(wanted: bool) -> None:
    if wanted:
        console.tell(f"stratoscope {__version__}")
        raise typer.Exit


@app.callback()
def stratoscope(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Record what a language model does with every token in every layer, and look at it.

    Start with `stratoscope demo`.
    """
    if ctx.invoked_subcommand is None:
        console.tell_text(ctx.get_help())


@app.command()
def capture(
    model: options.Model,
    prompts: options.PromptsFile,
    out: options.TraceOut,
    column: options.Column = None,
    record: options.Record = _RECORD,
    top_k: options.TopK = defaults.TOP_K,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    batch_size: options.BatchSize = defaults.BATCH_SIZE,
    chat: options.Chat = False,
    date: options.Date = None,
    generate: options.Generate = defaults.GENERATE,
    generation: options.Generation = None,
    seed: options.SamplingSeed = defaults.SEED,
    openers: options.Openers = None,
    refusal_patterns: options.RefusalPatterns = None,
    verify: options.Verification = defaults.VERIFY,
    floor: options.NoiseFloor = False,
    part: options.Part = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    plan: options.Plan = False,
    as_json: options.PlanJson = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Record a model over a file of prompts."""
    if as_json and not plan:
        raise typer.BadParameter("--json says what --plan finds: give both")
    if resume and overwrite:
        raise typer.BadParameter("--resume keeps what --overwrite removes: give one of them")
    from stratoscope.recorder.answers.settings import answers_of, checked_day, parse_settings
    from stratoscope.recorder.parts import checked_part
    from stratoscope.recorder.prompts.prompt import read_prompts

    groups, chosen = options.parse_groups(record), options.parse_openers(openers)
    only = checked_part(options.parse_part(part))
    settings = parse_settings(generation) if generation is not None else None
    answers_of(generate, settings, seed, chosen, refusal_patterns)
    checked_day(date)
    found = read_prompts(prompts, column=column)  # before torch is imported: mistakes show at once
    for remark in found.remarks:
        console.remark(remark)
    shared: dict[str, Any] = {
        "record": groups,
        "top_k": top_k,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "batch_size": batch_size,
        "chat": chat,
        "date": date,
        "generate": generate,
        "generation": settings,
        "seed": seed,
        "openers": chosen,
        "refusal_patterns": refusal_patterns,
        "part": only,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    if plan:
        from stratoscope import plan_capture
        from stratoscope.doors import estimate

        with console.progress() as show:
            found_cost = plan_capture(model, found, out, **shared, progress=show)
        estimate.show(found_cost, as_json=as_json)
        return
    from stratoscope import capture

    with console.resumable(out), console.progress() as show:
        trace = capture(
            model,
            found,
            out,
            **shared,
            verify=verify,
            floor=floor,
            resume=resume,
            overwrite=overwrite,
            progress=show,
        )
    console.warn_of(trace.attrs["notes"])
    console.tell_path(out)


@app.command()
def merge(
    parts: options.PartTraces,
    out: options.TraceOut,
    overwrite: options.Overwrite = False,
) -> None:
    """Join the parts of a recording.

    They were made by `capture --part` and may be given in any order; the trace is what one recording would have given.
    """
    from stratoscope import merge

    with console.progress() as show:
        merge(parts, out, overwrite=overwrite, progress=show)
    console.tell_path(out)


@app.command()
def simulate(
    out: options.TraceOut,
    prompts: options.Prompts = defaults.SIMULATED_PROMPTS,
    tokens: options.Tokens = _TOKENS,
    layers: options.LayerCount = defaults.SIMULATED_LAYERS,
    d_model: options.ModelWidth = defaults.SIMULATED_D_MODEL,
    d_ff: options.NeuronCount = defaults.SIMULATED_D_FF,
    heads: options.HeadCount = defaults.SIMULATED_HEADS,
    top_k: options.TopK = defaults.TOP_K,
    seed: options.Seed = defaults.SEED,
    anomaly: options.Anomaly = defaults.ANOMALY,
    record: options.Record = _EVERYTHING,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a labelled synthetic trace.

    What is planted in it (class-selective neurons, a sink token, an oddly routed head) is listed by `info`.
    """
    counts, groups = options.parse_tokens(tokens), options.parse_groups(record)
    from stratoscope import simulate

    with console.progress() as show:
        simulate(
            out,
            prompts=prompts,
            tokens=counts,
            layers=layers,
            d_model=d_model,
            d_ff=d_ff,
            heads=heads,
            top_k=top_k,
            seed=seed,
            anomaly=anomaly,
            record=groups,
            overwrite=overwrite,
            progress=show,
        )
    console.tell_path(out)


@app.command("import")
def import_(
    files: options.CsvFiles,
    out: options.TraceOut,
    columns: options.CsvColumns = None,
    classes: options.Classes = None,
    axis: options.NeuronAxis = defaults.AXIS,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a trace from CSV files.

    Their columns are Token_Pos,Token,Layer,Neuron_ID,Activation_Norm in any order; further columns are kept. With
    --columns they may have other names.
    """
    from stratoscope import import_csv

    trace = import_csv(files, out, columns=columns, classes=classes or None, axis=axis, overwrite=overwrite)
    console.warn_of(trace.attrs["notes"])
    console.tell_path(out)


@app.command()
def export(
    trace: options.Inputs,
    csv: options.CsvOut = None,
    parquet: options.ParquetOut = None,
    columns: options.CsvColumns = None,
    prompt: options.PromptChoice = None,
    prompt_column: options.PromptColumn = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a trace as CSV or Parquet.

    A captured or simulated trace gives one row for each of its peaks; an imported one gives back its rows.
    """
    file = csv or parquet
    if file is None or (csv and parquet):
        raise typer.BadParameter("give one of --csv FILE and --parquet FILE")
    from stratoscope import export_csv

    files = export_csv(
        trace,
        file,
        columns=columns,
        prompt=prompt or None,
        prompt_column=prompt_column,
        parquet=parquet is not None,
        overwrite=overwrite,
    )
    for written in files:
        console.tell_path(written)


@app.command()
def info(trace: options.Inputs, columns: options.CsvColumns = None, as_json: options.Json = False) -> None:
    """Say what is in a trace, or in CSV files.

    It also says where the trace came from, and what was proved about it when it was recorded.
    """
    from stratoscope.trace.info import facts as module

    facts = module.info(trace, columns=columns)
    if as_json:
        console.tell_json(facts)
    else:
        console.tell_text(module.info_text(facts))


@app.command()
def heatmap(
    inputs: options.Inputs,
    out: options.FigureOut,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw activity by token and layer.

    Tokens stand in reading order, layer 0 at the bottom. Of many prompts, the first pair is drawn side by side.
    """
    from stratoscope import heatmap

    heatmap(
        inputs,
        out,
        columns=columns,
        quantity=quantity,
        prompt=prompt or None,
        prompt_class=prompt_class or None,
        all_prompts=all_prompts,
        layers=layers,
        span=span or None,
        scale=scale,
        first_token=first_token,
        theme=theme,
        overwrite=overwrite,
    )
    console.remark_of_layer(quantity)
    console.tell_path(out)


@app.command()
def engagement(
    inputs: options.Inputs,
    out: options.FigureOut,
    columns: options.CsvColumns = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    head: options.Head = defaults.HEAD,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw which layers engage with which tokens.

    Beside them it draws how attention cascades, where the trace holds attention (`capture --record norms,attention`).
    """
    from stratoscope import engagement

    engagement(
        inputs,
        out,
        columns=columns,
        prompt=prompt or None,
        prompt_class=prompt_class or None,
        all_prompts=all_prompts,
        layers=layers,
        span=span or None,
        scale=scale,
        head=options.parse_head(head),
        first_token=first_token,
        theme=theme,
        overwrite=overwrite,
    )
    console.tell_path(out)


@app.command()
def peaks3d(
    inputs: options.Inputs,
    out: options.PageOut,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    prompt: options.PromptChoice = None,
    prompt_class: options.PromptClass = None,
    all_prompts: options.AllPrompts = False,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    threshold: options.Threshold = defaults.THRESHOLD,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw the peaks as an interactive 3D page.

    Its axes are token, layer and height of a peak. The page is one file that works offline.
    """
    from stratoscope import peaks3d

    peaks3d(
        inputs,
        out,
        columns=columns,
        quantity=quantity,
        prompt=prompt or None,
        prompt_class=prompt_class or None,
        all_prompts=all_prompts,
        layers=layers,
        span=span or None,
        scale=scale,
        threshold=threshold,
        first_token=first_token,
        theme=theme,
        overwrite=overwrite,
    )
    console.remark_of_layer(quantity)
    console.tell_path(out)


app.command()(cli_contrast.contrast)
app.command()(cli_diff.diff)
app.command()(cli_anomalies.anomalies)
app.command()(cli_lint.lint)


@app.command()
def demo(
    simulated: options.Simulated = False,
    out: options.DemoOut = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Record a small real model and draw it.

    A second run keeps the trace and draws the pictures again.
    """
    from stratoscope.doors import demo as module

    folder = out or Path("demo-simulated" if simulated else "demo")
    with console.progress() as show:
        made = module.demo(folder, simulated=simulated, overwrite=overwrite, progress=show)
    width = max(len(str(one.path)) for one in made)
    for one in made:
        console.tell(f"{one.path!s:<{width}}  {one.what}")
    if receipt := module.receipt(made):
        console.tell_text(f"\n{receipt}")
    console.tell_text("\nTry next:")
    for command in module.next_steps(made, folder):
        console.tell_text(f"  {command}")


def main() -> None:
    """Run the command line; text that a terminal cannot show is escaped instead of failing.

    SIGTERM and SIGHUP (a terminal that is closed) are as Ctrl-C, unless whoever started the command has it ignore them,
    as nohup does.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console.keep_printable()
    app(prog_name="stratoscope")
