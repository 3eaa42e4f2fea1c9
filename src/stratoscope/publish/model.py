"""What is told of a model: its name on the hub and what anybody can look up, never where somebody keeps it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.publish.fields import FIELDS, OF_PRIVATE_MODEL, Field, conforms
from stratoscope.view.spec.viewspec import public_name

if TYPE_CHECKING:
    import xarray as xr

_ATTRIBUTE = "model."  # how the names of its facts begin
_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_LOCAL = "local model"


def model_told(model: Any, *, private: bool = False) -> dict[str, Any]:
    """The attribute `model` as it goes out: one that is not from the hub is called as its architecture.

    Parameters
    ----------
    model
        The attribute of a trace, whatever it holds.
    private
        The weights are private: leave out what names them.
    """
    known = dict(model) if isinstance(model, Mapping) else {}
    if not conforms(known.get("revision"), FIELDS["model.revision"].form):  # a branch of somebody's own
        known.pop("revision", None)
    if known.get("name") and not known.get("revision"):  # the name of a folder says where it is
        known["name"] = known.get("architecture")
    return {key: value for key, value in known.items() if not private or f"{_ATTRIBUTE}{key}" not in OF_PRIVATE_MODEL}


def hub_name(name: str) -> str:
    """A model's name where nothing else is known of it: the name of a folder or a file may say whose it is."""
    return name if not name or _HUB_NAME.fullmatch(name) else _LOCAL


def public_model(dataset: xr.Dataset) -> dict[str, Any]:
    """What class means say of the model: its name without folders, and facts of the form that `FIELDS` states."""
    known = dataset.attrs.get("model") or {}
    facts = {
        name: known[name]
        for name, field in _facts().items()
        if known.get(name) not in (None, "") and conforms(known[name], field.form)
    }
    name = public_name(str(known.get("name", "")))
    return {**facts, "name": name} if name else facts


def _facts() -> dict[str, Field]:
    """What class means are told with, by its name; the model's own name is no such fact."""
    found = {name.removeprefix(_ATTRIBUTE): field for name, field in FIELDS.items() if name.startswith(_ATTRIBUTE)}
    return {name: field for name, field in found.items() if names.AGGREGATE in field.levels and name != "name"}


def source_told(dataset: xr.Dataset, *, prompts: int, tokens: int) -> dict[str, Any]:
    """A trace as a source of class means: without its uuid; `prompts` and `tokens` as they are published."""
    source = str(dataset.attrs.get("source", ""))
    return {
        "uuid": "",
        "source": source if source in names.SOURCES else "",
        "model": "" if source == names.SIMULATED else public_model(dataset).get("name", ""),
        "receipt": "",
        "prompts": prompts,
        "tokens": tokens,
    }
