"""What a picture says of itself, read strictly: a file that says anything else was not written here."""

from __future__ import annotations

from dataclasses import dataclass

from stratoscope.errors import InputError, ascii_json
from stratoscope.trace.format import strict_json
from stratoscope.view.spec.document import Packing, Unfit, Unpacking, Values
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.viewspec import SPEC_VERSION, Note, Provenance


@dataclass(frozen=True)
class About:
    """The metadata of a picture, as `ViewSpec.metadata_json` writes them."""

    view_version: str
    kind: str
    title: str
    subtitle: str
    look: Look
    selected: Selected
    shown: Values
    notes: tuple[Note, ...]
    provenance: Provenance
    parameters: Values
    drawn_by: DrawnBy

    def as_json(self) -> str:
        """One line of JSON."""
        return ascii_json(Packing().pack(self), separators=(",", ":"), sort_keys=True)


class NotOurs(ValueError):
    """A file is not what is written here; the message says what is wrong."""


def read_about(text: str) -> About:
    """What a picture says of itself.

    Raises
    ------
    NotOurs
        It is of another version, or says something that no picture says.
    """
    try:
        value = strict_json.load(text)
        version = value.get("view_version") if isinstance(value, dict) else None
        if version != SPEC_VERSION:
            raise NotOurs("it does not say of itself what pictures of this version say")
        about: About = Unpacking(()).unpack(About, value)
    except (Unfit, InputError) as error:
        raise NotOurs(f"what it says of itself is not what pictures of this version say: {error}") from None
    except (RecursionError, ValueError) as error:
        raise error if isinstance(error, NotOurs) else NotOurs("what it says of itself is no JSON") from None
    return about
