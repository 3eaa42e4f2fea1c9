"""Arguments of `capture` as people give them in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope.errors import InputError
from stratoscope.recorder.prompts.prompt import GIVEN_AS_A_LIST, Prompt


def file_or_list(prompts: Any) -> Any:
    """The prompts as they were given, where they are a file or can be listed one by one.

    Raises
    ------
    InputError
        They are a single prompt, or nothing of the kind.
    """
    if isinstance(prompts, str) and not Path(prompts).suffix and not _exists(prompts):
        shown = repr(prompts if len(prompts) <= 60 else prompts[:59] + "…")
        raise InputError(f"there is no file {shown}", where="prompts", fix=f"Check the path. {GIVEN_AS_A_LIST}")
    if isinstance(prompts, str):
        return prompts
    if isinstance(prompts, os.PathLike):
        return Path(prompts)
    if isinstance(prompts, bytes) or not isinstance(prompts, Iterable | Prompt):
        raise InputError(f"a {type(prompts).__name__} is no list of prompts", where="prompts", fix=GIVEN_AS_A_LIST)
    return prompts


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte: a text
        return False


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype that torch or numpy made; a text is taken as it is."""
    if dtype is None or isinstance(dtype, str):
        return None if dtype is None else dtype.removeprefix("torch.")
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).removeprefix("torch.")
