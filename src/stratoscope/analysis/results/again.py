"""The command that makes a stored Result again, from what the Result says of itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from stratoscope import defaults
from stratoscope.errors import printable_line

_OPTIONS: dict[str, tuple[str, ...]] = {  # of each verb: parameters whose option has their name
    "contrast": ("a", "b", "statistic", "quantity", "layers", "span", "unequal", "held_out", "alpha", "permutations",
                 "seed"),
    "diff": ("prompt", "quantity", "layers"),
    "anomalies": ("false_findings",),
    "suppression": ("target", "prompt", "prompt_class", "unequal", "alpha", "permutations", "seed"),
    "profiles": ("level", "prompt_class", "quantity"),
}  # fmt: skip
KINDS = tuple(_OPTIONS)
_DEFAULTS: dict[str, Any] = {
    "statistic": defaults.STATISTIC,
    "span": defaults.SPAN,
    "unequal": defaults.UNEQUAL,
    "held_out": defaults.HELD_OUT,
    "alpha": defaults.ALPHA,
    "false_findings": defaults.FALSE_FINDINGS,
    "level": defaults.LEVEL,
    "permutations": defaults.PERMUTATIONS,
    "seed": defaults.SEED,
}
_VERBS = {"profiles": "publish"}  # kinds that are called otherwise than the verb that makes them
_CALLED = {"prompt_class": "class"}  # parameters whose option has another name
_INPUTS = {"diff": "TRACE_A TRACE_B"}
_NAMED = {"claims": "--claims FILE", "null": "--model MODEL", "reference": "--reference TRACE"}  # known by name only
_MOST = 300  # characters: what a stranger's result says of itself may be long


def command(kind: str, parameters: Mapping[str, Any], folder: str) -> str:
    """What to type to make a Result again in its folder; words in capitals stand for files that a Result does not name.

    Parameters
    ----------
    kind
        The verb.
    parameters
        The attribute `parameters` of the Result, of any version.
    folder
        Where it is.
    """
    if kind == "anomalies" and "alpha" in parameters:  # as it was called before
        parameters = {"false_findings": parameters["alpha"], **parameters}
    words = ["stratoscope", _VERBS.get(kind, kind), _INPUTS.get(kind, "TRACE")]
    for name in _OPTIONS.get(kind, ()):
        value = parameters.get(name)
        if value is None or value == "" or value == _DEFAULTS.get(name):
            continue
        values = value if isinstance(value, list) else [value]
        values = [",".join(map(str, values))] if name == "layers" else values
        option = _CALLED.get(name, name.replace("_", "-"))
        words += [f"--{option} {shlex.quote(printable_line(str(one)))}" for one in values]
    words += ["--no-groups"] if parameters.get("groups") is False else []
    words += [option for name, option in _NAMED.items() if parameters.get(name)]
    said = " ".join(words)
    said = said if len(said) <= _MOST else " ".join(words[:3])
    return f"{said} -o {shlex.quote(folder)} --overwrite"
