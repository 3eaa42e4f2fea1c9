"""Which keys of a picture's metadata each level keeps: one table; a key that is not in it is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from stratoscope import names
from stratoscope.names import Level
from stratoscope.publish.levels import is_promise, promise
from stratoscope.publish.pictures.about import About, NotOurs
from stratoscope.view.spec.document import Json, Packing, Unpacking, Values
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.viewspec import Provenance, ViewSpec

Said = TypeVar("Said", bound=About | ViewSpec)

_ALL: Collection[Level] = names.LEVELS
_WITH_TEXT: Collection[Level] = (names.PROVENANCE,)
_NONE: Collection[Level] = ()
_OPTIONS = (  # arguments of the verbs that draw, and parameters of Results, which are arguments too
    "a b all_prompts alpha caption difference edges false_findings first_token font_size groups head held_out in_cells "
    "layers most_tokens permutations profile prompt prompt_class quantity rows scale seed span statistic target theme "
    "threshold token unequal width how positions draws level neurons fewest_prompts rounded_to epsilon delta clip "
    "bands centre"
)
OPTIONS_BESIDE = ("claims", "null", "reference")  # files and models that were beside the trace

# Below `provenance` a picture is drawn of what the level keeps, so that what it shows names no text and no prompt.
_TABLE: tuple[tuple[Collection[Level], str, str], ...] = (
    (_ALL, "", "view_version kind title subtitle"),
    (_ALL, "look", "scale first_token theme"),
    (_ALL, "selected", "prompts classes layers spans of_trace"),
    (_ALL, "notes", "id severity text scales first_token"),
    (_ALL, "shown", "tokens_per_column shown total tokens_per_cell threshold whole"),
    (_ALL, "shown.quantities", "name unit formula said kind low high state limits clipped"),
    (_ALL, "shown.quantity", "name label unit formula"),
    (_ALL, "shown.weight", "name label unit formula"),
    (_ALL, "shown.panels", "title covered rest first_token bias edges"),
    (_ALL, "provenance", "source model receipt software published"),
    (_NONE, "provenance", "uuid"),  # links a picture to its trace, and pictures to each other
    (_ALL, "drawn_by", "verb figure traces"),
    (_ALL, "drawn_by.options", _OPTIONS),
    (_WITH_TEXT, "drawn_by.options", "title"),
    (_NONE, "drawn_by.options", " ".join(OPTIONS_BESIDE)),
    (_ALL, "parameters.parameters", _OPTIONS),
    (_NONE, "parameters.parameters", " ".join(OPTIONS_BESIDE)),
    (_WITH_TEXT, "parameters", "how positions seed draws"),  # of `ablate`
    (_NONE, "parameters", "summary lens"),  # quote prompts and name models
)
KEYS: Mapping[str, Collection[Level]] = {
    f"{part}.{name}" if part else name: levels for levels, part, listed in _TABLE for name in listed.split()
}
_PARTS = {part for _, part, _ in _TABLE}
_FREE = ("shown", "parameters", "drawn_by.options")  # what may lack any key


def at_level(said: Said, level: Level) -> Said:
    """What a picture says of itself, as far as a level keeps it; and that it was published at this level.

    Raises
    ------
    NotOurs
        It says something under a key that no level lists.
    """
    given = {"provenance": said.provenance, "parameters": said.parameters, "drawn_by": said.drawn_by}
    if isinstance(said, About):
        given["shown"] = said.shown
    kept = kept_values(Packing().pack(given), level)
    assert isinstance(kept, dict)
    reading = Unpacking(())
    provenance: Provenance = reading.unpack(Provenance, kept["provenance"])
    drawn_by: DrawnBy = reading.unpack(DrawnBy, kept["drawn_by"])
    parameters: Values = kept["parameters"]
    return replace(
        said,
        provenance=replace(provenance, published=level),
        drawn_by=drawn_by,
        parameters=parameters,
        notes=said.notes if any(is_promise(one.text, level) for one in said.notes) else (*said.notes, promise(level)),
    )


def kept_values(value: Json, level: Level, at: str = "") -> Json:
    """JSON without what a level does not keep: left out where it may lack, else empty."""
    if isinstance(value, list):
        return [kept_values(one, level, at) for one in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Json] = {}
    for name, one in value.items():
        key = f"{at}.{name}" if at else name
        if key in KEYS:
            if level in KEYS[key]:
                if not _is_plain(one):
                    raise NotOurs(f"it says more under {key!r} than pictures do")
                found[name] = one
            elif not at.startswith(_FREE):
                found[name] = type(one)()
        elif key in _PARTS:
            found[name] = kept_values(one, level, key)
        else:
            raise NotOurs(f"it says something under {key!r}, which no level lists")
    return found


def _is_plain(value: Json) -> bool:
    """Whether a value is a text, a number, or a list of such."""
    return all(map(_is_plain, value)) if isinstance(value, list) else not isinstance(value, dict)
