"""Which keys of a picture's metadata each level keeps: one table; a key that is not in it is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from stratoscope import names
from stratoscope.names import Level
from stratoscope.publish.levels import PUBLISHED, published_at
from stratoscope.publish.pictures.about import About, NotOurs
from stratoscope.trace.notes import INFO, Note, promise_of
from stratoscope.view.spec.document import Json, Packing, Unpacking, Values
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.viewspec import Provenance, ViewSpec

Said = TypeVar("Said", About, ViewSpec)

_ALL: Collection[Level] = names.LEVELS
_WITH_TEXT: Collection[Level] = (names.PROVENANCE,)
_NONE: Collection[Level] = ()

# What a picture shows and how it was scaled. Below `provenance` a picture is drawn of what the level keeps, so that
# these name nothing else; prompts are numbers then.
_OF_THE_DRAWING = (
    "view_version kind title subtitle look.scale look.first_token look.theme selected.prompts selected.classes "
    "selected.layers selected.spans selected.of_trace notes.id notes.severity notes.text notes.scales notes.first_token"
).split()
_OF_LIMITS = "name unit formula said kind low high state limits clipped".split()
_SHOWN = (
    *(f"shown.quantities.{name}" for name in _OF_LIMITS),
    *"shown.tokens_per_column shown.shown shown.total shown.tokens_per_cell shown.threshold shown.whole".split(),
    *(f"shown.{of}.{name}" for of in ("quantity", "weight") for name in ("name", "label", "unit", "formula")),
    *(f"shown.panels.{name}" for name in ("title", "covered", "rest", "first_token", "bias", "edges")),
)
# Arguments of the verbs, and parameters of Results, which are arguments too.
_OPTIONS = (
    "a b all_prompts alpha caption difference edges false_findings first_token font_size groups head "
    "held_out in_cells layers most_tokens permutations profile prompt prompt_class quantity rows scale seed span "
    "statistic target theme threshold token unequal width how positions draws level neurons fewest_prompts rounded_to"
).split()
_OPTIONS_GONE = ("claims", "null", "reference")  # files and models that were beside the trace

KEYS: Mapping[str, Collection[Level]] = {
    **dict.fromkeys((*_OF_THE_DRAWING, *_SHOWN), _ALL),
    "provenance.uuid": _NONE,  # links a picture to its trace, and pictures to each other
    "provenance.source": _ALL,
    "provenance.model": _ALL,
    "provenance.receipt": _ALL,
    "provenance.software": _ALL,
    "provenance.published": _ALL,
    "drawn_by.verb": _ALL,
    "drawn_by.figure": _ALL,
    "drawn_by.traces": _ALL,
    **{f"drawn_by.options.{name}": _ALL for name in _OPTIONS},
    "drawn_by.options.title": _WITH_TEXT,
    **{f"drawn_by.options.{name}": _NONE for name in _OPTIONS_GONE},
    **{f"parameters.parameters.{name}": _ALL for name in _OPTIONS},
    **{f"parameters.parameters.{name}": _NONE for name in _OPTIONS_GONE},
    **{f"parameters.{name}": _WITH_TEXT for name in ("how", "positions", "seed", "draws")},  # of `ablate`
    "parameters.summary": _NONE,  # it quotes prompts and names models; the Result has it
    "parameters.lens": _NONE,
}
_GROUPS = {key.rpartition(".")[0] for key in KEYS} | {key.split(".")[0] for key in KEYS}
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
    promised = Note("L16", INFO, promise_of({PUBLISHED: published_at(level)}))
    return replace(
        said,
        provenance=replace(provenance, published=level),
        drawn_by=drawn_by,
        parameters=parameters,
        notes=said.notes if promised in said.notes else (*said.notes, promised),
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
                found[name] = one
            elif not at.startswith(_FREE):
                found[name] = type(one)()
        elif key in _GROUPS:
            found[name] = kept_values(one, level, key)
        else:
            raise NotOurs(f"it says something under {key!r}, which no level lists")
    return found
