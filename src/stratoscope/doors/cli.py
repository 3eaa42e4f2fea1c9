"""The command line. Each command is a file of `commands/`, read when it is asked for, which calls the public verb."""

from __future__ import annotations

import io
import signal
import sys
from functools import cache
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stratoscope.doors import console, failures
from stratoscope.errors import refuse_unknown
from stratoscope.version import __version__

# in the order of the help; each is the function of that name, _ for -, in the file of that name
COMMANDS = ("capture", "merge", "simulate", "import", "export", "publish", "audit", "info", "heatmap", "engagement",
            "peaks3d", "lens", "routes", "compare", "top", "explain", "suppression", "contrast", "diff", "anomalies",
            "lint", "ablate", "fit-lens", "demo")  # fmt: skip


@cache
def command(name: str) -> Any:
    """A command, its file read."""
    word = f"{name}_" if iskeyword(name) else name.replace("-", "_")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(getattr(import_module(f"stratoscope.doors.commands.{word}"), word))
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """The commands, and the boundary at which every failure becomes one line."""

    def list_commands(self, _: Any) -> list[str]:
        """Their names."""
        return [*COMMANDS]

    def get_command(self, _: Any, name: str) -> Any:
        """The command of that name."""
        refuse_unknown(name, COMMANDS, "command", where="stratoscope")
        return command(name)

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Read the words before the command."""
        with failures.told(lambda: self):
            return super().make_context(*given, **more)

    def invoke(self, context: Any) -> Any:
        """Run a command."""
        with failures.told(lambda: command(name) if (name := context.invoked_subcommand) in COMMANDS else self):
            return super().invoke(context)


app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: Rich would cost 60 ms
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
