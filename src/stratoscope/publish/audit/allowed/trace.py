"""Whether a trace on disk holds the arrays, attributes and files of its level and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stratoscope import names
from stratoscope.errors import TraceError
from stratoscope.names import PROVENANCE, Level
from stratoscope.publish.audit.allowed.stored import beside_the_chunks
from stratoscope.publish.fields import HASH, conforms, listed
from stratoscope.publish.levels import OF_MEANS, WITHHELD, is_published
from stratoscope.trace.format import strict_json
from stratoscope.trace.format.document import read_document
from stratoscope.trace.format.schema import PUBLISHED, ROOT_DOCUMENT, known_layout, quantity_layout
from stratoscope.trace.format.shards import DTYPES
from stratoscope.trace.notes import SIMULATED_DATA

_ANEW = (
    *("format", "format_version", "state", "uuid", "digest", "checksums"),
    *("recording_sha256", "coordinates", "published"),
)
_NOTE = {"id", "severity", "text"}
_SENTENCES = {  # what is free text in an original, as it is written anew
    "notes": rf"{re.escape(WITHHELD)}"
    rf"|Published at the level [a-z-]+: [^\n]*|{re.escape(SIMULATED_DATA.text)}[\w .]*"
    r"|Simulated from published averages: [\w :;.]*|Those averages carry noise: [\w :,.]*"
    r"|What was not published is the simulator's own: [\w ,.]*",
    "planted.measure": r"mlp_write_ratio of the first token of every prompt; the neuron is its strongest peak",
    "receipt.limits": r"The original names \d[\d,]* limits?; the words are not published\.",
    "receipt.calibration.prompts": r"\d+",  # numbers in the place of ids
}
_CALIBRATED = "receipt.calibration.prompts"
_BLANK = (
    "text",
    "pair",
    "group",
    "token_id",
    "span",
    "char_start",
    "char_end",
)  # that a reader needs, and holds nothing
_ARRAY_ATTRIBUTES = {"source": "|".join(names.SOURCES), "logical_dtype": "bfloat16|float16|float32"}

Wrong = Iterator[tuple[str, Path]]


def unlisted_in_trace(root: Path, level: Level) -> Wrong:
    """What a trace holds that a level does not list, and where.

    Raises
    ------
    TraceError
        Its documents cannot be read.
    """
    document = _document(root / ROOT_DOCUMENT)
    attrs = document.get("attributes")
    attrs = attrs if isinstance(attrs, Mapping) else {}
    look_alike = _is_look_alike(attrs)
    if look_alike:  # its texts are the simulator's, and whatever it says of the plan is no recording's
        level, attrs = PROVENANCE, {**attrs, "plan": {key: one for key, one in attrs["plan"].items() if key != "like"}}
    elif level in OF_MEANS:
        yield "it has a row for every token", root
    for path, why in _attributes(attrs, "", level):
        yield f"the attribute {path!r} {why}", root / ROOT_DOCUMENT
    held = document.get("consolidated_metadata")
    arrays = held.get("metadata") if isinstance(held, Mapping) else None
    arrays = arrays if isinstance(arrays, Mapping) else {}
    blank = set()
    for name, array in arrays.items():
        field = listed(name)
        if field is None or level not in field.levels:
            column = name.removesuffix("_bytes").removesuffix("_end")
            if column not in (*_BLANK, "prompt_id"):
                yield f"the array {name!r} is not listed", root / name
            blank.add(column)
        yield from _of_array(root, name, array)
        if look_alike and name in names.QUANTITIES and array["attributes"].get("source") != names.SIMULATED:
            yield f"the array {name!r} of a look-alike is not simulated", root / name
    if not is_published(attrs.get(PUBLISHED)):
        yield f"the attribute {PUBLISHED!r} holds something else than what is written of a level", root / ROOT_DOCUMENT
    yield from _not_blank(root, blank)
    yield from beside_the_chunks(read_document(root))
    yield from _files(root, set(map(str, arrays)))


def _is_look_alike(attrs: Mapping[str, Any]) -> bool:
    """Whether a trace says that it is simulated from what was published, and nothing of where that is."""
    plan, published = attrs.get("plan"), attrs.get("published")
    like = plan.get("like") if isinstance(plan, Mapping) else None
    if attrs.get("source") != names.SIMULATED or not isinstance(like, Mapping) or not isinstance(published, Mapping):
        return False
    said = set(like) == {"sha256", "level"} and conforms(like["sha256"], HASH)
    return said and like["level"] == published.get("level")


def _document(path: Path) -> Mapping[str, Any]:
    try:
        found = strict_json.load(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path.name} is no JSON of ours", where=str(path)) from error
    return found if isinstance(found, Mapping) else {}


def _attributes(value: Any, path: str, level: Level) -> Iterator[tuple[str, str]]:
    """Names of attributes that a level does not keep, or that hold something else than is stated of them."""
    if path in _ANEW:
        return
    if path in _SENTENCES:
        yield from _sentences(value, path)
        return
    if path == _CALIBRATED and value == [str(number) for number in range(len(value))]:  # how many, not which
        return
    field = listed(path)
    if field is not None and field.form and conforms(value, field.form):
        if level not in field.levels:
            yield path, "is not listed"
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _attributes(one, f"{path}.{key}" if path else str(key), level)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from _attributes(one, path, level)
    elif value not in ([], {}, "", None):
        known = field is not None and level in field.levels
        yield path, "holds something else than is stated of it" if known else "is not listed"


def _sentences(value: Any, path: str) -> Iterator[tuple[str, str]]:
    for one in value if isinstance(value, list) else [value]:
        text = one.get("text") if isinstance(one, Mapping) and set(one) == _NOTE else one
        if not (isinstance(text, str) and re.fullmatch(_SENTENCES[path], text)):
            yield path, "holds words that are not written here"


def _of_array(root: Path, name: str, array: Any) -> Wrong:
    """What an array says of itself, in either of its documents, beyond what the format says of it."""
    own = root / name / ROOT_DOCUMENT
    layouts = [known_layout(name)]
    if name in names.QUANTITIES and names.QUANTITIES[name].dtype == "model":  # stored as bits, and called so
        layouts += [quantity_layout(name, "", dtype) for dtype in DTYPES]
    for where, said in ((root / ROOT_DOCUMENT, array), (own, _document(own) if own.is_file() else {})):
        attrs = said.get("attributes") if isinstance(said, Mapping) else None
        for key, value in (attrs or {}).items():
            known = any(layout is not None and layout.attrs.get(key) == value for layout in layouts)
            if not known and not re.fullmatch(_ARRAY_ATTRIBUTES.get(key, r"(?!)"), str(value)):
                yield f"the array {name!r} says something of its own under {key!r}", where


def _not_blank(root: Path, columns: set[str]) -> Wrong:
    """Labels that a level empties, and that hold something."""
    from stratoscope.trace.read.reader import open_trace

    trace = open_trace(root)
    for name in columns & {*trace.variables} & {*_BLANK, "prompt_id"}:
        values = trace[name].values
        if values.dtype.kind in "iu":
            empty = bool((values == -1).all())
        else:
            numbers = name == "prompt_id"
            empty = all(str(one).isdecimal() if numbers else not one for one in values)
        if not empty:
            yield f"the array {name!r} is not empty", root / name


def _files(root: Path, arrays: set[str]) -> Wrong:
    """Files and folders that are no part of a trace."""
    for path in sorted(root.iterdir()):
        if path.name == ROOT_DOCUMENT or path.is_symlink():
            continue
        if path.name not in arrays or not path.is_dir():
            yield "it is no part of the trace", path
            continue
        for inside in sorted(path.iterdir()):
            if inside.is_dir() and not inside.is_symlink():
                yield "it is no part of the trace", inside
