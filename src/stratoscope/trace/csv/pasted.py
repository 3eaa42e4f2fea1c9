"""Lines to paste into a shell: each converts one file into one that is read, and never replaces a file."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

from stratoscope.errors import printable_line

_RENAME = "(no line can be pasted: a name holds control characters; rename it, and try again)"


def python(code: str, *arguments: str | Path) -> str:
    """`python -c CODE ARGUMENTS`, quoted for a shell; or words, where a name cannot be pasted."""
    return _line("python", "-c", code, *map(str, arguments))


def copy(source: Path, target: Path) -> str:
    """The line that copies a file; never over one that is there."""
    return _line("cp", "-n", "--", str(source), str(target))


def _line(*words: str) -> str:
    return shlex.join(words) if all(map(can_be_pasted, words)) else _RENAME


def can_be_pasted(text: str) -> bool:
    """Whether it is shown as it is, and a terminal takes it for nothing else."""
    return printable_line(text) == text


def beside(path: Path, stem: str, suffix: str) -> Path:
    """A file next to `path`, or here where nothing may be written there; one that does not exist yet."""
    folder = path.parent if os.access(path.parent, os.W_OK) else Path()
    names = (f"{stem}{number}{suffix}" for number in ("", *(f"-{number}" for number in range(2, 1000))))
    return next((folder / name for name in names if not os.path.lexists(folder / name)), folder / f"{stem}{suffix}")


def literal(text: str) -> str:
    """A text as Python writes it, in double quotes, which need no care inside the single quotes of a shell."""
    written = json.dumps(text, ensure_ascii=False)
    return re.sub(
        r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", written
    )
