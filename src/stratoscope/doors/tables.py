"""Tables of text: as wide as a terminal, or plain with one row a line where a program or a file reads them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

from stratoscope.errors import printable

NARROWEST = 60  # columns of a terminal that a table is laid out for


def terminal_width() -> int | None:
    """How many columns the terminal has; None where stdout is none."""
    return max(shutil.get_terminal_size().columns, NARROWEST) if sys.stdout.isatty() else None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str], width: int | None) -> str:
    """Rows of cells below their headings.

    Parameters
    ----------
    right
        Columns that are set right, as numbers are.
    width
        Of the terminal, in which long cells are wrapped; None = one row a line, however long.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD if width else None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            Text(name), justify="right" if name in right else "left", no_wrap=name in right, overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(_plain(cell)) for cell in row))
    drawn = Console(width=width or 100_000, color_system=None, force_terminal=False).render(made)
    return "\n".join(line.rstrip() for line in "".join(segment.text for segment in drawn).splitlines())


def wrapped(text: str, width: int | None) -> str:
    """A sentence in the lines of a terminal."""
    return textwrap.fill(text, width, subsequent_indent="  ") if width else text


def _plain(cell: str) -> str:
    """A cell in which nothing moves the cursor: terminals set right-to-left text themselves, without isolates."""
    return printable(cell.replace("\u2068", "").replace("\u2069", ""))
