"""`ViewSpec`: a picture as data (JSON and named little-endian buffers), complete, so that a renderer computes no statistic."""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeAlias

from stratoscope import names
from stratoscope.errors import ascii_json
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.notes import Note, notes_of
from stratoscope.version import __version__
from stratoscope.view.spec.charts import Charts
from stratoscope.view.spec.document import Packing, Values
from stratoscope.view.spec.drawn_by import DrawnBy
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import Maps
from stratoscope.view.spec.palette import COLOURS, Colours
from stratoscope.view.spec.peaks import Peaks
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.tokens import ShownTokens
from stratoscope.words import listed, number_ranges

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Content",
    "Note",
    "Provenance",
    "ViewSpec",
    "notes_of",
    "provenance_of",
    "provenance_of_result",
    "public_name",
    "selected_of_result",
]

SPEC_VERSION = "2.0"
_LONGEST_LINE = 400  # characters of a receipt in a footer

Content: TypeAlias = Maps | Charts | Peaks | Routes | Lens


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; no path, user or machine name is ever part of it.

    Attributes
    ----------
    uuid, source, model, receipt
        Of the trace: as it has them, "" = it does not say.
    software
        What drew the picture.
    published
        At which level the trace, or this file, was published; "" = it was not.
    """

    uuid: str = ""
    source: str = ""
    model: str = ""
    receipt: str = ""
    software: str = f"stratoscope {__version__}"
    published: str = ""


@dataclass(frozen=True)
class ViewSpec:
    """A picture as data.

    Attributes
    ----------
    title, subtitle
        Words above the picture.
    content
        What is drawn.
    look
        How it is drawn at first; a page may go on to another scale of `content`.
    tokens
        The tokens that it shows.
    selected
        What it was asked to show.
    notes
        What every renderer writes in the footer, as far as it holds for what is looked at.
    provenance
        Where the numbers come from.
    parameters
        What decided the numbers of a Result: its parameters and its summary.
    drawn_by
        How it was drawn: enough to draw it again.
    colours
        The colours of maps and pages.
    """

    title: str
    subtitle: str
    content: Content
    look: Look = field(default_factory=Look)
    tokens: ShownTokens = field(default_factory=ShownTokens)
    selected: Selected = field(default_factory=Selected)
    notes: tuple[Note, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    parameters: Values = field(default_factory=dict)
    drawn_by: DrawnBy = field(default_factory=DrawnBy)
    colours: Colours = COLOURS

    def notes_now(self) -> tuple[Note, ...]:
        """The notes that hold for what is looked at."""
        return tuple(note for note in self.notes if note.holds(self.look.scale, first_token=self.look.first_token))

    def metadata_json(self) -> str:
        """What a file of this picture says about itself, under the key `stratoscope`, as one line of JSON."""
        about = {
            "view_version": SPEC_VERSION,
            "kind": self.content.kind,
            "title": self.title,
            "subtitle": self.subtitle,
            "look": self.look,
            "selected": self.selected,
            "shown": self.content.shown(self.look),
            "notes": self.notes_now(),
            "provenance": self.provenance,
            "parameters": self.parameters,
            "drawn_by": self.drawn_by,
        }
        return ascii_json(Packing().pack(about), separators=(",", ":"), sort_keys=True)


def provenance_of(dataset: xr.Dataset) -> Provenance:
    """The provenance of a picture of `dataset`."""
    attrs = dataset.attrs
    model = attrs.get("model") or {}
    receipt = attrs.get("receipt") or {}
    return Provenance(
        uuid=str(attrs.get("uuid", "")),
        source=str(attrs.get("source", "")),
        model="" if attrs.get("source") == names.SIMULATED else public_name(str(model.get("name", ""))),
        receipt=_one_line(str(receipt.get("receipt_line", ""))),
        published=_published(attrs),
    )


def provenance_of_result(result: xr.DataTree) -> Provenance:
    """The provenance of a picture of a Result: its first trace, and the models of all."""
    sources = result.attrs["sources"]
    first = sources[0] if sources else {}
    return Provenance(
        uuid=str(first.get("uuid", "")),
        source=str(first.get("source", "")),
        model=listed(dict.fromkeys(public_name(str(one["model"])) for one in sources if one.get("model"))),
        receipt=str(first.get("receipt", ""))[:_LONGEST_LINE] if len(sources) == 1 else "",
        published=_published(result.attrs),
    )


def _published(attrs: Mapping[Any, Any]) -> str:
    """The level at which a trace or Result was published."""
    found = attrs.get(PUBLISHED)
    level = found.get("level") if isinstance(found, Mapping) else None
    return level if level in names.LEVELS else ""


def selected_of_result(result: xr.DataTree, prompts: Sequence[str] = ()) -> Selected:
    """What a picture of a Result shows of its traces: these prompts, and the layers that the verb was asked for."""
    layers = result.attrs["parameters"].get("layers")
    numbers = layers if layers is None or isinstance(layers, str) else number_ranges(layers)
    return Selected(tuple(prompts), of_trace=f"only layers {numbers}" if numbers else "")


def public_name(name: str) -> str:
    """A model's name without the folders it lay in; a hub name such as `org/model` stays whole."""
    local = name.startswith(("/", ".", "~")) or "\\" in name or name[1:2] == ":" or name.count("/") > 1
    return PureWindowsPath(PurePosixPath(name).name).name if local else name


def _one_line(text: str) -> str:
    """A stranger's line for a footer: nothing that is not printed, and no longer than a footer can hold."""
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
