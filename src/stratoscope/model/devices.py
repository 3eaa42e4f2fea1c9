"""Where a model computes: one device, or several that its layers are spread over by `accelerate`."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stratoscope.errors import InputError, UsageError, did_you_mean

MAPS = ("auto", "balanced", "sequential")  # ways in which accelerate spreads a model
DISK = "disk"

DeviceMap = str | Path | Mapping[str, str | int]


def one_device(name: str | int | torch.device | None) -> torch.device:
    """The asked device, or the best there is.

    Raises
    ------
    InputError
        This machine has no such device.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        fix = f"{did_you_mean(name, ('cpu', 'cuda', 'mps'))}Use cpu, or leave the device out."
        raise InputError(f"this machine has no device {name!r}", where="device", fix=fix) from None
    if device.type == "meta":
        raise InputError("the device 'meta' holds no numbers", fix="Use cpu, or leave the device out.")
    return device


def read_device_map(given: DeviceMap) -> str | dict[str, str | int]:
    """A way of `MAPS`, or which part of the model goes where, from a mapping or a `.json` file.

    Raises
    ------
    InputError
        It is neither, or names a device that this machine does not have.
    """
    if isinstance(given, str) and given in MAPS:
        return given
    where = "" if isinstance(given, Mapping) else str(given)
    places = given if isinstance(given, Mapping) else _read(Path(given).expanduser())
    if not isinstance(places, Mapping) or not places:
        raise InputError("is no device map", where=where, fix='Write {"model.embed_tokens": "cpu", "model.layers": 0}.')
    for part, device in places.items():
        if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
            raise InputError(f"no device for {part!r}: {device!r}", where=where, fix='Use "cpu", "disk" or a number.')
        if device != DISK:
            one_device(device)
    return dict(places)


def _read(path: Path) -> Any:
    if path.suffix.lower() != ".json":
        fix = f"{did_you_mean(path, MAPS)}Use {', '.join(MAPS)}, or a .json file of parts and devices."
        raise UsageError(f"no device map called {str(path)!r}", where="device_map", fix=fix)
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON: {error}", where=str(path), fix="Check the file.") from None


class Spread:
    """While open, loads a model onto several devices; the weights that wait on disk are kept as long as the model.

    Parameters
    ----------
    place
        One device, or what `read_device_map` gives.

    Attributes
    ----------
    options : dict
        For `from_pretrained`; empty for one device.
    """

    def __init__(self, place: torch.device | str | dict[str, str | int]) -> None:
        self._folder = None if isinstance(place, torch.device) else tempfile.mkdtemp(prefix="stratoscope-")
        self.options = {} if self._folder is None else {"device_map": place, "offload_folder": self._folder}

    def keep_for(self, model: nn.Module) -> None:
        """Remove what was written for a model only when nobody holds it any more."""
        if self._folder is not None:
            weakref.finalize(model, shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def compute_device(module: nn.Module) -> torch.device | None:
    """Where a module computes; its weights may wait elsewhere. None where it has no weights of its own."""
    hook = getattr(module, "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    if place is not None:
        return torch.device(place)
    weight = next(module.parameters(), None)
    return None if weight is None else weight.device


def devices_of(model: nn.Module) -> list[torch.device]:
    """The devices on which a model computes, in order of first use."""
    found = [
        compute_device(module) for module in model.modules() if next(module.parameters(recurse=False), None) is not None
    ]
    return list(dict.fromkeys(device for device in found if device is not None)) or [torch.device("cpu")]


def input_embedding(model: Any) -> nn.Module | None:
    """The module that embeds token ids; None where the model names none."""
    try:
        found = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def input_device(model: Any) -> torch.device:
    """Where token ids are given to a model: where its embedding computes."""
    embedding = input_embedding(model)
    place = None if embedding is None else compute_device(embedding)
    return place or devices_of(model)[0]


@contextmanager
def weights_at_hand(module: nn.Module) -> Iterator[None]:
    """While open, a module whose weights wait in memory or on disk holds them where it computes; not in its forward."""
    if not getattr(getattr(module, "_hf_hook", None), "offload", False):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield
